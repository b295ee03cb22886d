//! Readers that leave, full devices, clocks that jump, a bare environment, another processor.

use crate::harness::{Ended, Fault, Place, Whole, kinone, preload, small};
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

/// The run in a place must have ended as it should.
fn ended_well(place: &Place) {
    let summary = serde_json::from_slice(&place.read("run/summary.json")).unwrap();
    Whole::get().is_equal(place, &summary);
}

/// A shell script in which `"$@"` is a run of two epochs, shown and not as JSON.
fn shell(place: &Place, script: &str) -> Ended {
    let arguments: Vec<&str> = small(&["--run-dir=run"]).into_iter().filter(|a| *a != "--json").collect();
    Ended::of(place.tool("sh").args(["-c", script, "sh", kinone()]).args(arguments))
}

#[test]
fn fault_b06_reader_gone() {
    let fault = Fault::new("B06");
    let scripts = [
        "\"$@\" | head -1",
        "\"$@\" | true",
        "\"$@\" >&- ",
        "\"$@\" 2>&-",
        "{ \"$@\" 2>&1 >&3 | true; } 3>&1",
        "\"$@\" <&- >&- 2>&-",
    ];
    for script in scripts {
        let place = Place::new();
        let ended = shell(&place, script);
        assert!(ended.stderr.is_empty(), "{ended}");
        ended_well(&place);
    }
    fault.survived(
        scripts.len(),
        "the pipe's reader leaves after a line or at once; descriptors closed from the start",
    );
}

#[test]
fn fault_b07_full_device() {
    let fault = Fault::new("B07");
    let scripts = ["\"$@\" > /dev/full", "\"$@\" 2> /dev/full", "\"$@\" > /dev/full 2>&1"];
    for script in scripts {
        let place = Place::new();
        shell(&place, script);
        ended_well(&place);
    }
    let place = Place::after_step(18);
    let _ = fs::remove_file(place.path("run/console.log"));
    symlink("/dev/full", place.path("run/console.log")).unwrap();
    place.resumes_to(Whole::get());
    fault.survived(
        scripts.len() + 1,
        "standard output, standard error and both on /dev/full, and console.log a link to it, which is replaced: the run \
         goes on to equal bits. The \
         record itself, log.jsonl and chain.jsonl, falls under --on-save-error (A02)",
    );
}

