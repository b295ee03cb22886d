//! The speed of whole training steps: `step_speed [MODEL [BATCH [SIZE [STEPS [THREADS [MODE [ALGORITHM]]]]]]]`, one channel,
//! 15 classes, Adam. MODE is `fused`, `unfused` or `recompute`; ALGORITHM, of the convolutions, `direct` or `winograd`.
//!
//! Prints one JSON object: images a second (median, lowest, highest step) and the peak memory of the process.

use kinone_kernels::{Cpu, Isa};
use kinone_nn::init::Init;
use kinone_nn::layers::ConvAlgorithm;
use kinone_nn::models::{Depth, ResNet};
use kinone_nn::optim::{Optimizer, Rule};
use kinone_nn::schedule::{Rate, Schedule};
use kinone_train::trainer::{Batch, Trainer};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, usual: usize| arguments.get(index).map_or(Ok(usual), |text| text.parse());
    let depth: Depth = arguments.first().map_or("resnet18", String::as_str).parse()?;
    let (batch, size, steps, threads) = (number(1, 32)?, number(2, 224)?, number(3, 6)?, number(4, 2)?);
    let cpu = Cpu::new(Isa::selected()?, threads)?;
    let draw = Init::new(1);
    let (algorithm, name) = match arguments.get(6).map(String::as_str) {
        None | Some("direct") => (ConvAlgorithm::Direct, "direct"),
        Some("winograd") => (ConvAlgorithm::Winograd, "winograd"),
        Some(other) => return Err(format!("no algorithm `{other}`; known are direct and winograd").into()),
    };
    let model = ResNet::computed_by(algorithm, depth, 1, 15, 1);
    let mode = arguments.get(5).map_or("fused", String::as_str);
    let cpu = if mode == "unfused" { cpu.unfused() } else { cpu };
    cpu.clone().install();
    let model = if mode == "recompute" { model.recomputing() } else { model };
    let rate = Rate::new(1e-3, Schedule::Constant, 0);
    let mut trainer = Trainer::new(model, Optimizer::new(Rule::adam()), rate, None, 1);
    let mut speeds = Vec::new();
    let mut last = 0.0;
    for step in 0..steps + 2 {
        let images = draw.at(step).normal([batch, 1, size, size], 1.0);
        let mut targets = draw.at("targets").at(step).uniform([batch, 15], 1.0);
        for target in targets.data_mut() {
            *target = if *target > 0.5 { 1.0 } else { 0.0 };
        }
        let samples = (0..batch as u64).collect();
        let start = Instant::now();
        last = trainer.step(0, Batch { images, targets, samples })?.loss;
        // The first steps fill the free list of buffers.
        if step >= 2 {
            speeds.push(batch as f64 / start.elapsed().as_secs_f64());
        }
    }
    speeds.sort_by(f64::total_cmp);
    let (low, median, high) = (speeds[0], speeds[speeds.len() / 2], speeds[speeds.len() - 1]);
    println!(
        "{{\"model\": \"{depth}\", \"batch\": {batch}, \"size\": {size}, \"isa\": \"{}\", \"threads\": {threads}, \"mode\": \"{mode}\", \"conv_algo\": \"{name}\", \
         \"img_s\": {median:.2}, \"low\": {low:.2}, \"high\": {high:.2}, \"peak_mib\": {:.0}, \"loss\": {last}}}",
        cpu.isa(),
        peak_mib()
    );
    Ok(())
}

/// The largest resident memory of this process so far, in MiB; 0 where the system does not say.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()).unwrap_or(0.0)
        / 1024.0
}
