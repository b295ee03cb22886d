//! Every sum equals its definition bit for bit.

mod common;

use common::{Odd, Random, assert_same, assert_same_wide, cpus, wide_bits};
use kinone_kernels::sums::{self, Images, reference};

#[test]
fn long_sums_equal_their_definition() {
    let mut random = Random(1);
    let cpus = cpus();
    let mut lengths: Vec<usize> = (0..=67).collect();
    lengths.extend([4095, 4096, 4097, 3 * 4096 + 33, 21 * 4096 + 31]);
    for len in lengths {
        for hostile in [0, 1, 2] {
            let make = |random: &mut Random| match hostile {
                0 => random.values(len),
                _ => random.hostile(len, hostile == 2),
            };
            let (a, b) = (make(&mut random), make(&mut random));
            let (wide_a, wide_b) = (|j: usize| f64::from(a[j]), |j: usize| f64::from(b[j]));
            let wanted = [
                reference::sum(len, wide_a),
                reference::sum(len, |j| wide_a(j) * wide_a(j)),
                reference::sum(len, |j| wide_a(j) * wide_b(j)),
            ];
            for cpu in &cpus {
                let got = [sums::sum(cpu, &a), sums::sum_squares(cpu, &a), sums::dot(cpu, &a, &b)];
                assert_same_wide(&got, &wanted, &format!("{len} terms, {cpu:?}"));
            }
        }
    }
}

#[test]
fn the_order_of_terms_is_seen_in_the_bits() {
    // Without it the comparisons of this file would hold for any order.
    let mut random = Random(2);
    let seen = (0..32).filter(|_| {
        let x = random.values(5000);
        let plain = x.iter().fold(0.0, |sum, x| sum + f64::from(*x));
        wide_bits(plain) != wide_bits(reference::sum(x.len(), |j| f64::from(x[j])))
    });
    assert!(seen.count() > 16);
}

#[test]
fn sums_of_nothing_and_of_negative_zeros_are_positive_zero() {
    for cpu in cpus() {
        assert_eq!(sums::sum(&cpu, &[]).to_bits(), 0);
        assert_eq!(sums::sum(&cpu, &[-0.0; 77]).to_bits(), 0);
        let mut y = Odd::poisoned(6);
        sums::sum_axis(&cpu, 2, 0, 3, &[], &mut y);
        assert_same(&y, &[0.0; 6], "an empty axis");
    }
}

#[test]
fn sums_along_an_axis_equal_their_definition() {
    let mut random = Random(3);
    let cpus = cpus();
    let mut shapes: Vec<[usize; 3]> = (0..60).map(|_| [0; 3].map(|_| random.between(1, 67))).collect();
    shapes.extend([
        [2, 9000, 1],
        [1, 4097, 65],
        [7, 8195, 5],
        [700, 3, 1],
        [1, 64, 1000],
        [0, 3, 2],
        [3, 4, 0],
    ]);
    for (case, [outer, len, inner]) in shapes.into_iter().enumerate() {
        let x = match case % 3 {
            0 => random.hostile(outer * len * inner, case % 2 == 0),
            _ => random.values(outer * len * inner),
        };
        let mut wanted = Vec::new();
        for o in 0..outer {
            for i in 0..inner {
                wanted.push(reference::sum(len, |j| f64::from(x[(o * len + j) * inner + i])));
            }
        }
        let narrow: Vec<f32> = wanted.iter().map(|wide| *wide as f32).collect();
        for cpu in &cpus {
            let what = format!("[{outer}, {len}, {inner}], {cpu:?}");
            let mut y = Odd::poisoned(outer * inner);
            sums::sum_axis(cpu, outer, len, inner, &x, &mut y);
            assert_same(&y, &narrow, &what);
            let mut wide = vec![f64::NAN; outer * inner];
            sums::sum_axis_wide(cpu, outer, len, inner, &x, &mut wide);
            assert_same_wide(&wide, &wanted, &what);
        }
    }
}

#[test]
fn channel_sums_equal_their_definition() {
    let mut random = Random(4);
    let cpus = cpus();
    let mut shapes: Vec<[usize; 4]> = (0..40)
        .map(|_| [random.between(1, 20), random.between(1, 12), random.between(1, 30), random.between(1, 30)])
        .collect();
    shapes.extend([
        [2, 3, 67, 67],
        [9, 5, 1, 1],
        [17, 2, 7, 7],
        [1, 2, 3, 5000],
        [2, 67, 112, 37],
        [0, 3, 2, 2],
    ]);
    shapes.extend([[3, 2, 0, 4], [2, 0, 3, 3]]);
    for (case, [n, c, h, w]) in shapes.into_iter().enumerate() {
        let shape = Images { n, c, h, w };
        let make = |random: &mut Random| match case % 3 {
            0 => random.hostile(shape.len(), case % 2 == 0),
            _ => random.values(shape.len()),
        };
        let (x, dy, mean) = (make(&mut random), make(&mut random), random.values(c));
        let each = |term: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..c).map(|c| reference::channel_sum(shape, c, |at| term(c, at))).collect()
        };
        let wide = |x: &[f32], at: usize| f64::from(x[at]);
        let sum_x = each(&|_, at| wide(&x, at));
        let sum_dy = each(&|_, at| wide(&dy, at));
        let centred = each(&|c, at| wide(&dy, at) * (wide(&x, at) - wide(&mean, c)));
        for cpu in &cpus {
            let what = format!("{shape:?}, {cpu:?}");
            assert_same_wide(&sums::channel_sums(cpu, shape, &x), &sum_x, &what);
            let (s, q): (Vec<f64>, Vec<f64>) =
                sums::channel_dot_sums(cpu, shape, &dy, &x, &mean).into_iter().map(|[s, q]| (s, q)).unzip();
            assert_same_wide(&s, &sum_dy, &what);
            assert_same_wide(&q, &centred, &what);
        }
    }
}

/// A size that wraps around to that of an empty slice is none.
#[test]
#[should_panic(expected = "exceed the address space")]
fn images_that_no_memory_holds_are_refused() {
    sums::channel_sums(&cpus()[0], Images { n: 1, c: 4, h: 4, w: 1 << 60 }, &[]);
}
