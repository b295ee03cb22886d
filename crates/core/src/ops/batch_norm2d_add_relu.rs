//! `batch_norm2d_add_relu`: batch normalization in training, a residual and a ReLU, in one pass over memory: the end
//! of a residual block (He et al., CVPR 2016).

use super::batch_norm2d::{
    BatchStatistics, cases, forward, forward_fast, shapes, unsupported, vjp, vjp_fast,
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

/// `relu(batch_norm2d(x, gamma, beta) + residual)`
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm2dAddRelu {
    /// Added to the variance.
    pub eps: f32,
}

impl Tensor {
    /// [`Tensor::batch_norm2d`], [`Tensor::add`] of `residual`, like self, and [`Tensor::relu`] with the same bits,
    /// the values between them never stored.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn batch_norm2d_add_relu(
        &self,
        gamma: &Tensor,
        beta: &Tensor,
        residual: &Tensor,
        eps: f32,
    ) -> Result<(Tensor, BatchStatistics), ShapeError> {
        let inputs = [self, gamma, beta, residual];
        let (y, auxiliaries) = apply_with_auxiliaries(BatchNorm2dAddRelu { eps }, &inputs)?;
        Ok((y, BatchStatistics::of(&auxiliaries)))
    }
}

impl Operator for BatchNorm2dAddRelu {
    const DOC: Doc = Doc {
        name: "batch_norm2d_add_relu",
        summary: "Batch normalization by the statistics of the batch, a residual, and the rectified linear unit.",
        formula: r"z = \mathrm{batch\_norm2d}(x, \gamma, \beta), \quad y = \max(z + r, 0)",
        gradient: r"\bar r = \bar z = \bar y \,[y > 0], \quad \text{then as batch\_norm2d}",
        shapes: "x [n, c, h, w], gamma [c], beta [c], r like x; y like x, auxiliaries mean, var, 1/deviation [c]",
        conventions: "Those of batch_norm2d, add and relu, of which this is the composition bit for bit; r is not \
            broadcast.",
    };
    const SAVES: Saves = Saves { output: true, ..Saves::inputs(&[0, 1]).and_auxiliaries() };
    const OVER: Option<usize> = Some(3);
    const OVER_SUM: bool = true;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[4], x.len())?;
        if x[3] != x[0] {
            let reason = format!("the residual has shape {}, the images {}", x[3], x[0]);
            return Err(ShapeError::new(Self::DOC.name, reason));
        }
        shapes(Self::DOC.name, &x[..3], self.eps)
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        forward(self.eps, x, y);
        for (y, residual) in y.value.iter_mut().zip(x[3].data()) {
            let sum = *y + *residual;
            *y = if F::zero() > sum { F::zero() } else { sum };
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let dz = |(dy, y): (&F, &F)| if *y > F::zero() { *dy } else { F::zero() };
        let dz: Vec<F> = dy.data().iter().zip(saved.output().data()).map(dz).collect();
        vjp(saved, &dz, dx);
        if let Some(dresidual) = &mut dx[3] {
            dresidual.copy_from_slice(&dz);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        forward_fast(cpu, self.eps, Then::AddRelu(x[3].data()), x, y);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let mask = Mask::AddRelu(saved.output().data());
        vjp_fast(cpu, saved, mask, Cotangent::Kept(dy.data()), dx);
    }

    fn vjp_over(&self, cpu: &Cpu, saved: &Saved<f32>, dy: &mut [f32], dx: &mut [Slot<f32>]) {
        let mask = Mask::AddRelu(saved.output().data());
        vjp_fast(cpu, saved, mask, Cotangent::Spent(dy), dx);
    }

    fn vjp_over_sum(
        &self,
        cpu: &Cpu,
        saved: &Saved<f32>,
        dy: &mut [f32],
        more: &[f32],
        dx: &mut [Slot<f32>],
    ) {
        let mask = Mask::AddRelu(saved.output().data());
        vjp_fast(cpu, saved, mask, Cotangent::Added(dy, more), dx);
    }

    fn onnx(&self, _graph: &mut Fragment, _x: &[Value]) -> Result<String, Unsupported> {
        Err(unsupported())
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, x: [usize; 4]| {
            let vector = || Input::real([x[1]]);
            let inputs = [Input::real(x), vector(), vector(), Input::real(x)];
            Case::new(name, BatchNorm2dAddRelu { eps: 1e-5 }, inputs)
        };
        cases(case)
    }
}
