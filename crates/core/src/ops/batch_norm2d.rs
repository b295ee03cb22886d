//! `batch_norm2d`: batch normalization in training (Ioffe and Szegedy, ICML 2015, algorithm 1).

use crate::array::Array;
use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce::batch_sum;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply_with_auxiliaries};
use crate::window::{arity, images};
use kinone_kernels::Cpu;
use kinone_kernels::norm::{self, Channels, Cotangent, Gradients, Mask, Then};
use kinone_kernels::sums::Images;
use std::sync::Arc;

/// Normalization by the statistics of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm2d {
    /// Added to the variance.
    pub eps: f32,
}

/// What a batch normalization saw, one number a channel.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// The mean.
    pub mean: Arc<Array>,
    /// The variance, divided by the number of values (biased).
    pub var: Arc<Array>,
}

impl BatchStatistics {
    /// Those among the auxiliary outputs.
    pub(crate) fn of(auxiliaries: &[Arc<Array>]) -> BatchStatistics {
        BatchStatistics { mean: Arc::clone(&auxiliaries[0]), var: Arc::clone(&auxiliaries[1]) }
    }
}

impl Tensor {
    /// Images `self [n, c, h, w]` normalised by the statistics of the batch, times `gamma [c]`, plus
    /// `beta [c]`; and the statistics.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn batch_norm2d(
        &self,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f32,
    ) -> Result<(Tensor, BatchStatistics), ShapeError> {
        let (y, auxiliaries) = apply_with_auxiliaries(BatchNorm2d { eps }, &[self, gamma, beta])?;
        Ok((y, BatchStatistics::of(&auxiliaries)))
    }
}

/// Checks images and vectors of one number a channel.
pub(crate) fn channel_shapes(name: &'static str, x: &[&Shape], eps: f32) -> Result<Images, ShapeError> {
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(ShapeError::new(name, format!("eps is a number of at least 0, not {eps}")));
    }
    let [n, c, h, w] = images(name, x[0])?;
    match x[1..].iter().find(|vector| ****vector != [c]) {
        Some(vector) => {
            Err(ShapeError::new(name, format!("images {} need vectors [{c}], not {vector}", x[0])))
        }
        None => Ok(Images { n, c, h, w }),
    }
}

pub(crate) fn known_images(shape: &Shape) -> Images {
    Images { n: shape[0], c: shape[1], h: shape[2], w: shape[3] }
}

/// The flat index of a position of a channel of an image.
pub(crate) fn at(shape: Images, n: usize, c: usize, position: usize) -> usize {
    (n * shape.c + c) * shape.plane() + position
}

/// `1/√(var + ε)`, computed in f64 and rounded once.
pub(crate) fn inverse_deviation<F: Real>(var: F, eps: f32) -> F {
    F::narrow(F::Wide::one() / (var.wide() + F::Wide::of(f64::from(eps))).sqrt())
}

/// `y = fma(x, γ·invstd, fma(−mean, γ·invstd, β))` in one channel.
pub(crate) fn affine<F: Real>(
    shape: Images,
    c: usize,
    x: &[F],
    [mean, invstd, gamma, beta]: [F; 4],
    y: &mut [F],
) {
    let scale = gamma * invstd;
    let shift = (-mean).fma(scale, beta);
    for n in 0..shape.n {
        for position in 0..shape.plane() {
            let k = at(shape, n, c, position);
            y[k] = x[k].fma(scale, shift);
        }
    }
}

/// `Σ dy` and `Σ dy·(x − mean)` over a channel, in f64 by the leaves of the batch.
pub(crate) fn sums<F: Real>(shape: Images, c: usize, x: &[F], dy: &[F], mean: F) -> (F::Wide, F::Wide) {
    let Images { n, h, w, .. } = shape;
    let s1 = batch_sum(n, h, w, |n, position| dy[at(shape, n, c, position)].wide());
    let s2 = batch_sum(n, h, w, |n, position| {
        let k = at(shape, n, c, position);
        dy[k].wide() * (x[k].wide() - mean.wide())
    });
    (s1, s2)
}

