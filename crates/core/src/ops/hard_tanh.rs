//! `hard_tanh`: the piecewise linear tangent (Collobert, 2004).

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// x between −1 and 1
#[derive(Clone, Debug)]
pub struct HardTanh;

impl Tensor {
    /// `self` between −1 and 1.
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn hard_tanh(&self) -> Result<Tensor, ShapeError> {
        apply(HardTanh, &[self])
    }
}

impl Pointwise for HardTanh {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "hard_tanh",
        summary: "The piecewise linear tangent.",
        formula: r"y = \min(\max(x, -1), 1)",
        gradient: r"\bar x = \bar y \ (-1 < x < 1)",
        shapes: "y like x",
        conventions: "The derivative at -1 and 1 is 0. NaN stays NaN, and its gradient is 0.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        if -F::one() > x {
            -F::one()
        } else if x > F::one() {
            F::one()
        } else {
            x
        }
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        [if x > -F::one() && F::one() > x { dy } else { F::zero() }]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let (low, high) = (graph.scalar(-1.0), graph.scalar(1.0));
        Ok(graph.node("Clip", &[&x[0].name, &low, &high], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", HardTanh, [Input::real([4, 5]).avoiding(&[-1.0, 1.0])]),
            Case::new("many", HardTanh, [Input::real([40_003]).avoiding(&[-1.0, 1.0])]).bits_only(),
        ]
    }
}
