//! What a walk back holds at most, in arrays of one size. In a file of its own, of one test: the peak is that of the
//! process.

use kinone_core::array::Array;
use kinone_core::ops::AdaptiveAvgPool2d;
use kinone_core::tensor::{Tensor, apply};
use kinone_kernels::memory::peak_during;

const SHAPE: [usize; 4] = [8, 8, 64, 64];

fn full(value: f32) -> Array {
    Array::full(SHAPE, value)
}

fn vector(value: f32) -> Tensor {
    Tensor::constant(Array::full([8], value))
}

/// The end of a residual block, whose operator can add two contributions itself.
fn end(x: &Tensor, residual: &Tensor) -> Tensor {
    x.batch_norm2d_add_relu(&vector(0.3), &vector(0.1), residual, 1e-5).unwrap().0
}

/// The mean of each plane, twice: two contributions to `x`, and no array of its size before.
fn two_uses(x: &Tensor) -> Tensor {
    let mean = || apply(AdaptiveAvgPool2d { cells: (1, 1) }, &[x]).unwrap();
    mean().add(&mean()).unwrap()
}

/// Arrays held at once while the walk goes back from `y`.
fn arrays(y: &Tensor) -> f64 {
    let cotangent = Array::full(y.shape().clone(), 1.0);
    let peak = peak_during(|| drop(y.backward_from(cotangent, &[]).unwrap()));
    // Besides them some means come and go.
    (peak as f64 / full(0.0).view().data().len() as f64 / size_of::<f32>() as f64).round()
}

#[test]
fn a_walk_holds_no_more_than_it_needs() {
    let x = Tensor::variable(full(0.5));
    let factor = Tensor::constant(full(2.0));
    let (variable, constant) = (Tensor::variable(full(0.7)), Tensor::constant(full(0.7)));

    // A contribution could wait for the end's operator; but then it would take room, the seventh array, while values of
    // another branch are computed again.
    let end_of_variable = end(&x, &variable);
    let mut side = x.mul(&factor).unwrap();
    for _ in 0..3 {
        side = side.mul(&side).unwrap().recomputed();
    }
    let sum = side.mul(&side).unwrap();
    drop(side);
    let twice = end_of_variable.mul(&factor).unwrap().add(&end_of_variable.mul(&factor).unwrap()).unwrap();
    let sum = sum.add(&twice).unwrap();
    drop((twice, end_of_variable));
    assert_eq!(arrays(&sum), 6.0);

    // A residual that wants no gradient: nothing is written over the sum, which is added before there is another array.
    assert_eq!(arrays(&two_uses(&end(&x, &variable))), 3.0);
    assert_eq!(arrays(&two_uses(&end(&x, &constant))), 2.0);

    // What the end itself needs is computed again: the fifth array would be what waits.
    let mut inside = x.batch_norm2d_relu(&vector(0.3), &vector(0.2), 1e-5).unwrap().0.recomputed();
    inside = inside.mul(&inside).unwrap().recomputed();
    let y = two_uses(&end(&inside, &variable));
    drop(inside);
    assert_eq!(arrays(&y), 4.0);

    // A value that is computed again for two inputs of an operator is computed once.
    let product = |same: bool| {
        let s = x.mul(&x).unwrap().recomputed();
        s.mul(if same { &s } else { &factor }).unwrap()
    };
    assert_eq!(arrays(&product(false)), 2.0);
    assert_eq!(arrays(&product(true)), 3.0);
}
