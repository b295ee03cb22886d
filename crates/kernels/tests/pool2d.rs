//! Pooling equals its definition bit for bit.

mod common;

use common::{Odd, Random, assert_same, cpus};
use kinone_kernels::pool2d::{self, Pool, reference, windows};

/// Windows of all kinds, some of them wholly in the padding; every fourth for several threads.
fn pools(random: &mut Random, dilated: bool) -> Vec<Pool> {
    let mut pools = Vec::new();
    while pools.len() < 60 {
        let large = pools.len().is_multiple_of(4);
        let planes = if large { random.between(20, 60) } else { random.between(1, 5) };
        let input = [0; 2].map(|_| if large { random.between(20, 40) } else { random.between(1, 67) });
        let [kernel, stride, dilation] = [4, 3, if dilated { 3 } else { 1 }].map(|most| {
            let rows = random.between(1, most);
            [rows, if large { rows } else { random.between(1, most) }]
        });
        let padding = kernel.map(|k| random.between(0, k));
        let ceil = random.between(0, 1) == 1;
        let count = |a: usize| windows(input[a], kernel[a], stride[a], padding[a], dilation[a], ceil);
        if let (Some(oh), Some(ow)) = (count(0), count(1)) {
            pools.push(Pool { planes, input, output: [oh, ow], kernel, stride, padding, dilation });
        }
    }
    // One window, of all pixels: as many residues to the stride as pixels.
    let whole = |size: usize, stride: usize| Pool {
        planes: 2,
        input: [size; 2],
        output: [1; 2],
        kernel: [size; 2],
        stride: [stride; 2],
        padding: [0; 2],
        dilation: [1; 2],
    };
    pools.extend([whole(112, 112), whole(7, 1000)]);
    pools.push(Pool { planes: 0, ..pools[0] });
    pools
}

fn values(random: &mut Random, case: usize, len: usize) -> Odd {
    match case % 3 {
        0 => random.hostile(len, case.is_multiple_of(2)),
        _ => random.values(len),
    }
}

fn sizes(pool: &Pool) -> (usize, usize) {
    (pool.planes * pool.input[0] * pool.input[1], pool.planes * pool.output[0] * pool.output[1])
}

#[test]
fn the_greatest_value_equals_its_definition() {
    let mut random = Random(1);
    let cpus = cpus();
    for (case, pool) in pools(&mut random, true).into_iter().enumerate() {
        let (inputs, outputs) = sizes(&pool);
        let (mut x, dy) = (values(&mut random, case, inputs), values(&mut random, case, outputs));
        if case % 3 == 1 {
            // Few different values, so that windows have ties.
            x.iter_mut().for_each(|x| *x = x.signum() * f32::from(x.abs() > 0.01));
        }
        if case % 6 == 5 {
            // No tap is greater than where the search begins.
            x.fill(f32::NEG_INFINITY);
        }
        let (mut y, mut winner) = (Odd::poisoned(outputs), Odd::poisoned(outputs));
        let mut dx = Odd::poisoned(inputs);
        reference::max(&pool, &x, &mut y, &mut winner);
        reference::max_backward(&pool, &winner, &dy, &mut dx);
        for cpu in &cpus {
            let what = format!("{pool:?}, {cpu:?}");
            let (mut got_y, mut got_winner) = (Odd::poisoned(outputs), Odd::poisoned(outputs));
            let mut got_dx = Odd::poisoned(inputs);
            pool2d::max(cpu, &pool, &x, &mut got_y, &mut got_winner);
            assert_same(&got_y, &y, &what);
            assert_same(&got_winner, &winner, &what);
            pool2d::max_backward(cpu, &pool, &winner, &dy, &mut got_dx);
            assert_same(&got_dx, &dx, &what);
        }
    }
}

#[test]
fn means_equal_their_definition() {
    let mut random = Random(2);
    let cpus = cpus();
    for (case, pool) in pools(&mut random, false).into_iter().enumerate() {
        let (inputs, outputs) = sizes(&pool);
        let (x, dy) = (values(&mut random, case, inputs), values(&mut random, case, outputs));
        for include_padding in [false, true] {
            let (mut y, mut dx) = (Odd::poisoned(outputs), Odd::poisoned(inputs));
            reference::average(&pool, include_padding, &x, &mut y);
            reference::average_backward(&pool, include_padding, &dy, &mut dx);
            for cpu in &cpus {
                let what = format!("{pool:?}, padding {include_padding}, {cpu:?}");
                let (mut got_y, mut got_dx) = (Odd::poisoned(outputs), Odd::poisoned(inputs));
                pool2d::average(cpu, &pool, include_padding, &x, &mut got_y);
                assert_same(&got_y, &y, &what);
                pool2d::average_backward(cpu, &pool, include_padding, &dy, &mut got_dx);
                assert_same(&got_dx, &dx, &what);
            }
        }
    }
}

