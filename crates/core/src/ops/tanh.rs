//! `tanh`: the hyperbolic tangent.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// tanh x
#[derive(Clone, Debug)]
pub struct Tanh;

impl Tensor {
    /// The hyperbolic tangent of `self`.
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn tanh(&self) -> Result<Tensor, ShapeError> {
        apply(Tanh, &[self])
    }
}

impl Pointwise for Tanh {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "tanh",
        summary: "The hyperbolic tangent.",
        formula: r"y = \tanh x",
        gradient: r"\bar x = \bar y (1-y^2)",
        shapes: "y like x",
        conventions: "Correctly rounded; keeps the sign of zero.",
    };
    const SAVES: Saves = Saves::OUTPUT;

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x.tanh()
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, _x: [F; 1], y: F, dy: F) -> [F; 1] {
        [dy * (F::one() - y * y)]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Tanh", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Tanh, [Input::real([4, 5])]),
            Case::new("many", Tanh, [Input::real([40_003])]).bits_only(),
        ]
    }
}
