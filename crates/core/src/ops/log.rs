//! `log`: the natural logarithm.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// log x
#[derive(Clone, Debug)]
pub struct Log;

impl Tensor {
    /// The natural logarithm of `self`.
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn log(&self) -> Result<Tensor, ShapeError> {
        apply(Log, &[self])
    }
}

impl Pointwise for Log {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "log",
        summary: "The natural logarithm.",
        formula: r"y = \log x",
        gradient: r"\bar x = \bar y / x",
        shapes: "y like x",
        conventions: "Correctly rounded; negative infinity at 0, NaN below.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x.log()
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        [dy / x]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Log", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Log, [Input::uniform([4, 5], 0.2, 4.0)]),
            Case::new("many", Log, [Input::uniform([40_003], 0.2, 4.0)]).bits_only(),
        ]
    }
}
