//! The steps of optimizers equal their definitions bit for bit, and the definitions what was computed by hand.

mod common;

use common::{Odd, Random, assert_same, cpus, wide_bits};
use kinone_kernels::optim::{self, Adam, RmsProp, Sgd, flush};
use kinone_kernels::sums::reference;

fn lengths() -> Vec<usize> {
    (0..=67).chain([3 * 16_384 + 7]).collect()
}

fn values(random: &mut Random, len: usize) -> Odd {
    match len % 3 {
        0 => random.hostile(len, len.is_multiple_of(2)),
        _ => random.values(len),
    }
}

#[test]
fn sgd_equals_its_definition() {
    let mut random = Random(1);
    let cpus = cpus();
    for len in lengths() {
        for nesterov in [false, true] {
            let sgd = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 1.0e-4, nesterov };
            let [g, p, b] = [0; 3].map(|_| values(&mut random, len));
            let (mut plain, mut moved, mut velocity) = (p.clone(), p.clone(), b.clone());
            for k in 0..len {
                sgd.plain(g[k], &mut plain[k]);
                sgd.update(g[k], &mut moved[k], &mut velocity[k]);
            }
            for cpu in &cpus {
                let mut got = p.clone();
                sgd.step(cpu, &g, &mut got, None);
                assert_same(&got, &plain, &format!("{len} plain, {cpu:?}"));
                let (mut got, mut got_velocity) = (p.clone(), b.clone());
                sgd.step(cpu, &g, &mut got, Some(&mut got_velocity));
                assert_same(&got, &moved, &format!("{len}, {cpu:?}"));
                assert_same(&got_velocity, &velocity, &format!("velocity of {len}, {cpu:?}"));
            }
        }
    }
}

#[test]
fn adam_equals_its_definition() {
    let mut random = Random(2);
    let cpus = cpus();
    let adam = Adam {
        first_rate: 0.1,
        second_keep: 0.999,
        second_rate: 0.001,
        step_size: 0.01,
        second_scale: 31.6,
        eps: 1.0e-8,
        weight_decay: 1.0e-4,
        shrink: 0.99,
    };
    for len in lengths() {
        let [g, p, m, v] = [0; 4].map(|_| values(&mut random, len));
        let mut wanted = [p.clone(), m.clone(), v.clone()];
        let [wanted_p, wanted_m, wanted_v] = &mut wanted;
        for k in 0..len {
            adam.update(g[k], &mut wanted_p[k], &mut wanted_m[k], &mut wanted_v[k]);
        }
        for cpu in &cpus {
            let mut got = [p.clone(), m.clone(), v.clone()];
            let [got_p, got_m, got_v] = &mut got;
            adam.step(cpu, &g, got_p, got_m, got_v);
            for (got, wanted) in got.iter().zip(&wanted) {
                assert_same(got, wanted, &format!("{len}, {cpu:?}"));
            }
        }
    }
}

#[test]
fn rmsprop_equals_its_definition() {
    let mut random = Random(3);
    let cpus = cpus();
    let rmsprop =
        RmsProp { lr: 0.01, keep: 0.99, rate: 0.01, eps: 1.0e-8, weight_decay: 1.0e-4, momentum: 0.9 };
    for len in lengths() {
        let [g, p, v, b] = [0; 4].map(|_| values(&mut random, len));
        let mut plain = [p.clone(), v.clone()];
        let mut moved = [p.clone(), v.clone(), b.clone()];
        for k in 0..len {
            let [p, v] = &mut plain;
            rmsprop.plain(g[k], &mut p[k], &mut v[k]);
            let [p, v, b] = &mut moved;
            rmsprop.update(g[k], &mut p[k], &mut v[k], &mut b[k]);
        }
        for cpu in &cpus {
            let what = format!("{len}, {cpu:?}");
            let mut got = [p.clone(), v.clone()];
            let [got_p, got_v] = &mut got;
            rmsprop.step(cpu, &g, got_p, got_v, None);
            got.iter().zip(&plain).for_each(|(got, wanted)| assert_same(got, wanted, &what));
            let mut got = [p.clone(), v.clone(), b.clone()];
            let [got_p, got_v, got_b] = &mut got;
            rmsprop.step(cpu, &g, got_p, got_v, Some(got_b));
            got.iter().zip(&moved).for_each(|(got, wanted)| assert_same(got, wanted, &what));
        }
    }
}

// The numbers below are dyadic, so nothing is rounded and the formulas can be followed by hand.

