//! `concat`: arrays one after another along an axis.

use crate::axes::Fibres;
use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use kinone_kernels::Cpu;

/// Any number of inputs, put together along an axis.
#[derive(Clone, Debug)]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

/// The values that a thread moves at least.
const GRAIN: usize = 16384;

impl Tensor {
    /// `parts` one after another along `axis`.
    ///
    /// # Errors
    /// There are none, there is no such axis, or other extents differ.
    pub fn concat(parts: &[&Tensor], axis: usize) -> Result<Tensor, ShapeError> {
        apply(Concat { axis }, parts)
    }
}

impl Operator for Concat {
    const DOC: Doc = Doc {
        name: "concat",
        summary: "Arrays one after another along an axis.",
        formula: r"y = (x_0, x_1, \dots)",
        gradient: r"\bar x_k = \text{its part of } \bar y",
        shapes: "x_0, x_1, ... alike but for one axis; y with their sum there",
        conventions: "None: numbers are moved.",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        let name = Self::DOC.name;
        let Some(first) = x.first().filter(|first| self.axis < first.len()) else {
            return Err(ShapeError::new(name, format!("{} inputs along axis {}", x.len(), self.axis)));
        };
        let mut dims = first.to_vec();
        for other in &x[1..] {
            let alike = |axis: usize| axis == self.axis || other[axis] == first[axis];
            if other.len() != first.len() || !(0..first.len()).all(alike) {
                return Err(ShapeError::new(name, format!("{first} and {other} along axis {}", self.axis)));
            }
            dims[self.axis] += other[self.axis];
        }
        Ok(Shape::from(dims).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let whole = Fibres::new(y.shape, self.axis);
        let mut done = 0;
        for x in x {
            let part = x.dim(self.axis) * whole.inner;
            for o in 0..whole.outer {
                let to = o * whole.len * whole.inner + done;
                y.value[to..to + part].copy_from_slice(&x.data()[o * part..(o + 1) * part]);
            }
            done += part;
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let whole = Fibres::new(y.shape, self.axis);
        let mut left = &mut *y.value;
        for o in 0..whole.outer {
            for x in x {
                let part = x.dim(self.axis) * whole.inner;
                let from = &x.data()[o * part..(o + 1) * part];
                let (to, rest) = left.split_at_mut(part);
                left = rest;
                cpu.for_slices(part, GRAIN, &mut [Some(to)], |offset, to| {
                    if let [Some(to)] = to {
                        to.copy_from_slice(&from[offset..][..to.len()]);
                    }
                });
            }
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let whole = Fibres::new(dy.shape(), self.axis);
        let mut done = 0;
        for (k, dx) in dx.iter_mut().enumerate() {
            let part = saved.shape(k)[self.axis] * whole.inner;
            if let Some(dx) = dx {
                for o in 0..whole.outer {
                    let from = o * whole.len * whole.inner + done;
                    dx[o * part..(o + 1) * part].copy_from_slice(&dy.data()[from..from + part]);
                }
            }
            done += part;
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let inputs: Vec<&str> = x.iter().map(|value| value.name.as_str()).collect();
        Ok(graph.node("Concat", &inputs, &[("axis", Attribute::Int(self.axis as i64))]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, axis, x: &[&[usize]]| {
            Case::new(name, Concat { axis }, x.iter().map(|x| Input::real(*x)).collect::<Vec<Input>>())
        };
        vec![
            case("rows", 0, &[&[2, 3], &[1, 3]]),
            case("three, in the middle", 1, &[&[2, 1, 3], &[2, 2, 3], &[2, 3, 3]]),
            case("one alone", 1, &[&[2, 3]]),
            case("large", 2, &[&[17, 5, 201], &[17, 5, 99]]).bits_only(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::array::Array;
    use crate::tensor::Tensor;
    use kinone_kernels::{Cpu, Isa};

    /// Threads share what is large, and some inputs are empty.
    #[test]
    fn every_value_is_moved_to_its_place() {
        let cpu = Cpu::new(Isa::Scalar, 3).unwrap();
        for (axis, extents) in [(0, [0, 9, 5, 0]), (1, [0, 9, 5, 0]), (1, [4, 0, 0, 11]), (1, [0; 4])] {
            let shape = |extent: usize| if axis == 0 { [extent, 3, 1001] } else { [3, extent, 1001] };
            let values = |k: usize, len: usize| (0..len).map(move |i| (k * 100_000 + i) as f32);
            let part = |(k, extent): (usize, &usize)| {
                let shape = shape(*extent);
                let values: Vec<f32> = values(k, shape.iter().product()).collect();
                Tensor::constant(Array::new(shape, &values).unwrap())
            };
            let parts: Vec<Tensor> = extents.iter().enumerate().map(part).collect();
            let y = cpu.scope(|| Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis).unwrap());
            let outer = if axis == 0 { 1 } else { 3 };
            let stretch = |o: usize| {
                let piece = move |part: &Tensor| {
                    let len = part.data().len() / outer;
                    part.data()[o * len..(o + 1) * len].to_vec()
                };
                parts.iter().flat_map(piece).collect::<Vec<f32>>()
            };
            assert_eq!(y.data(), (0..outer).flat_map(stretch).collect::<Vec<f32>>(), "{extents:?} by {axis}");
        }
    }
}
