//! Softmax and its logarithm equal their definitions bit for bit.

mod common;

use common::{Odd, Random, assert_same, cpus};
use kinone_kernels::Cpu;
use kinone_kernels::rows::{self, reference};

fn shapes(random: &mut Random) -> Vec<[usize; 3]> {
    let mut shapes: Vec<[usize; 3]> = (0..24).map(|_| [0; 3].map(|_| random.between(1, 20))).collect();
    shapes.extend((0..24).map(|_| [random.between(1, 67), random.between(1, 67), 1]));
    shapes.extend([[3, 9000, 1], [1, 4097, 3], [900, 15, 1], [0, 3, 2], [3, 0, 2], [3, 2, 0]]);
    shapes
}

fn values(random: &mut Random, case: usize, len: usize) -> Odd {
    match case % 3 {
        0 => random.hostile(len, case.is_multiple_of(2)),
        _ => random.values(len),
    }
}

type Map<'a> = &'a dyn Fn(&[f32], &mut [f32]);
type FastMap<'a> = &'a dyn Fn(&Cpu, &[f32], &mut [f32]);

fn check(cpus: &[Cpu], x: &[f32], what: &str, definition: Map, kernel: FastMap) {
    let mut wanted = Odd::poisoned(x.len());
    definition(x, &mut wanted);
    for cpu in cpus {
        let mut got = Odd::poisoned(x.len());
        kernel(cpu, x, &mut got);
        assert_same(&got, &wanted, &format!("{what}, {cpu:?}"));
    }
}

#[test]
fn kernels_equal_their_definitions() {
    let mut random = Random(1);
    let cpus = cpus();
    for (case, shape) in shapes(&mut random).into_iter().enumerate() {
        let [o, n, i] = shape;
        let (x, dy) = (values(&mut random, case, o * n * i), values(&mut random, case, o * n * i));
        check(
            &cpus,
            &x,
            &format!("softmax of {shape:?}"),
            &|x, y| reference::softmax(o, n, i, x, y),
            &|cpu, x, y| rows::softmax(cpu, o, n, i, x, y),
        );
        check(
            &cpus,
            &x,
            &format!("log-softmax of {shape:?}"),
            &|x, y| reference::log_softmax(o, n, i, x, y),
            &|cpu, x, y| rows::log_softmax(cpu, o, n, i, x, y),
        );
        check(
            &cpus,
            &x,
            &format!("gradient of the softmax of {shape:?}"),
            &|y, dx| reference::softmax_backward(o, n, i, y, &dy, dx),
            &|cpu, y, dx| rows::softmax_backward(cpu, o, n, i, y, &dy, dx),
        );
        check(
            &cpus,
            &x,
            &format!("gradient of the log-softmax of {shape:?}"),
            &|y, dx| reference::log_softmax_backward(o, n, i, y, &dy, dx),
            &|cpu, y, dx| rows::log_softmax_backward(cpu, o, n, i, y, &dy, dx),
        );
    }
}

#[test]
fn the_sum_of_a_long_fibre_is_a_tree_of_leaves() {
    // With y = 0 the gradient is dy - Σ dy; the huge terms swallow whatever meets one of them alone.
    for (leaves, huge, sum) in [(3, 0, 1.0), (4, 1, 0.0)] {
        let mut dy = vec![0.0; leaves * 4096];
        (dy[huge * 4096], dy[(huge + 1) * 4096]) = (3.0e38, -3.0e38);
        dy[leaves * 4096 - 1] = 1.0;
        for cpu in cpus() {
            let mut dx = vec![f32::NAN; dy.len()];
            rows::log_softmax_backward(&cpu, 1, dy.len(), 1, &vec![0.0; dy.len()], &dy, &mut dx);
            assert_eq!(dx[1], -sum, "{leaves} leaves, {cpu:?}");
        }
    }
}

#[test]
fn large_values_do_not_overflow_and_equal_ones_share() {
    let mut y = [0.0; 4];
    reference::softmax(1, 4, 1, &[3.0e38; 4], &mut y);
    assert_eq!(y, [0.25; 4]);
    reference::softmax(1, 4, 1, &[0.0, -3.0e38, f32::NEG_INFINITY, 0.0], &mut y);
    assert_eq!(y, [0.5, 0.0, 0.0, 0.5]);
    reference::log_softmax(1, 1, 4, &[-7.0; 4], &mut y);
    assert_eq!(y, [0.0; 4]);
}

#[test]
fn nan_and_infinity_become_nan() {
    for x in [[0.0, f32::NAN], [1.0, f32::INFINITY], [f32::NEG_INFINITY; 2]] {
        let mut y = [0.0; 2];
        reference::softmax(1, 2, 1, &x, &mut y);
        assert!(y.iter().all(|y| y.is_nan()), "softmax of {x:?}");
        reference::log_softmax(1, 2, 1, &x, &mut y);
        assert!(y.iter().all(|y| y.is_nan()), "log-softmax of {x:?}");
    }
}
