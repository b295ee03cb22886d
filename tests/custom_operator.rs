//! The example of an operator from outside proves itself, and computes what it says.

#[path = "../examples/custom_operator.rs"]
#[allow(dead_code, reason = "the example's main is not called")]
mod example;

use kinone::core::array::Array;
use kinone::core::tensor::{Tensor, apply};

#[test]
fn an_operator_from_outside_gets_the_same_proof() {
    let proof = example::proof();
    assert!(proof.holds(), "{proof:#?}");
    assert!(proof.eps_rel.is_some() && proof.adjoint_error.is_some() && proof.rounding_fraction.is_some());
}

#[test]
fn an_operator_from_outside_works_in_the_graph() {
    let x = Tensor::variable(Array::scalar(1.0));
    let y = apply(example::Softsign, &[&x]).unwrap().square().unwrap();
    // y = 1/4, and its slope 2·(1/2)·(1/4).
    assert_eq!(y.item(), Some(0.25));
    assert_eq!(y.backward().unwrap().of(&x).unwrap().data(), [0.25]);
}