#[test]
fn two_steps_of_sgd_by_hand() {
    let sgd = Sgd { lr: 0.5, momentum: 0.25, weight_decay: 0.5, nesterov: false };
    let (mut p, mut b) = (4.0, 0.0);
    sgd.update(2.0, &mut p, &mut b);
    assert_eq!((p, b), (2.0, 4.0)); // g' = 2 + 0.5·4
    sgd.update(2.0, &mut p, &mut b);
    assert_eq!((p, b), (0.0, 4.0)); // g' = 2 + 0.5·2 = 3, b = 0.25·4 + 3
    let (mut p, mut b) = (4.0, 8.0);
    Sgd { nesterov: true, ..sgd }.update(2.0, &mut p, &mut b);
    assert_eq!((p, b), (4.0 - 0.5 * 5.5, 6.0)); // b = 0.25·8 + 4, d = 0.25·6 + 4
    let mut p = 4.0;
    sgd.plain(2.0, &mut p);
    assert_eq!(p, 2.0);
}

#[test]
fn a_step_of_adam_by_hand() {
    // lr = 1/2, β1 = 1/2, β2 = 3/4, t = 1
    let adam = Adam {
        first_rate: 0.5,
        second_keep: 0.75,
        second_rate: 0.25,
        step_size: 1.0,
        second_scale: 2.0,
        eps: 4.0,
        weight_decay: 0.0,
        shrink: 0.5,
    };
    let (mut p, mut m, mut v) = (4.0, 0.0, 0.0);
    adam.update(4.0, &mut p, &mut m, &mut v);
    assert_eq!((m, v), (2.0, 4.0));
    assert_eq!(p, 4.0 * 0.5 - 2.0 / (2.0 * 2.0 + 4.0));
    let (mut p, mut m, mut v) = (4.0, 2.0, 4.0);
    Adam { weight_decay: 1.0, shrink: 1.0, ..adam }.update(0.0, &mut p, &mut m, &mut v);
    assert_eq!((m, v), (3.0, 7.0)); // g' = 4
}

#[test]
fn a_step_of_rmsprop_by_hand() {
    let rmsprop = RmsProp { lr: 0.5, keep: 0.75, rate: 0.25, eps: 2.0, weight_decay: 0.5, momentum: 0.5 };
    let (mut p, mut v, mut b) = (4.0, 0.0, 1.0);
    rmsprop.update(2.0, &mut p, &mut v, &mut b);
    assert_eq!((p, v, b), (3.25, 4.0, 1.5)); // g' = 4, d = 4/(2 + 2), b = 0.5 + 1
    let (mut p, mut v) = (4.0, 0.0);
    rmsprop.plain(2.0, &mut p, &mut v);
    assert_eq!((p, v), (3.5, 4.0));
}

#[test]
fn moments_leave_the_denormal_numbers() {
    let below = f32::from_bits(f32::MIN_POSITIVE.to_bits() - 1);
    assert_eq!(flush(below).to_bits(), 0);
    assert_eq!(flush(-below).to_bits(), 0);
    assert_eq!(flush(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    assert_eq!(flush(-f32::MIN_POSITIVE), -f32::MIN_POSITIVE);
    assert!(flush(f32::NAN).is_nan());
    let sgd = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false };
    let (mut p, mut b) = (1.0, f32::MIN_POSITIVE);
    sgd.update(0.0, &mut p, &mut b);
    assert_eq!(b.to_bits(), 0);
}

#[test]
fn norm_and_scale_equal_their_loops() {
    let mut random = Random(4);
    let tensors = [5000, 0, 67, 1].map(|len| random.values(len));
    let squares = |x: &Odd| reference::sum(x.len(), |j| f64::from(x[j]) * f64::from(x[j]));
    let [a, b, c, d] = [0, 1, 2, 3].map(|k: usize| squares(&tensors[k]));
    let wanted = ((a + b) + (c + d)).sqrt();
    let factor = 0.3;
    let x = random.hostile(3 * 16_384 + 7, true);
    let mut scaled = x.clone();
    scaled.iter_mut().for_each(|x| *x *= factor);
    for cpu in cpus() {
        let tensors: Vec<&[f32]> = tensors.iter().map(Odd::get).collect();
        assert_eq!(wide_bits(optim::norm(&cpu, &tensors)), wide_bits(wanted));
        assert_eq!(optim::norm(&cpu, &[]), 0.0);
        let mut got = x.clone();
        optim::scale(&cpu, factor, &mut got);
        assert_same(&got, &scaled, &format!("{cpu:?}"));
    }
}
