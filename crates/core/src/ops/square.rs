//! `square`: the square.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// x²
#[derive(Clone, Debug)]
pub struct Square;

impl Tensor {
    /// `self²`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn square(&self) -> Result<Tensor, ShapeError> {
        apply(Square, &[self])
    }
}

impl Pointwise for Square {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "square",
        summary: "The square.",
        formula: r"y = x^2",
        gradient: r"\bar x = 2 x \bar y",
        shapes: "y like x",
        conventions: "None.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x * x
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        [dy * (x + x)]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Mul", &[&x[0].name, &x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Square, [Input::real([4, 5])]),
            Case::new("many", Square, [Input::real([40_003])]).bits_only(),
        ]
    }
}
