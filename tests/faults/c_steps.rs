//! Steps whose numbers leave the finite, and counters that leave 32 bits.

use crate::harness::{Fault, Place, Whole, sample};
use kinone::core::array::Array;
use kinone::core::rng::{Stream, philox4x32};
use kinone::core::shape::ShapeError;
use kinone::core::tensor::Tensor;
use kinone::kernels::Cpu;
use kinone::nn::models::{Depth, ResNet};
use kinone::nn::optim::{Optimizer, Rule};
use kinone::nn::schedule::{Rate, Schedule};
use kinone::nn::state::{Value, Visitor, dictionary};
use kinone::nn::{Module, Parameter, Pass};
use kinone::runs::checkpoint::Checkpoint;
use kinone::runs::directory::RunDirectory;
use kinone::runs::store::Store;
use kinone::runs::weights;
use kinone::train::course::{Course, Plan};
use kinone::train::prepare;
use kinone::train::trainer::{Batch, StepError, Trainer};
use kinone::xray::Part;
use std::collections::BTreeSet;

fn trainer<M: Module>(model: M) -> Trainer<M> {
    Trainer::new(model, Optimizer::new(Rule::adam()), Rate::new(1e-3, Schedule::Constant, 0), None, 7)
}

/// Some images of step `step`; the samples have numbers of their own.
fn batch(step: u64, size: usize, classes: usize) -> Batch {
    let mut images = Array::full([4, 1, size, size], 0.0);
    let noise = Stream::new(step, "images");
    for (k, pixel) in images.data_mut().iter_mut().enumerate() {
        *pixel = noise.uniform(k as u64);
    }
    Batch { images, targets: Array::full([4, classes], 1.0), samples: (4 * step..4 * step + 4).collect() }
}

/// A run of the harness as if it had been stopped after its first epoch, step 10.
fn after_one_epoch() -> Place {
    let place = Whole::get().place.copy();
    std::fs::remove_file(place.path("run/summary.json")).unwrap();
    std::fs::remove_file(place.store().path(20)).unwrap();
    place
}

#[test]
fn fault_c01_a_loss_that_is_no_number() {
    let fault = Fault::new("C01");
    // At step k one pixel of one image is no number.
    let steps = sample(1..=12, 4);
    for bad in &steps {
        let mut trainer = trainer(ResNet::new(Depth::N10, 1, 14, 3));
        for step in 1..*bad {
            trainer.step(0, batch(step, 32, 14)).unwrap();
        }
        let before = weights::digest(&trainer.state());
        let mut broken = batch(*bad, 32, 14);
        broken.images.data_mut()[17] = f32::NAN;
        let error = trainer.step(0, broken).unwrap_err();
        let said = error.to_string();
        let StepError::NotFinite { step, ref samples, .. } = error else { panic!("{said}") };
        assert_eq!((step, samples.first()), (*bad, Some(&(4 * bad))), "{said}");
        assert!(said.contains("the loss is NaN") && said.contains("in the output of conv2d"), "{said}");
        assert_eq!(weights::digest(&trainer.state()), before, "step {bad} changed something");
        // The run goes on with good images as if nothing had been.
        assert_eq!(trainer.step(0, batch(*bad, 32, 14)).unwrap().step, *bad);
    }
    // A whole run: step 11 is made at an absurd rate, so the loss of step 12 is none.
    let place = after_one_epoch();
    let good = std::fs::read(place.store().path(10)).unwrap();
    let resume = ["train", "--json", "--threads=1", "--resume", "run", "--checkpoint-every=1"];
    let absurd = [&resume[..], &["--override", "--lr=1e30"]].concat();
    let words = ["step 12: the loss is", "nothing was updated", "begins in the output of", "samples ["];
    place.run(&absurd).failed(7, &words);
    place.every_checkpoint_is_sound();
    place.chain_leads_to_the_newest();
    // The checkpoint before lets it go on: its twin from before the change.
    for step in place.store().steps() {
        std::fs::remove_file(place.store().path(step)).unwrap();
    }
    std::fs::write(place.store().path(10), good).unwrap();
    place.resumes_to(Whole::get());
    fault.survived(
        steps.len() + 1,
        "a pixel that is NaN at step k, an absurd learning rate: step, samples and operator named, nothing updated, exit code 7",
    );
}

