//! Batch normalization (Ioffe and Szegedy, 2015, arXiv:1502.03167, algorithm 1), images `x [n, c, h, w]`.
//!
//! Per channel, over the `m = n·h·w` values of the whole batch:
//! `y = gamma·(x - mean)/√(var + eps) + beta`. Every rounding is written in [`mod@reference`], and so is what may
//! follow in the same pass: a ReLU, or a residual addition and a ReLU. The kernels return the same bits. In
//! training a thread takes channel after channel (`channels.rs`): its second look at the values of a channel meets
//! them in the cache, so memory is read once forward and once backward.

mod apply;
mod channels;
mod pooled;
pub mod reference;

pub use pooled::{Pooled, Unpool, train_backward_pooled, train_forward_pooled};

use crate::sums::{Images, channel_dot_sums};
use crate::{Cpu, Task, accumulate};
use apply::{Affine, Scale, over_planes};

/// What normalization needs of each channel; every slice has `c` values.
#[derive(Clone, Copy, Debug)]
pub struct Channels<'a> {
    /// The mean that is subtracted.
    pub mean: &'a [f32],
    /// `1/√(var + eps)`, see [`inverse_deviation`].
    pub invstd: &'a [f32],
    /// The scale that is learned.
    pub gamma: &'a [f32],
}

/// What follows the normalization in the same pass.
#[derive(Clone, Copy, Debug)]
pub enum Then<'a> {
    /// Nothing.
    Nothing,
    /// `y = relu(z)` of the normalized z.
    Relu,
    /// `y = relu(z + residual)`, the residual like x.
    AddRelu(&'a [f32]),
}

/// The same seen from behind: what tells where the ReLU let the gradient through.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// Nothing followed.
    Nothing,
    /// The shift that is learned, `[c]`: the sign of z is computed again from x.
    Relu(&'a [f32]),
    /// The output y.
    AddRelu(&'a [f32]),
}

/// The gradient of the output.
#[derive(Debug)]
pub enum Cotangent<'a> {
    /// To be read.
    Kept(&'a [f32]),
    /// To be read and written over: with the gradient of the residual if there is one, otherwise with that of x.
    Spent(&'a mut [f32]),
    /// The first plus the second, which is to be read; the first then as if spent.
    Added(&'a mut [f32], &'a [f32]),
}

/// Where the gradients go; those that nobody wants are absent, and so is what a [`Cotangent`] takes.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// `[n, c, h, w]`
    pub dx: Option<&'a mut [f32]>,
    /// `[n, c, h, w]`
    pub dresidual: Option<&'a mut [f32]>,
    /// `[c]`
    pub dgamma: Option<&'a mut [f32]>,
    /// `[c]`
    pub dbeta: Option<&'a mut [f32]>,
}

impl Gradients<'_> {
    fn check(&self, shape: Images) {
        let sizes = |slices: [&Option<&mut [f32]>; 2], len| {
            slices.iter().all(|slice| slice.as_ref().is_none_or(|slice| slice.len() == len))
        };
        assert!(sizes([&self.dx, &self.dresidual], shape.len()), "a gradient is not {shape:?}");
        assert!(sizes([&self.dgamma, &self.dbeta], shape.c), "one gradient a channel");
    }
}

/// The variance of a batch from its sums, never negative; NaN stays. `mean` is not yet rounded to f32.
#[inline]
pub fn variance(squares: f64, count: f64, mean: f64) -> f64 {
    let var = squares / count - mean * mean;
    if 0.0 > var { 0.0 } else { var }
}

/// `f32(1/√(f64(var) + f64(eps)))`
#[inline(always)]
pub fn inverse_deviation(var: f32, eps: f32) -> f32 {
    (1.0 / (f64::from(var) + f64::from(eps)).sqrt()) as f32
}

/// `y = fma(x, scale, shift)`: `scale = gamma·invstd` and `shift = fma(-mean, scale, beta)`.
#[inline(always)]
fn scale_and_shift(mean: f32, invstd: f32, gamma: f32, beta: f32) -> [f32; 2] {
    let scale = gamma * invstd;
    [scale, (-mean).mul_add(scale, beta)]
}

/// In training: fills `y` and the three statistics. Equals [`reference::train_forward`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn train_forward(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    then: Then,
    y: &mut [f32],
    mean: &mut [f32],
    var: &mut [f32],
    invstd: &mut [f32],
) {
    let to = channels::Outputs { y, mean, var, invstd };
    match then {
        Then::Nothing => channels::forward(cpu, shape, [x], gamma, beta, eps, Affine, to),
        Then::Relu => channels::forward(cpu, shape, [x], gamma, beta, eps, apply::AffineRelu, to),
        Then::AddRelu(residual) => {
            channels::forward(cpu, shape, [x, residual], gamma, beta, eps, apply::AffineAddRelu, to);
        }
    }
}

