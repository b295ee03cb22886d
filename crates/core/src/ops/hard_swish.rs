//! `hard_swish`: the piecewise swish (Howard et al., MobileNetV3, ICCV 2019).

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// x·hard_sigmoid(x)
#[derive(Clone, Debug)]
pub struct HardSwish;

impl Tensor {
    /// `self·hard_sigmoid(self)`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn hard_swish(&self) -> Result<Tensor, ShapeError> {
        apply(HardSwish, &[self])
    }
}

impl Pointwise for HardSwish {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "hard_swish",
        summary: "The piecewise swish.",
        formula: r"y = x \min(\max(x+3, 0), 6)/6",
        gradient: r"\bar x = \bar y\,(2x+3)/6 \ (-3<x<3), \quad \bar y \ (x \ge 3), \quad 0 \ (x \le -3)",
        shapes: "y like x",
        conventions: "The derivative at -3 is 0, at 3 it is 1. NaN stays NaN, and so does its gradient.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        let three = F::of(3.0);
        let gate = if -three > x {
            F::zero()
        } else if x > three {
            F::of(6.0)
        } else {
            x + three
        };
        x * gate / F::of(6.0)
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        let three = F::of(3.0);
        let slope = if -three >= x {
            F::zero()
        } else if x >= three {
            F::one()
        } else {
            (x + x + three) / F::of(6.0)
        };
        [dy * slope]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("HardSwish", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", HardSwish, [Input::uniform([4, 5], -5.0, 5.0).avoiding(&[-3.0, 3.0])]),
            Case::new("many", HardSwish, [Input::uniform([40_003], -5.0, 5.0).avoiding(&[-3.0, 3.0])])
                .bits_only(),
        ]
    }
}