/// The definition: `y` and the statistics.
pub(crate) fn forward<F: Real>(eps: f32, x: &[View<F>], y: &mut Output<F>) {
    let shape = known_images(y.shape);
    let [mean, var, invstd] = &mut y.auxiliaries[..] else { unreachable!("three auxiliaries") };
    let m = F::Wide::of((shape.n * shape.plane()) as f64);
    let data = x[0].data();
    for c in 0..shape.c {
        let value = |n: usize, position: usize| data[at(shape, n, c, position)].wide();
        let s = batch_sum(shape.n, shape.h, shape.w, value);
        let q = batch_sum(shape.n, shape.h, shape.w, |n, position| value(n, position) * value(n, position));
        let centre = s / m;
        let spread = q / m - centre * centre;
        mean[c] = F::narrow(centre);
        var[c] = F::narrow(if F::Wide::zero() > spread { F::Wide::zero() } else { spread });
        invstd[c] = inverse_deviation(var[c], eps);
        affine(shape, c, data, [mean[c], invstd[c], x[1][c], x[2][c]], y.value);
    }
}

/// The definition of the gradients of x, gamma and beta.
pub(crate) fn vjp<F: Real>(saved: &Saved<F>, dy: &[F], dx: &mut [Slot<F>]) {
    let (x, gamma) = (saved.input(0).data(), saved.input(1));
    let (mean, invstd) = (saved.auxiliary(0), saved.auxiliary(2));
    let shape = known_images(saved.shape(0));
    let m = F::Wide::of((shape.n * shape.plane()) as f64);
    let [dx, dgamma, dbeta, ..] = dx else { unreachable!("three inputs at least") };
    for c in 0..shape.c {
        let (s1, s2) = sums(shape, c, x, dy, mean[c]);
        let r = invstd[c].wide();
        if let Some(dgamma) = dgamma {
            dgamma[c] = F::narrow(s2 * r);
        }
        if let Some(dbeta) = dbeta {
            dbeta[c] = F::narrow(s1);
        }
        let Some(dx) = dx else { continue };
        let (k1, k2) = (F::narrow(s1 / m), F::narrow(s2 * r * r / m));
        let scale = gamma[c] * invstd[c];
        for n in 0..shape.n {
            for position in 0..shape.plane() {
                let k = at(shape, n, c, position);
                dx[k] = scale * (-(x[k] - mean[c])).fma(k2, dy[k] - k1);
            }
        }
    }
}

/// The shapes of y and of mean, variance and 1/deviation.
pub(crate) fn shapes(name: &'static str, x: &[&Shape], eps: f32) -> Result<Shapes, ShapeError> {
    let shape = channel_shapes(name, x, eps)?;
    let c = shape.c;
    if c > 0 && shape.is_empty() {
        let reason = format!("images {} have no values to take statistics of", x[0]);
        return Err(ShapeError::new(name, reason));
    }
    Ok(Shapes { value: x[0].clone(), auxiliaries: vec![Shape::from([c]); 3] })
}

/// The kernel of `forward`, and of what follows.
pub(crate) fn forward_fast(cpu: &Cpu, eps: f32, then: Then, x: &[View<f32>], y: &mut Output<f32>) {
    let shape = known_images(y.shape);
    let [mean, var, invstd] = &mut y.auxiliaries[..] else { unreachable!("three auxiliaries") };
    let (gamma, beta) = (x[1].data(), x[2].data());
    norm::train_forward(cpu, shape, x[0].data(), gamma, beta, eps, then, y.value, mean, var, invstd);
}

/// The kernel of `vjp`, and of what comes before.
pub(crate) fn vjp_fast(cpu: &Cpu, saved: &Saved<f32>, mask: Mask, dy: Cotangent, dx: &mut [Slot<f32>]) {
    let (x, shape) = (saved.input(0).data(), known_images(saved.shape(0)));
    norm::train_backward(cpu, shape, x, dy, channels(saved), mask, gradients(dx));
}

