//! What differs from machine to machine, and from run to run, and may change no bit.

use crate::harness::{Ended, Fault, Place, Whole, foreign, is_full, is_here, sample, small};
use kinone::kernels::Isa;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The arguments of the harness's run, with others instead of those of the same flags.
fn instead<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let flag = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
    let replaced: Vec<String> = more.iter().map(|argument| flag(argument)).collect();
    let kept = small(&["--run-dir=run"]).into_iter().filter(|argument| !replaced.contains(&flag(argument)));
    kept.chain(more.iter().copied()).collect()
}

/// Runs the command, which must train as the undisturbed run did: weights, chain, scores.
fn is_equal(place: &Place, mut command: Command) {
    let ended = Ended::of(&mut command).succeeded();
    let summary: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"));
    Whole::get().is_equal(place, &summary);
}

#[test]
fn fault_j01_numbers_of_threads() {
    let fault = Fault::new("J01");
    let counts = ["1", "2", "3", "7", "64"];
    for count in counts {
        let place = Place::new();
        is_equal(&place, place.command(&instead(&[&format!("--threads={count}")])));
    }
    fault.survived(counts.len(), "1, 2, 3, 7 and 64 threads: equal weights, scores and chain");
}

#[test]
fn fault_j02_instruction_sets() {
    let fault = Fault::new("J02");
    let mut tried: Vec<String> = Vec::new();
    for isa in Isa::present() {
        let place = Place::new();
        let mut command = place.command(&instead(&[]));
        command.env("KINONE_ISA", isa.name());
        is_equal(&place, command);
        assert_eq!(
            serde_json::from_slice::<Value>(&place.read("run/summary.json")).unwrap()["isa"],
            isa.name()
        );
        tried.push(isa.name().to_owned());
    }
    let mut missing = Vec::new();
    match foreign::programs("isa-aarch64").first() {
        Some(program) if is_here("qemu-aarch64") => {
            let place = Place::new();
            let mut command = foreign::command(program, &place.path("."));
            command.args(instead(&[]));
            is_equal(&place, command);
            let isa =
                serde_json::from_slice::<Value>(&place.read("run/summary.json")).unwrap()["isa"].clone();
            assert_eq!(isa, "neon");
            // And every operator against its loop.
            let mut command = foreign::command(program, &place.path("."));
            if is_full() {
                Ended::of(command.args(["gradcheck", "conv2d", "linear", "batch_norm2d", "max_pool2d"]))
                    .succeeded();
            }
            tried.push("neon (emulated aarch64)".to_owned());
        }
        _ => missing.push(
            "no program for aarch64 or no emulator: `cargo xtask faults` builds one and installs the other",
        ),
    }
    let place = Place::new();
    match foreign::oldest_x86(&place.path(".")) {
        Some(mut command) if is_full() => {
            command.args(instead(&[]));
            is_equal(&place, command);
            tried.push("x86-64 without AVX and FMA (emulated)".to_owned());
        }
        Some(_) => {}
        None => missing.push("no emulator of an x86-64 processor without AVX"),
    }
    let how = format!("{}: equal weights, scores and chain", tried.join(", "));
    match missing.is_empty() {
        true => fault.survived(tried.len(), &how),
        false => fault.not_tried(&missing.join("; "), tried.len(), &how),
    }
}

/// Makes the set that the harness's run is of as files in `folder`.
fn set(place: &Place, folder: &str) {
    place.run(&["synth", "--images=100", "--size=32", "--out-dir", folder]).succeeded();
}

/// Trains on the files in `data`; the hash of the weights and the chain.
fn trained(place: &Place, data: impl AsRef<OsStr>, command: Command, threads: &str) -> (Value, Vec<u8>) {
    let mut command = command;
    let threads = format!("--threads={threads}");
    let words = instead(&[&threads]);
    command.args(words.iter().filter(|word| !word.starts_with("--images"))).arg("--data-dir").arg(data);
    let ended = Ended::of(&mut command).succeeded();
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let chain = place.read("run/chain.jsonl");
    fs::remove_dir_all(place.path("run")).unwrap();
    (summary["weights_sha256"].clone(), chain)
}

#[test]
fn fault_j07_readers_of_images() {
    let fault = Fault::new("J07");
    let place = Place::new();
    set(&place, "d");
    let program = || place.command::<&str>(&[]);
    let first = trained(&place, "d", program(), "1");
    for threads in ["2", "8"] {
        assert!(trained(&place, "d", program(), threads) == first, "{threads} threads");
    }
    fault.survived(
        3,
        "there are no workers and nothing is fetched ahead: every image is decoded before the first step, here on 1, 2 and 8 threads",
    );
}

