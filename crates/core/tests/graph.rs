//! The graph: many uses, checkpoints, deep chains, and the errors of backward.

use kinone_core::array::Array;
use kinone_core::graph::{BackwardError, checkpoint};
use kinone_core::shape::{Shape, ShapeError};
use kinone_core::tensor::Tensor;

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
