//! `maximum`: the larger of two numbers, with broadcasting.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// max(a, b)
#[derive(Clone, Debug)]
pub struct Maximum;

impl Tensor {
    /// The larger of `self` and `other`, with broadcasting.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn maximum(&self, other: &Tensor) -> Result<Tensor, ShapeError> {
        apply(Maximum, &[self, other])
    }
}

impl Pointwise for Maximum {
    type Args<F: Real> = [F; 2];

    const DOC: Doc = Doc {
        name: "maximum",
        summary: "The larger of two numbers.",
        formula: r"y = \max(a, b)",
        gradient: r"\bar a = \bar y \ (a \ge b), \quad \bar b = \bar y \ (b > a)",
        shapes: "a and b broadcast to y",
        conventions: "Of equal numbers a is taken, with the whole gradient. A NaN in either is taken, first a's. A repeated input's gradient is the sum over its repetitions, in f64 by leaves of 4096.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    #[inline(always)]
    fn value<F: Real>(&self, [a, b]: [F; 2]) -> F {
        if b > a || (b.is_nan() && !a.is_nan()) { b } else { a }
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [a, b]: [F; 2], _y: F, dy: F) -> [F; 2] {
        let second = b > a || (b.is_nan() && !a.is_nan());
        if second { [F::zero(), dy] } else { [dy, F::zero()] }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Max", &[&x[0].name, &x[1].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new(
                "equal shapes",
                Maximum,
                [Input::uniform([3, 5], -2.0, 0.0), Input::uniform([3, 5], -1.0, 1.0)],
            ),
            Case::new(
                "a row and a column",
                Maximum,
                [Input::distinct([1, 5]), Input::uniform([4, 1], 0.004, 0.011)],
            ),
            Case::new("many", Maximum, [Input::real([40_003]), Input::real([40_003])]).bits_only(),
        ]
    }
}