/// In evaluation, with the running statistics: fills `y`. Equals [`reference::eval_forward`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn eval_forward(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    mean: &[f32],
    var: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    y: &mut [f32],
) {
    assert_eq!(gamma.len(), shape.c, "one value a channel");
    let [scale, shift] = eval_constants(cpu, [gamma, beta, mean, var], eps);
    let constants: Vec<[f32; 2]> = scale.into_iter().zip(shift).map(<[f32; 2]>::from).collect();
    over_planes(cpu, shape, [x], &constants, Affine, y);
}

/// In evaluation, `[scale, shift]` of every channel, from `[gamma, beta, mean, var]`: `y = fma(x, scale, shift)`.
///
/// # Panics
/// When there is not one value a channel.
pub fn eval_constants(cpu: &Cpu, given: [&[f32]; 4], eps: f32) -> [Vec<f32>; 2] {
    let channels = given[0].len();
    assert!(given.iter().all(|vector| vector.len() == channels), "one value a channel");
    let mut constants = [vec![0.0; channels], vec![0.0; channels]];
    cpu.vectorize(EvalConstants { given, eps, to: constants.each_mut().map(Vec::as_mut_slice) });
    constants
}

struct EvalConstants<'a> {
    given: [&'a [f32]; 4],
    eps: f32,
    to: [&'a mut [f32]; 2],
}

impl Task for EvalConstants<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let EvalConstants { given: [gamma, beta, mean, var], eps, to: [scale, shift] } = self;
        let len = scale.len();
        let (gamma, beta, mean, var, shift) =
            (&gamma[..len], &beta[..len], &mean[..len], &var[..len], &mut shift[..len]);
        for c in 0..len {
            [scale[c], shift[c]] =
                scale_and_shift(mean[c], inverse_deviation(var[c], eps), gamma[c], beta[c]);
        }
    }
}

/// The gradients of training, where mean and variance depend on x. Equals [`reference::train_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape, or a gradient has two places.
pub fn train_backward(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    dy: Cotangent,
    channels: Channels,
    mask: Mask,
    gradients: Gradients,
) {
    let dy = match (dy, mask) {
        (Cotangent::Added(dy, more), Mask::AddRelu(y)) => {
            let (x, pass) = ([&[], x, y, more], apply::SumWhereOutput);
            return channels::backward(cpu, shape, x, Cotangent::Spent(dy), channels, None, pass, gradients);
        }
        (Cotangent::Added(dy, more), _) => {
            accumulate(cpu, dy, more);
            Cotangent::Spent(dy)
        }
        (dy, _) => dy,
    };
    match mask {
        Mask::Nothing => channels::backward(cpu, shape, [&[], x], dy, channels, None, apply::All, gradients),
        Mask::Relu(beta) => {
            channels::backward(cpu, shape, [&[], x], dy, channels, Some(beta), apply::WhereAffine, gradients);
        }
        Mask::AddRelu(y) => {
            channels::backward(cpu, shape, [&[], x, y], dy, channels, None, apply::WhereOutput, gradients);
        }
    }
}

/// The gradients of evaluation, where mean and variance are constants. Equals [`reference::eval_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape, or the gradient of a residual is wanted: there is none.
pub fn eval_backward(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    dy: &[f32],
    channels: Channels,
    gradients: Gradients,
) {
    let vectors = [channels.mean, channels.invstd, channels.gamma];
    assert!(vectors.iter().all(|vector| vector.len() == shape.c), "one value a channel");
    gradients.check(shape);
    assert!(gradients.dresidual.is_none(), "no residual has a gradient here");
    if gradients.dgamma.is_some() || gradients.dbeta.is_some() {
        let sums = channel_dot_sums(cpu, shape, dy, x, channels.mean);
        parameter_gradients(&sums, channels.invstd, gradients.dgamma, gradients.dbeta);
    }
    if let Some(dx) = gradients.dx {
        let scale: Vec<[f32; 1]> =
            channels.gamma.iter().zip(channels.invstd).map(|(gamma, invstd)| [gamma * invstd]).collect();
        over_planes(cpu, shape, [dy], &scale, Scale, dx);
    }
}

fn parameter_gradients(
    sums: &[[f64; 2]],
    invstd: &[f32],
    dgamma: Option<&mut [f32]>,
    dbeta: Option<&mut [f32]>,
) {
    for (dgamma, (sums, invstd)) in dgamma.into_iter().flatten().zip(sums.iter().zip(invstd)) {
        *dgamma = (sums[1] * f64::from(*invstd)) as f32;
    }
    for (dbeta, sums) in dbeta.into_iter().flatten().zip(sums) {
        *dbeta = sums[0] as f32;
    }
}
