//! `batch_norm2d_eval`: batch normalization in evaluation, by statistics that are given.

use super::batch_norm2d::{affine, at, channel_shapes, inverse_deviation, known_images, sums};
use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::arity;
use kinone_kernels::Cpu;
use kinone_kernels::norm::{self, Channels, Gradients};

/// Normalization by given statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm2dEval {
    /// Added to the variance.
    pub eps: f32,
}

impl Tensor {
    /// Images `self [n, c, h, w]` normalised by `mean [c]` and `var [c]`, times `gamma [c]`, plus `beta [c]`.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn batch_norm2d_eval(
        &self,
        gamma: &Tensor,
        beta: &Tensor,
        mean: &Tensor,
        var: &Tensor,
        eps: f32,
    ) -> Result<Tensor, ShapeError> {
        apply(BatchNorm2dEval { eps }, &[self, gamma, beta, mean, var])
    }
}

impl Operator for BatchNorm2dEval {
    const DOC: Doc = Doc {
        name: "batch_norm2d_eval",
        summary: "Batch normalization by given statistics.",
        formula: r"y = \gamma_c \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \varepsilon}} + \beta_c",
        gradient: r"\bar x = \gamma_c r \bar y, \quad \bar\gamma_c = r \sum \bar y (x-\mu_c), \quad
            \bar\beta_c = \sum \bar y, \quad r = 1/\sqrt{\sigma_c^2+\varepsilon}",
        shapes: "x [n, c, h, w], gamma, beta, mean, var [c]; y like x",
        conventions: "The statistics are observations: no gradient flows to them. \
            y = fma(x, s, fma(-mean, s, beta)) with s = gamma/deviation; sums in f64 by the leaves of the batch.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1, 3, 4]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[5], x.len())?;
        channel_shapes(Self::DOC.name, x, self.eps)?;
        Ok(x[0].clone().into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let shape = known_images(y.shape);
        for c in 0..shape.c {
            let invstd = inverse_deviation(x[4][c], self.eps);
            affine(shape, c, x[0].data(), [x[3][c], invstd, x[1][c], x[2][c]], y.value);
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let (gamma, mean, var) = (saved.input(1), saved.input(3), saved.input(4));
        let shape = known_images(dy.shape());
        let [dx, dgamma, dbeta, ..] = dx else { unreachable!("five inputs") };
        for c in 0..shape.c {
            let invstd: F = inverse_deviation(var[c], self.eps);
            let (s1, s2) = sums(shape, c, saved.input(0).data(), dy.data(), mean[c]);
            if let Some(dgamma) = dgamma {
                dgamma[c] = F::narrow(s2 * invstd.wide());
            }
            if let Some(dbeta) = dbeta {
                dbeta[c] = F::narrow(s1);
            }
            let Some(dx) = dx else { continue };
            let scale = gamma[c] * invstd;
            for n in 0..shape.n {
                for position in 0..shape.plane() {
                    let k = at(shape, n, c, position);
                    dx[k] = dy[k] * scale;
                }
            }
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let shape = known_images(y.shape);
        let (gamma, beta, mean, var) = (x[1].data(), x[2].data(), x[3].data(), x[4].data());
        norm::eval_forward(cpu, shape, x[0].data(), mean, var, gamma, beta, self.eps, y.value);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let var = saved.input(4).data();
        let invstd: Vec<f32> = var.iter().map(|var| norm::inverse_deviation(*var, self.eps)).collect();
        let (gamma, mean) = (saved.input(1).data(), saved.input(3).data());
        let channels = Channels { mean, invstd: &invstd, gamma };
        let [dx, dgamma, dbeta, ..] = dx else { unreachable!("five inputs") };
        let gradients = Gradients {
            dx: dx.as_deref_mut(),
            dresidual: None,
            dgamma: dgamma.as_deref_mut(),
            dbeta: dbeta.as_deref_mut(),
        };
        let shape = known_images(dy.shape());
        norm::eval_backward(cpu, shape, saved.input(0).data(), dy.data(), channels, gradients);
    }

    fn is_differentiable(&self, k: usize) -> bool {
        k < 3
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let inputs: Vec<&str> = x.iter().map(|value| value.name.as_str()).collect();
        Ok(graph.node("BatchNormalization", &inputs, &[("epsilon", Attribute::Float(self.eps))]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, x: [usize; 4]| {
            let vector = || Input::real([x[1]]);
            let variance = Input::uniform([x[1]], 0.1, 3.0);
            let inputs = [Input::real(x), vector(), vector(), vector(), variance];
            Case::new(name, BatchNorm2dEval { eps: 1e-5 }, inputs)
        };
        vec![
            case("a small batch", [3, 2, 3, 2]),
            case("one value a channel", [1, 3, 1, 1]),
            case("several leaves", [9, 5, 34, 33]).bits_only(),
            case("no images", [0, 2, 3, 3]).bits_only(),
        ]
    }
}