#[test]
fn fault_j10_logs_and_checkpoints() {
    let fault = Fault::new("J10");
    let cases: &[&[&str]] = &[
        &["--checkpoint-every=1"],
        &["--checkpoint-every=1", "--keep-every=1"],
        &["--checkpoint-every=1000"],
        &["--checkpoint-every=0"],
        &["--unfused"],
        &["--recompute"],
    ];
    for more in cases {
        let place = Place::new();
        is_equal(&place, place.command(&instead(more)));
    }
    // With lines for a person instead of JSON, to nobody.
    let place = Place::new();
    let words = instead(&[]);
    let arguments: Vec<&str> = words.into_iter().filter(|word| *word != "--json").collect();
    let mut command = place.command(&arguments);
    command.stdin(std::process::Stdio::null());
    Ended::of(&mut command).succeeded();
    Whole::get().is_equal(&place, &serde_json::from_slice(&place.read("run/summary.json")).unwrap());
    fault.survived(
        cases.len() + 1,
        "checkpoints at every step, every thousandth, none; fused and recomputed or not; lines or JSON. Dashboard and profiler: there are none",
    );
}

#[test]
fn fault_j14_where_the_data_lie() {
    let fault = Fault::new("J14");
    let place = Place::new();
    set(&place, "d");
    let program = || place.command::<&str>(&[]);
    let first = trained(&place, "d", program(), "1");
    let mut tried = vec!["as made"];
    // The same files made in the opposite order, at other times.
    fs::create_dir_all(place.path("turned/images")).unwrap();
    let mut names: Vec<_> = walk(&place.path("d"));
    names.sort();
    for name in names.iter().rev() {
        fs::copy(place.path("d").join(name), place.path("turned").join(name)).unwrap();
        let file = fs::File::options().append(true).open(place.path("turned").join(name)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    assert!(trained(&place, "turned", program(), "1") == first, "made in another order");
    tried.push("in the opposite order, with the times of 1970");
    // In memory.
    if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
        let status = place.tool("cp").arg("-a").arg(place.path("d")).arg(memory.path()).status().unwrap();
        assert!(status.success());
        assert!(trained(&place, memory.path().join("d"), program(), "1") == first, "in memory");
        tried.push("on tmpfs");
    }
    // Read-only, and in a file system of their own.
    let mut read_only = place.tool("unshare");
    let inside =
        "mount --bind d d && mount -o remount,bind,ro d && ! touch d/x 2>/dev/null && exec \"$0\" \"$@\"";
    read_only.args(["--mount", "sh", "-c", inside, crate::harness::kinone()]);
    let may = Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|o| o.status.success());
    if may {
        assert!(trained(&place, "d", read_only, "1") == first, "read-only");
        tried.push("read-only");
    }
    let mut ext4 = place.tool("unshare");
    let image = "truncate -s 16M e.img && mkfs.ext4 -q e.img && mkdir -p e && mount -o loop e.img e && cp -a d e/ \
                 && exec \"$0\" \"$@\"";
    ext4.args(["--mount", "sh", "-c", image, crate::harness::kinone()]);
    let mut probe = place.tool("unshare");
    probe.args(["--mount", "sh", "-c", image, "true"]);
    let has_ext4 = may && probe.output().is_ok_and(|output| output.status.success());
    if has_ext4 {
        assert!(trained(&place, "e/d", ext4, "1") == first, "on ext4");
        tried.push("on ext4");
    }
    let how = format!("the data {}: equal weights and chain", tried.join(", "));
    if may && has_ext4 && tried.contains(&"on tmpfs") {
        fault.survived(tried.len(), &how);
    } else {
        let why = "this user may not mount file systems, or there is no loop device or no /dev/shm";
        fault.not_tried(why, tried.len(), &how);
    }
}

/// Every file below a folder, by its path from there.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = Path::new(path.file_name().unwrap()).to_owned();
        if path.is_dir() {
            found.extend(walk(&path).into_iter().map(|below| name.join(below)));
        } else {
            found.push(name);
        }
    }
    found
}

#[test]
fn fault_j16_repeats() {
    let fault = Fault::new("J16");
    let repeats = sample(0..100, 4);
    for k in &repeats {
        let place = Place::new();
        // Other addresses of the stack, other numbers of processes; every fourth with none of that randomness.
        let mut command = place.tool(if k % 4 == 3 { "setarch" } else { "env" });
        if k % 4 == 3 {
            command.args(["--addr-no-randomize"]);
        }
        command.env("PADDING", "x".repeat(k * 37)).arg(crate::harness::kinone());
        command.args(instead(&[["--threads=1", "--threads=2"][k % 2]]));
        is_equal(&place, command);
    }
    fault.survived(repeats.len(), "repeated, on one thread and two, with and without address randomisation: equal weights, scores and chain");
}
