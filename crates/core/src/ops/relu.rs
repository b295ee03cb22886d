//! `relu`: the rectified linear unit (Fukushima, 1969; Nair and Hinton, ICML 2010).

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// max(x, 0)
#[derive(Clone, Debug)]
pub struct Relu;

impl Tensor {
    /// `max(self, 0)`.
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn relu(&self) -> Result<Tensor, ShapeError> {
        apply(Relu, &[self])
    }
}

impl Pointwise for Relu {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "relu",
        summary: "The rectified linear unit.",
        formula: r"y = \max(x, 0)",
        gradient: r"\bar x = \bar y \,[y > 0]",
        shapes: "y like x",
        conventions: "The derivative at 0 is 0. NaN stays NaN, and its gradient is 0.",
    };
    /// The sign of the output is that of the input wherever the gradient is not zero, and the output is kept
    /// anyway by whatever comes next.
    const SAVES: Saves = Saves::OUTPUT;

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        if F::zero() > x { F::zero() } else { x }
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, _x: [F; 1], y: F, dy: F) -> [F; 1] {
        [if y > F::zero() { dy } else { F::zero() }]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Relu", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Relu, [Input::real([4, 5]).avoiding(&[0.0])]),
            Case::new("many", Relu, [Input::real([40_003])]).bits_only(),
        ]
    }
}
