//! `pad`: a border of one number.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};

/// A border around an array.
#[derive(Clone, Debug)]
pub struct Pad {
    /// How many before and after, one pair an axis.
    pub widths: Vec<(usize, usize)>,
    /// The number.
    pub value: f32,
}

impl Tensor {
    /// A border of `value`: `widths[axis]` many before and after.
    ///
    /// # Errors
    /// There is not one pair an axis.
    pub fn pad(&self, widths: &[(usize, usize)], value: f32) -> Result<Tensor, ShapeError> {
        apply(Pad { widths: widths.to_vec(), value }, &[self])
    }
}

impl Pad {
    fn padded(&self, x: &Shape) -> Shape {
        x.iter().zip(&self.widths).map(|(extent, (a, b))| a + extent + b).collect::<Vec<usize>>().into()
    }

    /// For each element of x, in row-major order, the flat index of its place in y.
    fn targets(&self, x: &Shape) -> Vec<usize> {
        let strides = self.padded(x).strides();
        let origin: usize = self.widths.iter().zip(&strides).map(|((a, _), stride)| a * stride).sum();
        let inner = x.strides();
        let place = |flat: usize| {
            (0..x.len()).fold(origin, |at, axis| at + flat / inner[axis] % x[axis] * strides[axis])
        };
        (0..x.size()).map(place).collect()
    }
}

impl Operator for Pad {
    const DOC: Doc = Doc {
        name: "pad",
        summary: "A border of one number.",
        formula: r"y_{i+a} = x_i, v elsewhere",
        gradient: r"\bar x_i = \bar y_{i+a}",
        shapes: "x any; y larger by the widths",
        conventions: "None: numbers are moved.",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        match x {
            [x] if x.len() == self.widths.len() => Ok(self.padded(x).into()),
            _ => {
                let reason = format!("{} inputs for {} pairs of widths", x.len(), self.widths.len());
                Err(ShapeError::new(Self::DOC.name, reason))
            }
        }
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        y.value.fill(F::of(f64::from(self.value)));
        for (x, target) in x[0].data().iter().zip(self.targets(x[0].shape())) {
            y.value[target] = *x;
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dx) = &mut dx[0] else { return };
        for (dx, target) in dx.iter_mut().zip(self.targets(saved.shape(0))) {
            *dx = dy[target];
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let before = self.widths.iter().map(|(a, _)| *a as i64);
        let after = self.widths.iter().map(|(_, b)| *b as i64);
        let widths = graph.integers(&before.chain(after).collect::<Vec<i64>>());
        let value = graph.scalar(self.value);
        Ok(graph.node("Pad", &[&x[0].name, &widths, &value], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, widths: &[(usize, usize)], value, x: &[usize]| {
            Case::new(name, Pad { widths: widths.to_vec(), value }, [Input::real(x)])
        };
        vec![
            case("a matrix", &[(1, 0), (2, 1)], 0.0, &[2, 3]),
            case("another number", &[(0, 0), (0, 2), (1, 1)], -1.5, &[2, 2, 3]),
            case("no border", &[(0, 0)], 0.0, &[4]),
            case("large", &[(0, 0), (3, 3), (3, 3)], 0.0, &[11, 41, 43]).bits_only(),
        ]
    }
}
