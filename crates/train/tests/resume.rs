//! A run that was stopped and resumed is the run that was not: the same weights, the same chain.

use kinone_kernels::{Cpu, Isa};
use kinone_runs::CONTRACT;
use kinone_runs::config::{Config, ConvAlgo, Data, OptimizerName, ScheduleName};
use kinone_runs::directory::RunDirectory;
use kinone_runs::summary::Summary;
use kinone_train::course::Plan;
use kinone_train::fit::{End, Epoch, Observer, Start, fit};
use kinone_train::prepare;
use kinone_train::resume::Left;
use kinone_train::trainer::Step;
use kinone_train::verify::{Stretch, verify};
use kinone_train::{OnSaveError, Saving};
use kinone_xray::{Dataset, Part};
use std::cell::Cell;
use std::fs;
use std::path::Path;

/// Stops after so many steps, as if by SIGTERM.
struct Stopper {
    after: u64,
    made: Cell<u64>,
}

impl Observer for Stopper {
    fn epoch_begins(&mut self, _: u32, _: usize, _: usize) {}
    fn step(&mut self, _: &Step, _: usize) {
        self.made.set(self.made.get() + 1);
    }
    fn epoch_ends(&mut self, _: &Epoch) {}
    fn alarm(&mut self, line: &str) {
        panic!("{line}");
    }
    fn signal(&self) -> Option<i32> {
        (self.made.get() >= self.after).then_some(15)
    }
}

/// Every piece of state that a checkpoint holds is in use.
fn config() -> Config {
    Config {
        contract: CONTRACT,
        model: "resnet18".to_owned(),
        image_size: 32,
        epochs: 2,
        batch_size: 4,
        accumulate: 2,
        lr: 1e-3,
        schedule: ScheduleName::Plateau,
        warmup_steps: 3,
        optimizer: OptimizerName::Adam,
        momentum: 0.9,
        weight_decay: 1e-4,
        clip_norm: 1.0,
        ema: 0.9,
        patience: 0,
        hash_every: 4,
        seed: 7,
        no_finding: false,
        conv_algo: ConvAlgo::Direct,
        recompute: false,
        data: Data::BuiltIn { images: 100 },
        load_checkpoint: None,
    }
}

const SAVING: Saving =
    Saving { checkpoint_every: 0, keep_every: 0, on_error: OnSaveError::Stop, version: "test" };

/// Begins or goes on with the run in `path`; the summary if it finished within `steps`.
fn go(path: &Path, config: &Config, data: &Dataset, saving: Saving, steps: u64) -> Option<Summary> {
    let plan = Plan::new(config, data).unwrap();
    let mut observer = Stopper { after: steps, made: Cell::new(0) };
    let (run, start) = if path.join("config.toml").exists() {
        let (run, recorded) = RunDirectory::open(path).unwrap();
        let left = Left::find(&run, &recorded, &Cpu::current()).unwrap();
        assert!(left.changes(config, false).unwrap().is_empty());
        (run, Start::Resumed { newest: Box::new(left.newest.unwrap()), changes: Vec::new() })
    } else {
        (RunDirectory::create(path, config).unwrap().0, Start::Fresh)
    };
    match fit(&plan, start, &run, saving, &mut observer).unwrap() {
        End::Finished(outcome) => Some(outcome.summary),
        End::Stopped { .. } => None,
    }
}

/// Log rows without what depends on time, machine and resumptions.
fn rows(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path.join("log.jsonl")).unwrap();
    let parsed = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut rows: Vec<_> = parsed.filter(|row| row["event"] != "resume").collect();
    for row in rows.iter_mut().filter_map(serde_json::Value::as_object_mut) {
        for name in ["images_per_second", "seconds", "isa", "threads"] {
            row.remove(name);
        }
    }
    rows
}

#[test]
fn stopped_and_resumed_at_every_step_it_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let config = config();
    let data = prepare::dataset(&config, &Part::ALL, &Cpu::current(), &|_, _| {}).unwrap();
    let undisturbed = go(&whole, &config, &data, SAVING, u64::MAX).unwrap();
    let count = rows(&whole).iter().filter(|row| row["event"] == "step").count();
    assert!(count >= 18, "{count} steps");

    // Another instruction set and number of threads each time.
    let machines: Vec<Cpu> = Isa::present()
        .into_iter()
        .flat_map(|isa| [1, 3].map(|threads| Cpu::new(isa, threads).unwrap()))
        .collect();
    let mut resumed = None;
    for k in 0..=count {
        resumed = machines[k % machines.len()].scope(|| go(&parts, &config, &data, SAVING, 1));
        if resumed.is_some() {
            break;
        }
    }
    let resumed = resumed.expect("the run ends");
    assert_eq!(resumed.weights_sha256, undisturbed.weights_sha256);
    assert_eq!(resumed.best_weights_sha256, undisturbed.best_weights_sha256);
    assert_eq!(resumed.test_auroc_macro, undisturbed.test_auroc_macro);
    let chain = |path: &Path| fs::read_to_string(path.join("chain.jsonl")).unwrap();
    assert_eq!(chain(&parts), chain(&whole));
    assert_eq!(rows(&parts), rows(&whole));

    // And the record is proved, on every instruction set.
    for cpu in machines.iter().skip(1).step_by(2) {
        let (run, config) = RunDirectory::open(&parts).unwrap();
        let proof =
            cpu.scope(|| verify(&run, &config, Stretch::Steps(None, None), cpu, &mut |_| {})).unwrap();
        assert_eq!(proof.links, count + 1);
    }
}
