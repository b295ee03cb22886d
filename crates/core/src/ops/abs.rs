//! `abs`: the absolute value.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// |x|
#[derive(Clone, Debug)]
pub struct Abs;

impl Tensor {
    /// `|self|`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn abs(&self) -> Result<Tensor, ShapeError> {
        apply(Abs, &[self])
    }
}

impl Pointwise for Abs {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "abs",
        summary: "The absolute value.",
        formula: r"y = |x|",
        gradient: r"\bar x = \bar y\,\mathrm{sign}(x)",
        shapes: "y like x",
        conventions: "The derivative at 0 is 0. NaN stays NaN, and its gradient is 0.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        if F::zero() > x { -x } else { x + F::zero() }
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        let sign = if x > F::zero() {
            dy
        } else if F::zero() > x {
            -dy
        } else {
            F::zero()
        };
        [sign]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Abs", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Abs, [Input::real([4, 5]).avoiding(&[0.0])]),
            Case::new("many", Abs, [Input::real([40_003]).avoiding(&[0.0])]).bits_only(),
        ]
    }
}
