//! Numbers at the edges of f32: the largest, the smallest, negative zero, exact ties; settings of zero.

use crate::harness::{Fault, Place, Whole, sample, small};
use kinone::core::array::Array;
use kinone::core::ops::MaxPool2d;
use kinone::core::tensor::Tensor;
use kinone::kernels::optim::{Adam, RmsProp, Sgd};
use kinone::kernels::{Cpu, Isa};
use kinone::metrics::auc::auroc;
use kinone::nn::models::{Depth, ResNet};
use kinone::nn::optim::{Optimizer, Rule};
use kinone::nn::schedule::{Rate, Schedule};
use kinone::nn::state::Value;
use kinone::runs::weights;
use kinone::train::trainer::{Batch, Trainer};
use std::time::Instant;

/// Every instruction set of this machine, on one thread and on three.
fn cpus() -> Vec<Cpu> {
    let sets = Isa::present().into_iter();
    sets.flat_map(|isa| [1, 3].map(|threads| Cpu::new(isa, threads).unwrap())).collect()
}

/// The bits that `make` returns, which must be the same everywhere.
fn everywhere(what: &str, make: impl Fn() -> Vec<f32>) -> Vec<f32> {
    let mut results = cpus().into_iter().map(|cpu| (cpu.clone(), cpu.scope(&make)));
    let (_, first) = results.next().unwrap();
    for (cpu, values) in results {
        let same = values.iter().map(|x| x.to_bits()).eq(first.iter().map(|x| x.to_bits()));
        assert!(same, "{what} on {cpu:?}: {values:?}, not {first:?}");
    }
    first
}

fn variable(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::variable(Array::new(shape, values).unwrap())
}

#[test]
fn fault_c08_logits_of_great_size() {
    let fault = Fault::new("C08");
    let sizes = [1e4, 88.8, 103.9, 1e30, f32::MAX, f32::MAX.next_down()];
    let mut tried = 0;
    for z in sizes.into_iter().flat_map(|z| [z, -z]) {
        for target in [0.0, 1.0] {
            let values = everywhere("binary cross entropy", || {
                let x = variable(&[1, 1], &[z]);
                let t = Tensor::constant(Array::new([1, 1], &[target]).unwrap());
                let loss = x.binary_cross_entropy_with_logits(&t, None, None).unwrap();
                vec![loss.data()[0], loss.backward().unwrap().of(&x).unwrap().data()[0]]
            });
            // Far out the loss is |z| where the sign is wrong and next to nothing where it is right.
            let wrong = (z > 0.0) != (target == 1.0);
            let (loss, gradient) = (values[0], values[1]);
            assert!(
                if wrong { loss == z.abs() } else { (0.0..1e-30).contains(&loss) },
                "{z}, {target}: {loss}"
            );
            let sign = if z > 0.0 { 1.0 } else { -1.0 };
            assert!(
                if wrong { gradient == sign } else { gradient.abs() < 1e-30 },
                "{z}, {target}: {gradient}"
            );
            tried += 1;
        }
    }
    // Twice the largest number is none; up to there the loss of a softmax is finite too.
    for z in [1e4, 1e30, f32::MAX / 2.0, -1e4, -f32::MAX / 2.0] {
        for class in [0, 1] {
            let values = everywhere("cross entropy", || {
                let x = variable(&[1, 2], &[z, -z]);
                let classes = Tensor::constant(Array::new([1], &[class as f32]).unwrap());
                let loss = x.cross_entropy_with_logits(&classes).unwrap();
                let adjoints = loss.backward().unwrap();
                [loss.data(), adjoints.of(&x).unwrap().data(), x.softmax(1).unwrap().data()].concat()
            });
            let likely = usize::from(z < 0.0);
            let loss = if class == likely { 0.0 } else { 2.0 * z.abs() };
            assert_eq!(values[0], loss, "{z}, class {class}");
            let p = |k: usize| f32::from(k == likely);
            let gradient = |k: usize| p(k) - f32::from(k == class);
            assert_eq!(values[1..], [gradient(0), gradient(1), p(0), p(1)], "{z}, class {class}");
            tried += 1;
        }
    }
    fault.survived(tried, "logits from 88 to the largest f32 of both signs in both losses: the exact loss, the exact gradient, on every instruction set");
}

