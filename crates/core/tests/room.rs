//! What a walk back holds at most. In a file of its own: the peak is that of the process.

use kinone_core::array::Array;
use kinone_core::tensor::Tensor;
use kinone_kernels::memory::peak_during;

const SHAPE: [usize; 4] = [8, 8, 64, 64];

/// Two uses of a block's end. The second contribution could wait for the end's operator to add it; but then it would
/// take room while values of another branch are computed again.
#[test]
fn no_contribution_waits_while_other_values_are_computed() {
    let full = |value: f32| Array::full(SHAPE, value);
    let vector = |value: f32| Tensor::constant(Array::full([8], value));
    let (x, factor) = (Tensor::variable(full(0.5)), Tensor::constant(full(2.0)));
    let (gamma, beta, residual) = (vector(0.3), vector(0.1), Tensor::variable(full(0.7)));
    let (end, _) = x.batch_norm2d_add_relu(&gamma, &beta, &residual, 1e-5).unwrap();
    let mut side = x.mul(&factor).unwrap();
    for _ in 0..3 {
        side = side.mul(&side).unwrap().recomputed();
    }
    let sum = side.mul(&side).unwrap();
    drop(side);
    let twice = end.mul(&factor).unwrap().add(&end.mul(&factor).unwrap()).unwrap();
    let sum = sum.add(&twice).unwrap();
    drop(twice);
    let cotangent = full(1.0);
    let peak = peak_during(|| drop(sum.backward_from(cotangent, &[]).unwrap()));
    // Ten arrays where it waits.
    assert_eq!(peak / (size_of::<f32>() * SHAPE.iter().product::<usize>()), 9);
}
