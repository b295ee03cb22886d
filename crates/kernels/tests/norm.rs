//! Batch normalization equals its definition bit for bit.

mod common;
#[path = "common/stem.rs"]
mod stem;

use common::{Odd, Random, assert_same, cpus};
use kinone_kernels::Cpu;
use kinone_kernels::norm::{self, Channels, Cotangent, Gradients, Mask, Then, reference};
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
        let residual = values(&mut random, case, shape.len());
        let (gamma, beta) = (random.values(shape.c), random.values(shape.c));
        let mut eval = Odd::poisoned(shape.len());
        reference::eval_forward(shape, &x, &beta, &gamma, &gamma, &beta, EPS, &mut eval);
        for cpu in &cpus {
            let mut got = Odd::poisoned(shape.len());
            norm::eval_forward(cpu, shape, &x, &beta, &gamma, &gamma, &beta, EPS, &mut got);
            assert_same(&got, &eval, &format!("{shape:?}, {cpu:?}"));
        }
        for then in [Then::Nothing, Then::Relu, Then::AddRelu(&residual)] {
            let mut w: [Odd; 4] = [shape.len(), shape.c, shape.c, shape.c].map(Odd::poisoned);
            let [y, mean, var, invstd] = &mut w;
            reference::train_forward(shape, &x, &gamma, &beta, EPS, then, y, mean, var, invstd);
            for cpu in &cpus {
                let mut g: [Odd; 4] = [shape.len(), shape.c, shape.c, shape.c].map(Odd::poisoned);
                let [y, mean, var, invstd] = &mut g;
                norm::train_forward(cpu, shape, &x, &gamma, &beta, EPS, then, y, mean, var, invstd);
                for (got, wanted) in g.iter().zip(&w) {
                    assert_same(got, wanted, &format!("{shape:?}, {cpu:?}"));
                }
            }
        }
    }
}

type Backward<'a> = &'a dyn Fn(Cotangent, Gradients);

/// dx, dresidual, dgamma and dbeta: those of the bits of `wanted`, the first that applies over dy where `spent`; then
/// something may be added to dy.
fn run(
    shape: Images,
    (dy, more): (&Odd, Option<&Odd>),
    wanted: usize,
    spent: Option<usize>,
    backward: Backward,
) -> [Odd; 4] {
    let mut out = [shape.len(), shape.len(), shape.c, shape.c].map(Odd::poisoned);
    let mut over = dy.clone();
    let [dx, dresidual, dgamma, dbeta] = &mut out;
    let place = |bit: usize| wanted & (1 << bit) != 0 && spent != Some(bit);
    let gradients = Gradients {
        dx: place(0).then_some(&mut **dx),
        dresidual: place(1).then_some(&mut **dresidual),
        dgamma: place(2).then_some(&mut **dgamma),
        dbeta: place(3).then_some(&mut **dbeta),
    };
    let cotangent = match (spent, more) {
        (Some(_), Some(more)) => Cotangent::Added(&mut over, more),
        (Some(_), None) => Cotangent::Spent(&mut over),
        (None, _) => Cotangent::Kept(dy),
    };
    backward(cotangent, gradients);
    if let Some(place) = spent {
        out[place] = over;
    }
    out
}

#[test]
fn backward_equals_its_definition_whatever_is_wanted_and_wherever_it_goes() {
    let mut random = Random(2);
    let cpus = cpus();
    for (case, shape) in shapes(&mut random).into_iter().enumerate() {
        let [x, dy, y, first, more] = [0; 5].map(|_| values(&mut random, case, shape.len()));
        let mut sum = first.clone();
        sum.iter_mut().zip(more.iter()).for_each(|(sum, more)| *sum += more);
        let [mean, invstd, gamma, beta] = [0; 4].map(|_| random.values(shape.c));
        let channels = Channels { mean: &mean, invstd: &invstd, gamma: &gamma };
        for (mask, residual) in [(Mask::Nothing, 0), (Mask::Relu(&beta), 0), (Mask::AddRelu(&y), 2)] {
            for wanted in [1, residual, 4, 8, 13 | residual] {
                let definition = run(shape, (&dy, None), wanted, None, &|dy, g| {
                    reference::train_backward(shape, &x, dy, channels, mask, g);
                });
                let over = residual / 2;
                for cpu in &cpus {
                    for spent in [None, (wanted & (1 << over) != 0).then_some(over)] {
                        let got = run(shape, (&dy, None), wanted, spent, &|dy, g| {
                            norm::train_backward(cpu, shape, &x, dy, channels, mask, g);
                        });
                        let what = format!("{shape:?}, {cpu:?}, wanted {wanted}, over dy {spent:?}");
                        got.iter().zip(&definition).for_each(|(got, wanted)| assert_same(got, wanted, &what));
                    }
                }
                if wanted & (1 << over) == 0 {
                    continue;
                }
                let definition = run(shape, (&sum, None), wanted, None, &|dy, g| {
                    reference::train_backward(shape, &x, dy, channels, mask, g);
                });
                let added = |backward: Backward, what: &str| {
                    let got = run(shape, (&first, Some(&more)), wanted, Some(over), backward);
                    got.iter().zip(&definition).for_each(|(got, wanted)| assert_same(got, wanted, what));
                };
                for cpu in &cpus {
                    let backward = |dy: Cotangent, g: Gradients| {
                        norm::train_backward(cpu, shape, &x, dy, channels, mask, g);
                    };
                    added(&backward, &format!("{shape:?}, {cpu:?}, wanted {wanted}, of a sum"));
                }
                added(&|dy, g| reference::train_backward(shape, &x, dy, channels, mask, g), "the definition");
            }
        }
        for wanted in [1, 4, 8, 13] {
            let backward = |dy: Cotangent, cpu: Option<&Cpu>, gradients: Gradients| {
                let Cotangent::Kept(dy) = dy else { unreachable!("kept") };
                match cpu {
                    Some(cpu) => norm::eval_backward(cpu, shape, &x, dy, channels, gradients),
                    None => reference::eval_backward(shape, &x, dy, channels, gradients),
                }
            };
            let definition = run(shape, (&dy, None), wanted, None, &|dy, g| backward(dy, None, g));
            for cpu in &cpus {
                let got = run(shape, (&dy, None), wanted, None, &|dy, g| backward(dy, Some(cpu), g));
                let what = format!("{shape:?}, {cpu:?}, wanted {wanted}, in evaluation");
                got.iter().zip(&definition).for_each(|(got, wanted)| assert_same(got, wanted, &what));
            }
        }
    }
}

