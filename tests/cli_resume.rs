//! Runs that are killed, stopped, locked, damaged: what is committed stays, and the end is the same.

#![cfg(unix)]

mod common;

use common::Place;
use kinone::kernels::Isa;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A run of nine steps an epoch.
const SMALL: [&str; 7] = ["train", "--json", "--images", "100", "--image-size", "32", "--batch-size=8"];

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

fn parsed(output: &str) -> serde_json::Value {
    serde_json::from_str(output).unwrap()
}

fn lines(path: &PathBuf) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Waits until the chain has more lines than `than`, or the child has ended.
fn wait_for_progress(child: &mut Child, chain: &PathBuf, than: usize) {
    let start = Instant::now();
    while lines(chain) <= than && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(300), "no progress");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn seven_kills_at_random_moments_change_no_bit() {
    let place = Place::new();
    let undisturbed = place.json(&small(&["--epochs", "6", "--run-dir", "whole"]));
    let chain = place.path("run/chain.jsonl");
    let isas = Isa::present();
    // Moments that differ from run to run of this test, and are shown when it fails.
    let mut random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let seed = random;
    for kill in 0..7 {
        let threads = ["1", "2", "3", "7"][kill % 4];
        let start: &[&str] =
            if kill == 0 { &["--epochs", "6", "--run-dir", "run"] } else { &["--resume", "run"] };
        let arguments = if kill == 0 { small(start) } else { [&["train", "--json"], start].concat() };
        let before = lines(&chain);
        let mut command = place.command(&arguments);
        command.args(["--checkpoint-every", "1", "--threads", threads]);
        command.env("KINONE_ISA", isas[kill % isas.len()].name());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_progress(&mut child, &chain, before);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((random >> 64) as u64 % 400));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!place.path("run/summary.json").exists(), "the run ended before kill {kill}; seed {seed}");
    }
    let resumed = place.json(&["train", "--json", "--resume", "run"]);
    for field in ["weights_sha256", "best_weights_sha256", "chain_sha256", "test_auroc_macro", "best_epoch"] {
        assert_eq!(resumed[field], undisturbed[field], "{field}; seed {seed}");
    }
    assert_eq!(fs::read(&chain).unwrap(), fs::read(place.path("whole/chain.jsonl")).unwrap());
    let stray = fs::read_dir(place.path("run/checkpoints")).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.ends_with(".part").then_some(name)
    });
    assert_eq!(stray.count(), 0);
    place.succeeds(&["verify", "--run-dir", "run"]);
}

#[test]
fn signals_and_requests_save_and_the_run_goes_on() {
    let place = Place::new();
    let undisturbed = place.json(&small(&["--epochs", "6", "--run-dir", "whole"]));
    let chain = place.path("run/chain.jsonl");
    let mut start = small(&["--epochs", "6", "--run-dir", "run"]);
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129), ("stop", 1)] {
        let before = lines(&chain);
        let mut command = place.minding_signals(&start);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_progress(&mut child, &chain, before);
        if signal == "stop" {
            // A second training in the same directory is refused, and names the first.
            let pid = format!("process {}", child.id());
            let second = place.command(&["train", "--resume", "run"]).output().unwrap();
            let said = String::from_utf8(second.stderr).unwrap();
            assert_eq!(second.status.code(), Some(6), "{said}");
            assert!(said.contains("run is in use by") && said.contains(&pid), "{said}");
            fs::write(place.path("run/control"), "stop\n").unwrap();
        } else {
            send(&child, signal);
        }
        let asked = Instant::now();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(code), ""), "{signal}");
        assert!(asked.elapsed() < Duration::from_secs(60), "{signal}: {:?}", asked.elapsed());
        start = vec!["train", "--json", "--resume", "run"];
    }
    let console = fs::read_to_string(place.path("run/console.log")).unwrap();
    assert_eq!(console.matches("and saved; go on with --resume run").count(), 4, "{console}");
    assert!(!place.path("run/control").exists());
    let resumed = place.json(&start);
    assert_eq!(resumed["weights_sha256"], undisturbed["weights_sha256"]);
    assert_eq!(fs::read(&chain).unwrap(), fs::read(place.path("whole/chain.jsonl")).unwrap());

    // A finished run says so, and stays as it is.
    let said = place.succeeds(&["train", "--resume", "run"]);
    assert!(said.contains("is finished"), "{said}");
    assert_eq!(place.json(&start), resumed);
    assert_eq!(
        place.succeeds(&["diff", "run", "whole"]).trim(),
        format!("all {} steps are equal", lines(&chain) - 1)
    );
}

