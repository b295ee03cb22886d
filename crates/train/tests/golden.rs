//! No bit of training changes unnoticed: the hash of all state after one step and after twenty, pinned under
//! contract 1. A changed hash is a new contract number.

use kinone_core::array::Array;
use kinone_kernels::{Cpu, Isa};
use kinone_nn::models::{Depth, ResNet};
use kinone_nn::optim::{Optimizer, Rule};
use kinone_nn::schedule::{Rate, Schedule};
use kinone_nn::state::dictionary;
use kinone_runs::weights::digest;
use kinone_train::trainer::{Batch, Trainer};
use kinone_xray::Source;
use kinone_xray::synth::Synth;

const SIZE: usize = 32;
const BATCH: usize = 4;

/// The images of step `step` of the built-in set, as they are: gray values over 255.
fn batch(source: &Synth, step: usize) -> Batch {
    let samples = step * BATCH..(step + 1) * BATCH;
    let pixels: Vec<f32> =
        samples.clone().flat_map(|index| source.pixels(index)).map(|gray| f32::from(gray) / 255.0).collect();
    let mut targets = vec![0.0; BATCH * 14];
    for (index, targets) in samples.clone().zip(targets.chunks_exact_mut(14)) {
        source.record(index).findings.write_targets(targets);
    }
    Batch {
        images: Array::new([BATCH, 1, SIZE, SIZE], &pixels).unwrap(),
        targets: Array::new([BATCH, 14], &targets).unwrap(),
        samples: samples.map(|index| index as u64).collect(),
    }
}

fn hash_after(steps: usize, recomputing: bool) -> String {
    let source = Synth::new(1, 20 * BATCH, SIZE).unwrap();
    let rate = Rate::new(1e-3, Schedule::Constant, 0);
    let model = ResNet::new(Depth::D18, 1, 14, 7);
    let model = if recomputing { model.recomputing() } else { model };
    let mut trainer = Trainer::new(model, Optimizer::new(Rule::adam()), rate, None, 7);
    for step in 0..steps {
        trainer.step(0, batch(&source, step)).unwrap();
    }
    digest(&dictionary(&trainer.model))
}

#[test]
fn one_step_has_one_hash_on_every_instruction_set_and_number_of_threads_fused_or_not() {
    for isa in Isa::present() {
        let ways = [(1, true, false), (1, false, false), (3, true, false), (3, false, true), (2, true, true)];
        for (threads, fused, recomputing) in ways {
            let cpu = Cpu::new(isa, threads).unwrap();
            let hash = if fused { cpu } else { cpu.unfused() }.scope(|| hash_after(1, recomputing));
            assert_eq!(
                hash, "9510682893bffe4166beff64e7e3744a0d0bf5d66a0f61d61a8d2a0de2cc81bb",
                "{isa} on {threads} threads, fused: {fused}, recomputing: {recomputing}"
            );
        }
    }
}

/// With bottlenecks more is computed again: convolutions, and what they read.
#[test]
fn a_network_of_bottlenecks_that_recomputes_makes_the_same_step() {
    let hash = |recomputing: bool, fused: bool| {
        let source = Synth::new(1, 2 * BATCH, SIZE).unwrap();
        let model = ResNet::new(Depth::D50, 1, 14, 7);
        let model = if recomputing { model.recomputing() } else { model };
        let rate = Rate::new(1e-3, Schedule::Constant, 0);
        let mut trainer = Trainer::new(model, Optimizer::new(Rule::adam()), rate, None, 7);
        let cpu = Cpu::new(Isa::selected().unwrap(), 2).unwrap();
        let cpu = if fused { cpu } else { cpu.unfused() };
        cpu.scope(|| trainer.step(0, batch(&source, 0)).unwrap());
        digest(&dictionary(&trainer.model))
    };
    let kept = hash(false, true);
    assert_eq!(hash(true, true), kept);
    assert_eq!(hash(false, false), kept);
}

#[test]
fn twenty_steps_have_their_hash() {
    assert_eq!(hash_after(20, false), "9a3a1afa359a70e8fefe55af350330d469ef7f8275fc09d7302f2c06f588ed73");
}
