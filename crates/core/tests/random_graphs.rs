//! Random graphs: every adjoint of the walk has the bits of a sum made one operator at a time, in the order of the
//! contract: operators from the last to the first, of each `OVER`'s gradient first, then by input.

use kinone_core::array::Array;
use kinone_core::graph::checkpoint;
use kinone_core::operator::Primitive;
use kinone_core::ops::{Add, BatchNorm2d, BatchNorm2dAddRelu, BatchNorm2dRelu, Conv2d, Mul, Where};
use kinone_core::rng::Stream;
use kinone_core::tensor::{Tensor, apply_primitive};
use std::ops::Range;
use std::sync::Arc;

/// Images, vectors and filters, of these shapes: the first values of every graph.
const LEAVES: [(&[usize], usize); 3] = [(&[2, 2, 2, 3], 6), (&[2], 4), (&[2, 2, 1, 1], 2)];
const IMAGES: usize = LEAVES[0].1;
const VECTORS: Range<usize> = IMAGES..IMAGES + LEAVES[1].1;
const FILTERS: Range<usize> = VECTORS.end..VECTORS.end + LEAVES[2].1;

/// An operator on values of the graph, which adds one to them.
#[derive(Clone, Debug)]
struct Step {
    operator: Arc<dyn Primitive>,
    inputs: Vec<usize>,
    recomputed: bool,
}

/// Steps, and stretches of them that are computed again: of such a stretch only the last value is seen elsewhere.
#[derive(Debug)]
struct Graph {
    steps: Vec<Step>,
    stretches: Vec<Range<usize>>,
}

/// Draws in their order.
struct Draws(Stream, u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.1 += 1;
        self.0.below(self.1, bound as u32) as usize
    }

    /// Of sizes so far apart that another order of sums is another sum.
    fn array(&mut self, shape: &[usize]) -> Array {
        let size = shape.iter().product();
        let number = |draws: &mut Draws| {
            [1.0, 1.0e4, 1.0e-3, 3.0e6][draws.below(4)] * (draws.below(2001) as f32 - 1000.0) / 700.0
        };
        let numbers: Vec<f32> = (0..size).map(|_| number(self)).collect();
        Array::new(shape, &numbers).unwrap()
    }

    fn graph(&mut self) -> Graph {
        let mut graph = Graph { steps: Vec::new(), stretches: Vec::new() };
        let mut seen: Vec<usize> = (0..IMAGES).collect();
        let mut inside: Option<(usize, usize)> = None;
        for index in 0..2 + self.below(14) {
            if inside.is_none() && self.below(5) == 0 {
                inside = Some((index, seen.len()));
            }
            let step = self.step(&seen);
            graph.steps.push(step);
            seen.push(FILTERS.end + index);
            if let Some((start, before)) = inside.filter(|_| self.below(3) == 0) {
                graph.stretches.push(start..index + 1);
                seen.drain(before..seen.len() - 1);
                inside = None;
            }
        }
        graph
    }

    fn step(&mut self, seen: &[usize]) -> Step {
        let mut pick = || {
            // Late values more often, and the same ones again.
            let from = if self.below(3) == 0 { 0 } else { seen.len() - 3 };
            seen[from + self.below(seen.len() - from)]
        };
        let (a, b, c) = (pick(), pick(), pick());
        let b = if self.below(4) == 0 { a } else { b };
        let vector = |draws: &mut Draws| VECTORS.start + draws.below(VECTORS.len());
        let (gamma, beta, filter) = (vector(self), vector(self), FILTERS.start + self.below(FILTERS.len()));
        let eps = 1e-5;
        let (operator, inputs): (Arc<dyn Primitive>, _) = match self.below(10) {
            0..4 => (Arc::new(BatchNorm2dAddRelu { eps }), vec![a, gamma, beta, b]),
            4 => (Arc::new(BatchNorm2dRelu { eps }), vec![a, gamma, beta]),
            5 => (Arc::new(BatchNorm2d { eps }), vec![a, gamma, beta]),
            6 => (Arc::new(Add), vec![a, b]),
            7 => (Arc::new(Mul), vec![a, b]),
            8 => (Arc::new(Conv2d::default()), vec![a, filter]),
            _ => (Arc::new(Where), vec![a, b, c]),
        };
        Step { operator, inputs, recomputed: self.below(3) == 0 }
    }
}

impl Graph {
    /// Every value, `None` where nobody outside its stretch sees it.
    fn run(&self, leaves: &[Tensor]) -> Vec<Option<Tensor>> {
        let mut values: Vec<Option<Tensor>> = leaves.iter().cloned().map(Some).collect();
        let mut stretches = self.stretches.iter();
        let mut next = stretches.next();
        while let Some(index) = values.len().checked_sub(leaves.len()).filter(|k| *k < self.steps.len()) {
            match next.filter(|stretch| stretch.start == index) {
                Some(stretch) => {
                    let last = again(&values, &self.steps[stretch.clone()]);
                    values.resize(leaves.len() + stretch.end - 1, None);
                    values.push(Some(last));
                    next = stretches.next();
                }
                None => {
                    let value = one(&self.steps[index], &values);
                    values.push(Some(value));
                }
            }
        }
        values
    }
}

