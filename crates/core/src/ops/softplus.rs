//! `softplus`: the smooth ramp (Dugas et al., NIPS 2000).

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// log(1 + eˣ)
#[derive(Clone, Debug)]
pub struct Softplus;

impl Tensor {
    /// `log(1 + exp(self))`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn softplus(&self) -> Result<Tensor, ShapeError> {
        apply(Softplus, &[self])
    }
}

impl Pointwise for Softplus {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "softplus",
        summary: "The smooth ramp.",
        formula: r"y = \log(1+e^x)",
        gradient: r"\bar x = \bar y\,\sigma(x)",
        shapes: "y like x",
        conventions: "Correctly rounded; x itself far above, +0 far below.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x.softplus()
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        [dy * x.sigmoid()]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Softplus", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Softplus, [Input::real([4, 5])]),
            Case::new("many", Softplus, [Input::real([40_003])]).bits_only(),
        ]
    }
}