#[test]
fn changes_are_refused_or_recorded() {
    let place = Place::new();
    place.succeeds(&["synth", "--out-dir", "d", "--images", "100", "--size", "32"]);
    let train = ["train", "--json", "--data-dir", "d", "--image-size", "32", "--batch-size", "8"];
    place.succeeds(&[&train[..], &["--epochs", "1", "--run-dir", "run"]].concat());
    place.refuses(2, &["lr 0.001 -> 0.5", "--override"], &["train", "--resume", "run", "--lr", "0.5"]);
    // Nothing is advised that would be refused.
    place.refuses(
        2,
        &["cannot change", "model resnet18 -> resnet34"],
        &["train", "--resume", "run", "--lr", "0.5", "--model", "resnet34"],
    );
    // A run that is finished has no step for a change.
    place.refuses(
        2,
        &["finished after 1 epochs", "lr 0.001 -> 0.5", "--epochs above 1"],
        &["train", "--resume", "run", "--lr", "0.5", "--override"],
    );
    place.refuses(
        2,
        &["cannot change", "seed 42 -> 1", "--load-checkpoint"],
        &["train", "--resume", "run", "--override", "--seed", "1"],
    );
    place.refuses(2, &["cannot be used with", "--run-dir"], &["train", "--resume", "run", "--run-dir", "x"]);

    // One image that changed since is named, and so is one label.
    let image = fs::read_dir(place.path("d/images")).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    let other = fs::read_dir(place.path("d/images")).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    let kept = fs::read(&image).unwrap();
    fs::copy(&other, &image).unwrap();
    let name = image.file_name().unwrap().to_str().unwrap().to_owned();
    let more =
        ["train", "--json", "--resume", "run", "--override", "--epochs", "2", "--schedule", "constant"];
    place.refuses(3, &[&name, "another picture"], &more);
    // Nothing is said to go on before that is known.
    let aloud: Vec<&str> = more.iter().copied().filter(|word| *word != "--json").collect();
    place.refuses(3, &[&name, "another picture"], &aloud);
    fs::write(&image, kept).unwrap();

    // The data may lie elsewhere; what they are decides. Of a finished run the new place is recorded.
    fs::rename(place.path("d"), place.path("moved")).unwrap();
    let said = place.succeeds(&["train", "--resume", "run", "--data-dir", "moved"]);
    assert!(said.contains("the place of the data is recorded anew"), "{said}");
    place.succeeds(&["verify", "--run-dir", "run"]);
    place.succeeds(&["synth", "--out-dir", "others", "--images", "100", "--size", "32", "--seed", "5"]);
    place.refuses(3, &["have changed"], &["train", "--resume", "run", "--data-dir", "others"]);
    place.succeeds(&["verify", "--run-dir", "run"]);
    // The reason is kept beside the run.
    let console = fs::read_to_string(place.path("run/console.log")).unwrap();
    assert!(console.lines().last().unwrap().starts_with("kinone: the data have changed"), "{console}");
    let beat: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("run/heartbeat.json")).unwrap()).unwrap();
    assert_eq!((&beat["doing"], &beat["epoch"]), (&"finished".into(), &1.into()));
    let summary = place.json(&[&more[..], &["--data-dir", "moved"]].concat());
    assert_eq!(summary["epochs"], 2);
    let chain = fs::read_to_string(place.path("run/chain.jsonl")).unwrap();
    let overrides: Vec<&str> = chain.lines().filter(|line| line.contains("\"override\"")).collect();
    assert_eq!(overrides.len(), 1);
    assert!(overrides[0].contains("\"setting\":\"epochs\",\"from\":\"1\",\"to\":\"2\""), "{overrides:?}");
    place.succeeds(&["verify", "--run-dir", "run"]);
}

