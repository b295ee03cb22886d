//! What was put into a run directory, or changed around a run, is not taken for the run's own; and what was stopped half
//! way goes on.

#![cfg(unix)]

mod common;

use common::Place;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run of one epoch in a fraction of a second.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--json", "--model=resnet10w8", "--image-size=32", "--epochs=1"], more].concat()
}

fn mkfifo(place: &Place, name: &str) {
    assert!(Command::new("mkfifo").arg(place.path(name)).status().unwrap().success());
}

#[test]
fn evaluate_takes_only_the_data_of_the_run_and_keeps_each_part_apart() {
    let place = Place::new();
    place.succeeds(&["synth", "--out-dir=d", "--images=100", "--size=32"]);
    // A row twice, and one that no list has.
    let (table, list) = (place.path("d/Data_Entry_2017.csv"), place.path("d/test_list.txt"));
    let text = fs::read_to_string(&table).unwrap();
    fs::write(&table, format!("{text}{}\n", text.lines().last().unwrap())).unwrap();
    let listed = fs::read_to_string(&list).unwrap();
    let (unlisted, kept) = listed.split_once('\n').unwrap();
    fs::write(&list, kept).unwrap();
    let mut loud = train(&["--data-dir=d", "--run-dir=run"]);
    loud.retain(|argument| *argument != "--json");
    let said = place.succeeds(&loud);
    for words in
        ["1 row of the table repeats another and is left out", "1 row of the table is in neither list"]
    {
        assert!(said.contains(words), "no `{words}` in:\n{said}");
    }

    let evaluate = ["evaluate", "--run-dir=run"];
    place.succeeds(&evaluate);
    let metrics = fs::read(place.path("run/metrics.json")).unwrap();
    place.succeeds(&["evaluate", "--run-dir=run", "--split=validation"]);
    assert_eq!(fs::read(place.path("run/metrics.json")).unwrap(), metrics);
    assert!(place.path("run/metrics_validation.json").is_file());

    let changed = ["the data have changed since the run began"];
    let lists = ["train_val_list.txt", "test_list.txt"].map(|name| place.path("d").join(name));
    let [one, other] = lists.each_ref().map(|path| fs::read(path).unwrap());
    fs::write(&lists[0], &other).unwrap();
    fs::write(&lists[1], &one).unwrap();
    place.refuses(3, &changed, &evaluate);
    fs::write(&lists[0], &one).unwrap();
    fs::write(&lists[1], &other).unwrap();
    let names: Vec<&str> = kept.lines().collect();
    let [first, second] = [names[0], names[1]].map(|name| place.path("d/images").join(name));
    let picture = fs::read(&first).unwrap();
    fs::copy(second, &first).unwrap();
    place.refuses(3, &[changed[0], names[0], "another picture"], &evaluate);
    fs::write(&first, picture).unwrap();
    assert!(!kept.contains(unlisted));

    // What was computed is printed before it cannot be written.
    fs::remove_file(place.path("run/metrics.json")).unwrap();
    fs::create_dir(place.path("run/metrics.json")).unwrap();
    let output = place.command(&evaluate).output().unwrap();
    let (said, printed) =
        (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(printed.contains("intervals resample patients") && !said.contains(".part"), "{said}{printed}");
    fs::rename(place.path("run/chain.jsonl"), place.path("chain")).unwrap();
    place.refuses(4, &["chain.jsonl"], &evaluate);
}

#[test]
fn weights_of_others_are_refused() {
    let place = Place::new();
    place.succeeds(&train(&["--images=100", "--run-dir=run"]));
    place.succeeds(&train(&["--images=100", "--run-dir=other", "--seed=43"]));
    place.succeeds(&train(&["--images=100", "--run-dir=more", "--no-finding"]));
    place.succeeds(&["synth", "--out-dir=d", "--images=1", "--size=32"]);
    let image = fs::read_dir(place.path("d/images")).unwrap().next().unwrap().unwrap().path();
    // A name of a line break and a colour is shown and does nothing.
    fs::copy(image, place.path("a\n\u{1b}[31m.png")).unwrap();
    let predict = ["predict", "--run-dir=run", "--image-path", "a\n\u{1b}[31m.png"];
    let said = place.succeeds(&predict);
    assert!(said.starts_with("a\\n\\u{1b}[31m.png\n") && !said.contains('\u{1b}'), "{said}");

    let best = place.path("run/checkpoints/best.safetensors");
    let kept = fs::read(&best).unwrap();
    let refused = |words: &[&str]| {
        let words = [words, &["run/checkpoints/best.safetensors"]].concat();
        place.refuses(4, &words, &["evaluate", "--run-dir=run"]);
        place.refuses(4, &words, &predict);
        place.refuses(4, &words, &["export-onnx", "--run-dir=run"]);
    };
    fs::copy(place.path("more/checkpoints/best.safetensors"), &best).unwrap();
    refused(&["15 classes", "14"]);
    fs::copy(place.path("other/checkpoints/best.safetensors"), &best).unwrap();
    refused(&["summary.json states"]);
    let summary = fs::read(place.path("run/summary.json")).unwrap();
    fs::remove_file(place.path("run/summary.json")).unwrap();
    refused(&["step_0000000", "states"]);
    fs::remove_file(&best).unwrap();
    symlink("../../other/checkpoints/best.safetensors", &best).unwrap();
    refused(&["symbolic link"]);
    fs::remove_file(&best).unwrap();
    mkfifo(&place, "run/checkpoints/best.safetensors");
    refused(&["not a regular file"]);
    fs::remove_file(&best).unwrap();
    fs::write(&best, &kept).unwrap();
    place.succeeds(&predict);
    mkfifo(&place, "run/summary.json");
    place.refuses(4, &["summary.json", "not a regular file"], &predict);
    fs::remove_file(place.path("run/summary.json")).unwrap();
    fs::write(place.path("run/summary.json"), summary).unwrap();
    place.succeeds(&predict);
    // Whoever names weights to start from may name a link, but no pipe.
    symlink(&best, place.path("weights")).unwrap();
    place.succeeds(&train(&["--images=100", "--run-dir=second", "--load-checkpoint=weights"]));
    mkfifo(&place, "pipe");
    place.refuses(4, &["pipe", "not a regular file"], &train(&["--run-dir=third", "--load-checkpoint=pipe"]));

    // Where runs part, the numbers stand beside their bits.
    let output = place.command(&["diff", "run", "other"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("loss 3f") && said.contains(" (0."), "{said}");
}

#[test]
fn a_signal_that_was_ignored_from_the_start_stops_nothing() {
    let place = Place::new();
    let more = ["--images=100", "--batch-size=8", "--epochs=30", "--run-dir=run"];
    let arguments = [&["train", "--json", "--model=resnet10w8", "--image-size=32"], &more[..]].concat();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kinone")]).args(arguments);
    let mut child = command.current_dir(place.path("")).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let links = || fs::read_to_string(place.path("run/chain.jsonl")).map_or(0, |text| text.lines().count());
    while links() < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "no step");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.try_wait().unwrap().is_none(), "ended before the signal");
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    assert!(place.path("run/summary.json").is_file());
}

#[test]
fn a_set_that_was_left_unfinished_is_made_anew_in_its_place() {
    let place = Place::new();
    let mut child = place.command(&["synth", "--out-dir=d", "--images=5000", "--size=256"]).spawn().unwrap();
    let start = Instant::now();
    while fs::read_dir(place.path("d/images")).map_or(0, Iterator::count) < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "no image");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("d/Data_Entry_2017.csv").exists());
    place.succeeds(&["synth", "--out-dir=d", "--images=20", "--size=32"]);
    assert_eq!(fs::read_dir(place.path("d/images")).unwrap().count(), 20);
    assert_eq!(fs::read_dir(place.path("d")).unwrap().count(), 4);
    place.refuses(2, &["d is not empty"], &["synth", "--out-dir=d"]);
    // Of somebody else's images none is touched.
    fs::create_dir_all(place.path("e/images")).unwrap();
    place.refuses(2, &["e is not empty"], &["synth", "--out-dir=e"]);
}