#[test]
fn what_is_pooled_at_once_equals_the_three_definitions() {
    let mut random = Random(3);
    for (shape, pool) in stem::shapes(&mut random) {
        stem::check(&mut random, shape, &pool);
    }
}

#[test]
fn a_constant_channel_has_zero_variance_and_gives_beta() {
    let shape = Images { n: 3, c: 1, h: 5, w: 7 };
    for cpu in cpus() {
        let mut out: [Odd; 4] = [shape.len(), 1, 1, 1].map(Odd::poisoned);
        let [y, mean, var, invstd] = &mut out;
        norm::train_forward(
            &cpu,
            shape,
            &[0.5; 105],
            &[1.0],
            &[0.25],
            EPS,
            Then::Nothing,
            y,
            mean,
            var,
            invstd,
        );
        assert_eq!((out[1][0], out[2][0].to_bits()), (0.5, 0));
        assert_same(&out[0], &[0.25; 105], "y");
    }
}

#[test]
fn relu_keeps_nan_and_lets_no_gradient_through_at_zero() {
    let shape = Images { n: 1, c: 1, h: 1, w: 4 };
    let y = [f32::NAN, -0.0, 0.0, 2.0];
    let channels = Channels { mean: &[0.0], invstd: &[1.0], gamma: &[1.0] };
    for cpu in cpus() {
        let mut dresidual = Odd::poisoned(4);
        let gradients = Gradients { dresidual: Some(&mut dresidual), ..Gradients::default() };
        let dy = Cotangent::Kept(&[3.0; 4]);
        norm::train_backward(&cpu, shape, &[1.0; 4], dy, channels, Mask::AddRelu(&y), gradients);
        assert_same(&dresidual, &[0.0, 0.0, 0.0, 3.0], "dresidual");
    }
    let mut y = y;
    reference::follow(Then::AddRelu(&[-0.0; 4]), &mut y);
    assert_same(&y, &[f32::NAN, -0.0, 0.0, 2.0], "y");
}

#[test]
fn a_variance_is_never_negative_and_keeps_nan() {
    assert_eq!(norm::variance(1.0, 1.0, 1.1).to_bits(), 0);
    assert!(norm::variance(f64::NAN, 1.0, 0.0).is_nan());
}

#[test]
fn a_slice_of_another_size_is_refused() {
    let cpu = &cpus()[0];
    let shape = Images { n: 2, c: 3, h: 2, w: 2 };
    let x = vec![1.0; shape.len()];
    let channel = vec![1.0; shape.c];
    let longer = vec![1.0; shape.len() + 1];
    let refused = |run: &mut dyn FnMut()| {
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    };
    let whole = Channels { mean: &channel, invstd: &channel, gamma: &channel };
    for short in 0..4 {
        let vector = |at: usize| if at == short { &channel[..2] } else { &channel[..] };
        let mut y = vec![0.0; shape.len()];
        refused(&mut || {
            norm::eval_forward(cpu, shape, &x, vector(0), vector(1), vector(2), vector(3), 1e-5, &mut y)
        });
        let channels = Channels { mean: vector(0), invstd: vector(1), gamma: vector(2) };
        for train in [false, true] {
            let (mut dx, mut dgamma) = (vec![0.0; shape.len()], vec![0.0; if short == 3 { 4 } else { 3 }]);
            refused(&mut || {
                let gradients =
                    Gradients { dx: Some(&mut dx), dgamma: Some(&mut dgamma), ..Gradients::default() };
                if train {
                    norm::train_backward(
                        cpu,
                        shape,
                        &x,
                        Cotangent::Kept(&x),
                        channels,
                        Mask::Nothing,
                        gradients,
                    );
                } else {
                    norm::eval_backward(cpu, shape, &x, &x, channels, gradients);
                }
            });
        }
    }
    let mut wrong = longer.clone();
    refused(&mut || {
        let gradients = Gradients { dx: Some(&mut wrong), ..Gradients::default() };
        norm::train_backward(cpu, shape, &x, Cotangent::Kept(&x), whole, Mask::Nothing, gradients);
    });
    let mut spent = longer;
    refused(&mut || {
        let dy = Cotangent::Spent(&mut spent);
        norm::train_backward(cpu, shape, &x, dy, whole, Mask::Nothing, Gradients::default());
    });
}