fn one(step: &Step, values: &[Option<Tensor>]) -> Tensor {
    let inputs: Vec<&Tensor> = step.inputs.iter().map(|k| values[*k].as_ref().unwrap()).collect();
    let (value, _) = apply_primitive(Arc::clone(&step.operator), &inputs).unwrap();
    if step.recomputed { value.recomputed() } else { value }
}

/// The last value of a stretch. It is given every other value, and captures the rest.
fn again(values: &[Option<Tensor>], steps: &[Step]) -> Tensor {
    let (captured, steps) = (values.to_vec(), steps.to_vec());
    let given: Vec<usize> = (0..values.len()).filter(|k| k % 2 == 0 && values[*k].is_some()).collect();
    let inputs: Vec<&Tensor> = given.iter().map(|k| values[*k].as_ref().unwrap()).collect();
    let body = move |inputs: &[Tensor]| {
        let mut values = captured.clone();
        for (k, input) in given.iter().zip(inputs) {
            values[*k] = Some(input.clone());
        }
        for step in &steps {
            let value = one(step, &values);
            values.push(Some(value));
        }
        Ok(values.pop().flatten().unwrap())
    };
    checkpoint(&inputs, body).unwrap()
}

/// The adjoint of every value, and of how many contributions it is the sum.
fn adjoints(
    steps: &[Step],
    leaves: &[Tensor],
    root: usize,
    cotangent: &Array,
) -> Vec<Option<(Array, usize)>> {
    let mut values: Vec<Option<Tensor>> = leaves.iter().cloned().map(Some).collect();
    for step in steps {
        let value = one(step, &values);
        values.push(Some(value));
    }
    let mut sums: Vec<Option<(Array, usize)>> = vec![None; values.len()];
    sums[root] = Some((cotangent.clone(), 1));
    for (index, step) in steps.iter().enumerate().rev() {
        let Some((dy, _)) = sums[leaves.len() + index].clone() else { continue };
        // The operator alone, on variables that nobody else uses.
        let inputs: Vec<Tensor> = step.inputs.iter().map(|k| alone(values[*k].as_ref().unwrap())).collect();
        let (y, _) = apply_primitive(Arc::clone(&step.operator), &inputs.iter().collect::<Vec<_>>()).unwrap();
        let gradients = y.backward_from(dy, &[]).unwrap();
        let first = step.operator.over();
        let others = (0..inputs.len()).filter(|k| Some(*k) != first);
        for k in first.into_iter().chain(others) {
            let Some(gradient) = gradients.of(&inputs[k]) else { continue };
            match &mut sums[step.inputs[k]] {
                Some((sum, count)) => {
                    sum.data_mut().iter_mut().zip(gradient.data()).for_each(|(sum, more)| *sum += more);
                    *count += 1;
                }
                none => *none = Some((gradient.clone(), 1)),
            }
        }
    }
    sums
}

/// A variable with these numbers; a constant, of a constant.
fn alone(value: &Tensor) -> Tensor {
    let numbers = Array::clone(value.value());
    if value.node().is_some() { Tensor::variable(numbers) } else { Tensor::constant(numbers) }
}

fn bits(array: &Array) -> Vec<u32> {
    array.data().iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }).collect()
}

#[test]
fn adjoints_are_sums_in_the_order_of_the_contract() {
    let (mut compared, mut of_many) = (0, 0);
    for seed in 0..2000 {
        let mut draws = Draws(Stream::new(seed, "graph"), 0);
        let mut leaves = Vec::new();
        for (shape, count) in LEAVES {
            for _ in 0..count {
                let numbers = draws.array(shape);
                leaves.push(match draws.below(4) {
                    0 => Tensor::constant(numbers),
                    _ => Tensor::variable(numbers),
                });
            }
        }
        let graph = draws.graph();
        let values = graph.run(&leaves);
        let (root, cotangent) = (values.len() - 1, draws.array(LEAVES[0].0));
        let y = values[root].as_ref().unwrap();
        if y.node().is_none() {
            continue;
        }
        let expected = adjoints(&graph.steps, &leaves, root, &cotangent);
        let also: Vec<&Tensor> = values.iter().flatten().filter(|_| draws.below(3) == 0).collect();
        let walked = y.backward_from(cotangent, &also).unwrap();
        for (k, value) in values.iter().enumerate() {
            let Some(value) = value.as_ref().filter(|value| value.node().is_some()) else { continue };
            let is_wanted =
                k < leaves.len() || also.iter().any(|other| Arc::ptr_eq(other.value(), value.value()));
            let expected = expected[k].as_ref().filter(|_| is_wanted);
            let of_walk = walked.of(value).map(bits);
            assert_eq!(of_walk, expected.map(|(sum, _)| bits(sum)), "seed {seed}, value {k} of {graph:#?}");
            compared += 1;
            of_many += usize::from(expected.is_some_and(|(_, count)| *count > 2));
        }
    }
    assert!(
        compared > 10_000 && of_many > 500,
        "too few: {compared}, {of_many} of three contributions and more"
    );
}
