//! The speed of inference as `kinone predict` and `kinone evaluate` do it: one channel, 15 classes.
//!
//! `infer_speed [MODEL [BATCH [SIZE [REPEATS [THREADS]]]]] [--conv-algo=direct|winograd] [--unfused]` prints one JSON
//! object: images a second (median, lowest, highest repetition), the median time of a batch in ms, the peak memory of
//! the process in MiB and the first logit.

mod common;

use common::{Measured, Work};
use kinone_nn::init::Init;
use kinone_train::evaluate;
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

/// The first repetitions fill the free list of buffers.
const WARM: usize = 3;

fn main() -> ExitCode {
    Work::report(20, &[], inference)
}

fn inference(work: &Work) -> Result<Measured, Box<dyn Error>> {
    let (batch, size) = (work.batch, work.size);
    let draw = Init::new(1);
    let model = work.model();
    let mut times = Vec::new();
    let mut logit = 0.0;
    for repetition in 0..work.repeats + WARM {
        let images = draw.at(repetition).normal([batch, 1, size, size], 1.0);
        let start = Instant::now();
        logit = evaluate::logits(&model, images.data(), size)?.data()[0];
        if repetition >= WARM {
            times.push(start.elapsed());
        }
    }
    Ok(Measured { times, check: ("logit", logit) })
}
