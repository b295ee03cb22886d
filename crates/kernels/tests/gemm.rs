//! Matrix products equal their definition bit for bit.

mod common;

use common::{Odd, Random, assert_same, bits, cpus};
use kinone_kernels::gemm::{Extents, Matrix, multiply_in_leaves, multiply_matrices, reference};
use kinone_kernels::memory::set_poison;

/// Compares both kernels with their definitions, on every instruction set and number of threads.
fn check(extents: Extents, leaf: usize, left: Matrix, right: Matrix, shift: usize) {
    let len = extents.m * extents.n;
    let (mut chain, mut leaves) = (Odd::poisoned(len), Odd::poisoned(len));
    reference::multiply(extents, left, right, &mut chain);
    reference::multiply_in_leaves(extents, leaf, left, right, &mut leaves);
    for cpu in cpus() {
        let what = format!("{extents:?} in leaves of {leaf}, {cpu:?}");
        let mut c = Odd::poisoned(shift + len);
        multiply_matrices(&cpu, extents, left, right, &mut c[shift..]);
        assert_same(&c[shift..], &chain, &what);
        let mut c = Odd::poisoned(shift + len);
        multiply_in_leaves(&cpu, extents, leaf, left, right, &mut c[shift..]);
        assert_same(&c[shift..], &leaves, &what);
    }
}

fn values(random: &mut Random, case: usize, len: usize) -> Odd {
    if case.is_multiple_of(3) { random.hostile(len, case.is_multiple_of(2)) } else { random.values(len) }
}

#[test]
fn products_of_all_shapes_equal_their_definition() {
    set_poison(true);
    let mut random = Random(1);
    for case in 0..60 {
        // Every tenth has more terms than a block of k, another more columns than a group of panels.
        let most = match case % 10 {
            9 => (67, 67, 1100),
            8 => (20, 500, 67),
            _ => (67, 67, 67),
        };
        let mut up_to = |most: usize| random.between(1, most);
        let (m, n, k) = (up_to(most.0), up_to(most.1), up_to(most.2));
        let (leaf, shift, gap) = (up_to(12), case % 16, up_to(3));
        let k = if case == 5 { 0 } else { k };
        let (a, b) =
            (values(&mut random, case, shift + m * k * gap), values(&mut random, case, shift + k * n));
        let (a, b) = (&a[shift..], &b[shift..]);
        let (left, right) = match case % 5 {
            0 => (Matrix::new(a, k), Matrix::new(b, n)),
            1 => (Matrix::new(a, m).transposed(), Matrix::new(b, n)),
            2 => (Matrix::new(a, k), Matrix::new(b, k).transposed()),
            3 => (Matrix::new(a, m).transposed(), Matrix::new(b, k).transposed()),
            // No stride is 1.
            _ => (Matrix { data: a, rows: k * gap, columns: gap }, Matrix { data: b, rows: 1, columns: k }),
        };
        check(Extents { m, n, k }, leaf, left, right, shift);
    }
}

#[test]
fn products_of_one_row_or_one_column_equal_their_definition() {
    let mut random = Random(2);
    for (m, n, k) in [(1, 300, 40), (300, 1, 40), (1, 1, 3000), (33, 14, 520), (2, 2, 1), (7, 193, 257)] {
        let (a, b) = (random.values(m * k), random.values(k * n));
        check(Extents { m, n, k }, 8, Matrix::new(&a, k), Matrix::new(&b, n), 3);
    }
}

#[test]
fn strides_that_lead_outside_are_refused_however_large() {
    let values = [1.0; 16];
    let far = Matrix { data: &values, rows: 1 << 61, columns: 1 << 61 };
    let near = Matrix::new(&values, 1);
    for cpu in cpus() {
        for (left, right) in [(far, near), (near, far)] {
            let extents = Extents { m: 9, n: 9, k: 1 };
            let refused = |kernel: &dyn Fn(&mut [f32])| {
                let mut c = [0.0; 81];
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| kernel(&mut c))).is_err()
            };
            assert!(refused(&|c| multiply_matrices(&cpu, extents, left, right, c)), "{cpu:?}");
            assert!(refused(&|c| multiply_in_leaves(&cpu, extents, 2, left, right, c)), "{cpu:?}");
        }
    }
}

#[test]
fn nothing_times_anything_writes_nothing_or_plus_zero() {
    for cpu in cpus() {
        for (m, n, k) in [(0, 5, 3), (5, 0, 3), (4, 20, 0)] {
            let (a, b) = (vec![-1.0; m * k], vec![1.0; k * n]);
            for leaf in [None, Some(2)] {
                let mut c = Odd::poisoned(m * n);
                let (left, right, extents) = (Matrix::new(&a, k), Matrix::new(&b, n), Extents { m, n, k });
                match leaf {
                    None => multiply_matrices(&cpu, extents, left, right, &mut c),
                    Some(leaf) => multiply_in_leaves(&cpu, extents, leaf, left, right, &mut c),
                }
                assert!(c.iter().all(|c| bits(*c) == 0), "{extents:?}, {cpu:?}: {:?}", &c[..]);
            }
        }
    }
}

/// Sums in which the order, the fused rounding and the tree each show: values worked out by hand.
#[test]
fn the_definition_adds_in_order_and_rounds_once() {
    let one = |a: &[f32], b: &[f32], leaf: Option<usize>| {
        let extents = Extents { m: 1, n: 1, k: a.len() };
        let mut c = [0.0];
        match leaf {
            None => reference::multiply(extents, Matrix::new(a, a.len()), Matrix::new(b, 1), &mut c),
            Some(leaf) => {
                reference::multiply_in_leaves(
                    extents,
                    leaf,
                    Matrix::new(a, a.len()),
                    Matrix::new(b, 1),
                    &mut c,
                );
            }
        }
        c[0]
    };
    let big = 16_777_216.0; // 2^24, where 1 is half an ulp and a tie goes to even
    let ones = [1.0; 4];
    // ((2^24 + 1) + 1) + 1 stays at 2^24; in pairs (2^24 + 1) + (1 + 1) is 2^24 + 2.
    assert_eq!(one(&[big, 1.0, 1.0, 1.0], &ones, None), big);
    assert_eq!(one(&[big, 1.0, 1.0, 1.0], &ones, Some(2)), big + 2.0);
    assert_eq!(one(&[1.0, 1.0, 1.0, big], &ones, None), big + 4.0);
    // Six leaves: ((0 1)(2 3))(4 5), not a chain.
    let six = [big, 1.0, 1.0, 1.0, 1.0, 1.0];
    assert_eq!(one(&six, &[1.0; 6], Some(1)), big + 4.0);
    // (1 + 2^-12)² - (1 + 2^-11) leaves 2^-24 only if the product is not rounded.
    let x = 1.0 + 1.0 / 4096.0;
    assert_eq!(one(&[1.0 + 1.0 / 2048.0, x], &[-1.0, x], None), 1.0 / big);
}
