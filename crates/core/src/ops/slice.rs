//! `slice`: a stretch of one axis.

use crate::axes::{Fibres, one_axis};
use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};

/// Every `step`-th element from `start` to before `end` of an axis.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The axis.
    pub axis: usize,
    /// The first.
    pub start: usize,
    /// Behind the last.
    pub end: usize,
    /// From one to the next.
    pub step: usize,
}

impl Tensor {
    /// Every `step`-th element from `start` to before `end` of `axis`.
    ///
    /// # Errors
    /// The stretch does not lie on the axis, or the step is 0.
    pub fn slice(&self, axis: usize, start: usize, end: usize, step: usize) -> Result<Tensor, ShapeError> {
        apply(Slice { axis, start, end, step }, &[self])
    }
}

impl Slice {
    fn len(&self) -> usize {
        (self.end - self.start).div_ceil(self.step)
    }
}

impl Operator for Slice {
    const DOC: Doc = Doc {
        name: "slice",
        summary: "A stretch of one axis.",
        formula: r"y_{\cdot k \cdot} = x_{\cdot,\,s + k t,\,\cdot}",
        gradient: r"\bar x_{\cdot,\,s + k t,\,\cdot} = \bar y_{\cdot k \cdot}, 0 elsewhere",
        shapes: "x any; y with a shorter axis",
        conventions: "None: numbers are moved.",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        let x = one_axis(Self::DOC.name, self.axis, x)?;
        if self.step == 0 || self.start > self.end || self.end > x[self.axis] {
            let Slice { axis, start, end, step } = self;
            return Err(ShapeError::new(
                Self::DOC.name,
                format!("{start}..{end} by {step} of axis {axis} of {x}"),
            ));
        }
        let mut dims = x.to_vec();
        dims[self.axis] = self.len();
        Ok(Shape::from(dims).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let Fibres { outer, len, inner } = Fibres::new(x[0].shape(), self.axis);
        for o in 0..outer {
            for k in 0..self.len() {
                let from = (o * len + self.start + k * self.step) * inner;
                let to = (o * self.len() + k) * inner;
                y.value[to..to + inner].copy_from_slice(&x[0].data()[from..from + inner]);
            }
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dx) = &mut dx[0] else { return };
        dx.fill(F::zero());
        let Fibres { outer, len, inner } = Fibres::new(saved.shape(0), self.axis);
        for o in 0..outer {
            for k in 0..self.len() {
                let to = (o * len + self.start + k * self.step) * inner;
                let from = (o * self.len() + k) * inner;
                dx[to..to + inner].copy_from_slice(&dy.data()[from..from + inner]);
            }
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let one = |number: usize| [number as i64];
        let (starts, ends) = (graph.integers(&one(self.start)), graph.integers(&one(self.end)));
        let (axes, steps) = (graph.integers(&one(self.axis)), graph.integers(&one(self.step)));
        Ok(graph.node("Slice", &[&x[0].name, &starts, &ends, &axes, &steps], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, [axis, start, end, step]: [usize; 4], x: &[usize]| {
            Case::new(name, Slice { axis, start, end, step }, [Input::real(x)])
        };
        vec![
            case("rows", [0, 1, 3, 1], &[4, 3]),
            case("every second", [1, 0, 5, 2], &[2, 5, 3]),
            case("the last of three axes", [2, 1, 4, 2], &[2, 3, 4]),
            case("large", [1, 3, 90, 3], &[17, 101, 23]).bits_only(),
        ]
    }
}
