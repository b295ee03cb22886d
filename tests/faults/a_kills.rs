//! Killed at every system call of a save, and at random moments.

use crate::harness::strace::{self, Call, committed, kill};
use crate::harness::{Fault, Place, Whole, kinone, sample, small};
use kinone::kernels::Isa;
use std::time::{Duration, SystemTime};

/// Goes on with `run` and saves after every step.
pub(crate) const RESUME: [&str; 6] =
    ["train", "--json", "--threads=1", "--checkpoint-every=1", "--resume", "run"];

/// The calls of an undisturbed resumption of `run` in such a place.
pub(crate) fn undisturbed(place: &Place) -> Vec<Call> {
    let (ended, calls) = strace::run(&place.copy(), &[&[kinone()], &RESUME[..]].concat(), &[]);
    ended.succeeded();
    calls
}

/// Kills the program at a call; what was committed is there, and the run goes on to its end.
fn is_survived(place: &Place, before: u64, call: &Call) -> bool {
    let place = place.copy();
    let outside = place.outside();
    let (ended, calls) = strace::run(&place, &[&[kinone()], &RESUME[..]].concat(), &kill(call));
    if !ended.was_killed() {
        return false;
    }
    assert_eq!(place.outside(), outside, "{call:?}");
    let committed = committed(&calls).unwrap_or(before);
    let (step, _) = place.newest().unwrap_or_else(|| panic!("no checkpoint left: {call:?}"));
    assert!(step >= committed, "{committed} was committed, {step} is there: {call:?}");
    place.every_checkpoint_is_sound();
    place.chain_leads_to_the_newest();
    place.resumes_to(Whole::get());
    true
}

/// Kills at each of the calls; how many were met.
fn kills(place: &Place, before: u64, calls: &[Call]) -> usize {
    let met = calls.iter().filter(|call| is_survived(place, before, call)).count();
    // A thread more or less, a second that passed, may change a trace by a call or two.
    assert!(met * 10 >= calls.len() * 9, "{met} of {} calls were met", calls.len());
    met
}

#[test]
fn fault_a01_kill_at_every_call_of_a_save() {
    let fault = Fault::new("A01");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    let place = Place::after_step(18);
    let calls = undisturbed(&place);
    let first = calls.iter().position(|call| call.name == "fdatasync").unwrap();
    let met = kills(&place, 18, &sample(calls[first..].to_vec(), 8));
    fault.survived(
        met,
        "strace kills `train --resume` at the entry of each system call from the first save on: steps 19 and 20, \
         the end of the epoch, the weights, the archive, the summary; then resumed to the undisturbed bits",
    );
}

#[test]
fn fault_a24_kill_between_checkpoint_and_log() {
    let fault = Fault::new("A24");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    let place = Place::after_step(16);
    let calls = undisturbed(&place);
    let renamed = calls.iter().position(|call| call.renames_checkpoint() == Some(17)).unwrap();
    let is_append = |call: &&Call| call.name == "write" && call.text.contains("\"link\\\":\\\"step");
    let next = calls[renamed..].iter().position(|call| is_append(&call)).unwrap();
    let met = kills(&place, 16, &sample(calls[renamed + 1..=renamed + next + 2].to_vec(), 3));
    fault.survived(
        met,
        "strace kills at each system call between the renaming of a checkpoint and the next lines of chain and log; \
         resumed, both have every row once",
    );
}

#[test]
fn fault_a25_kill_while_pruning() {
    let fault = Fault::new("A25");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    let place = Place::with_checkpoints(|step| step <= 17);
    let calls = undisturbed(&place);
    let renamed = calls.iter().position(|call| call.renames_checkpoint() == Some(18)).unwrap();
    let is_unlink = |call: &Call| call.is_one_of(&["unlink", "unlinkat"]);
    let last = calls.iter().rposition(|call| is_unlink(call) && call.text.contains("step_")).unwrap();
    let pruning = &calls[renamed + 1..=last + 1];
    let count = pruning.iter().filter(|call| is_unlink(call)).count();
    assert!(count >= 14, "{count} files are removed");
    let met = kills(&place, 17, &sample(pruning.to_vec(), 4));
    fault.survived(
        met,
        "strace kills at each system call while fourteen and more old checkpoints are removed",
    );
}

#[test]
fn fault_a26_seven_kills() {
    let fault = Fault::new("A26");
    let more = ["--epochs=12"];
    let whole = Whole::with(&more);
    let place = Place::new();
    let isas = Isa::present();
    // Moments that differ from run to run of this test, and are shown when it fails.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut random = now.as_nanos() as u64 | 1;
    for number in 0..7 {
        let before = place.links();
        let threads = ["--threads=1", "--threads=2", "--threads=3", "--threads=7"][number % 4];
        let saving = ["--checkpoint-every=1", threads];
        let arguments = match number {
            0 => small(&[&more[..], &["--run-dir=run"], &saving].concat()),
            _ => [&["train", "--json", "--resume=run"], &saving[..]].concat(),
        };
        let mut command = place.command(&arguments);
        let isa = isas[number % isas.len()];
        let mut program = crate::harness::Program::start(command.env("KINONE_ISA", isa.name()));
        assert!(program.wait_until(|| place.links() > before + 1), "it ended before kill {number}");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((random >> 33) % 60));
        program.signal("KILL");
        assert!(program.end().was_killed());
        assert!(!place.path("run/summary.json").exists(), "it ended before kill {number}; {random}");
    }
    place.resumes_to(&whole);
    fault.survived(
        7,
        "SIGKILL at seven random moments, each time another number of threads and instruction set",
    );
}
