//! `sigmoid`: the logistic function.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// 1/(1 + e⁻ˣ)
#[derive(Clone, Debug)]
pub struct Sigmoid;

impl Tensor {
    /// `1/(1 + exp(−self))`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn sigmoid(&self) -> Result<Tensor, ShapeError> {
        apply(Sigmoid, &[self])
    }
}

impl Pointwise for Sigmoid {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "sigmoid",
        summary: "The logistic function.",
        formula: r"y = 1/(1+e^{-x})",
        gradient: r"\bar x = \bar y\, y (1-y)",
        shapes: "y like x",
        conventions: "Correctly rounded at both ends.",
    };
    const SAVES: Saves = Saves::OUTPUT;

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x.sigmoid()
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, _x: [F; 1], y: F, dy: F) -> [F; 1] {
        [dy * (y * (F::one() - y))]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Sigmoid", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Sigmoid, [Input::real([4, 5])]),
            Case::new("many", Sigmoid, [Input::real([40_003])]).bits_only(),
        ]
    }
}
