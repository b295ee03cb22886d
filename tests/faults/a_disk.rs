//! The disk refuses: each write, flush and rename of a run in turn.

use crate::a_kills::{RESUME, undisturbed};
use crate::harness::strace::{self, Call, committed, fail};
use crate::harness::{Ended, Fault, Place, Whole, kinone, sample};

/// How a run went on after a call had failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// With exit code 5.
    Stopped,
    /// To its end, what was lost being a hint or said aloud.
    Finished,
}

/// Lets a call fail. What was committed must stay, and the run must be resumed to its end where it stopped.
fn fails(place: &Place, before: u64, call: &Call, error: &str, more: &[&str]) -> (Outcome, Ended, Vec<Call>) {
    let place = place.copy();
    let outside = place.outside();
    let program = [&[kinone()], &RESUME[..], more].concat();
    let (ended, calls) = strace::run(&place, &program, &fail(call, error));
    let case = || format!("{error} at {call:?}\n{ended}");
    assert!(strace::injected(&calls).is_some(), "not met: {}", case());
    assert_eq!(place.outside(), outside, "{}", case());
    let committed = committed(&calls).unwrap_or(before);
    let (step, _) = place.newest().unwrap_or_else(|| panic!("no checkpoint: {}", case()));
    assert!(step >= committed, "{committed} was committed, {step} is there: {}", case());
    place.every_checkpoint_is_sound();
    place.chain_leads_to_the_newest();
    place.has_no_leftover();
    let outcome = match ended.code() {
        Some(5) => {
            assert!(ended.stderr.starts_with("kinone: cannot ") && ended.stdout.is_empty(), "{}", case());
            assert_eq!(ended.stderr.lines().count(), 1, "{}", case());
            Outcome::Stopped
        }
        _ => {
            assert!(ended.status.success(), "{}", case());
            Outcome::Finished
        }
    };
    place.resumes_to(Whole::get());
    (outcome, ended, calls)
}

/// The calls of the names in an undisturbed resumption from step 18, from the first that `run` is named in.
fn calls_of(place: &Place, names: &[&str]) -> Vec<Call> {
    let calls = undisturbed(place);
    let first = calls.iter().position(|call| call.text.contains("run/")).unwrap();
    let is_file = |call: &&Call| !call.text.starts_with("write(1,") && !call.text.starts_with("write(2,");
    calls[first..].iter().filter(|call| call.is_one_of(names)).filter(is_file).cloned().collect()
}

/// Whether the call is about a file that is only a hint: where it fails nothing is lost.
fn is_hint(call: &Call) -> bool {
    ["heartbeat", "newest", "transcripts/", "\\\"host\\\""].iter().any(|name| call.text.contains(name))
}

#[test]
fn fault_a02_no_space_at_each_write() {
    let fault = Fault::new("A02");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    let place = Place::after_step(18);
    let writes = calls_of(&place, &["write"]);
    let (mut stopped, mut alarmed) = (0, 0);
    let chosen = sample(writes.clone(), 7);
    for call in &chosen {
        let (outcome, ended, _) = fails(&place, 18, call, "ENOSPC", &[]);
        if outcome == Outcome::Stopped {
            stopped += 1;
            assert!(
                ended.stderr.contains("bytes are needed") && ended.stderr.contains("are free"),
                "{ended}"
            );
        }
        let (_, ended, _) = fails(&place, 18, call, "ENOSPC", &["--on-save-error=continue"]);
        alarmed += usize::from(ended.status.success() && ended.stderr.contains("the run goes on"));
    }
    assert!(stopped > 0 && alarmed > 0, "{stopped} stopped, {alarmed} went on");
    fault.survived(
        2 * chosen.len(),
        "ENOSPC injected at each write of a resumed run, of the checkpoints, weights, log, chain and hints, once \
         with --on-save-error=stop (exit 5, bytes needed and free) and once with continue (an alarm; the next \
         save makes up for it)",
    );
}

