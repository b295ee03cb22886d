//! File systems that are too small, or become read-only.

use crate::a_kills::{RESUME, undisturbed};
use crate::harness::strace;
use crate::harness::{Ended, Fault, Place, Whole, kinone, sample, small};
use std::fs;

/// Why no file system can be mounted, where that is so.
fn no_mount() -> Option<&'static str> {
    let place = Place::new();
    let mount = "mount -t tmpfs -o size=1m none /mnt";
    let ended = Ended::of(place.tool("unshare").args(["-m", "sh", "-c", mount]));
    (!ended.status.success()).then_some("no file system can be mounted: that needs the rights of root")
}

/// Trains into a file system of so many KiB, mounted for the program alone; what it left is copied to `run`.
fn trained_on_a_small_disk(place: &Place, size: usize) -> Ended {
    fs::create_dir(place.path("disk")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size}k none disk || exit 99; \"$@\"; code=$?; \
         [ ! -d disk/run ] || cp -a disk/run run; exit $code"
    );
    let mut command = place.tool("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(kinone());
    Ended::of(command.args(small(&["--run-dir=disk/run", "--checkpoint-every=2", "--keep-every=2"])))
}

#[test]
fn fault_a03_small_file_system() {
    let fault = Fault::new("A03");
    if let Some(why) = no_mount() {
        return fault.not_tried(why, 0, "");
    }
    let (mut early, mut late, mut never) = (0, 0, 0);
    // Every checkpoint is kept, more than a run is refused for.
    let sizes = sample((0..24).map(|k| 500 + 750 * k), 12);
    for size in &sizes {
        let place = Place::new();
        let ended = trained_on_a_small_disk(&place, *size);
        if ended.status.success() {
            never += 1;
            continue;
        }
        let ended = ended.failed(5, &["cannot write disk/run", "need", "are free"]);
        if !place.path("run").exists() {
            early += 1;
            assert!(ended.stderr.contains("4 checkpoints of"), "{ended}");
            continue;
        }
        place.has_no_leftover();
        late += 1;
        place.every_checkpoint_is_sound();
        // With room again it goes on, from its newest checkpoint or anew.
        place.resumes_to(Whole::get());
    }
    assert!(early > 0 && late > 0 && never > 0, "{early} early, {late} late, {never} never");
    fault.survived(
        sizes.len(),
        "a tmpfs of 500 to 17750 KiB for a run with checkpoints of about 1000: refused before the first step, and nothing of it left, or the save fails and \
         the run is resumed elsewhere, or it fits",
    );
}

#[test]
fn fault_a18_read_only() {
    let fault = Fault::new("A18");
    if let Some(why) = strace::no_strace() {
        return fault.not_tried(why, 0, "");
    }
    let place = Place::after_step(18);
    let calls = undisturbed(&place);
    let first = calls.iter().position(|call| call.name == "fdatasync").unwrap();
    let moments = sample(first..calls.len(), 6);
    let mut stopped = 0;
    for moment in &moments {
        let place = place.copy();
        let names = ["write", "rename", "renameat", "ftruncate", "unlink", "unlinkat", "mkdir"];
        let faults = strace::fail_from_then_on(&calls[..*moment], &names, "EROFS");
        // The messages are writes too, and fail with the rest. Opening, which also serves reading, is let through.
        let (ended, _) = strace::run(&place, &[&[kinone()], &RESUME[..]].concat(), &faults);
        stopped += usize::from(ended.code() == Some(5));
        assert!([Some(5), Some(1), Some(0)].contains(&ended.code()), "{ended}");
        place.every_checkpoint_is_sound();
        place.chain_leads_to_the_newest();
        place.resumes_to(Whole::get());
    }
    assert!(stopped * 2 > moments.len(), "{stopped} of {} stopped", moments.len());
    // The same for real, before the run begins.
    if no_mount().is_none() {
        let place = place.copy();
        let mut command = place.tool("unshare");
        let script = "mount --bind run run && mount -o remount,ro,bind run && exec \"$@\"";
        command.args(["-m", "sh", "-c", script, "sh"]).arg(kinone()).args(RESUME);
        Ended::of(&mut command).failed(5, &["cannot lock", "Read-only file system"]);
        place.resumes_to(Whole::get());
    }
    fault.survived(
        moments.len() + 1,
        "EROFS injected into every writing call from a moment on, spread over the end of a run (a file system in use \
         cannot be remounted read-only by hand): exit 5, older checkpoints intact, resumed to equal bits; and a run \
         directory on a read-only mount from the start. The alarm is the message; there is no dashboard yet",
    );
}