#[test]
fn fault_b09_clock_jumps() {
    let fault = Fault::new("B09");
    let mut cases = 1;
    // The newest checkpoint goes by its step, whatever the clock said when it was written.
    let place = Place::after_step(18);
    for (k, step) in place.store().steps().into_iter().rev().enumerate() {
        let file = fs::File::options().write(true).open(place.store().path(step)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(k as u64 * 1_100_000_000);
        file.set_modified(time).unwrap();
    }
    let ended = place.run(&["train", "--threads=1", "--resume=run"]).succeeded();
    assert!(ended.stdout.contains("resumed after step 18"), "{ended}");
    ended_well(&place);
    let library = match preload::library() {
        Ok(library) => library,
        Err(why) => return fault.not_tried(why, cases, "times of checkpoints from 1970 to after 2038"),
    };
    for zone in ["UTC", "Europe/Berlin", "Pacific/Apia"] {
        let place = Place::new();
        let arguments: Vec<&str> = small(&["--run-dir=run"]).into_iter().filter(|a| *a != "--json").collect();
        let mut command = place.command(&arguments);
        command.env("LD_PRELOAD", library).env("FAULT_CLOCK", "1").env("TZ", zone);
        let ended = Ended::of(&mut command).succeeded();
        for line in ended.stdout.lines().filter(|line| line.ends_with(" left")) {
            let left = line.rsplit("img/s").next().unwrap();
            assert!(!left.contains('-') && !left.contains("NaN"), "{line}");
        }
        ended_well(&place);
        // The clock was really another: the archive bears the time at which the run began.
        let wall: serde_json::Value = serde_json::from_slice(&place.read("run/summary.json")).unwrap();
        assert!(wall["wall_seconds"].as_f64().unwrap() < 60.0, "{wall}");
        let heart: serde_json::Value = serde_json::from_slice(&place.read("run/heartbeat.json")).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(heart["time"].as_u64().unwrap().abs_diff(now) > 1800, "the clock did not jump: {heart}");
        cases += 1;
    }
    fault.survived(
        cases,
        "a preloaded clock that says a day more, a day less, 1970, 2038, an hour more and less, from call to call, in \
         three time zones; and checkpoints whose times say the opposite of their steps",
    );
}

#[test]
fn fault_b15_bare_environment() {
    let fault = Fault::new("B15");
    let zones = ["Nowhere/Land", ":/etc/passwd", "UTC+99:99", "", "\u{1f600}"];
    let mut cases = 0;
    for zone in zones {
        let place = Place::new();
        let mut command = place.command(&small(&["--run-dir=run"]));
        command.env_clear().env("TZ", zone).env("LC_ALL", "C").env("TMPDIR", "/nowhere");
        Ended::of(&mut command).succeeded();
        ended_well(&place);
        cases += 1;
    }
    let place = Place::new();
    Ended::of(place.command(&small(&["--run-dir=run"])).env_clear()).succeeded();
    ended_well(&place);
    // A working directory that is gone.
    let place = Place::new();
    let run = format!("--run-dir={}", place.path("run").display());
    let script = "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"";
    Ended::of(place.tool("sh").args(["-c", script, "sh", kinone()]).args(small(&[&run]))).succeeded();
    ended_well(&place);
    let mut command = place.tool("sh");
    Ended::of(command.args(["-c", script, "sh", kinone()]).args(small(&["--run-dir=other"])))
        .failed(5, &["cannot create the folder other"]);
    fault.survived(
        cases + 3,
        "nothing in the environment; odd time zones, LC_ALL=C, a TMPDIR that does not exist; a working directory that \
         was removed, with an absolute run directory (equal bits) and a relative one (exit 5)",
    );
}

#[test]
fn fault_b16_absent_instruction_set() {
    let fault = Fault::new("B16");
    let absent = kinone::kernels::Isa::ALL.into_iter().filter(|isa| !isa.is_present()).map(|isa| isa.name());
    let names: Vec<&str> = absent.chain(["avx1024", "AVX2", " avx2"]).collect();
    for name in &names {
        let place = Place::new();
        let mut command = place.command(&small(&["--run-dir=run"]));
        command.env("KINONE_ISA", name);
        Ended::of(&mut command).failed(2, &[&format!("KINONE_ISA={name}"), "this machine has scalar"]);
        assert!(!place.path("run").exists());
    }
    fault.survived(
        names.len(),
        "KINONE_ISA names each set that this processor lacks, and some that nobody has",
    );
}

#[test]
fn fault_b17_denormals_flushed() {
    let fault = Fault::new("B17");
    let library = match preload::library() {
        Ok(library) => library,
        Err(why) => return fault.not_tried(why, 0, ""),
    };
    let register = if cfg!(target_arch = "x86_64") { "MXCSR" } else { "FPCR" };
    let cases = [("all", "1"), ("all", "2"), ("threads", "2"), ("threads", "7")];
    for (which, threads) in cases {
        let place = Place::new();
        let threads = format!("--threads={threads}");
        let mut command = place.command(&small(&["--run-dir=run", &threads]));
        command.env("LD_PRELOAD", library).env("FAULT_FLUSH", which);
        Ended::of(&mut command)
            .failed(2, &[register, "flush denormal numbers to zero", "remove what sets it"]);
        assert!(!place.path("run").exists());
    }
    fault.survived(
        cases.len(),
        "a preloaded library sets FTZ and DAZ on the first thread, or only on those made later",
    );
}

#[test]
fn fault_b18_dashboard_dies() {
    let fault = Fault::new("B18");
    fault.not_tried("there is no dashboard yet", 0, "");
}
