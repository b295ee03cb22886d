//! `sub`: the difference of two arrays, with broadcasting.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// a − b
#[derive(Clone, Debug)]
pub struct Sub;

impl Tensor {
    /// `self − other`, with broadcasting.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor, ShapeError> {
        apply(Sub, &[self, other])
    }
}

impl Pointwise for Sub {
    type Args<F: Real> = [F; 2];

    const DOC: Doc = Doc {
        name: "sub",
        summary: "The difference of two arrays.",
        formula: r"y = a - b",
        gradient: r"\bar a = \bar y, \quad \bar b = -\bar y",
        shapes: "a and b broadcast to y",
        conventions: "A repeated input's gradient is the sum over its repetitions, in f64 by leaves of 4096.",
    };
    const SAVES: Saves = Saves::NOTHING;

    #[inline(always)]
    fn value<F: Real>(&self, [a, b]: [F; 2]) -> F {
        a - b
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, _x: [F; 2], _y: F, dy: F) -> [F; 2] {
        [dy, -dy]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Sub", &[&x[0].name, &x[1].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("equal shapes", Sub, [Input::real([3, 5]), Input::real([3, 5])]),
            Case::new("a row and a column", Sub, [Input::real([1, 5]), Input::real([4, 1])]),
            Case::new("one number", Sub, [Input::real([2, 3, 4]), Input::real([])]),
            Case::new("many", Sub, [Input::real([40_003]), Input::real([40_003])]).bits_only(),
        ]
    }
}
