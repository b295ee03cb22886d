//! `where`: one number or another, by a condition.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// a where the condition is not 0, else b
#[derive(Clone, Debug)]
pub struct Where;

impl Tensor {
    /// `a` where `self` is not 0, else `b`, with broadcasting.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn choose(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, ShapeError> {
        apply(Where, &[self, a, b])
    }
}

impl Pointwise for Where {
    type Args<F: Real> = [F; 3];

    const DOC: Doc = Doc {
        name: "where",
        summary: "One number or another, by a condition.",
        formula: r"y = a \ (c \ne 0), \quad b \ (c = 0)",
        gradient: r"\bar a = \bar y \ (c \ne 0), \quad \bar b = \bar y \ (c = 0)",
        shapes: "c, a and b broadcast to y",
        conventions: "The condition has no gradient; NaN is not 0. A repeated input's gradient is the sum over \
            its repetitions, in f64 by leaves of 4096.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [c, a, b]: [F; 3]) -> F {
        if c == F::zero() { b } else { a }
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [c, _, _]: [F; 3], _y: F, dy: F) -> [F; 3] {
        if c == F::zero() { [F::zero(), F::zero(), dy] } else { [F::zero(), dy, F::zero()] }
    }

    fn is_differentiable(&self, k: usize) -> bool {
        k > 0
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let zero = graph.scalar(0.0);
        let is_zero = graph.node("Equal", &[&x[0].name, &zero], &[]);
        Ok(graph.node("Where", &[&is_zero, &x[2].name, &x[1].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new(
                "equal shapes",
                Where,
                [Input::classes([3, 5], 2), Input::real([3, 5]), Input::real([3, 5])],
            ),
            Case::new(
                "a row, a column, a number",
                Where,
                [Input::classes([5], 2), Input::real([4, 1]), Input::real([])],
            ),
            Case::new(
                "many",
                Where,
                [Input::classes([40_003], 2), Input::real([40_003]), Input::real([40_003])],
            )
            .bits_only(),
        ]
    }
}