#[test]
fn fault_c09_denormal_numbers() {
    let fault = Fault::new("C09");
    // Weights so small that every product is denormal: the same bits everywhere.
    let run = |scale: f32| {
        let rate = Rate::new(1e-3, Schedule::Constant, 0);
        let mut trainer =
            Trainer::new(ResNet::new(Depth::N10, 1, 14, 3), Optimizer::new(Rule::adam()), rate, None, 7);
        for (_, parameter) in trainer.parameters() {
            parameter.modify(|weights| weights.iter_mut().for_each(|w| *w *= scale));
        }
        let small = trainer.parameters()[0].1.tensor().data().iter().filter(|w| w.is_subnormal()).count();
        let mut images = Array::full([4, 1, 32, 32], 0.0);
        for (k, pixel) in images.data_mut().iter_mut().enumerate() {
            *pixel = (k * 37 % 101) as f32 / 50.0 - 1.0;
        }
        let start = Instant::now();
        for _ in 0..2 {
            let batch = Batch {
                images: images.clone(),
                targets: Array::full([4, 14], 1.0),
                samples: (0..4).collect(),
            };
            trainer.step(0, batch).unwrap();
        }
        (weights::digest(&trainer.state()), small, start.elapsed().as_secs_f64(), trainer)
    };
    let mut first = None;
    let mut tried = 0;
    for cpu in cpus() {
        let (hash, small, seconds, trainer) = cpu.scope(|| run(1e-39));
        assert!(small > 0, "no denormal weight");
        assert_eq!(hash, *first.get_or_insert(hash.clone()), "{cpu:?}");
        // No moment is left among them, where it would stay and cost time in every step.
        for (name, value) in trainer.state() {
            let Value::F32(array) = value else { continue };
            let is_moment = name.starts_with("optimizer.");
            assert!(!is_moment || !array.data().iter().any(|x| x.is_subnormal()), "{name}");
        }
        let usual = (0..3).map(|_| cpu.scope(|| run(1.0)).2);
        let usual = usual.fold(f64::INFINITY, |least, time| if time < least { time } else { least });
        println!("C09: {cpu:?}: {:.2} of the usual time", seconds / usual);
        tried += 1;
    }
    // Moments that decay go to zero and not among the denormal numbers, in every optimizer.
    for cpu in cpus() {
        let (mut p, mut m, mut v, mut b) =
            (vec![1.0_f32; 100], vec![1.0_f32; 100], vec![1e-36_f32; 100], vec![1.0; 100]);
        let zero = vec![0.0_f32; 100];
        let adam = Adam {
            first_rate: 0.1,
            second_keep: 0.999,
            second_rate: 0.001,
            step_size: 1e-3,
            second_scale: 1.0,
            eps: 1e-8,
            weight_decay: 0.0,
            shrink: 1.0,
        };
        let sgd = Sgd { lr: 1e-3, momentum: 0.9, weight_decay: 0.0, nesterov: false };
        let rmsprop = RmsProp { lr: 1e-3, keep: 0.9, rate: 0.1, eps: 1e-8, weight_decay: 0.0, momentum: 0.9 };
        let (mut square, mut velocity) = (vec![1.0_f32; 100], vec![1.0_f32; 100]);
        for _ in 0..6000 {
            adam.step(&cpu, &zero, &mut p, &mut m, &mut v);
            sgd.step(&cpu, &zero, &mut p, Some(&mut b));
            rmsprop.step(&cpu, &zero, &mut p, &mut square, Some(&mut velocity));
            for moment in [&m, &v, &b, &square, &velocity] {
                assert!(!moment[0].is_subnormal(), "{cpu:?}: {}", moment[0]);
            }
        }
        for moment in [&m, &v, &b, &square, &velocity] {
            assert!(moment.iter().all(|x| x.to_bits() == 0), "{cpu:?}: {}", moment[0]);
        }
        tried += 1;
    }
    fault.survived(
        tried,
        "a network of denormal weights, moments left to decay: equal bits on every instruction set, no moment ever denormal; \
         the time is printed and decides nothing",
    );
}

