//! `clamp`: the number nearest to x in an interval.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// x between `low` and `high`
#[derive(Clone, Debug)]
pub struct Clamp {
    /// The lower end.
    pub low: f32,
    /// The upper end.
    pub high: f32,
}

impl Tensor {
    /// `self` between `low` and `high`.
    ///
    /// # Errors
    /// `low` is above `high`, or one of them is NaN.
    pub fn clamp(&self, low: f32, high: f32) -> Result<Tensor, ShapeError> {
        apply(Clamp { low, high }, &[self])
    }
}

impl Pointwise for Clamp {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "clamp",
        summary: "The number nearest to x in an interval.",
        formula: r"y = \min(\max(x, a), b)",
        gradient: r"\bar x = \bar y \ (a < x < b)",
        shapes: "y like x",
        conventions: "The derivative at the ends is 0. NaN stays NaN, and its gradient is 0.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    fn validate(&self) -> Result<(), ShapeError> {
        if self.low <= self.high {
            return Ok(());
        }
        Err(ShapeError::new(Self::DOC.name, format!("no numbers lie between {} and {}", self.low, self.high)))
    }

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        let (low, high) = (F::of(f64::from(self.low)), F::of(f64::from(self.high)));
        if low > x {
            low
        } else if x > high {
            high
        } else {
            x
        }
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        let (low, high) = (F::of(f64::from(self.low)), F::of(f64::from(self.high)));
        [if x > low && high > x { dy } else { F::zero() }]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let (low, high) = (graph.scalar(self.low), graph.scalar(self.high));
        Ok(graph.node("Clip", &[&x[0].name, &low, &high], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new(
                "a matrix",
                Clamp { low: -0.5, high: 1.25 },
                [Input::real([4, 5]).avoiding(&[-0.5, 1.25])],
            ),
            Case::new(
                "many",
                Clamp { low: -0.5, high: 1.25 },
                [Input::real([40_003]).avoiding(&[-0.5, 1.25])],
            )
            .bits_only(),
        ]
    }
}
