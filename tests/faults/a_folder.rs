//! What is found in a run directory: leftovers, a wrong hint, locks of others, names that lead elsewhere.

use crate::harness::{Ended, Fault, Place, Program, Whole, as_user, kinone, not_root, small};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Resumes `run` to its end, without JSON, and gives what was said.
fn resumed_aloud(place: &Place) -> String {
    let ended = place.run(&["train", "--threads=1", "--resume=run"]).succeeded();
    let summary = serde_json::from_slice(&place.read("run/summary.json")).unwrap();
    Whole::get().is_equal(place, &summary);
    ended.stdout
}

/// A run that was asked to pause while it made its steps, and waits.
fn paused(place: &Place) -> Program {
    fs::create_dir(place.path("tmp")).unwrap();
    // On a busy machine the run may be over before it was asked: then another is made.
    for _ in 0..20 {
        let mut command = place.command(&small(&["--run-dir=run"]));
        let mut program = Program::start(command.env("TMPDIR", place.path("tmp")));
        program.wait_until(|| place.links() > 0);
        place.write("run/control", b"pause\n");
        let doing = || fs::read_to_string(place.path("run/heartbeat.json")).unwrap_or_default();
        if program.wait_until(|| doing().contains("paused")) {
            return program;
        }
        fs::remove_dir_all(place.path("run")).unwrap();
    }
    panic!("no run could be paused");
}

#[test]
fn fault_a14_leftover_temporary_files() {
    let fault = Fault::new("A14");
    let place = Place::after_step(18);
    let left =
        ["run/.1.part", "run/checkpoints/.2.part", "run/transcripts/.3.part", "run/.heartbeat.json.part"];
    for name in left {
        place.write(name, &[0; 5000]);
    }
    resumed_aloud(&place);
    fault.survived(
        left.len(),
        "temporary files of a killed writer in every folder of the run; gone after resuming",
    );
}

#[test]
fn fault_a15_newest_checkpoint_gone() {
    let fault = Fault::new("A15");
    let place = Place::after_step(18);
    fs::remove_file(place.store().path(18)).unwrap();
    let said = resumed_aloud(&place);
    assert!(said.contains("step_00000018.safetensors is gone") && said.contains("after step 17"), "{said}");
    fault.survived(1, "the newest checkpoint removed; the one before is taken, aloud");
}

#[test]
fn fault_a16_wrong_hint() {
    let fault = Fault::new("A16");
    let hints: [&[u8]; 6] =
        [b"", b"step_000", b"garbage\n", b"\xff\xfe", b"step_00000001.safetensors", b"../../etc/passwd"];
    for hint in hints {
        let place = Place::after_step(18);
        place.write("run/checkpoints/newest", hint);
        let said = resumed_aloud(&place);
        assert!(said.contains("resumed after step 18"), "{hint:?} {said}");
    }
    let place = Place::after_step(18);
    fs::remove_file(place.path("run/checkpoints/newest")).unwrap();
    resumed_aloud(&place);
    fault.survived(
        hints.len() + 1,
        "the hint `newest` empty, cut, garbage, of an old step, of a path, gone: the folder itself is read",
    );
}

#[test]
fn fault_a17_run_directory_removed() {
    let fault = Fault::new("A17");
    // Beside the run directory, and where that cannot be, in the folder for temporary files.
    for is_blocked in [false, true] {
        let place = Place::new();
        let program = paused(&place);
        if is_blocked {
            place.write("run_rescued", b"in the way");
        }
        fs::remove_dir_all(place.path("run")).unwrap();
        let ended = program.end();
        if is_blocked {
            let rescued = place.path("tmp/run_rescued");
            let ended = ended.failed(5, &["the run directory is gone", "--resume"]);
            assert!(ended.stderr.contains(&rescued.display().to_string()), "{ended}");
            fs::rename(rescued, place.path("run")).unwrap();
        } else {
            ended
                .failed(5, &["cannot write", "the run directory is gone", "go on with --resume run_rescued"]);
            assert!(!place.path("run").exists());
            fs::rename(place.path("run_rescued"), place.path("run")).unwrap();
        }
        place.resumes_to(Whole::get());
        place.run(&["verify", "--run-dir=run"]).succeeded();
    }
    fault.survived(
        2,
        "the run directory removed under a paused run, which goes on: the next save fails, everything is written to a \
         run directory beside it or under the folder for temporary files, and that is resumed and verified",
    );
}

