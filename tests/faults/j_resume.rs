//! Stopped and resumed: at every step, from every checkpoint, on other machines.

use crate::harness::{Ended, Fault, Place, Whole, foreign, is_full, is_here, sample};
use kinone::kernels::{Cpu, Isa};
use kinone::runs::directory::RunDirectory;
use kinone::train::Saving;
use kinone::train::course::Plan;
use kinone::train::fit::{End, Epoch, Observer, Start, fit};
use kinone::train::prepare;
use kinone::train::resume::Left;
use kinone::train::trainer::Step;
use kinone::xray::Part;
use std::cell::Cell;

/// The run's steps.
const STEPS: u64 = 20;

/// Another machine each time: an instruction set and a number of threads.
fn machine(k: u64) -> (Isa, usize) {
    let all = Isa::present();
    (all[k as usize % all.len()], [1, 2, 3, 7][k as usize % 4])
}

/// Asks to stop after so many steps of this process.
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
    fn alarm(&mut self, _: &str) {}
    fn signal(&self) -> Option<i32> {
        (self.made.get() >= self.after).then_some(15)
    }
}

#[test]
fn fault_j11_stopped_at_every_step() {
    let fault = Fault::new("J11");
    let (_, config) = RunDirectory::open(&Whole::get().place.path("run")).unwrap();
    let data = prepare::dataset(&config, &Part::ALL, &Cpu::current(), &|_, _| {}).unwrap();
    let plan = Plan::new(&config, &data).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let saving = Saving { checkpoint_every: 0, keep_every: 0, on_error: Default::default(), version };
    // Steps between two stops: with one, every step is a stop. Each stretch is made on another machine.
    let strides = if is_full() { vec![1, 2, 3, 7, 19] } else { vec![1, 7] };
    let mut stops = 0;
    for after in strides {
        let place = Place::new();
        let path = place.path("run");
        loop {
            let (isa, threads) = machine(stops);
            stops += 1;
            let cpu = Cpu::new(isa, threads).unwrap();
            let mut observer = Stopper { after, made: Cell::new(0) };
            let end = cpu.scope(|| {
                let (run, start) = if path.join("config.toml").exists() {
                    let (run, recorded) = RunDirectory::open(&path).unwrap();
                    let left = Left::find(&run, &recorded, &cpu).unwrap();
                    (run, Start::Resumed { newest: Box::new(left.newest.unwrap()), changes: Vec::new() })
                } else {
                    (RunDirectory::create(&path, &config).unwrap().0, Start::Fresh)
                };
                fit(&plan, start, &run, saving, &mut observer).unwrap()
            });
            place.every_checkpoint_is_sound();
            if matches!(end, End::Finished(_)) {
                break;
            }
        }
        let summary = serde_json::from_slice(&place.read("run/summary.json")).unwrap();
        Whole::get().is_equal(&place, &summary);
    }
    fault.survived(
        stops as usize,
        "a run of 20 steps stopped after each step, or after several, each stretch on another instruction set and number of \
         threads: equal weights, scores and chain",
    );
}

#[test]
fn fault_j12_resumed_elsewhere_at_every_checkpoint() {
    let fault = Fault::new("J12");
    let checkpoints = sample(1..STEPS, 5);
    for step in &checkpoints {
        let place = Place::with_checkpoints(|kept| kept <= *step && (kept + 1 >= *step || kept == 10));
        let (isa, threads) = machine(*step);
        let threads = format!("--threads={threads}");
        let mut command = place.command(&["train", "--json", "--resume=run", &threads]);
        command.env("KINONE_ISA", isa.name());
        let ended = Ended::of(&mut command).succeeded();
        Whole::get().is_equal(&place, &serde_json::from_str(&ended.stdout).unwrap());
    }
    let mut emulated = 0;
    if let Some(program) = foreign::programs("isa-aarch64").first().filter(|_| is_here("qemu-aarch64")) {
        for step in sample([1, 10, STEPS - 1], if is_full() { 3 } else { 2 }) {
            let place = Place::with_checkpoints(|kept| kept <= step && (kept + 1 >= step || kept == 10));
            let mut command = foreign::command(program, &place.path("."));
            let ended = Ended::of(command.args(["train", "--json", "--resume=run"])).succeeded();
            Whole::get().is_equal(&place, &serde_json::from_str(&ended.stdout).unwrap());
            emulated += 1;
        }
    }
    let how = format!(
        "from each checkpoint on another instruction set and number of threads, {emulated} of them on emulated aarch64: equal bits"
    );
    if emulated > 0 {
        fault.survived(checkpoints.len() + emulated, &how);
    } else {
        fault.not_tried("another machine: no emulated one here", checkpoints.len(), &how);
    }
}
