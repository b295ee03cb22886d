//! `permute`: the axes in another order.

use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};

/// Axis k of the output is axis `order[k]` of the input.
#[derive(Clone, Debug)]
pub struct Permute {
    /// Which input axis each output axis is.
    pub order: Vec<usize>,
}

impl Tensor {
    /// The axes in another order: axis k of the result is axis `order[k]` of `self`.
    ///
    /// # Errors
    /// `order` does not name every axis once.
    pub fn permute(&self, order: &[usize]) -> Result<Tensor, ShapeError> {
        apply(Permute { order: order.to_vec() }, &[self])
    }
}

impl Permute {
    /// For each element of y, in row-major order, the flat index of its element of x.
    fn sources(&self, x: &Shape) -> Vec<usize> {
        let strides = x.strides();
        let mut sources = vec![0];
        for &axis in &self.order {
            let steps = |source: usize| (0..x[axis]).map(move |k| (source, k));
            sources =
                sources.into_iter().flat_map(steps).map(|(source, k)| source + k * strides[axis]).collect();
        }
        sources
    }
}

impl Operator for Permute {
    const DOC: Doc = Doc {
        name: "permute",
        summary: "The axes in another order.",
        formula: r"y_{i_{\pi(0)} i_{\pi(1)} \dots} = x_{i_0 i_1 \dots}",
        gradient: r"\bar x = \bar y, the axes put back",
        shapes: "x any; y with the extents in the new order",
        conventions: "None: numbers are moved.",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        let [x] = x else {
            return Err(ShapeError::new(Self::DOC.name, format!("takes 1 input, not {}", x.len())));
        };
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.len()) {
            return Err(ShapeError::new(
                Self::DOC.name,
                format!("{:?} is no order of the axes of {x}", self.order),
            ));
        }
        Ok(Shape::from(self.order.iter().map(|axis| x[*axis]).collect::<Vec<usize>>()).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        for (y, source) in y.value.iter_mut().zip(self.sources(x[0].shape())) {
            *y = x[0][source];
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dx) = &mut dx[0] else { return };
        for (dy, source) in dy.data().iter().zip(self.sources(saved.shape(0))) {
            dx[source] = *dy;
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Transpose", &[&x[0].name], &[("perm", Attribute::sizes(&self.order))]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, order: &[usize], x: &[usize]| {
            Case::new(name, Permute { order: order.to_vec() }, [Input::real(x)])
        };
        vec![
            case("a matrix turned", &[1, 0], &[3, 4]),
            case("four axes", &[2, 0, 3, 1], &[2, 3, 2, 4]),
            case("as it was", &[0, 1], &[2, 5]),
            case("large", &[0, 2, 1], &[5, 67, 101]).bits_only(),
        ]
    }
}
