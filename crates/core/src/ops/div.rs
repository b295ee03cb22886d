//! `div`: the quotient of two arrays, element by element, with broadcasting.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// a/b
#[derive(Clone, Debug)]
pub struct Div;

impl Tensor {
    /// `self/other`, with broadcasting.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn div(&self, other: &Tensor) -> Result<Tensor, ShapeError> {
        apply(Div, &[self, other])
    }
}

impl Pointwise for Div {
    type Args<F: Real> = [F; 2];

    const DOC: Doc = Doc {
        name: "div",
        summary: "The quotient of two arrays, element by element.",
        formula: r"y = a/b",
        gradient: r"\bar a = \bar y/b, \quad \bar b = -\bar y\, a/b^2",
        shapes: "a and b broadcast to y",
        conventions: "A repeated input's gradient is the sum over its repetitions, in f64 by leaves of 4096.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    #[inline(always)]
    fn value<F: Real>(&self, [a, b]: [F; 2]) -> F {
        a / b
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [a, b]: [F; 2], _y: F, dy: F) -> [F; 2] {
        [dy / b, -(dy * a / (b * b))]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Div", &[&x[0].name, &x[1].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("equal shapes", Div, [Input::real([3, 5]), Input::uniform([3, 5], 0.5, 3.0)]),
            Case::new("a row and a column", Div, [Input::real([1, 5]), Input::uniform([4, 1], 0.5, 3.0)]),
            Case::new("one number", Div, [Input::real([2, 3, 4]), Input::uniform([], 0.5, 3.0)]),
            Case::new("many", Div, [Input::real([40_003]), Input::uniform([40_003], 0.5, 3.0)]).bits_only(),
        ]
    }
}
