//! One operator as a model, with what Kinone computes from drawn inputs: for replay in other runtimes.

use crate::graph::{Extent, Graph, Model};
use kinone_core::array::Array;
use kinone_core::case::Case;
use kinone_core::onnx::{Fragment, Unsupported, Value};
use kinone_core::operator::Primitive;
use kinone_core::ops::Entry;
use kinone_core::rng::Stream;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::{Tensor, apply_primitive};
use std::sync::Arc;

/// The promise: another runtime's output differs from Kinone's by at most this share of the largest magnitude
/// in Kinone's. (It sums in another order.)
pub const RELATIVE: f64 = 1e-5;

/// A model, and what Kinone computes with it.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What it shows: `conv2d: dilation`.
    pub name: String,
    /// The model.
    pub model: Model,
    /// Inputs and outputs.
    pub runs: Vec<Run>,
}

/// One run of a model.
#[derive(Clone, Debug)]
pub struct Run {
    /// In the order of the model's inputs.
    pub inputs: Vec<Array>,
    /// What Kinone makes of them.
    pub output: Array,
}

impl Run {
    /// The largest |found − output| over the largest finite |output|; infinite where NaN does not meet NaN, or where
    /// the sizes differ.
    pub fn difference(&self, found: &[f32]) -> f64 {
        let expected = self.output.data();
        if found.len() != expected.len() {
            return f64::INFINITY;
        }
        let (mut distance, mut largest) = (0.0_f64, 0.0_f64);
        for (x, y) in found.iter().zip(expected) {
            let apart = match (x.is_nan(), y.is_nan()) {
                (true, true) => continue,
                (false, false) if x == y => 0.0,
                (false, false) => (f64::from(*x) - f64::from(*y)).abs(),
                _ => return f64::INFINITY,
            };
            if apart > distance {
                distance = apart;
            }
            if y.is_finite() && f64::from(y.abs()) > largest {
                largest = f64::from(y.abs());
            }
        }
        if distance == 0.0 { 0.0 } else { distance / largest }
    }
}

/// Why there is no replay of a case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The case does not fit its operator.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// ONNX has no form for it.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

impl Replay {
    /// One replay for each case of a registered operator, with the name of the case; without the large cases, which
    /// are there to compare bits and say nothing new about the form in ONNX.
    pub fn of(entry: &Entry) -> Vec<(&'static str, Result<Replay, ReplayError>)> {
        let cases = entry.cases().into_iter().zip(0..).filter(|(case, _)| !case.bits_only);
        cases.map(|(case, index)| (case.name, Replay::of_case(&case, index))).collect()
    }

    /// The replay of one case: every input of the operator is an input of the model. `index` chooses the draws.
    ///
    /// # Errors
    /// The case does not fit its operator, or ONNX has no form for it.
    pub fn of_case(case: &Case<Arc<dyn Primitive>>, index: u32) -> Result<Replay, ReplayError> {
        let operator = &case.operator;
        let draw = Stream::new(3, operator.name());
        let name = format!("{}: {}", operator.name(), case.name);
        let mut graph = Graph::new(name.as_str());
        let (mut inputs, mut values) = (Vec::new(), Vec::new());
        for (input, k) in case.inputs.iter().zip(0..) {
            let value = Value { name: format!("x{k}"), shape: input.shape.clone() };
            graph.input(&value.name, &Extent::fixed(&value.shape));
            let mut array = Array::uninitialized(input.shape.clone());
            array.data_mut().copy_from_slice(&input.draw(&draw.at(index, k)));
            inputs.push(array);
            values.push(value);
        }
        let tensors: Vec<Tensor> = inputs.iter().cloned().map(Tensor::constant).collect();
        let (output, _) = apply_primitive(Arc::clone(operator), &tensors.iter().collect::<Vec<_>>())?;
        let mut fragment = Fragment::new(operator.name());
        let value = operator.onnx(&mut fragment, &values)?;
        graph.add(fragment);
        let model = graph.finish(&value, "y", &Extent::fixed(output.shape()));
        Ok(Replay { name, model, runs: vec![Run { inputs, output: Array::clone(output.value()) }] })
    }
    /// The same with every input but the first as a weight inside the model, as in a network.
    pub fn with_weights_inside(mut self) -> Replay {
        for run in &mut self.runs {
            let weights = run.inputs.split_off(1);
            self.model.fix_inputs(1, &weights);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_relative_to_the_largest_magnitude() {
        let run =
            |output: &[f32]| Run { inputs: Vec::new(), output: Array::new([output.len()], output).unwrap() };
        assert_eq!(run(&[1.0, -4.0]).difference(&[1.5, -4.0]), 0.125);
        assert_eq!(run(&[0.0, f32::NAN]).difference(&[-0.0, f32::NAN]), 0.0);
        assert_eq!(run(&[f32::INFINITY]).difference(&[f32::INFINITY]), 0.0);
        for (output, found) in
            [(&[0.0][..], &[1e-30][..]), (&[1.0, 2.0], &[1.0]), (&[1.0], &[f32::NAN]), (&[f32::NAN], &[1.0])]
        {
            assert_eq!(run(output).difference(found), f64::INFINITY);
        }
    }
}