/// `Σ √(w_k·x)` over several parameters: where w is 0 the value is finite and the gradient is not.
#[derive(Debug)]
struct Roots(Vec<Parameter>);

impl Module for Roots {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        let root = |w: &Parameter| x.mul(&pass.parameter(w))?.sqrt();
        let first = root(&self.0[0])?;
        self.0[1..].iter().try_fold(first, |sum, w| sum.add(&root(w)?))
    }
    fn visit(&self, visitor: &mut Visitor) {
        for (k, parameter) in self.0.iter().enumerate() {
            visitor.parameter(&format!("w{k}"), parameter);
        }
    }
}

#[test]
fn fault_c02_an_infinite_gradient() {
    let fault = Fault::new("C02");
    let count = 5;
    for bad in 0..count {
        let w = |k| Parameter::new(Array::full([1], if k == bad { 0.0 } else { 0.5 }));
        let mut trainer = trainer(Roots((0..count).map(w).collect()));
        let batch = Batch {
            images: Array::full([2, 1, 1, 1], 1.0),
            targets: Array::full([2, 1, 1, 1], 1.0),
            samples: vec![5, 6],
        };
        let before = weights::digest(&trainer.state());
        let said = trainer.step(0, batch).unwrap_err().to_string();
        let parameter = format!("reaches the parameter w{bad}");
        for words in ["step 1: the norm of the gradient is inf", "from sqrt", &parameter, "samples [5, 6]"] {
            assert!(said.contains(words), "no `{words}` in: {said}");
        }
        assert_eq!(weights::digest(&trainer.state()), before);
    }
    fault.survived(
        count,
        "the gradient of each of five parameters in turn: operator and parameter are named, nothing updated",
    );
}

/// Whether every number of a file of weights or of a checkpoint is finite.
fn is_finite(tensors: &kinone::nn::state::Dictionary) -> bool {
    tensors.values().all(|value| match value {
        Value::F32(array) => array.data().iter().all(|x| x.is_finite()),
        Value::I64(_) => true,
    })
}

#[test]
fn fault_c03_rates_that_are_too_large() {
    let fault = Fault::new("C03");
    let optimizers = ["sgd", "nesterov", "adam", "adamw", "rmsprop"];
    let rates = ["1e1", "1e4", "1e10", "1e20", "1e30", "1e38", "3.4e38"];
    let cases = optimizers.iter().flat_map(|optimizer| rates.map(|rate| (*optimizer, rate)));
    let cases = sample(cases, 6);
    let mut stopped = 0;
    for (optimizer, rate) in &cases {
        let place = Place::new();
        let arguments = [
            "train",
            "--model=resnet10w8",
            "--images=100",
            "--image-size=32",
            "--batch-size=8",
            "--epochs=2",
            "--checkpoint-every=1",
            "--keep-every=1",
            "--schedule=constant",
            "--run-dir=run",
        ];
        let settings = ["--optimizer", optimizer, "--lr", rate];
        let ended = place.run(&[&arguments[..], &settings].concat());
        match ended.code() {
            Some(0) => {}
            _ => {
                ended.failed(7, &[]);
                stopped += 1;
            }
        }
        for step in place.store().steps() {
            let checkpoint = Checkpoint::load(&Cpu::current(), &place.store().path(step)).unwrap();
            assert!(is_finite(&checkpoint.tensors), "{optimizer} at {rate}: step {step} was kept");
        }
        for name in ["best", "last"] {
            let path = place.path(&format!("run/checkpoints/{name}.safetensors"));
            if path.exists() {
                assert!(is_finite(&weights::load(&path).unwrap().1), "{optimizer} at {rate}: {name}");
            }
        }
    }
    assert!(stopped > 0, "no run diverged");
    fault.survived(
        cases.len(),
        "five optimizers at rates up to the largest f32: stopped with exit code 7 or trained on; every checkpoint kept is finite",
    );
}

