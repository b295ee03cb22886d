//! Batch normalization equals its definition bit for bit.

mod common;

use common::{Odd, Random, assert_same, cpus};
use kinone_kernels::norm::{self, Channels, Gradients, reference};
use kinone_kernels::sums::Images;

fn shapes(random: &mut Random) -> Vec<Images> {
    let mut shapes: Vec<[usize; 4]> = (0..25)
        .map(|_| [random.between(1, 9), random.between(1, 12), random.between(1, 20), random.between(1, 20)])
        .collect();
    shapes.extend([[1, 3, 67, 67], [17, 5, 1, 1], [9, 67, 7, 7], [2, 0, 3, 3], [3, 2, 0, 4]]);
    // Enough for several threads.
    shapes.extend([[5, 7, 43, 41], [40, 67, 5, 5]]);
    shapes.into_iter().map(|[n, c, h, w]| Images { n, c, h, w }).collect()
}

fn values(random: &mut Random, case: usize, len: usize) -> Odd {
    match case % 3 {
        0 => random.hostile(len, case.is_multiple_of(2)),
        _ => random.values(len),
    }
}

const EPS: f32 = 1.0e-5;

#[test]
fn forward_equals_its_definition() {
    let mut random = Random(1);
    let cpus = cpus();
    for (case, shape) in shapes(&mut random).into_iter().enumerate() {
        let x = values(&mut random, case, shape.len());
        let (gamma, beta) = (random.values(shape.c), random.values(shape.c));
        let mut w: [Odd; 4] = [shape.len(), shape.c, shape.c, shape.c].map(Odd::poisoned);
        let [y, mean, var, invstd] = &mut w;
        reference::train_forward(shape, &x, &gamma, &beta, EPS, y, mean, var, invstd);
        let mut eval = Odd::poisoned(shape.len());
        reference::eval_forward(shape, &x, &beta, &w[2], &gamma, &beta, EPS, &mut eval);
        for cpu in &cpus {
            let what = format!("{shape:?}, {cpu:?}");
            let mut g: [Odd; 4] = [shape.len(), shape.c, shape.c, shape.c].map(Odd::poisoned);
            let [y, mean, var, invstd] = &mut g;
            norm::train_forward(cpu, shape, &x, &gamma, &beta, EPS, y, mean, var, invstd);
            for (got, wanted) in g.iter().zip(&w) {
                assert_same(got, wanted, &what);
            }
            let mut got = Odd::poisoned(shape.len());
            norm::eval_forward(cpu, shape, &x, &beta, &w[2], &gamma, &beta, EPS, &mut got);
            assert_same(&got, &eval, &what);
        }
    }
}

type Backward<'a> = &'a dyn Fn(Gradients);

#[test]
fn backward_equals_its_definition_whatever_is_wanted() {
    let mut random = Random(2);
    let cpus = cpus();
    for (case, shape) in shapes(&mut random).into_iter().enumerate() {
        let (x, dy) = (values(&mut random, case, shape.len()), values(&mut random, case, shape.len()));
        let [mean, invstd, gamma] = [0; 3].map(|_| random.values(shape.c));
        let channels = Channels { mean: &mean, invstd: &invstd, gamma: &gamma };
        let run = |wanted: usize, backward: Backward| {
            let mut out = [shape.len(), shape.c, shape.c].map(Odd::poisoned);
            let [dx, dgamma, dbeta] = &mut out;
            backward(Gradients {
                dx: (wanted & 1 != 0).then_some(dx),
                dgamma: (wanted & 2 != 0).then_some(dgamma),
                dbeta: (wanted & 4 != 0).then_some(dbeta),
            });
            out
        };
        for wanted in [1, 2, 4, 7] {
            let train = run(wanted, &|g| reference::train_backward(shape, &x, &dy, channels, g));
            let eval = run(wanted, &|g| reference::eval_backward(shape, &x, &dy, channels, g));
            for cpu in &cpus {
                let what = format!("{shape:?}, {cpu:?}, wanted {wanted}");
                let got = run(wanted, &|g| norm::train_backward(cpu, shape, &x, &dy, channels, g));
                got.iter().zip(&train).for_each(|(got, wanted)| assert_same(got, wanted, &what));
                let got = run(wanted, &|g| norm::eval_backward(cpu, shape, &x, &dy, channels, g));
                got.iter().zip(&eval).for_each(|(got, wanted)| assert_same(got, wanted, &what));
            }
        }
    }
}

#[test]
fn a_constant_channel_has_zero_variance_and_gives_beta() {
    let shape = Images { n: 3, c: 1, h: 5, w: 7 };
    for cpu in cpus() {
        let mut out: [Odd; 4] = [shape.len(), 1, 1, 1].map(Odd::poisoned);
        let [y, mean, var, invstd] = &mut out;
        norm::train_forward(&cpu, shape, &[0.5; 105], &[1.0], &[0.25], EPS, y, mean, var, invstd);
        assert_eq!((out[1][0], out[2][0].to_bits()), (0.5, 0));
        assert_same(&out[0], &[0.25; 105], "y");
    }
}

#[test]
fn a_variance_is_never_negative_and_keeps_nan() {
    assert_eq!(norm::variance(1.0, 1.0, 1.1).to_bits(), 0);
    assert!(norm::variance(f64::NAN, 1.0, 0.0).is_nan());
}