#[test]
fn fault_c10_negative_zero_and_ties() {
    let fault = Fault::new("C10");
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    // The definition keeps what is not below zero, so −0 stays −0; the gradient at zero is none.
    let mut edges = vec![-0.0, 0.0, f32::from_bits(1), -f32::from_bits(1), -1.0];
    edges.extend((0..60).map(|k| if k % 2 == 0 { -0.0 } else { 0.0 }));
    let relu = everywhere("relu", || {
        let x = variable(&[65], &edges);
        let y = x.relu().unwrap();
        let adjoints = y.backward_from(Array::full([65], 1.0), &[]).unwrap();
        [y.data(), adjoints.of(&x).unwrap().data()].concat()
    });
    let wanted: Vec<f32> = edges.iter().map(|x| if 0.0 > *x { 0.0 } else { *x }).collect();
    assert_eq!(bits(&relu[..65]), bits(&wanted));
    // Of equal values the first counts, also of −0 and +0.
    for values in
        [[1.0, 1.0, 1.0, 1.0], [-0.0, 0.0, -0.0, 0.0], [0.0, -0.0, 0.0, -0.0], [-1.0, -0.0, 0.0, -0.0]]
    {
        let pool = || MaxPool2d {
            kernel: (2, 2),
            stride: (2, 2),
            padding: (0, 0),
            dilation: (1, 1),
            ceil_mode: false,
        };
        let many: Vec<f32> = (0..19 * 6 * 6).map(|k| values[k / 6 % 2 * 2 + k % 2]).collect();
        let pooled = everywhere("max_pool2d", || {
            let x = variable(&[1, 19, 6, 6], &many);
            let y = x.max_pool2d(pool()).unwrap();
            let adjoints = y.backward_from(Array::full([1, 19, 3, 3], 1.0), &[]).unwrap();
            [y.data(), adjoints.of(&x).unwrap().data()].concat()
        });
        let most = values.iter().fold(f32::NEG_INFINITY, |most, x| if *x > most { *x } else { most });
        let winner = values.iter().position(|x| *x == most).unwrap();
        let (y, dx) = pooled.split_at(19 * 9);
        assert!(y.iter().all(|y| y.to_bits() == values[winner].to_bits()), "{values:?}: {}", y[0]);
        for (k, d) in dx.iter().enumerate() {
            assert_eq!(*d == 1.0, k / 6 % 2 * 2 + k % 2 == winner, "{values:?} at {k}");
        }
    }
    // maximum: which of two equal zeros, and how the gradient is shared, is the same everywhere.
    everywhere("maximum", || {
        let (x, y) =
            (variable(&[65], &edges), variable(&[65], &edges.iter().map(|x| -x).collect::<Vec<_>>()));
        let z = x.maximum(&y).unwrap();
        let adjoints = z.backward_from(Array::full([65], 1.0), &[]).unwrap();
        [z.data(), adjoints.of(&x).unwrap().data(), adjoints.of(&y).unwrap().data()].concat()
    });
    // Ranks: equal scores count half, −0 and +0 are equal.
    let half = [
        (&[0.0, -0.0][..], &[true, false][..]),
        (&[-0.0, 0.0], &[true, false]),
        (&[0.5; 6], &[true, false, true, false, false, true]),
    ];
    for (scores, labels) in half {
        assert_eq!(auroc(scores, labels).unwrap(), Some(0.5), "{scores:?}");
    }
    fault.survived(
        cpus().len() * 6 + 3,
        "relu, max_pool2d and maximum at −0, +0 and ties on every instruction set, areas under curves with ties; there is no argmax",
    );
}

