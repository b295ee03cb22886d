//! `reshape`: the same numbers in another shape.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::arity;

/// Into this shape.
#[derive(Clone, Debug)]
pub struct Reshape {
    /// The new extents.
    pub shape: Shape,
}

impl Tensor {
    /// The same numbers, in the same order, in another shape.
    ///
    /// # Errors
    /// The sizes differ.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor, ShapeError> {
        apply(Reshape { shape: shape.into() }, &[self])
    }
}

impl Operator for Reshape {
    const DOC: Doc = Doc {
        name: "reshape",
        summary: "The same numbers in another shape.",
        formula: r"y_k = x_k \text{ by flat index}",
        gradient: r"\bar x_k = \bar y_k",
        shapes: "x any; y of equal size",
        conventions: "Row-major order, the last dimension fastest.",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[1], x.len())?;
        if x[0].size() != self.shape.size() {
            let reason = format!("{} numbers of {} do not fill {}", x[0].size(), x[0], self.shape);
            return Err(ShapeError::new(Self::DOC.name, reason));
        }
        Ok(self.shape.clone().into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        y.value.copy_from_slice(x[0].data());
    }

    fn vjp<F: Real>(&self, _saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        if let Some(dx) = &mut dx[0] {
            dx.copy_from_slice(dy.data());
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        // 0 keeps an extent: the batch's stays free.
        let keeps_batch = x[0].shape.first().is_some_and(|n| self.shape.first() == Some(n));
        let mut extents: Vec<i64> = self.shape.iter().map(|extent| *extent as i64).collect();
        if let Some(batch) = extents.first_mut().filter(|_| keeps_batch) {
            *batch = 0;
        }
        let shape = graph.integers(&extents);
        Ok(graph.node("Reshape", &[&x[0].name, &shape], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, from: &[usize], to: &[usize]| {
            Case::new(name, Reshape { shape: to.into() }, [Input::real(from)])
        };
        vec![
            case("a row", &[2, 3, 2], &[2, 6]),
            case("more dimensions", &[12], &[3, 1, 4]),
            case("one number", &[1, 1], &[]),
            case("many", &[40, 1009], &[1009, 40]).bits_only(),
        ]
    }
}