#[test]
fn fault_a04_io_error_at_each_flush() {
    let fault = Fault::new("A04");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    let place = Place::after_step(18);
    let flushes = sample(calls_of(&place, &["fsync", "fdatasync"]), 7);
    for call in &flushes {
        let (outcome, ended, calls) = fails(&place, 18, call, "EIO", &[]);
        assert_eq!(outcome, Outcome::Stopped, "{call:?} {ended}");
        let failed = strace::injected(&calls).unwrap();
        // Nothing is flushed or put in its place after that: the failed flush is not tried again.
        let later = &calls[failed + 1..];
        let again = later.iter().find(|call| {
            call.is_one_of(&["fsync", "fdatasync"]) || (call.name.starts_with("rename") && !is_hint(call))
        });
        assert!(again.is_none(), "{again:?} after {call:?}");
        fails(&place, 18, call, "EIO", &["--on-save-error=continue"]);
    }
    fault.survived(
        2 * flushes.len(),
        "EIO injected at each fsync and fdatasync of a resumed run, stopping and continuing; when it stops, no flush \
         and no rename follows; when it goes on, what was not flushed is written anew",
    );
}

#[test]
fn fault_a05_rename_and_folder_flush() {
    let fault = Fault::new("A05");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    let place = Place::after_step(18);
    let renames = sample(calls_of(&place, &["rename", "renameat", "renameat2"]), 4);
    let mut cases = 0;
    for call in &renames {
        for error in ["EIO", "ENOSPC"] {
            let (outcome, ended, calls) = fails(&place, 18, call, error, &[]);
            assert_eq!(outcome == Outcome::Finished, is_hint(call), "{call:?} {ended}");
            if call.renames_checkpoint().is_some() {
                assert_eq!(committed(&calls), committed(&calls[..strace::injected(&calls).unwrap()]));
                assert!(!ended.stdout.contains("saved"), "{ended}");
            }
            cases += 1;
        }
    }
    // The flush of the folder after a checkpoint was renamed.
    let calls = undisturbed(&place);
    for (number, call) in calls.iter().enumerate().filter(|(_, call)| call.renames_checkpoint().is_some()) {
        let flush = calls[number..].iter().find(|call| call.name == "fsync").unwrap();
        let (outcome, ended, calls) = fails(&place, 18, flush, "EIO", &[]);
        assert_eq!(outcome, Outcome::Stopped, "{call:?} {ended}");
        // Only what had been committed before: this save is not.
        assert_eq!(committed(&calls), committed(&calls[..strace::injected(&calls).unwrap() - 2]), "{call:?}");
        cases += 1;
    }
    fault.survived(
        cases,
        "EIO and ENOSPC injected at each rename, EIO at the flush of the folder after each checkpoint",
    );
}

#[test]
fn fault_a06_quota_and_file_size_limit() {
    let fault = Fault::new("A06");
    let mut cases = 0;
    let place = Place::after_step(18);
    if strace::no_strace().is_none() {
        for call in sample(calls_of(&place, &["write"]), 3) {
            let (outcome, ended, _) = fails(&place, 18, &call, "EDQUOT", &[]);
            assert!(outcome == Outcome::Finished || ended.stderr.contains("bytes are needed"), "{ended}");
            cases += 1;
        }
    }
    for limit in ["0", "1", "4096", "20000", "400000", "900000"] {
        let place = place.copy();
        let limit = format!("--fsize={limit}");
        let mut command = place.tool("prlimit");
        command.args([&limit, "--core=unlimited"]).arg(kinone()).args(RESUME);
        Ended::of(&mut command).failed(5, &["cannot ", "File too large", "bytes are needed"]);
        place.every_checkpoint_is_sound();
        place.has_no_leftover();
        place.resumes_to(Whole::get());
        cases += 1;
    }
    let how = "RLIMIT_FSIZE of 0 to 900000 bytes: SIGXFSZ becomes the error of the write, exit 5, no core dump; \
               EDQUOT injected at each write";
    match strace::no_strace() {
        None => fault.survived(cases, how),
        Some(why) => fault.not_tried(&format!("no quota: {why}"), cases, how),
    }
}