#[test]
fn fault_a19_second_training() {
    let fault = Fault::new("A19");
    let place = Place::new();
    let program = paused(&place);
    let holder = format!("process {} on ", program.child.id());
    let held: Vec<String> = fs::read_dir(place.path("run")).unwrap().map(|e| format!("{e:?}")).collect();
    for _ in 0..2 {
        let second = place.run(&small(&["--run-dir=run"]));
        second.failed(6, &["run is in use by", &holder]);
    }
    let now: Vec<String> = fs::read_dir(place.path("run")).unwrap().map(|e| format!("{e:?}")).collect();
    assert_eq!(now, held);
    place.write("run/control", b"resume\n");
    let summary = serde_json::from_str(&program.end().succeeded().stdout).unwrap();
    Whole::get().is_equal(&place, &summary);
    fault.survived(
        2,
        "a second `train --run-dir` while the first is paused: exit 6, naming process and machine",
    );
}

#[test]
fn fault_a20_lock_of_the_dead() {
    let fault = Fault::new("A20");
    // The lock of a process that was killed while it held it.
    let place = Place::new();
    let program = paused(&place);
    program.signal("KILL");
    assert!(program.end().was_killed());
    place.resumes_to(Whole::get());
    // Names in the file decide nothing: of a living stranger, of another machine, of nobody.
    let names =
        [format!("process {} on {}\n", std::process::id(), "here"), "process 1 on elsewhere\n".into()];
    for name in names.iter().map(String::as_bytes).chain([&b""[..], &[0xff; 5000]]) {
        let place = Place::after_step(18);
        place.write("run/lock", name);
        place.resumes_to(Whole::get());
    }
    fault.survived(
        5,
        "SIGKILL of the holder; lock files that name a living stranger, another machine, nobody",
    );
}

#[test]
fn fault_a21_resumed_while_it_runs() {
    let fault = Fault::new("A21");
    let place = Place::new();
    let program = paused(&place);
    let holder = format!("process {} on ", program.child.id());
    for more in [&["--resume=run"][..], &["--resume=run", "--override", "--lr=1"]] {
        place.run(&[&["train"], more].concat()).failed(6, &["run is in use by", &holder]);
    }
    place.write("run/control", b"resume\n");
    let summary = serde_json::from_str(&program.end().succeeded().stdout).unwrap();
    Whole::get().is_equal(&place, &summary);
    fault.survived(2, "`train --resume` while the run is paused: exit 6, naming process and machine");
}

#[test]
fn fault_a22_name_leads_elsewhere() {
    let fault = Fault::new("A22").verdict(
        "R or E",
        "a newest checkpoint that is no regular file is passed over aloud like any other damaged one, and the run is \
         resumed from the one before; only where none is left does it stop",
    );
    let put = |place: &Place, kind: &str, path: &std::path::Path| {
        fs::remove_file(path).unwrap();
        match kind {
            "link" => std::os::unix::fs::symlink(place.path("target"), path).unwrap(),
            "pipe" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            _ => fs::create_dir(path).unwrap(),
        }
    };
    let kinds = [("link", "symbolic link"), ("pipe", "not a regular file"), ("folder", "not a regular file")];
    for (kind, words) in kinds {
        let place = Place::after_step(18);
        let target = place.read("run/checkpoints/step_00000018.safetensors");
        place.write("target", &target);
        put(&place, kind, &place.store().path(18));
        let said = resumed_aloud(&place);
        assert!(said.contains(words) && said.contains("resumed after step 17"), "{said}");
        assert!(place.read("target") == target, "{kind}: the target was touched");
        assert!(!place.store().steps().contains(&18), "{kind}: is still there");
        // Where none is left.
        let place = Place::after_step(18);
        place.write("target", &target);
        for step in place.store().steps() {
            put(&place, kind, &place.store().path(step));
        }
        place.run(&["train", "--resume=run"]).failed(4, &["step_00000018.safetensors", words]);
        assert!(place.read("target") == target, "{kind}: the target was touched");
    }
    fault.survived(2 * kinds.len(), "the newest checkpoint, or each, replaced by a link, a pipe, a folder");
}

#[test]
fn fault_a23_unreadable_checkpoint() {
    let fault = Fault::new("A23").verdict(
        "R or E",
        "a newest checkpoint that may not be read is passed over aloud; only where none may does the run stop",
    );
    let nobody = |place: &Place| -> Ended {
        let mut all = if not_root().is_none() { as_user(place, 65_534) } else { vec![kinone().to_owned()] };
        all.extend(["train", "--threads=1", "--resume=run"].map(str::to_owned));
        Ended::of(place.tool(&all[0]).args(&all[1..]))
    };
    let lock = |place: &Place, step: u64| {
        fs::set_permissions(place.store().path(step), fs::Permissions::from_mode(0o000)).unwrap();
    };
    let place = Place::after_step(18);
    lock(&place, 18);
    let ended = nobody(&place).succeeded();
    assert!(ended.stdout.contains("Permission denied") && ended.stdout.contains("after step 17"), "{ended}");
    let place = Place::after_step(18);
    place.store().steps().into_iter().for_each(|step| lock(&place, step));
    nobody(&place).failed(4, &["step_00000018.safetensors", "Permission denied"]);
    fault.survived(2, "as a user without rights: the newest checkpoint, or each, of mode 000");
}