/// Names in a run directory whose first checkpoint was written, and what is lost without them.
#[test]
fn a_run_whose_checkpoints_are_lost_is_not_begun_anew() {
    let place = Place::new();
    place.json(&small(&["--model=resnet10w8", "--epochs", "1", "--run-dir", "run"]));
    let keep = |name: &str| fs::read(place.path(name)).unwrap();
    let kept = [keep("run/chain.jsonl"), keep("run/log.jsonl"), keep("run/checkpoints/best.safetensors")];
    let store = kinone::runs::store::Store::new(&place.path("run/checkpoints"));
    for step in store.steps() {
        fs::remove_file(store.path(step)).unwrap();
    }
    let lost = format!(
        "the chain has {} steps but no checkpoint is left",
        lines(&place.path("run/chain.jsonl")) - 1
    );
    let words = [&lost[..]];
    place.refuses(4, &words, &["train", "--resume", "run"]);
    let now = [keep("run/chain.jsonl"), keep("run/log.jsonl"), keep("run/checkpoints/best.safetensors")];
    assert!(now == kept, "something was overwritten");
    fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    place.refuses(4, &words, &["train", "--resume", "run"]);
    // Without its configuration it is no run to go on with, and none is begun over it.
    fs::remove_file(place.path("run/config.toml")).unwrap();
    let fresh = small(&["--model=resnet10w8", "--epochs", "1", "--run-dir", "run"]);
    place.refuses(2, &["run holds other files", "--run-dir"], &fresh);
    assert!(keep("run/chain.jsonl") == kept[0]);
}

/// The seconds of a run are those of all its sessions.
#[test]
fn seconds_are_counted_over_sessions() {
    let place = Place::new();
    place.json(&small(&["--model=resnet10w8", "--epochs", "1", "--run-dir", "run"]));
    // As if it had taken long.
    let log = fs::read_to_string(place.path("run/log.jsonl")).unwrap();
    let rows = log.lines().map(|line| {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        if event["seconds"].is_number() {
            event["seconds"] = 1e6.into();
        }
        format!("{event}\n")
    });
    fs::write(place.path("run/log.jsonl"), rows.collect::<String>()).unwrap();
    let more = ["train", "--json", "--resume", "run", "--epochs", "2", "--override"];
    assert!(place.json(&more)["wall_seconds"].as_f64().unwrap() > 1e6);
    let log = fs::read_to_string(place.path("run/log.jsonl")).unwrap();
    let epoch = log.lines().rfind(|line| line.contains("\"event\":\"epoch\"")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(epoch).unwrap()["seconds"].as_f64().unwrap() > 1e6);
}

#[test]
fn a_damaged_newest_checkpoint_gives_way_aloud() {
    let place = Place::new();
    let undisturbed = place.json(&small(&["--epochs", "2", "--run-dir", "run", "--checkpoint-every", "4"]));
    // As if it had not ended.
    fs::remove_file(place.path("run/summary.json")).unwrap();
    let store = kinone::runs::store::Store::new(&place.path("run/checkpoints"));
    let steps = store.steps();
    let [.., before, newest] = steps[..] else { panic!("{steps:?}") };
    let bytes = fs::read(store.path(newest)).unwrap();
    fs::write(store.path(newest), &bytes[..bytes.len() / 2]).unwrap();
    let said = place.succeeds(&["train", "--resume", "run"]);
    let damaged = format!("step_{newest:08}.safetensors: damaged");
    assert!(said.contains(&damaged) && said.contains("falling back"), "{said}");
    assert!(said.contains(&format!("resumed after step {before},")), "{said}");
    assert!(before < newest && Some(newest) == store.steps().pop(), "{:?}", store.steps());
    let summary = parsed(&fs::read_to_string(place.path("run/summary.json")).unwrap());
    for field in ["weights_sha256", "chain_sha256"] {
        assert_eq!(summary[field], undisturbed[field], "{field}");
    }
}

