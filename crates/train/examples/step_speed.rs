//! The speed of whole training steps: one channel, 15 classes, Adam.
//!
//! `step_speed [MODEL [BATCH [SIZE [STEPS [THREADS]]]]] [--conv-algo=direct|winograd] [--recompute] [--unfused]`, as in
//! `kinone train`. Prints one JSON object: images a second (median, lowest, highest step), the median step in ms, the
//! peak memory of the process in MiB and the last loss.

mod common;

use common::{Measured, Work};
use kinone_nn::init::Init;
use kinone_nn::optim::{Optimizer, Rule};
use kinone_nn::schedule::{Rate, Schedule};
use kinone_train::trainer::{Batch, Trainer};
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

/// The first steps fill the free list of buffers.
const WARM: usize = 2;

const RECOMPUTE: &str = "--recompute";

fn main() -> ExitCode {
    Work::report(6, &[RECOMPUTE], steps)
}

fn steps(work: &Work) -> Result<Measured, Box<dyn Error>> {
    let (batch, size) = (work.batch, work.size);
    let draw = Init::new(1);
    let mut model = work.model();
    if work.has(RECOMPUTE) {
        model = model.recomputing();
    }
    let rate = Rate::new(1e-3, Schedule::Constant, 0);
    let mut trainer = Trainer::new(model, Optimizer::new(Rule::adam()), rate, None, 1);
    let mut times = Vec::new();
    let mut loss = 0.0;
    for step in 0..work.repeats + WARM {
        let images = draw.at(step).normal([batch, 1, size, size], 1.0);
        let mut targets = draw.at("targets").at(step).uniform([batch, 15], 1.0);
        for target in targets.data_mut() {
            *target = if *target > 0.5 { 1.0 } else { 0.0 };
        }
        let samples = (0..batch as u64).collect();
        let start = Instant::now();
        loss = trainer.step(0, Batch { images, targets, samples })?.loss;
        if step >= WARM {
            times.push(start.elapsed());
        }
    }
    Ok(Measured { times, check: ("loss", loss) })
}
