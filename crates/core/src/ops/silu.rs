//! `silu`: the sigmoid-weighted linear unit, also called swish (Elfwing et al., 2018; Ramachandran et al., 2017).

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// x·σ(x)
#[derive(Clone, Debug)]
pub struct Silu;

impl Tensor {
    /// `self·σ(self)`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn silu(&self) -> Result<Tensor, ShapeError> {
        apply(Silu, &[self])
    }
}

impl Pointwise for Silu {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "silu",
        summary: "The sigmoid-weighted linear unit, or swish.",
        formula: r"y = x\,\sigma(x)",
        gradient: r"\bar x = \bar y\,\sigma(x)\,(1 + x\,\sigma(-x))",
        shapes: "y like x",
        conventions: "At negative infinity NaN (infinity times 0).",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x * x.sigmoid()
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        [dy * (x.sigmoid() * (F::one() + x * (-x).sigmoid()))]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let gate = graph.node("Sigmoid", &[&x[0].name], &[]);
        Ok(graph.node("Mul", &[&x[0].name, &gate], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Silu, [Input::real([4, 5])]),
            Case::new("many", Silu, [Input::real([40_003])]).bits_only(),
        ]
    }
}