/// What the kernels of the gradients need of the channels.
pub(crate) fn channels<'a>(saved: &Saved<'a, f32>) -> Channels<'a> {
    Channels {
        mean: saved.auxiliary(0).data(),
        invstd: saved.auxiliary(2).data(),
        gamma: saved.input(1).data(),
    }
}

/// Where they write.
pub(crate) fn gradients<'a>(dx: &'a mut [Slot<f32>]) -> Gradients<'a> {
    let [dx, dgamma, dbeta, rest @ ..] = dx else { unreachable!("three inputs at least") };
    Gradients {
        dx: dx.as_deref_mut(),
        dresidual: rest.first_mut().and_then(Option::as_deref_mut),
        dgamma: dgamma.as_deref_mut(),
        dbeta: dbeta.as_deref_mut(),
    }
}

/// Why no fused or unfused form is exported.
pub(crate) fn unsupported() -> Unsupported {
    let reason = "a model is exported as it evaluates, with running statistics (batch_norm2d_eval); the \
                  statistics of a batch are for training";
    Unsupported(reason.to_owned())
}

/// What every form of it is checked on: `case` makes one of a name and the shape of the images.
pub(crate) fn cases<O>(case: impl Fn(&'static str, [usize; 4]) -> Case<O>) -> Vec<Case<O>> {
    vec![
        case("a small batch", [3, 2, 3, 2]),
        case("one pixel an image", [6, 3, 1, 1]),
        case("one image", [1, 2, 3, 4]),
        case("several leaves", [9, 5, 34, 33]).bits_only(),
        case("large images", [2, 3, 67, 66]).bits_only(),
    ]
}

impl Operator for BatchNorm2d {
    const DOC: Doc = Doc {
        name: "batch_norm2d",
        summary: "Batch normalization by the statistics of the batch.",
        formula: r"\mu_c = \tfrac1m \sum x, \quad \sigma_c^2 = \tfrac1m \sum x^2 - \mu_c^2, \quad
            y = \gamma_c \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \varepsilon}} + \beta_c, \quad m = nhw",
        gradient: r"\bar\beta_c = \sum \bar y, \quad \bar\gamma_c = r \sum \bar y (x-\mu_c), \quad
            \bar x = \gamma_c r \bigl(\bar y - \tfrac1m \sum \bar y
            - (x-\mu_c) \tfrac{r^2}{m} \sum \bar y (x-\mu_c)\bigr), \quad r = 1/\sqrt{\sigma_c^2+\varepsilon}",
        shapes: "x [n, c, h, w], gamma [c], beta [c]; y like x, auxiliaries mean, var, 1/deviation [c]",
        conventions: "Sums in f64 by the leaves of the batch; mean, variance and 1/deviation are rounded once \
            each; a negative variance is 0. y = fma(x, s, fma(-mean, s, beta)) with s = gamma/deviation. One value \
            a channel has the variance 0, so y = beta and no gradient reaches x; an empty batch is refused.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]).and_auxiliaries();
    const OVER: Option<usize> = Some(0);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[3], x.len())?;
        shapes(Self::DOC.name, x, self.eps)
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        forward(self.eps, x, y);
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        vjp(saved, dy.data(), dx);
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        forward_fast(cpu, self.eps, Then::Nothing, x, y);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        vjp_fast(cpu, saved, Mask::Nothing, Cotangent::Kept(dy.data()), dx);
    }

    fn vjp_over(&self, cpu: &Cpu, saved: &Saved<f32>, dy: &mut [f32], dx: &mut [Slot<f32>]) {
        vjp_fast(cpu, saved, Mask::Nothing, Cotangent::Spent(dy), dx);
    }

    fn onnx(&self, _graph: &mut Fragment, _x: &[Value]) -> Result<String, Unsupported> {
        Err(unsupported())
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, x: [usize; 4]| {
            let vector = || Input::real([x[1]]);
            Case::new(name, BatchNorm2d { eps: 1e-5 }, [Input::real(x), vector(), vector()])
        };
        cases(case)
    }
}
