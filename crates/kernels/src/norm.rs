//! Batch normalization (Ioffe and Szegedy, 2015, arXiv:1502.03167, algorithm 1), images `x [n, c, h, w]`.
//!
//! Per channel, over the `m = n·h·w` values of the whole batch:
//! `y = gamma·(x - mean)/√(var + eps) + beta`. Every rounding is written in [`mod@reference`]; the kernels here
//! return the same bits and read memory twice forward (sums, then values) and twice backward.

pub mod reference;

use crate::sums::{Images, channel_dot_sums, channel_moments};
use crate::{Cpu, Task};

/// The values a thread takes at least.
const GRAIN: usize = 16_384;

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

/// Where the gradients go; those that nobody wants are absent.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// `[n, c, h, w]`
    pub dx: Option<&'a mut [f32]>,
    /// `[c]`
    pub dgamma: Option<&'a mut [f32]>,
    /// `[c]`
    pub dbeta: Option<&'a mut [f32]>,
}

/// The variance of a batch from its sums, never negative; NaN stays. `mean` is not yet rounded to f32.
#[inline]
pub fn variance(squares: f64, count: f64, mean: f64) -> f64 {
    let var = squares / count - mean * mean;
    if 0.0 > var { 0.0 } else { var }
}

/// `f32(1/√(f64(var) + f64(eps)))`
#[inline]
pub fn inverse_deviation(var: f32, eps: f32) -> f32 {
    (1.0 / (f64::from(var) + f64::from(eps)).sqrt()) as f32
}

/// The statistics of a batch: mean, variance (divided by m) and [`inverse_deviation`] of each channel.
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn statistics(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    eps: f32,
    mean: &mut [f32],
    var: &mut [f32],
    invstd: &mut [f32],
) {
    let count = (shape.n * shape.plane()) as f64;
    for (c, [sum, squares]) in channel_moments(cpu, shape, x).into_iter().enumerate() {
        let wide = sum / count;
        mean[c] = wide as f32;
        var[c] = variance(squares, count, wide) as f32;
        invstd[c] = inverse_deviation(var[c], eps);
    }
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
    y: &mut [f32],
    mean: &mut [f32],
    var: &mut [f32],
    invstd: &mut [f32],
) {
    statistics(cpu, shape, x, eps, mean, var, invstd);
    normalize(cpu, shape, x, Channels { mean, invstd, gamma }, beta, y);
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
    let invstd: Vec<f32> = var.iter().map(|var| inverse_deviation(*var, eps)).collect();
    normalize(cpu, shape, x, Channels { mean, invstd: &invstd, gamma }, beta, y);
}

/// `y = fma(x, scale, shift)` with `scale = gamma·invstd` and `shift = fma(-mean, scale, beta)`.
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn normalize(cpu: &Cpu, shape: Images, x: &[f32], channels: Channels, beta: &[f32], y: &mut [f32]) {
    let constants: Vec<[f32; 2]> = (0..shape.c)
        .map(|c| {
            let scale = channels.gamma[c] * channels.invstd[c];
            [scale, (-channels.mean[c]).mul_add(scale, beta[c])]
        })
        .collect();
    over_planes(cpu, shape, [x], &constants, Affine, y);
}

/// The gradients of training, where mean and variance depend on x. Equals [`reference::train_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn train_backward(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    dy: &[f32],
    channels: Channels,
    gradients: Gradients,
) {
    let sums = channel_dot_sums(cpu, shape, dy, x, channels.mean);
    parameter_gradients(&sums, channels.invstd, gradients.dgamma, gradients.dbeta);
    if let Some(dx) = gradients.dx {
        let count = (shape.n * shape.plane()) as f64;
        let constants: Vec<[f32; 4]> = (0..shape.c)
            .map(|c| {
                let invstd = f64::from(channels.invstd[c]);
                let k1 = (sums[c][0] / count) as f32;
                let k2 = (sums[c][1] * invstd * invstd / count) as f32;
                [channels.mean[c], k1, k2, channels.gamma[c] * channels.invstd[c]]
            })
            .collect();
        over_planes(cpu, shape, [x, dy], &constants, TrainGradient, dx);
    }
}

/// The gradients of evaluation, where mean and variance are constants. Equals [`reference::eval_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn eval_backward(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    dy: &[f32],
    channels: Channels,
    gradients: Gradients,
) {
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

/// A function of `N` values at one position, with `K` constants of the channel.
trait PlaneMap<const N: usize, const K: usize>: Copy + Sync {
    /// Mark it `#[inline(always)]`.
    fn value(self, x: [f32; N], constants: [f32; K]) -> f32;
}

#[derive(Clone, Copy)]
struct Affine;
impl PlaneMap<1, 2> for Affine {
    #[inline(always)]
    fn value(self, [x]: [f32; 1], [scale, shift]: [f32; 2]) -> f32 {
        x.mul_add(scale, shift)
    }
}

#[derive(Clone, Copy)]
struct TrainGradient;
impl PlaneMap<2, 4> for TrainGradient {
    #[inline(always)]
    fn value(self, [x, dy]: [f32; 2], [mean, k1, k2, scale]: [f32; 4]) -> f32 {
        scale * (-(x - mean)).mul_add(k2, dy - k1)
    }
}

#[derive(Clone, Copy)]
struct Scale;
impl PlaneMap<1, 1> for Scale {
    #[inline(always)]
    fn value(self, [dy]: [f32; 1], [scale]: [f32; 1]) -> f32 {
        dy * scale
    }
}

/// `y[n, c, :] = map(x[n, c, :], constants[c])`, whole planes to a thread.
fn over_planes<const N: usize, const K: usize>(
    cpu: &Cpu,
    shape: Images,
    x: [&[f32]; N],
    constants: &[[f32; K]],
    map: impl PlaneMap<N, K>,
    y: &mut [f32],
) {
    assert!(x.iter().all(|x| x.len() == shape.len()), "an input is not {shape:?}");
    assert_eq!(y.len(), shape.len(), "the output is not {shape:?}");
    if shape.is_empty() {
        return;
    }
    let plane = shape.plane();
    cpu.for_slices(y.len(), GRAIN.div_ceil(plane) * plane, &mut [Some(y)], |offset, parts| {
        for y in parts.iter_mut().flatten() {
            let x = x.map(|x| &x[offset..offset + y.len()]);
            cpu.vectorize(Planes { plane, first: offset / plane, x, constants, map, y });
        }
    });
}

struct Planes<'a, M, const N: usize, const K: usize> {
    plane: usize,
    first: usize,
    x: [&'a [f32]; N],
    constants: &'a [[f32; K]],
    map: M,
    y: &'a mut [f32],
}

impl<M: PlaneMap<N, K>, const N: usize, const K: usize> Task for Planes<'_, M, N, K> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (at, y) in self.y.chunks_exact_mut(self.plane).enumerate() {
            let constants = self.constants[(self.first + at) % self.constants.len()];
            let mut x = self.x;
            for x in &mut x {
                *x = &x[at * self.plane..][..y.len()];
            }
            for k in 0..y.len() {
                let mut one = [0.0; N];
                for i in 0..N {
                    one[i] = x[i][k];
                }
                y[k] = self.map.value(one, constants);
            }
        }
    }
}
