//! `hard_sigmoid`: the piecewise linear sigmoid (Howard et al., MobileNetV3, ICCV 2019).

use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// x/6 + 1/2 between 0 and 1
#[derive(Clone, Debug)]
pub struct HardSigmoid;

impl Tensor {
    /// `self/6 + 1/2`, between 0 and 1.
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn hard_sigmoid(&self) -> Result<Tensor, ShapeError> {
        apply(HardSigmoid, &[self])
    }
}

impl Pointwise for HardSigmoid {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "hard_sigmoid",
        summary: "The piecewise linear sigmoid.",
        formula: r"y = \min(\max(x/6 + \tfrac12, 0), 1)",
        gradient: r"\bar x = \bar y/6 \ (-3 < x < 3)",
        shapes: "y like x",
        conventions: "The derivative at -3 and 3 is 0. NaN stays NaN, and its gradient is 0.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        let line = x / F::of(6.0) + F::of(0.5);
        if F::zero() > line {
            F::zero()
        } else if line > F::one() {
            F::one()
        } else {
            line
        }
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        let three = F::of(3.0);
        [if x > -three && three > x { dy / F::of(6.0) } else { F::zero() }]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let slope = Attribute::Float(1.0 / 6.0);
        Ok(graph.node("HardSigmoid", &[&x[0].name], &[("alpha", slope), ("beta", Attribute::Float(0.5))]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", HardSigmoid, [Input::uniform([4, 5], -5.0, 5.0).avoiding(&[-3.0, 3.0])]),
            Case::new("many", HardSigmoid, [Input::uniform([40_003], -5.0, 5.0).avoiding(&[-3.0, 3.0])])
                .bits_only(),
        ]
    }
}