/// The checkpoints of a run up to a step, as if it had been killed after that: copied from `run` to `name`.
fn killed_after(place: &Place, step: u64, name: &str) {
    let status = Command::new("cp").arg("-r").args([place.path("run"), place.path(name)]).status().unwrap();
    assert!(status.success());
    let store = kinone::runs::store::Store::new(&place.path(name).join("checkpoints"));
    store.steps().into_iter().filter(|later| *later > step).for_each(|later| {
        fs::remove_file(store.path(later)).unwrap();
    });
    assert_eq!(store.steps().pop(), Some(step));
    // The hint would be of one that is gone.
    fs::remove_file(place.path(name).join("checkpoints/newest")).unwrap();
    fs::remove_file(place.path(name).join("summary.json")).unwrap();
}

#[test]
fn a_run_ends_where_an_epoch_does_and_goes_on_where_a_step_is_left() {
    let place = Place::new();
    // It ends after 8 epochs of 7 steps, the sixth the best. Kept are the epochs' ends and step 54.
    let train = ["train", "--json", "--model=resnet10w8", "--images=300", "--image-size=32", "--threads=1"];
    let more = ["--batch-size=32", "--epochs=12", "--lr=0.05", "--patience=2", "--checkpoint-every=2"];
    let whole = place.json(&[&train[..], &more, &["--keep-every=7", "--run-dir=run"]].concat());
    assert_eq!((&whole["epochs"], &whole["best_epoch"]), (&8.into(), &6.into()));
    let chain = fs::read(place.path("run/chain.jsonl")).unwrap();
    let resume = |name, flags: &[&'static str]| {
        [&["train", "--json", "--threads=1", "--resume", name], flags].concat()
    };

    // Early stopping has ended it: more epochs or another rate are no step, more patience is.
    let said = place.succeeds(&["train", "--resume", "run"]);
    let words =
        "is finished after 8 epochs: nothing is left to do; give --patience above 2 (or 0) with --override";
    assert!(said.contains(words), "{said}");
    let left =
        ["is finished after 8 epochs", "no step left", "give --patience above 2 (or 0) with --override"];
    for flag in ["--epochs=20", "--lr=0.001", "--patience=1"] {
        place.refuses(2, &left, &resume("run", &["--override", flag]));
    }
    let both = "give --epochs above 8 and --patience above 2 (or 0) with --override";
    place.refuses(2, &[both], &resume("run", &["--override", "--epochs=5"]));
    let epochs = ["no step left for epochs 12 -> 8, patience 2 -> 0; give --epochs above 8 with --override"];
    place.refuses(2, &epochs, &resume("run", &["--override", "--epochs=8", "--patience=0"]));
    assert!(fs::read(place.path("run/chain.jsonl")).unwrap() == chain);
    assert_eq!(place.json(&resume("run", &[])), whole);

    // Within an epoch there is no end.
    killed_after(&place, 54, "within");
    let chain = fs::read(place.path("within/chain.jsonl")).unwrap();
    for (flag, way_on) in
        [("--epochs=3", "give --epochs above 7,"), ("--patience=1", "give --patience above 1 (or 0),")]
    {
        place.refuses(2, &["within epoch 8", way_on], &resume("within", &["--override", flag]));
    }
    assert!(fs::read(place.path("within/chain.jsonl")).unwrap() == chain);
    assert_eq!(place.json(&resume("within", &["--override", "--epochs=8"]))["epochs"], 8);
    place.succeeds(&["verify", "--run-dir=within"]);

    // Between two epochs there is.
    for (name, flag) in [("epochs", "--epochs=7"), ("patience", "--patience=1")] {
        killed_after(&place, 49, name);
        assert_eq!(place.json(&resume(name, &["--override", flag]))["epochs"], 7);
        place.succeeds(&["verify", "--run-dir", name]);
    }
    let summary = place.json(&resume("run", &["--override", "--patience=0", "--epochs=9"]));
    assert_eq!(summary["epochs"], 9);
    place.succeeds(&["verify", "--run-dir=run"]);
}
