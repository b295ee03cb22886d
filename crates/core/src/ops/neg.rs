//! `neg`: the opposite number.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// −x
#[derive(Clone, Debug)]
pub struct Neg;

impl Tensor {
    /// `−self`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn neg(&self) -> Result<Tensor, ShapeError> {
        apply(Neg, &[self])
    }
}

impl Pointwise for Neg {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "neg",
        summary: "The opposite number.",
        formula: r"y = -x",
        gradient: r"\bar x = -\bar y",
        shapes: "y like x",
        conventions: "The sign bit changes, of zero and NaN too.",
    };
    const SAVES: Saves = Saves::NOTHING;

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        -x
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, _x: [F; 1], _y: F, dy: F) -> [F; 1] {
        [-dy]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Neg", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Neg, [Input::real([4, 5])]),
            Case::new("many", Neg, [Input::real([40_003])]).bits_only(),
        ]
    }
}