#[test]
fn fault_c11_settings_of_zero() {
    let fault = Fault::new("C11");
    let place = Place::new();
    for (flag, words) in [
        ("--lr=0", &["lr = 0", "above 0"][..]),
        ("--epochs=0", &["epochs = 0", "at least 1"]),
        ("--batch-size=0", &["batch-size = 0", "at least 2"]),
        ("--accumulate=0", &["accumulate = 0", "at least 1"]),
    ] {
        let name = flag.split('=').next().unwrap();
        let tiny = small(&["--run-dir=run"]);
        let arguments: Vec<&str> = tiny.into_iter().filter(|a| !a.starts_with(name)).chain([flag]).collect();
        place.run(&arguments).failed(2, words);
    }
    assert!(!place.path("run").exists());
    let cases: &[&[&str]] = &[
        &["--warmup-steps=1000000"],
        &["--optimizer=sgd", "--momentum=0"],
        &["--optimizer=nesterov", "--momentum=0", "--weight-decay=0"],
        &["--optimizer=adamw", "--weight-decay=0"],
        &["--optimizer=rmsprop", "--weight-decay=0"],
        &["--clip-norm=0", "--ema=0", "--patience=0", "--keep-every=0", "--checkpoint-every=0"],
        &["--schedule=step", "--warmup-steps=18446744073709551615"],
        &["--schedule=plateau", "--lr=1e-38"],
        &["--accumulate=18446744073709551615"],
        &["--seed=0"],
        &["--seed=18446744073709551615"],
    ];
    let cases = sample(cases, 6);
    for settings in &cases {
        let place = Place::new();
        let summary = place.json(&small(&[&["--run-dir=run"][..], settings].concat()));
        assert!(summary["train_loss"].as_f64().is_some_and(f64::is_finite), "{settings:?}: {summary}");
        place.every_checkpoint_is_sound();
        let chain = place.text("run/chain.jsonl");
        for line in chain.lines().skip(1) {
            let link: serde_json::Value = serde_json::from_str(line).unwrap();
            let lr = f32::from_bits(u32::from_str_radix(link["lr"].as_str().unwrap(), 16).unwrap());
            assert!(lr.is_finite() && lr > 0.0, "{settings:?}: lr {lr}");
            if settings.contains(&"--warmup-steps=1000000") {
                // Step s of a million has s millionths of the rate.
                let step = link["step"].as_f64().unwrap();
                let epoch = link["epoch"].as_u64().unwrap() as u32 - 1;
                let schedule = Schedule::Cosine { epochs: 2, floor: 1e-3 * 0.01 };
                let rate = Rate::new(1e-3, schedule, 0).at(epoch, 0);
                let off = f64::from(lr) / (f64::from(rate) * step / 1e6) - 1.0;
                // Two roundings to f32, of half a unit in the last place each.
                assert!(off.abs() <= f64::from(f32::EPSILON), "step {step}: {lr}");
            }
        }
    }
    // What is zero by default changes nothing when it is said.
    let said = Place::new();
    let zeros = [
        "--weight-decay=0",
        "--clip-norm=0",
        "--ema=0",
        "--patience=0",
        "--warmup-steps=0",
        "--momentum=0.9",
    ];
    let summary = said.json(&small(&[&["--run-dir=run"], &zeros[..]].concat()));
    Whole::get().is_equal(&said, &summary);
    fault.survived(
        4 + cases.len() + 1,
        "zero rate, epochs, batch: refused; zero decay, momentum, clipping, averages, a warm-up longer than the run: finite, rates as stated",
    );
}