#[test]
fn adaptive_means_equal_their_definition() {
    let mut random = Random(3);
    let cpus = cpus();
    let mut shapes: Vec<(usize, [usize; 2], [usize; 2])> = (0..40)
        .map(|_| {
            let input = [0; 2].map(|_| random.between(1, 30));
            (random.between(1, 6), input, [0; 2].map(|_| random.between(1, 9)))
        })
        .collect();
    shapes.extend([
        (700, [7, 7], [1, 1]),
        (3, [67, 80], [1, 1]),
        (2, [7, 9], [7, 9]),
        (90, [30, 31], [3, 2]),
    ]);
    shapes.extend([(0, [3, 3], [1, 1]), (50, [5, 3], [1, 1]), (2, [3, 3], [0, 1])]);
    for (case, (planes, input, output)) in shapes.into_iter().enumerate() {
        let (inputs, outputs) = (planes * input[0] * input[1], planes * output[0] * output[1]);
        let (x, dy) = (values(&mut random, case, inputs), values(&mut random, case, outputs));
        let (mut y, mut dx) = (Odd::poisoned(outputs), Odd::poisoned(inputs));
        reference::adaptive_average(planes, input, output, &x, &mut y);
        reference::adaptive_average_backward(planes, input, output, &dy, &mut dx);
        for cpu in &cpus {
            let what = format!("{planes} planes {input:?} to {output:?}, {cpu:?}");
            let (mut got_y, mut got_dx) = (Odd::poisoned(outputs), Odd::poisoned(inputs));
            pool2d::adaptive_average(cpu, planes, input, output, &x, &mut got_y);
            assert_same(&got_y, &y, &what);
            pool2d::adaptive_average_backward(cpu, planes, input, output, &dy, &mut got_dx);
            assert_same(&got_dx, &dx, &what);
        }
    }
}

/// One plane of one row.
fn row(width: usize, kernel: usize, stride: usize, padding: usize) -> Pool {
    let output = windows(width, kernel, stride, padding, 1, false).unwrap();
    Pool {
        planes: 1,
        input: [1, width],
        output: [1, output],
        kernel: [1, kernel],
        stride: [1, stride],
        padding: [0, padding],
        dilation: [1, 1],
    }
}

#[test]
fn of_equal_values_the_first_wins_and_nan_is_kept() {
    let greatest = |x: &[f32]| {
        let (mut y, mut winner) = ([9.0], [9.0]);
        reference::max(&row(x.len(), x.len(), 1, 0), x, &mut y, &mut winner);
        (y[0], winner[0])
    };
    assert_eq!(greatest(&[1.0, 2.0, 2.0]), (2.0, 1.0));
    assert_eq!(greatest(&[f32::NEG_INFINITY; 2]), (f32::NEG_INFINITY, 0.0));
    let (y, winner) = greatest(&[-0.0, 0.0]);
    assert_eq!((y.to_bits(), winner), ((-0.0f32).to_bits(), 0.0));
    let (y, winner) = greatest(&[1.0, f32::NAN, 3.0, f32::NAN]);
    assert!(y.is_nan());
    assert_eq!(winner, 1.0);
}

#[test]
fn a_mean_divides_by_the_taps_it_counts() {
    let mut y = [0.0; 2];
    reference::average(&row(3, 3, 2, 1), true, &[3.0, 6.0, 9.0], &mut y);
    assert_eq!(y, [3.0, 5.0]);
    reference::average(&row(3, 3, 2, 1), false, &[3.0, 6.0, 9.0], &mut y);
    assert_eq!(y, [4.5, 7.5]);
}

#[test]
fn the_number_of_windows() {
    assert_eq!(windows(112, 3, 2, 1, 1, false), Some(56));
    assert_eq!(windows(112, 3, 2, 1, 1, true), Some(57));
    assert_eq!(windows(4, 2, 3, 1, 1, true), Some(2));
    assert_eq!(windows(7, 7, 1, 0, 1, false), Some(1));
    assert_eq!(windows(5, 3, 1, 0, 2, false), Some(1));
    assert_eq!(windows(4, 3, 1, 0, 2, false), None);
    assert_eq!(windows(4, 0, 1, 0, 1, false), None);
    assert_eq!(windows(4, 1, 0, 0, 1, false), None);
}
