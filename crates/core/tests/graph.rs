//! The graph: many uses, checkpoints, deep chains, and the errors of backward.

use kinone_core::array::Array;
use kinone_core::graph::{BackwardError, checkpoint};
use kinone_core::onnx::{Fragment, Unsupported, Value};
use kinone_core::operator::{Output, Primitive, Saved, Saves, Shapes, Slot, View};
use kinone_core::ops::{BatchNorm2dAddRelu, Conv2d};
use kinone_core::shape::{Shape, ShapeError};
use kinone_core::tensor::{Tensor, apply_primitive};
use kinone_kernels::Cpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn variable(values: &[f32]) -> Tensor {
    Tensor::variable(Array::new([values.len()], values).unwrap())
}

fn ones(tensor: &Tensor) -> Array {
    Array::full(tensor.shape().clone(), 1.0)
}

#[test]
fn a_value_used_twice_gets_both_contributions() {
    let (a, b) = (variable(&[1.0, -2.0]), variable(&[3.0, 4.0]));
    let y = a.add(&b).unwrap().add(&a).unwrap();
    let adjoints = y.backward_from(ones(&y), &[]).unwrap();
    assert_eq!(adjoints.of(&a).unwrap().data(), [2.0, 2.0]);
    assert_eq!(adjoints.of(&b).unwrap().data(), [1.0, 1.0]);
}

/// Fused, the last contribution is added where the gradient is computed: with the bits of separate operators, also where
/// the residual has no gradient, where the sum is asked for, and where two contributions come at once.
#[test]
fn contributions_that_wait_for_their_operator_are_added_in_order() {
    let values =
        |scale: f32| (0..24).map(|k| scale * ((k * 7 + 3) % 23 - 10) as f32 / 9.0).collect::<Vec<_>>();
    let images = |scale: f32| Array::new([2, 2, 2, 3], &values(scale)).unwrap();
    let run = |fused: bool, residual: &Tensor, uses: usize, (squared, asked): (bool, bool)| {
        let (x, gamma, beta) = (Tensor::variable(images(1.0)), variable(&[0.7, 1.3]), variable(&[0.1, -0.2]));
        let y = if fused {
            x.batch_norm2d_add_relu(&gamma, &beta, residual, 1e-5).unwrap().0
        } else {
            let (z, _) = x.batch_norm2d(&gamma, &beta, 1e-5).unwrap();
            z.add(residual).unwrap().relu().unwrap()
        };
        let factor = |k: usize| Tensor::constant(images([1.0, 1.0e7, -1.0e7, 0.3][k]));
        let first = factor(0);
        let mut sum = y.mul(if squared { &y } else { &first }).unwrap();
        for k in 1..uses {
            sum = sum.add(&y.mul(&factor(k)).unwrap()).unwrap();
        }
        let also = if asked { vec![&y] } else { Vec::new() };
        let adjoints = sum.backward_from(ones(&sum), &also).unwrap();
        let bits =
            |t: &Tensor| adjoints.of(t).map(|a| a.data().iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        [bits(&x), bits(&gamma), bits(&beta), bits(residual), bits(&y)]
    };
    for residual in [Tensor::variable(images(0.5)), Tensor::constant(images(0.5))] {
        for uses in 1..=4 {
            for how in [(false, false), (false, true), (true, false), (true, true)] {
                let apart = run(false, &residual, uses, how);
                assert!(apart[0].is_some() && apart[4].is_some() == how.1);
                assert_eq!(
                    run(true, &residual, uses, how),
                    apart,
                    "{uses} uses, squared, asked for: {how:?}"
                );
            }
        }
    }
}

/// The end of a residual block; it counts the sums that it takes itself.
#[derive(Debug)]
struct Counting(BatchNorm2dAddRelu, Arc<AtomicUsize>);

impl Primitive for Counting {
    fn name(&self) -> &'static str {
        Primitive::name(&self.0)
    }
    fn saves(&self) -> Saves {
        Primitive::saves(&self.0)
    }
    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        Primitive::shape(&self.0, x)
    }
    fn forward(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        Primitive::forward(&self.0, cpu, x, y);
    }
    fn vjp(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        Primitive::vjp(&self.0, cpu, saved, dy, dx);
    }
    fn over(&self) -> Option<usize> {
        Primitive::over(&self.0)
    }
    fn vjp_over(&self, cpu: &Cpu, saved: &Saved<f32>, dy: &mut [f32], dx: &mut [Slot<f32>]) {
        Primitive::vjp_over(&self.0, cpu, saved, dy, dx);
    }
    fn is_over_sum(&self) -> bool {
        Primitive::is_over_sum(&self.0)
    }
    fn vjp_over_sum(
        &self,
        cpu: &Cpu,
        saved: &Saved<f32>,
        dy: &mut [f32],
        more: &[f32],
        dx: &mut [Slot<f32>],
    ) {
        self.1.fetch_add(1, Relaxed);
        Primitive::vjp_over_sum(&self.0, cpu, saved, dy, more, dx);
    }
    fn is_differentiable(&self, k: usize) -> bool {
        Primitive::is_differentiable(&self.0, k)
    }
    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Primitive::onnx(&self.0, graph, x)
    }
}

