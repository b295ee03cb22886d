//! `sqrt`: the square root.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// √x
#[derive(Clone, Debug)]
pub struct Sqrt;

impl Tensor {
    /// `√self`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn sqrt(&self) -> Result<Tensor, ShapeError> {
        apply(Sqrt, &[self])
    }
}

impl Pointwise for Sqrt {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "sqrt",
        summary: "The square root.",
        formula: r"y = \sqrt x",
        gradient: r"\bar x = \bar y / (2y)",
        shapes: "y like x",
        conventions: "NaN below 0; the derivative at 0 is infinite.",
    };
    const SAVES: Saves = Saves::OUTPUT;

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x.sqrt()
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, _x: [F; 1], y: F, dy: F) -> [F; 1] {
        [dy / (y + y)]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Sqrt", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Sqrt, [Input::uniform([4, 5], 0.2, 4.0)]),
            Case::new("many", Sqrt, [Input::uniform([40_003], 0.2, 4.0)]).bits_only(),
        ]
    }
}
