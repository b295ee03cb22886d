//! `exp`: the exponential.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// eˣ
#[derive(Clone, Debug)]
pub struct Exp;

impl Tensor {
    /// `e` to the power of `self`.
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn exp(&self) -> Result<Tensor, ShapeError> {
        apply(Exp, &[self])
    }
}

impl Pointwise for Exp {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "exp",
        summary: "The exponential.",
        formula: r"y = e^x",
        gradient: r"\bar x = y \bar y",
        shapes: "y like x",
        conventions: "Correctly rounded; +0 far below, infinity above 88.72.",
    };
    const SAVES: Saves = Saves::OUTPUT;

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x.exp()
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, _x: [F; 1], y: F, dy: F) -> [F; 1] {
        [dy * y]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Exp", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Exp, [Input::real([4, 5])]),
            Case::new("many", Exp, [Input::real([40_003])]).bits_only(),
        ]
    }
}