/// No bit shows whether a schedule is used. Weights are older than the values of a network, so what comes to them while a
/// contribution to a block's end waits is passed later.
#[test]
fn the_ends_of_residual_blocks_add_their_contributions_themselves() {
    let sums = Arc::new(AtomicUsize::new(0));
    let x = Tensor::variable(Array::full([2, 2, 2, 3], 0.5));
    let weights =
        || (Tensor::variable(Array::full([2, 2, 1, 1], 0.3)), variable(&[1.0, 0.9]), variable(&[0.1, 0.2]));
    let mut y = x;
    for (filter, gamma, beta) in [weights(), weights(), weights(), weights()] {
        let z = y.conv2d(&filter, None, Conv2d::default()).unwrap();
        let end = Counting(BatchNorm2dAddRelu { eps: 1e-5 }, Arc::clone(&sums));
        (y, _) = apply_primitive(Arc::new(end), &[&z, &gamma, &beta, &y]).unwrap();
    }
    y.backward_from(ones(&y), &[]).unwrap();
    // Of the last one's value there is one use.
    assert_eq!(sums.load(Relaxed), 3);
}

/// A value that is its own residual, and has another use: three contributions, in the order of the parts.
#[test]
fn fused_operators_hand_on_what_their_parts_do_in_the_same_order() {
    let run = |fused: bool, factor: f32| {
        let x = Tensor::variable(Array::new([1, 1, 1, 4], &[1.0, 2.0, 4.0, 7.0]).unwrap());
        let (gamma, beta) = (variable(&[1.3]), variable(&[0.2]));
        let y = match fused {
            true => x.batch_norm2d_add_relu(&gamma, &beta, &x, 1e-5).unwrap().0,
            false => x.batch_norm2d(&gamma, &beta, 1e-5).unwrap().0.add(&x).unwrap().relu().unwrap(),
        };
        let other = Tensor::constant(Array::full([1, 1, 1, 4], factor));
        let sum = y.add(&x.mul(&other).unwrap()).unwrap();
        let dy = Array::new([1, 1, 1, 4], &[1.1, 0.7, -0.9, 3.3]).unwrap();
        let adjoints = sum.backward_from(dy, &[]).unwrap();
        adjoints.of(&x).unwrap().data().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    for factor in 1..=50 {
        assert_eq!(run(true, factor as f32 / 10.0), run(false, factor as f32 / 10.0), "factor {factor}/10");
    }
}

#[test]
fn adjoints_of_inner_values_come_on_request() {
    let a = variable(&[1.0, -2.0]);
    let inner = a.add(&a).unwrap();
    let y = inner.relu().unwrap();
    let adjoints = y.backward_from(ones(&y), &[&inner]).unwrap();
    assert_eq!(adjoints.of(&inner).unwrap().data(), [1.0, 0.0]);
    assert_eq!(adjoints.of(&a).unwrap().data(), [2.0, 0.0]);
}

/// A body that uses a variable it captured, which is used outside as well: the order of the sum matters.
#[test]
fn a_checkpoint_changes_no_bit() {
    let run = |with_checkpoint: bool| {
        let a = variable(&[1.0e-4, 0.1, 3.0]);
        let b = variable(&[0.3, 1.0e7, -0.7]);
        let captured = b.clone();
        let body = move |x: &[Tensor]| -> Result<Tensor, ShapeError> {
            let u = x[0].add(&captured)?.relu()?;
            u.add(&captured)?.add(&x[0])
        };
        let input = a.add(&b).unwrap();
        let inner = if with_checkpoint {
            checkpoint(&[&input], body).unwrap()
        } else {
            body(std::slice::from_ref(&input)).unwrap()
        };
        let y = inner.add(&b).unwrap();
        let cotangent = Array::new([3], &[0.1, 1.0e-9, 7.7]).unwrap();
        let adjoints = y.backward_from(cotangent, &[]).unwrap();
        let bits =
            |t: &Tensor| adjoints.of(t).unwrap().data().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        (bits(&a), bits(&b), y.data().to_vec())
    };
    assert_eq!(run(true), run(false));
}

/// Two convolutions with a normalization between them, of which nothing but the first convolution is kept.
#[test]
fn what_is_recomputed_has_the_same_bits_and_is_not_kept() {
    let run = |recompute: bool| {
        let numbers = |shape: [usize; 4], factor: usize| {
            let values: Vec<f32> =
                (0..shape.iter().product()).map(|k| ((k * factor) % 23) as f32 / 7.0 - 1.5).collect();
            Tensor::variable(Array::new(shape, &values).unwrap())
        };
        let (x, w, v) = (numbers([2, 3, 5, 4], 5), numbers([4, 3, 1, 1], 7), numbers([2, 4, 1, 1], 11));
        let vector = |value: f32| Tensor::variable(Array::full([4], value));
        let (gamma, beta) = (vector(1.5), vector(-0.25));
        let again = |tensor: Tensor| if recompute { tensor.recomputed() } else { tensor };
        let first = x.conv2d(&w, None, Conv2d::default()).unwrap();
        let middle = again(first.batch_norm2d_relu(&gamma, &beta, 1e-5).unwrap().0);
        let second = again(middle.conv2d(&v, None, Conv2d::default()).unwrap());
        let value = Arc::downgrade(middle.value());
        drop(middle);
        assert_eq!(value.upgrade().is_none(), recompute);
        let y = second.mul(&second).unwrap();
        drop(second);
        let adjoints = y.backward_from(ones(&y), &[]).unwrap();
        [&x, &w, &v, &gamma, &beta]
            .map(|t| adjoints.of(t).unwrap().data().iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn what_cannot_be_computed_again_is_kept() {
    let a = variable(&[1.0, -2.0]);
    let y = a.relu().unwrap().recomputed().mul(&a).unwrap();
    assert_eq!(y.backward_from(ones(&y), &[]).unwrap().of(&a).unwrap().data(), [2.0, 0.0]);
    assert_eq!(a.clone().recomputed().mul(&a).unwrap().data(), [1.0, 4.0]);
}

/// A chain of 100 000 links, each from a variable and the value before it, whose derivatives are all 1.
fn is_walked_and_dropped(link: impl Fn(&Tensor, &Tensor) -> Tensor) {
    let a = Tensor::variable(Array::scalar(1.0));
    let chain = || (0..100_000).fold(a.clone(), |y, _| link(&a, &y));
    assert_eq!(chain().backward().unwrap().of(&a).unwrap().data(), [100_001.0]);
    drop(chain());
}

#[test]
fn a_long_chain_of_recomputed_values_is_walked_and_dropped() {
    is_walked_and_dropped(|a, y| y.mul(a).unwrap().recomputed());
}

#[test]
fn a_long_chain_of_captured_checkpoints_is_walked_and_dropped() {
    is_walked_and_dropped(|a, y| {
        let captured = y.clone();
        checkpoint(&[a], move |x| x[0].add(&captured)).unwrap()
    });
}

#[test]
fn a_body_that_returns_its_input_is_no_special_case() {
    let a = variable(&[1.0, 2.0]);
    let y = checkpoint(&[&a], |x| Ok(x[0].clone())).unwrap().add(&a).unwrap();
    let adjoints = y.backward_from(ones(&y), &[]).unwrap();
    assert_eq!(adjoints.of(&a).unwrap().data(), [2.0, 2.0]);
}

#[test]
fn two_hundred_thousand_nodes_are_walked_and_dropped() {
    let a = Tensor::variable(Array::scalar(1.0));
    let mut y = a.clone();
    for _ in 0..200_000 {
        y = y.relu().unwrap();
    }
    assert_eq!(y.backward().unwrap().of(&a).unwrap().data(), [1.0]);
    drop(y);
}

#[test]
fn what_needs_no_gradient_is_not_recorded() {
    let x = Tensor::constant(Array::scalar(1.0));
    assert!(x.add(&x).unwrap().node().is_none());
    let v = Tensor::variable(Array::scalar(1.0));
    assert!(v.add(&x).unwrap().node().is_some());
    assert!(v.detach().add(&x).unwrap().node().is_none());
}

#[test]
fn errors_say_what_is_wrong() {
    let constant = Tensor::constant(Array::scalar(1.0));
    assert_eq!(constant.backward().unwrap_err(), BackwardError::NotRecorded);
    let v = variable(&[1.0, 2.0]);
    assert_eq!(v.backward().unwrap_err(), BackwardError::NotScalar(Shape::from([2])));
    let wrong = v.backward_from(Array::scalar(1.0), &[]).unwrap_err();
    assert!(matches!(wrong, BackwardError::Cotangent { .. }));
    let y = Tensor::variable(Array::scalar(1.0)).relu().unwrap();
    y.backward().unwrap();
    assert_eq!(y.backward().unwrap_err(), BackwardError::Freed("relu"));
    let mismatch = v.add(&variable(&[1.0, 2.0, 3.0])).unwrap_err();
    assert!(mismatch.to_string().contains("[2] and [3]"), "{mismatch}");
}