#[test]
fn fault_c12_counters_past_32_bits() {
    let fault = Fault::new("C12");
    const EDGE: u64 = 1 << 32;
    // Random numbers: around 2^32 as sample, as block, and as both, none is drawn twice.
    let stream = Stream::new(9, "edge");
    let near = |at: u64| (at - 2..at + 3).chain(0..5);
    let mut drawn = BTreeSet::new();
    let mut count = 0;
    for sample in near(EDGE).chain(near(1 << 40)) {
        for block in near(EDGE).chain(near(1 << 26)) {
            for epoch in [0, 1, u32::MAX - 1, u32::MAX] {
                drawn.insert((stream.at(epoch, sample).block(block), ()));
                count += 1;
            }
        }
    }
    // Of each axis five small ones are tried twice.
    let axis = 15;
    assert_eq!(drawn.len(), axis * axis * 4, "of {count}");
    assert_ne!(philox4x32([0, 0], [0, 0, 1, 0]), philox4x32([0, 0], [0, 0, 0, 0]));

    // Steps: a run that stands at step 2^32 - 2 goes on to numbers above.
    let place = Whole::get().place.copy();
    let (run, config) = RunDirectory::open(&place.path("run")).unwrap();
    let data = prepare::dataset(&config, &Part::ALL, &Cpu::current(), &|_, _| {}).unwrap();
    let plan = Plan::new(&config, &data).unwrap();
    let mut checkpoint = Checkpoint::load(&Cpu::current(), &run.store().path(10)).unwrap();
    checkpoint.header.progress.step = EDGE - 2;
    let mut course = Course::restore(&plan, prepare::fresh(&config).unwrap(), &checkpoint).unwrap();
    let folder = place.path("edge");
    std::fs::create_dir(&folder).unwrap();
    let store = Store::new(&folder);
    let mut states = BTreeSet::new();
    for step in EDGE - 1..EDGE + 4 {
        let made = course.next_step().unwrap().unwrap();
        assert_eq!((made.step.step, course.progress.step, course.trainer.steps()), (step, step, step));
        assert!(made.step.loss.is_finite() && made.step.lr > 0.0);
        let link = serde_json::to_value(course.link(&Cpu::current(), &made)).unwrap();
        assert_eq!(link["step"], step);
        states.insert(link["state"].as_str().unwrap().to_owned());
        let mut checkpoint = course.checkpoint("", "", "", "");
        store.save(&Cpu::current(), &mut checkpoint, &[], 1).unwrap();
        let newest = store.newest(&Cpu::current()).unwrap().unwrap();
        assert_eq!(newest.checkpoint.header.progress.step, step, "not the newest");
        // What is read back goes on alike.
        let model = prepare::fresh(&config).unwrap();
        let again = Course::restore(&plan, model, &newest.checkpoint).unwrap();
        assert_eq!(weights::digest(&again.trainer.state()), weights::digest(&course.trainer.state()));
    }
    assert_eq!(store.steps(), (EDGE - 1..EDGE + 4).collect::<Vec<u64>>());
    assert_eq!(states.len(), 5);
    // Samples: their numbers reach dropout's draws and the chain as 64 bits.
    let mut trainer = trainer(ResNet::new(Depth::N10, 1, 14, 3));
    let mut far = batch(1, 32, 14);
    far.samples = (EDGE - 2..EDGE + 2).collect();
    trainer.step(0, far).unwrap();
    assert!(is_finite(&dictionary(&trainer.model)));
    fault.survived(
        count + 5 + 1,
        "random numbers of samples, blocks and epochs around 2^32: none twice; steps, checkpoints and links from 2^32 - 2 on",
    );
}
