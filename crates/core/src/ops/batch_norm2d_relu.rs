//! `batch_norm2d_relu`: batch normalization in training and a ReLU, in one pass over memory.

use super::batch_norm2d::{
    BatchStatistics, affine, cases, forward, forward_fast, known_images, shapes, unsupported, vjp, vjp_fast,
};
use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply_with_auxiliaries};
use crate::window::arity;
use kinone_kernels::Cpu;
use kinone_kernels::norm::{Cotangent, Mask, Then};

/// `relu(batch_norm2d(x, gamma, beta))`
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm2dRelu {
    /// Added to the variance.
    pub eps: f32,
}

impl Tensor {
    /// [`Tensor::batch_norm2d`] and [`Tensor::relu`] with the same bits, the value between them never stored.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn batch_norm2d_relu(
        &self,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f32,
    ) -> Result<(Tensor, BatchStatistics), ShapeError> {
        let (y, auxiliaries) = apply_with_auxiliaries(BatchNorm2dRelu { eps }, &[self, gamma, beta])?;
        Ok((y, BatchStatistics::of(&auxiliaries)))
    }
}

/// The definition of the value.
pub(crate) fn forward_relu<F: Real>(eps: f32, x: &[View<F>], y: &mut Output<F>) {
    forward(eps, x, y);
    for y in &mut *y.value {
        *y = if F::zero() > *y { F::zero() } else { *y };
    }
}

/// The definition of the gradients.
pub(crate) fn vjp_relu<F: Real>(saved: &Saved<F>, dy: &[F], dx: &mut [Slot<F>]) {
    let (x, gamma, beta) = (saved.input(0), saved.input(1), saved.input(2));
    let (mean, invstd) = (saved.auxiliary(0), saved.auxiliary(2));
    let shape = known_images(x.shape());
    let mut z = vec![F::zero(); shape.len()];
    for c in 0..shape.c {
        affine(shape, c, x.data(), [mean[c], invstd[c], gamma[c], beta[c]], &mut z);
    }
    let dz = |(dy, z): (&F, F)| if z > F::zero() { *dy } else { F::zero() };
    let dz: Vec<F> = dy.iter().zip(z).map(dz).collect();
    vjp(saved, &dz, dx);
}

impl Operator for BatchNorm2dRelu {
    const DOC: Doc = Doc {
        name: "batch_norm2d_relu",
        summary: "Batch normalization by the statistics of the batch, and the rectified linear unit.",
        formula: r"z = \mathrm{batch\_norm2d}(x, \gamma, \beta), \quad y = \max(z, 0)",
        gradient: r"\bar z = \bar y \,[z > 0], \quad \text{then as batch\_norm2d}",
        shapes: "x [n, c, h, w], gamma [c], beta [c]; y like x, auxiliaries mean, var, 1/deviation [c]",
        conventions: "Those of batch_norm2d and relu, of which this is the composition bit for bit. The gradient \
            takes the sign of z from x, so that the output need not be kept.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1, 2]).and_auxiliaries();
    const OVER: Option<usize> = Some(0);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[3], x.len())?;
        shapes(Self::DOC.name, x, self.eps)
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        forward_relu(self.eps, x, y);
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        vjp_relu(saved, dy.data(), dx);
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        forward_fast(cpu, self.eps, Then::Relu, x, y);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let mask = Mask::Relu(saved.input(2).data());
        vjp_fast(cpu, saved, mask, Cotangent::Kept(dy.data()), dx);
    }

    fn vjp_over(&self, cpu: &Cpu, saved: &Saved<f32>, dy: &mut [f32], dx: &mut [Slot<f32>]) {
        let mask = Mask::Relu(saved.input(2).data());
        vjp_fast(cpu, saved, mask, Cotangent::Spent(dy), dx);
    }

    fn onnx(&self, _graph: &mut Fragment, _x: &[Value]) -> Result<String, Unsupported> {
        Err(unsupported())
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, x: [usize; 4]| {
            let vector = || Input::real([x[1]]);
            Case::new(name, BatchNorm2dRelu { eps: 1e-5 }, [Input::real(x), vector(), vector()])
        };
        cases(case)
    }
}
