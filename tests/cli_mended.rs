//! What is missing beside a run's chain is made again, and nothing of a run is destroyed by a command that only reads it.

#![cfg(unix)]

mod common;

use common::{Place, SMALL};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A run of one epoch of ten steps in `run`.
fn recorded(more: &[&str]) -> Place {
    let place = Place::new();
    place.succeeds(&[&SMALL[..], &["--epochs=1", "--run-dir=run"], more].concat());
    place
}

const GO_ON: [&str; 6] = ["train", "--json", "--resume=run", "--epochs=2", "--override", "--threads=1"];

/// The folder with everything in it, as another.
fn copied(place: &Place, name: &str) -> PathBuf {
    let copy = place.path(name);
    let done = Command::new("cp").arg("-r").arg(place.path("run")).arg(&copy).status().unwrap();
    assert!(done.success());
    copy
}

#[test]
fn fused_and_single_operators_make_one_record() {
    for more in [&["--conv-algo=direct"][..], &["--conv-algo=winograd"]] {
        let place = recorded(more);
        place.succeeds(&["verify", "--run-dir=run", "--unfused"]);
        let single = [&SMALL[..], &["--epochs=1", "--run-dir=single", "--unfused"], more].concat();
        place.succeeds(&single);
        place.succeeds(&["verify", "--run-dir=single"]);
        place.succeeds(&["diff", "run", "single"]);
        // Of another rate the first step's loss is the same, and so is all that its operators made.
        let other = [&SMALL[..], &["--epochs=1", "--run-dir=other", "--unfused", "--lr=0.01"], more].concat();
        place.succeeds(&other);
        let output = place.command(&["diff", "run", "other"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.code() == Some(1) && said.contains("every operator made the same in both"),
            "{said}"
        );
    }
}

/// Goes on in a copy of the run that was damaged; what was said, and the hash of the weights.
fn goes_on(place: &Place, name: &str, damage: impl FnOnce(&Path)) -> (String, String) {
    let copy = copied(place, name);
    damage(&copy);
    let arguments =
        GO_ON.map(|word| if word == "--resume=run" { format!("--resume={name}") } else { word.to_owned() });
    let output = place.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{name}: {said}");
    place.succeeds(&["verify", &format!("--run-dir={name}")]);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (said, summary["weights_sha256"].as_str().unwrap().to_owned())
}

/// What is done to a run directory.
type Damage<'a> = &'a dyn Fn(&Path);

#[test]
fn a_resumed_run_makes_again_what_is_missing_beside_its_chain() {
    let place = recorded(&[]);
    let (said, whole) = goes_on(&place, "whole", |_| {});
    assert_eq!(said, "");
    let log = |run: &Path| fs::read_to_string(run.join("log.jsonl")).unwrap();
    let without = |run: &Path, unwanted: &str| {
        let lines = log(run);
        let kept: Vec<&str> = lines.lines().filter(|line| !line.contains(unwanted)).collect();
        assert!(kept.len() < lines.lines().count(), "{unwanted}");
        fs::write(run.join("log.jsonl"), kept.join("\n") + "\n").unwrap();
    };
    let cases: [(&str, Damage, &str); 6] = [
        (
            "no_log",
            &|run| fs::remove_file(run.join("log.jsonl")).unwrap(),
            "log.jsonl: 10 rows of steps were missing",
        ),
        ("empty_log", &|run| fs::write(run.join("log.jsonl"), "").unwrap(), "10 rows"),
        ("two_rows", &|run| without(run, "\"step\":4,"), "1 rows"),
        (
            "bytes",
            &|run| fs::write(run.join("log.jsonl"), log(run).replacen("\"lr\"", "\"l\0\"", 2)).unwrap(),
            "2 rows",
        ),
        (
            "no_index",
            &|run| fs::remove_file(run.join("data.index")).unwrap(),
            "data.index was missing or damaged",
        ),
        (
            "index",
            &|run| fs::write(run.join("data.index"), "x").unwrap(),
            "data.index was missing or damaged",
        ),
    ];
    for (name, damage, words) in cases {
        let (said, weights) = goes_on(&place, name, damage);
        assert!(said.contains(words), "{name}: {said}");
        assert_eq!(weights, whole, "{name}");
    }
}

#[test]
fn a_finished_run_without_its_weights_gets_them_back() {
    let place = recorded(&[]);
    for name in ["best", "last"] {
        for empty in [false, true] {
            let path = place.path(&format!("run/checkpoints/{name}.safetensors"));
            let kept = fs::read(&path).unwrap();
            if empty {
                fs::write(&path, "").unwrap()
            } else {
                fs::remove_file(&path).unwrap()
            }
            place.succeeds(&["train", "--json", "--resume=run", "--threads=1"]);
            assert!(fs::read(&path).unwrap() == kept, "{name}, {empty}");
            place.succeeds(&["verify", "--run-dir=run"]);
        }
    }
}

/// What was there before counts for nothing unless it is the run's own.
#[test]
fn a_finished_run_takes_no_results_of_others() {
    let place = recorded(&[]);
    place.succeeds(&[&SMALL[..], &["--epochs=1", "--seed=43", "--run-dir=other"]].concat());
    let resume = ["train", "--json", "--resume=run", "--threads=1"];
    let whole = place.json(&resume);
    let archive = |run: &str| {
        let mut names = fs::read_dir(place.path(run).join("checkpoints")).unwrap();
        let is_archive = |name: &String| name.ends_with(".npz");
        let name = names.find_map(|entry| entry.unwrap().file_name().into_string().ok().filter(is_archive));
        format!("checkpoints/{}", name.unwrap())
    };
    let (own, theirs) = (archive("run"), archive("other"));
    let names = ["checkpoints/best.safetensors", "checkpoints/last.safetensors", "summary.json", &own];
    let of = |run: &str, name: &str| match run {
        "other" if name == own => fs::read(place.path(run).join(&theirs)).unwrap(),
        _ => fs::read(place.path(run).join(name)).unwrap(),
    };
    let kept = names.map(|name| of("run", name));
    for (name, kept) in names.iter().zip(&kept) {
        for content in [of("other", name), b"garbage".to_vec()] {
            fs::write(place.path("run").join(name), content).unwrap();
            let summary = place.json(&resume);
            for field in ["weights_sha256", "best_weights_sha256", "chain_sha256", "test_auroc_macro"] {
                assert_eq!(summary[field], whole[field], "{name}: {field}");
            }
            assert!(*name == "summary.json" || of("run", name) == *kept, "{name}");
            place.succeeds(&["verify", "--run-dir=run"]);
            place.succeeds(&["evaluate", "--run-dir=run"]);
        }
    }
    // What is its own is left as it is.
    let summary = of("run", "summary.json");
    place.succeeds(&resume);
    assert!(of("run", "summary.json") == summary);
    // Nothing is said to be finished of a chain that is not.
    let chain = place.path("run/chain.jsonl");
    let text = fs::read_to_string(&chain).unwrap();
    fs::write(&chain, text.replacen("\"step\":4,", "\"step\":5,", 1)).unwrap();
    place.refuses(4, &["chain.jsonl, line 5", "the link was changed"], &resume);
    assert!(of("run", "summary.json") == summary);
}

#[test]
fn a_model_is_written_over_no_record_and_no_device() {
    let place = recorded(&[]);
    let made = Command::new("mkfifo").arg(place.path("pipe")).status().unwrap();
    assert!(made.success());
    fs::write(place.path("others"), "kept").unwrap();
    std::os::unix::fs::symlink(place.path("others"), place.path("link.onnx")).unwrap();
    let export = |output: &str| place.command(&["export-onnx", "--run-dir=run", "--output-filename", output]);
    for name in ["run/chain.jsonl", "run/config.toml", "run/checkpoints/best.safetensors", "run/new"] {
        place.is_refused(2, &[name, "the run's record"], export(name));
    }
    for name in ["pipe", "link.onnx"] {
        place.is_refused(2, &[name, "a link, a device or a pipe is there"], export(name));
    }
    assert_eq!(fs::read(place.path("others")).unwrap(), b"kept");
    place.succeeds(&["verify", "--run-dir=run"]);
    place.succeeds(&["export-onnx", "--run-dir=run", "--output-filename=run/model.onnx"]);
    place.succeeds(&["export-onnx", "--run-dir=run", "--output-filename=run/model.onnx"]);
}

#[test]
fn runs_that_begin_at_once_have_directories_of_their_own() {
    let place = Place::new();
    let arguments = [&SMALL[..], &["--epochs=1"]].concat();
    let start = || place.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_dir(place.path("runs")).unwrap().count(), 4);
}

#[test]
fn a_broken_chain_is_no_equal_run() {
    let place = recorded(&[]);
    let (copy, chain) = (copied(&place, "copy"), place.path("run/chain.jsonl"));
    let text = fs::read_to_string(&chain).unwrap();
    fs::write(copy.join("chain.jsonl"), &text[..text.len() - 9]).unwrap();
    let output = place.command(&["diff", "run", "copy"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8(output.stdout).unwrap().contains("9 steps are equal"));
    fs::write(copy.join("chain.jsonl"), b"\xff\xfe").unwrap();
    let output = place.command(&["diff", "copy", "copy"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8(output.stderr).unwrap().contains("not UTF-8"));
    fs::write(copy.join("chain.jsonl"), "").unwrap();
    place.refuses(4, &["copy/chain.jsonl is empty"], &["diff", "copy", "copy"]);
    place.refuses(4, &["copy/chain.jsonl is empty"], &["diff", "run", "copy"]);
}
