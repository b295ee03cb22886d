//! What the kernels may choose freely, chosen otherwise: tiles, blocks, alignment, fresh memory, timing.
//!
//! The choices hold for a whole process, so each run is a process of its own: this test program, started again.

use crate::harness::{Ended, Fault, Place, Whole, is_full, sample};
use kinone::kernels::perturb::Perturbation;
use kinone::kernels::{Cpu, Isa};
use kinone::runs::directory::RunDirectory;
use kinone::train::Saving;
use kinone::train::course::Plan;
use kinone::train::fit::{Epoch, Observer, Start, fit};
use kinone::train::prepare;
use kinone::train::trainer::Step;
use kinone::xray::Part;
use std::path::PathBuf;
use std::process::Command;

struct Nobody;

impl Observer for Nobody {
    fn epoch_begins(&mut self, _: u32, _: usize, _: usize) {}
    fn step(&mut self, _: &Step, _: usize) {}
    fn epoch_ends(&mut self, _: &Epoch) {}
    fn alarm(&mut self, _: &str) {}
    fn signal(&self) -> Option<i32> {
        None
    }
}

/// The run of the harness in the folder that the environment names, perturbed as it says. No test by itself.
#[test]
#[ignore = "started by the tests below"]
fn worker() {
    let Some(folder) = std::env::var_os("KINONE_WORKER") else { return };
    let asked = |name: &str| std::env::var(format!("KINONE_WORKER_{name}")).ok();
    let number = |name: &str| asked(name).map(|text| text.parse::<u64>().unwrap());
    let size = |name: &str| number(name).map(|number| number as usize);
    Perturbation {
        rows: size("ROWS"),
        registers: size("REGISTERS"),
        block: size("BLOCK"),
        far: size("FAR"),
        cache: size("CACHE"),
        zeros: number("ZEROS").is_some(),
        offset: size("OFFSET").unwrap_or(0),
        fill: number("FILL").map(|bits| bits as u32),
        delays: number("DELAYS"),
    }
    .set();
    let cpu = Cpu::new(Isa::selected().unwrap(), size("THREADS").unwrap_or(1)).unwrap();
    let (_, config) = RunDirectory::open(&PathBuf::from(asked("CONFIG").unwrap())).unwrap();
    cpu.install();
    let data = prepare::dataset(&config, &Part::ALL, &Cpu::current(), &|_, _| {}).unwrap();
    let plan = Plan::new(&config, &data).unwrap();
    let (run, _lock) = RunDirectory::create(&PathBuf::from(folder), &config).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let saving = Saving { checkpoint_every: 0, keep_every: 0, on_error: Default::default(), version };
    fit(&plan, Start::Fresh, &run, saving, &mut Nobody).unwrap();
}

/// Runs the worker perturbed in these ways; it must end as the undisturbed run did.
fn is_equal(isa: Isa, ways: &[(&str, u64)]) {
    let place = Place::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "j_inside::worker", "--ignored"]).env("KINONE_WORKER", place.path("run"));
    command.env("KINONE_ISA", isa.name()).env("RUST_BACKTRACE", "0");
    command.env("KINONE_WORKER_CONFIG", Whole::get().place.path("run"));
    for (name, value) in ways {
        command.env(format!("KINONE_WORKER_{name}"), value.to_string());
    }
    let ended = Ended::of(&mut command);
    assert!(ended.status.success() && ended.stdout.contains("1 passed"), "{isa} {ways:?}: {ended}");
    let summary = serde_json::from_slice(&place.read("run/summary.json")).unwrap();
    Whole::get().is_equal(&place, &summary);
}

/// The instruction sets in turn, the widest first.
fn isa(k: usize) -> Isa {
    let all = Isa::present();
    all[all.len() - 1 - k % all.len()]
}

/// Numbers that differ from one another, the same in every run of the tests.
fn draw(k: u64) -> u64 {
    let mut z = (k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}

#[test]
fn fault_j03_tiles_and_blocks() {
    let fault = Fault::new("J03");
    let mut cases = vec![(1, 1, 1), (1, 1, 4096), (8, 3, 1), (5, 4, 13)];
    let drawn = if is_full() { 60 } else { 3 };
    cases.extend((0..drawn).map(|k| (1 + draw(k) % 8, 1 + draw(k) / 8 % 4, 1 + draw(k) / 64 % 300)));
    for (k, (rows, registers, block)) in cases.iter().enumerate() {
        let far = [1, u64::MAX][k % 2];
        let mut ways = vec![
            ("ROWS", *rows),
            ("REGISTERS", *registers),
            ("BLOCK", *block),
            ("FAR", far),
            ("CACHE", [1 << 12, 1 << 24][k / 2 % 2]),
            ("THREADS", 1 + k as u64 % 3),
        ];
        if k % 4 < 2 {
            ways.push(("ZEROS", 1));
        }
        is_equal(isa(k), &ways);
    }
    fault.survived(cases.len(), "tiles of 1 to 8 rows and 1 to 4 registers, blocks of 1 to 4096 terms, for second-level caches of 4 KiB and 16 MiB, terms of zeros left out wherever there are some, drawn: equal weights, scores and chain");
}

#[test]
fn fault_j04_alignment() {
    let fault = Fault::new("J04");
    let offsets = sample(1..=15_u64, 4);
    for (k, offset) in offsets.iter().enumerate() {
        is_equal(isa(k), &[("OFFSET", *offset), ("THREADS", 1 + k as u64 % 3)]);
    }
    fault.survived(
        offsets.len(),
        "every buffer 4 to 60 bytes behind a cache line: equal weights, scores and chain",
    );
}

#[test]
fn fault_j05_fresh_memory() {
    let fault = Fault::new("J05");
    let fills = [0, 0xffff_ffff, 0x7fa5_a5a5, 0x7f80_0000, 0x0000_0001, 0xff7f_ffff_u64];
    for (k, fill) in fills.iter().enumerate() {
        is_equal(isa(k), &[("FILL", *fill), ("THREADS", 1 + k as u64 % 3)]);
    }
    fault.survived(fills.len(), "every buffer handed out full of zeros, ones, quiet and signalling NaN, infinity, denormals: equal weights, scores and chain");
}

#[test]
fn fault_j06_pauses() {
    let fault = Fault::new("J06");
    let seeds = sample(1..=20_u64, 4);
    for (k, seed) in seeds.iter().enumerate() {
        is_equal(isa(k), &[("DELAYS", *seed), ("THREADS", [2, 3, 7][k % 3])]);
    }
    fault.survived(seeds.len(), "every thread waits for a random while before each of its shares, on 2, 3 and 7 threads: equal weights, scores and chain");
}
