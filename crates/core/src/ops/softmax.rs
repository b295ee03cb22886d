//! `softmax`: numbers as shares of one (Bridle, 1990).

use crate::axes::{Fibres, greatest, one_axis};
use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce::sum;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use kinone_kernels::{Cpu, rows};

/// eˣ / Σ eˣ along an axis
#[derive(Clone, Debug)]
pub struct Softmax {
    /// The axis.
    pub axis: usize,
}

impl Tensor {
    /// `exp(self)` over its sum along `axis`.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn softmax(&self, axis: usize) -> Result<Tensor, ShapeError> {
        apply(Softmax { axis }, &[self])
    }
}

impl Operator for Softmax {
    const DOC: Doc = Doc {
        name: "softmax",
        summary: "Numbers as shares of one.",
        formula: r"y_k = e^{x_k - m} / \sum_j e^{x_j - m}, \quad m = \max_j x_j",
        gradient: r"\bar x_k = y_k \bigl(\bar y_k - \sum_j \bar y_j y_j\bigr)",
        shapes: "y like x",
        conventions: "Sums in f64 by leaves of 4096. A fibre with a NaN or infinity, or of minus infinity alone, \
            becomes NaN.",
    };
    const SAVES: Saves = Saves::OUTPUT;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        Ok(one_axis(Self::DOC.name, self.axis, x)?.clone().into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let fibres = Fibres::new(x[0].shape(), self.axis);
        for at in fibres.indices() {
            let m = greatest(fibres.len, |k| x[0][at(k)]);
            let s = sum(fibres.len, |k| (x[0][at(k)] - m).exp().wide());
            for k in 0..fibres.len {
                y.value[at(k)] = F::narrow((x[0][at(k)] - m).exp().wide() / s);
            }
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dx) = &mut dx[0] else { return };
        let y = saved.output();
        let fibres = Fibres::new(y.shape(), self.axis);
        for at in fibres.indices() {
            let s = sum(fibres.len, |k| dy[at(k)].wide() * y[at(k)].wide());
            for k in 0..fibres.len {
                dx[at(k)] = F::narrow(y[at(k)].wide() * (dy[at(k)].wide() - s));
            }
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let Fibres { outer, len, inner } = Fibres::new(x[0].shape(), self.axis);
        rows::softmax(cpu, outer, len, inner, x[0].data(), y.value);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        if let Some(dx) = &mut dx[0] {
            let Fibres { outer, len, inner } = Fibres::new(dy.shape(), self.axis);
            rows::softmax_backward(cpu, outer, len, inner, saved.output().data(), dy.data(), dx);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let axis = Attribute::Int(self.axis as i64);
        Ok(graph.node("Softmax", &[&x[0].name], &[("axis", axis)]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, axis, x: &[usize]| Case::new(name, Softmax { axis }, [Input::real(x)]);
        vec![
            case("the last axis", 1, &[3, 5]),
            case("a middle axis", 1, &[2, 4, 3]),
            case("one number", 0, &[1]),
            case("a long axis", 1, &[3, 9001]).bits_only(),
            case("many rows", 1, &[701, 14]).bits_only(),
        ]
    }
}
