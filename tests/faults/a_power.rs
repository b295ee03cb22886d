//! Power lost during a save, on a model of a file system; and a writer that does not survive it.

use crate::a_kills::RESUME;
use crate::harness::power::{self, Crash};
use crate::harness::strace::{self, fail, kill};
use crate::harness::{Fault, Place, Whole, is_full, kinone, sample, small};
use kinone::kernels::Cpu;
use kinone::runs::checkpoint::Checkpoint;

/// In this state of the disk what was committed must be there.
fn holds_what_was_committed(crash: &Crash, is_resumed: bool) {
    let place = crash.restore();
    let newest = place.store().newest(&Cpu::current());
    let newest = newest.unwrap_or_else(|error| panic!("{error}, {}", crash.what));
    let step = newest.map(|newest| newest.checkpoint.header.progress.step);
    assert!(
        step >= crash.committed,
        "{:?} was committed, {step:?} is there, {}",
        crash.committed,
        crash.what
    );
    if step.is_some() {
        place.chain_leads_to_the_newest();
    }
    if is_resumed && place.path("run/config.toml").exists() {
        place.resumes_to(Whole::get());
    }
}

#[test]
fn fault_a07_power_loss() {
    let fault = Fault::new("A07");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    // The last steps, where every file of a run is written.
    let before = Place::after_step(18);
    let scene = before.copy();
    let mut crashes = {
        let mut traced = power::trace(&scene, &[&[kinone()], &RESUME[..]].concat());
        traced = traced.replace(&hex(&scene), &hex(&before));
        power::crashes(&before, Some(18), &traced)
    };
    // The first steps of a run.
    let (before, scene) = (Place::new(), Place::new());
    let program = [&[kinone()], &small(&["--checkpoint-every=1", "--run-dir=run"])[..]].concat();
    let traced = power::trace(&scene, &program).replace(&hex(&scene), &hex(&before));
    let first = power::crashes(&before, None, &traced);
    crashes.extend(first.into_iter().take_while(|crash| crash.committed < Some(3)));
    assert!(crashes.len() > 500, "{} states", crashes.len());
    let all = crashes.len();
    let chosen = sample(crashes, 60);
    // Going on to the end takes longer than loading: it is done from some of the states, evenly spread.
    let every = chosen.len().div_ceil(if is_full() { 150 } else { 6 });
    let mut resumed = 0;
    for (k, crash) in chosen.iter().enumerate() {
        holds_what_was_committed(crash, k.is_multiple_of(every));
        resumed += usize::from(k.is_multiple_of(every));
    }
    fault.survived(
        chosen.len(),
        &format!(
            "the first three and the last two steps of a run traced; from the trace a model file system makes {all} \
             different states in which a loss of power may leave the disk; in each the committed step must load and \
             the chain lead to it; from {resumed} of them, evenly spread, it is resumed to equal bits"
        ),
    );
}

/// A place's path as strace prints it.
fn hex(place: &Place) -> String {
    let path = place.path("run").display().to_string();
    path.trim_end_matches("/run").bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// The harness finds the faults of the naive writer: otherwise its silence about the program would say nothing.
#[test]
fn the_harness_finds_what_a_naive_writer_loses() {
    if strace::no_strace().is_some() {
        println!("NOT TRIED HERE: strace cannot be used");
        return;
    }
    let scene = Place::after_step(18);
    let newer = Place::after_step(19);
    scene.write("new", &newer.read("run/checkpoints/step_00000019.safetensors"));
    let target = "run/checkpoints/step_00000018.safetensors";
    // A writer as one should not be: over the old content, piece by piece, never flushed.
    let piece = scene.read("new").len() / 5 + 1;
    let (input, output, piece) = ("if=new", format!("of={target}"), format!("bs={piece}"));
    let program = ["dd", input, &output, &piece, "conv=notrunc", "status=none"];
    // Whether the checkpoint, old or new, is there.
    let is_lost = |place: &Place| Checkpoint::load(&Cpu::current(), &place.path(target)).is_err();
    let whole = scene.copy();
    let (_, calls) = strace::run(&whole, &program, &[]);
    assert!(!is_lost(&whole), "undisturbed, it writes what it should");
    let opened = calls.iter().position(|call| call.text.contains(target) && call.name == "openat").unwrap();
    let own: Vec<_> =
        calls[opened..].iter().filter(|call| call.is_one_of(&["write", "lseek"])).cloned().collect();
    let count = |faults: &dyn Fn(&strace::Call) -> Vec<String>| {
        own.iter()
            .filter(|call| {
                let place = scene.copy();
                strace::run(&place, &program, &faults(call));
                is_lost(&place)
            })
            .count()
    };
    assert_eq!(count(&kill), 4, "killed between its five writes");
    assert_eq!(count(&|call| fail(call, "ENOSPC")), 4, "no room for one of its writes but the first");
    let before = scene.copy();
    let traced = power::trace(&scene, &program).replace(&hex(&scene), &hex(&before));
    let crashes = power::crashes(&before, Some(18), &traced);
    let lost = crashes.iter().filter(|crash| is_lost(&crash.restore())).count();
    assert!(lost >= 4, "{lost} of {} states after a loss of power", crashes.len());
}
