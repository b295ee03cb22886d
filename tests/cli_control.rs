//! Requests through the run directory, and weights that a run which was killed did not write.

#![cfg(unix)]

mod common;

use common::{Place, SMALL};
use kinone::runs::control::{Control, Doing, Heartbeat, Request};
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A run of so many epochs of ten steps each.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

fn start(place: &Place, arguments: &[&str]) -> Child {
    place.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn heartbeat(place: &Place) -> Option<Heartbeat> {
    serde_json::from_slice(&fs::read(place.path("run/heartbeat.json")).ok()?).ok()
}

/// Waits for this, while the run goes on.
fn wait_for(child: &mut Child, what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(child.try_wait().unwrap().is_none(), "ended before {what}");
        assert!(start.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn links(place: &Place) -> usize {
    fs::read_to_string(place.path("run/chain.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn pause_holds_a_run_resume_lets_it_go_on_and_stop_saves_it() {
    let place = Place::new();
    let undisturbed = place.json(&train(&["--epochs=30", "--run-dir=whole"]));
    let control = Control::new(&place.path("run"));
    let mut child = start(&place, &train(&["--epochs=30", "--run-dir=run"]));
    wait_for(&mut child, "a step", || links(&place) > 3);

    control.ask(Request::Pause).unwrap();
    let is_paused = || heartbeat(&place).is_some_and(|beat| beat.doing == Doing::Paused);
    wait_for(&mut child, "pause", is_paused);
    let held = links(&place);
    assert_eq!(heartbeat(&place).unwrap().step as usize, held - 1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(links(&place), held, "a paused run went on");
    // It still holds its directory.
    place.refuses(6, &["run is in use by"], &["train", "--resume=run", "--threads=1"]);

    control.ask(Request::Resume).unwrap();
    wait_for(&mut child, "another step", || links(&place) > held);
    assert!(!place.path("run/control").exists(), "the request was met, and stands there still");

    // A word that is none is passed over, which is said once; one while paused is met.
    fs::write(place.path("run/control"), "halt\n").unwrap();
    let passed = links(&place);
    wait_for(&mut child, "another step", || links(&place) > passed);
    control.ask(Request::Pause).unwrap();
    wait_for(&mut child, "pause", is_paused);
    let held = links(&place);
    control.ask(Request::Stop).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("kinone: control says `halt`"), "{said}");
    assert_eq!(links(&place), held);
    assert_eq!(
        heartbeat(&place).map(|beat| (beat.doing, beat.step as usize)),
        Some((Doing::Stopped, held - 1))
    );
    assert!(!place.path("run/control").exists());

    // A request from before is none for the run that goes on.
    control.ask(Request::Stop).unwrap();
    let resumed = place.json(&["train", "--json", "--resume=run", "--threads=1"]);
    for field in ["weights_sha256", "best_weights_sha256", "chain_sha256", "test_auroc_macro"] {
        assert_eq!(resumed[field], undisturbed[field], "{field}");
    }
    assert_eq!(
        fs::read(place.path("run/chain.jsonl")).unwrap(),
        fs::read(place.path("whole/chain.jsonl")).unwrap()
    );
}

/// Killed after a checkpoint and before the weights for others, a run makes them from the checkpoint.
#[test]
fn weights_that_were_not_written_are_made_again() {
    let place = Place::new();
    place.json(&train(&["--epochs=3", "--run-dir=run"]));
    let path = |name: &str| place.path(&format!("run/checkpoints/{name}.safetensors"));
    let [best, last] = ["best", "last"].map(|name| fs::read(path(name)).unwrap());
    // Of the first epoch, as they lay there before the checkpoint of the third.
    let earlier = Place::new();
    earlier.json(&train(&["--epochs=1", "--schedule=constant", "--run-dir=run"]));
    let old = fs::read(earlier.path("run/checkpoints/last.safetensors")).unwrap();
    let states: &[&dyn Fn(&str)] = &[
        &|name| fs::remove_file(path(name)).unwrap(),
        &|name| fs::write(path(name), &old).unwrap(),
        &|name| fs::write(path(name), b"").unwrap(),
        &|name| fs::write(path(name), &last[..last.len() / 2]).unwrap(),
    ];
    for (number, state) in states.iter().enumerate() {
        for names in [&["best"][..], &["last"], &["best", "last"]] {
            fs::remove_file(place.path("run/summary.json")).unwrap();
            names.iter().for_each(|name| state(name));
            place.json(&["train", "--json", "--resume=run", "--threads=1"]);
            assert!(fs::read(path("best")).unwrap() == best, "best of {names:?}, state {number}");
            assert!(fs::read(path("last")).unwrap() == last, "last of {names:?}, state {number}");
        }
    }
    place.succeeds(&["verify", "--run-dir=run"]);
}
