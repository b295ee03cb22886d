//! Signals: at random moments, twice, at every system call of a save.

use crate::a_kills::{RESUME, undisturbed};
use crate::harness::strace::{self, signal};
use crate::harness::{Ended, Fault, Place, Program, Whole, is_full, kinone, sample, small};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const LONG: &str = "--epochs=12";

/// An undisturbed run of twelve epochs.
fn long() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| Whole::with(&[LONG]))
}

fn id(child: &Child) -> String {
    child.id().to_string()
}

/// Sends a signal at moments spread over a run; it saves, ends with the code, and is resumed.
fn at_moments(name: &str, code: i32) -> usize {
    let mut met = 0;
    for moment in sample(0..30, 2) {
        let place = Place::new();
        let mut program = place.start(&small(&[LONG, "--run-dir=run"]));
        program.wait_until(|| place.links() > 3 * moment);
        let asked = Instant::now();
        let _ = Command::new("kill").args(["-s", name, &id(&program.child)]).output();
        let ended = program.end();
        assert!(asked.elapsed() < Duration::from_secs(10), "{ended}");
        if ended.status.success() {
            continue;
        }
        assert_eq!(ended.code(), Some(code), "{ended}");
        assert!(ended.stderr.is_empty(), "{ended}");
        assert!(place.text("run/console.log").contains("and saved; go on with --resume run"));
        let (step, _) = place.newest().unwrap();
        assert_eq!(step as usize, place.links() - 1, "the step under way is finished and saved");
        place.resumes_to(long());
        met += 1;
    }
    assert!(met > 0, "every run had ended before {name}");
    met
}

#[test]
fn fault_b01_sigterm() {
    let fault = Fault::new("B01");
    let met = at_moments("TERM", 143);
    fault.survived(
        met,
        "SIGTERM at moments spread over a run: the step is finished, saved, exit 143; then resumed",
    );
}

#[test]
fn fault_b02_sigint() {
    let fault = Fault::new("B02");
    let met = at_moments("INT", 130);
    fault.survived(
        met,
        "SIGINT at moments spread over a run: the step is finished, saved, exit 130; then resumed",
    );
}

#[test]
fn fault_b05_sighup() {
    let fault = Fault::new("B05");
    let met = at_moments("HUP", 129);
    fault.survived(
        met,
        "SIGHUP at moments spread over a run: as documented it saves and stops, exit 129; resumed",
    );
}

#[test]
fn fault_b03_sigint_twice() {
    let fault = Fault::new("B03");
    // Steps of about a second.
    let slow = ["--model=resnet18", "--image-size=64", "--batch-size=75", "--optimizer=sgd", "--momentum=0"];
    let place = Place::new();
    let more = ["--epochs=50", "--checkpoint-every=1", "--run-dir=run"];
    let mut program = place.start(&small(&[&slow[..], &more].concat()));
    assert!(program.wait_until(|| !place.store().steps().is_empty() && place.links() > 2));
    let pid = id(&program.child);
    let send = || assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let mut cases = 0;
    send();
    std::thread::sleep(Duration::from_millis(30));
    let second = Instant::now();
    if program.child.try_wait().unwrap().is_none() {
        send();
        cases += 1;
    }
    let ended = program.end();
    assert_eq!(ended.code(), Some(130), "{ended}");
    assert!(second.elapsed() < Duration::from_secs(1), "{:?}", second.elapsed());
    let (step, _) = place.newest().expect("the last checkpoint");
    assert!(step >= 1);
    place.every_checkpoint_is_sound();
    place.chain_leads_to_the_newest();
    fault.survived(
        cases,
        "SIGINT twice in the middle of a long step: exit 130 within a second, checkpoints intact",
    );
}

#[test]
fn fault_b04_signals_during_a_save() {
    let fault = Fault::new("B04");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    let place = Place::after_step(18);
    let calls = undisturbed(&place);
    let first = calls.iter().position(|call| call.name == "fdatasync").unwrap();
    let chosen = sample(calls[first..].to_vec(), 5);
    let mut cases = 0;
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        for call in &chosen {
            let place = place.copy();
            let (ended, _) = strace::run(&place, &[&[kinone()], &RESUME[..]].concat(), &signal(call, name));
            // Near the end of the run there is nothing left to stop.
            let is_right = ended.code() == Some(code) || ended.status.success();
            assert!(is_right && ended.stderr.is_empty(), "{name} at {call:?}: {ended}");
            place.every_checkpoint_is_sound();
            place.has_no_leftover();
            place.chain_leads_to_the_newest();
            place.resumes_to(Whole::get());
            cases += 1;
        }
    }
    fault.survived(
        cases,
        "strace sends SIGINT and SIGTERM at each system call from the first save on; then resumed",
    );
}

#[test]
fn fault_b08_held_and_let_go() {
    let fault = Fault::new("B08");
    let seconds = if is_full() { 30 } else { 1 };
    let place = Place::new();
    let mut program = place.start(&small(&[LONG, "--run-dir=run"]));
    assert!(program.wait_until(|| place.links() > 5));
    program.signal("STOP");
    std::thread::sleep(Duration::from_secs(seconds));
    program.signal("CONT");
    let ended: Ended = Program::end(program).succeeded();
    let summary: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    long().is_equal(&place, &summary);
    let wall = summary["wall_seconds"].as_f64().unwrap();
    assert!(wall >= seconds as f64, "{wall} s are recorded, of which {seconds} were spent waiting");
    fault.survived(
        1,
        "SIGSTOP in the middle of a run, SIGCONT 30 s later (1 s in the everyday run); the time is counted",
    );
}
