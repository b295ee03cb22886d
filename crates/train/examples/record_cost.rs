//! What the record of a run costs: the hash of all state, a link, a transcript and a checkpoint, against a
//! step of ResNet-18.
//!
//!     cargo run --release -p kinone-train --example record_cost -- 64 32

use kinone_core::array::Array;
use kinone_kernels::Cpu;
use kinone_nn::models::{Depth, ResNet};
use kinone_nn::optim::{Optimizer, Rule};
use kinone_nn::schedule::{Rate, Schedule};
use kinone_runs::chain::{Body, Chain, StepLink};
use kinone_runs::hash;
use kinone_train::trainer::{Batch, Trainer};
use std::time::Instant;

/// The shortest of some tries, in milliseconds.
fn milliseconds(tries: usize, mut body: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        body();
        start.elapsed().as_secs_f64() * 1e3
    };
    (0..tries).map(time).fold(f64::INFINITY, |best, time| if time < best { time } else { best })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [size, count] = numbers[..] else {
        return Err("give the side of the images and the batch size".into());
    };
    let cpu = Cpu::current();
    let rate = Rate::new(1e-3, Schedule::Constant, 0);
    let model = ResNet::new(Depth::D18, 1, 14, 7);
    let mut trainer = Trainer::new(model, Optimizer::new(Rule::adam()), rate, None, 7);
    let batch = || Batch {
        images: Array::full([count, 1, size, size], 0.5),
        targets: Array::full([count, 14], 0.0),
        samples: (0..count as u64).collect(),
    };
    let step = milliseconds(4, || {
        trainer.step(0, batch()).expect("a step");
    });
    let state = milliseconds(4, || {
        hash::root(&hash::values(&cpu, &trainer.state()));
    });
    let folder = std::env::temp_dir().join(format!("kinone-record-cost-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let path = folder.join("chain.jsonl");
    let link = StepLink {
        step: 1,
        epoch: 1,
        samples: (0..count as u64).collect(),
        lr: "3a83126f".to_owned(),
        loss: "3a83126f".to_owned(),
        gradient_norm: "3ff0000000000000".to_owned(),
        state: None,
    };
    let config = serde_json::Map::new();
    let (version, data_sha256, weights_sha256) = (String::new(), String::new(), String::new());
    let contract = kinone_runs::CONTRACT;
    let header =
        kinone_runs::chain::Header { contract, version, config, seed: 7, data_sha256, weights_sha256 };
    let mut chain = Chain::begin(&path, header)?;
    let append = milliseconds(100, || chain.append(&Body::Step(link.clone())).expect("a link"));
    std::fs::remove_dir_all(&folder)?;
    println!("ResNet-18, {count} images of {size} px, {} on {} threads", cpu.isa(), cpu.threads());
    println!("step {step:.1} ms; hash of all state {state:.1} ms; link {append:.3} ms");
    let share = (state / 100.0 + append) / step * 100.0;
    println!("chain, with the state hashed every 100 steps: {share:.2} % of a step");
    Ok(())
}
