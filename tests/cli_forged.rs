//! Records forged by somebody who makes every hash anew, and honest ones that only look strange.

#![cfg(unix)]

mod common;

use common::{Place, SMALL};
use kinone::kernels::Cpu;
use kinone::runs::chain::{self, Body, Chain, Override};
use kinone::runs::checkpoint::Checkpoint;
use kinone::runs::config::Difference;
use kinone::runs::progress::Best;
use kinone::runs::weights;
use std::fs;

const VERIFY: [&str; 3] = ["verify", "--run-dir=run", "--threads=1"];

/// A run of three epochs of ten steps, with checkpoints every fifth step.
fn recorded(more: &[&str]) -> Place {
    let place = Place::new();
    let own = ["--epochs=3", "--run-dir=run", "--checkpoint-every=5", "--keep-every=5", "--seed=1"];
    place.succeeds(&[&SMALL[..], &own, more].concat());
    place
}

fn file(place: &Place, step: usize) -> std::path::PathBuf {
    place.path(&format!("run/checkpoints/step_{step:08}.safetensors"))
}

/// The checkpoints, changed and sealed again.
fn seal(place: &Place, change: impl Fn(&mut Checkpoint)) {
    for step in (0..=30).step_by(5).filter(|step| file(place, *step).exists()) {
        let mut checkpoint = Checkpoint::load(&Cpu::current(), &file(place, step)).unwrap();
        change(&mut checkpoint);
        checkpoint.save(&Cpu::current(), &file(place, step)).unwrap();
    }
}

/// A text file, changed; what is to change must be there.
fn replace(place: &Place, name: &str, from: &str, to: &str) {
    let path = place.path(&format!("run/{name}"));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{name}: {from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// The chain, changed and linked again; checkpoints and summary name its new links.
fn link(place: &Place, change: impl FnOnce(&mut Vec<Body>)) {
    let path = place.path("run/chain.jsonl");
    let old = chain::read(&path).unwrap().links;
    let mut bodies: Vec<Body> = old.iter().map(|link| link.body.clone()).collect();
    change(&mut bodies);
    let Body::Header(header) = bodies.remove(0) else { panic!("no header") };
    let mut made = Chain::begin(&path, header).unwrap();
    bodies.iter().for_each(|body| made.append(body).unwrap());
    let new = chain::read(&path).unwrap().links;
    seal(place, |checkpoint| {
        let step = checkpoint.header.progress.step;
        checkpoint.header.link.clone_from(&new.iter().rfind(|link| link.step() == step).unwrap().hash);
    });
    replace(place, "summary.json", &old.last().unwrap().hash, &new.last().unwrap().hash);
}

/// Another run, forged from the same one: it must be refused with these words, before and after no longer.
fn refuses(words: &[&str], forge: impl FnOnce(&Place)) {
    let place = recorded(&[]);
    forge(&place);
    place.refuses(1, words, &VERIFY);
}

fn weights_file(place: &Place, name: &str) -> std::path::PathBuf {
    place.path(&format!("run/checkpoints/{name}.safetensors"))
}

#[test]
fn a_checkpoint_before_the_first_step_is_none() {
    refuses(&["step 0: ", "step_00000000.safetensors is none of a run"], |place| {
        fs::copy(file(place, 5), file(place, 0)).unwrap();
    });
}

/// Also of a run that has not ended, or says so.
#[test]
fn weights_beside_a_run_without_a_summary_are_held_against_its_epochs() {
    let best = |place: &Place, change: &dyn Fn(&mut weights::Header)| {
        fs::remove_file(place.path("run/summary.json")).unwrap();
        let (mut header, tensors) = weights::load(&weights_file(place, "best")).unwrap();
        change(&mut header);
        weights::save(&weights_file(place, "best"), &header, &tensors).unwrap();
    };
    let place = recorded(&[]);
    best(&place, &|_| {});
    place.succeeds(&VERIFY);
    refuses(&["step 30: ", "best.safetensors: val_auroc_macro is recorded as 0.99"], |place| {
        best(place, &|header| header.val_auroc_macro = Some(0.99));
    });
    refuses(&["step 30: ", "best.safetensors cannot be of epoch 9"], |place| {
        best(place, &|header| header.epoch = 9);
    });
    refuses(&["step 30: ", "last.safetensors"], |place| {
        best(place, &|_| {});
        fs::write(weights_file(place, "last"), "x").unwrap();
    });
    refuses(&["step 30: ", "last.safetensors: weights_sha256 is recorded as"], |place| {
        best(place, &|_| {});
        for step in (5..=30).step_by(5).filter(|step| file(place, *step).exists()) {
            fs::remove_file(file(place, step)).unwrap();
        }
        let fresh = [&SMALL[..], &["--epochs=3", "--run-dir=other", "--seed=9"]].concat();
        place.succeeds(&fresh);
        let (other, tensors) = weights::load(&place.path("other/checkpoints/last.safetensors")).unwrap();
        let (header, _) = weights::load(&weights_file(place, "last")).unwrap();
        let header = weights::Header { weights_sha256: other.weights_sha256, ..header };
        weights::save(&weights_file(place, "last"), &header, &tensors).unwrap();
    });
    refuses(&["step 30: ", "summary.json"], |place| {
        best(place, &|_| {});
        std::os::unix::fs::symlink("/nothing", place.path("run/summary.json")).unwrap();
    });
}

/// The best epoch is the one with the best score, not one that somebody likes better.
#[test]
fn the_best_epoch_cannot_be_chosen() {
    let place = recorded(&[]);
    let load = |step| Checkpoint::load(&Cpu::current(), &file(&place, step)).unwrap();
    let honest = load(25).header.progress.best.unwrap();
    let Checkpoint { header, tensors } = load(if honest.epoch == 1 { 20 } else { 10 });
    let model = tensors
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("model.")?.to_owned(), value.clone())));
    let other = Best {
        epoch: header.progress.epoch - 1,
        step: header.progress.step,
        val_auroc_macro: header.progress.val_auroc_macro,
        thresholds: header.progress.thresholds,
        weights_sha256: weights::digest(&model.collect()),
    };
    for best in [None, Some(other), Some(honest)] {
        let is_honest = best == load(30).header.progress.best || best == load(20).header.progress.best;
        seal(&place, |checkpoint| {
            if checkpoint.header.progress.step == 25 {
                checkpoint.header.progress.best.clone_from(&best);
            }
        });
        if is_honest {
            place.succeeds(&VERIFY);
        } else {
            place.refuses(1, &["step 25: ", "does not say how far the run had come"], &VERIFY);
        }
    }
}

/// An override in the chain after a step; checkpoints from there on and the file agree with it.
fn overridden(place: &Place, after_step: u64, change: Option<(&str, serde_json::Value)>) {
    let name = change.as_ref().map(|(name, _)| name.replace('-', "_")).unwrap_or_default();
    let value = change.as_ref().map(|(_, value)| value.clone()).unwrap_or_default();
    link(place, |bodies| {
        let Body::Header(header) = &bodies[0] else { panic!("no header") };
        let mut config = header.config.clone();
        let changes = change.map(|(setting, to)| {
            let from = config.insert(setting.to_owned(), to.clone()).unwrap();
            Difference { setting: setting.to_owned(), from: from.to_string(), to: to.to_string() }
        });
        let changes = changes.into_iter().collect();
        bodies.insert(after_step as usize + 1, Body::Override(Override { after_step, changes, config }));
    });
    if name.is_empty() {
        return;
    }
    seal(place, |checkpoint| {
        if checkpoint.header.progress.step >= after_step {
            let mut config = serde_json::json!(checkpoint.header.config);
            config[&name] = value.clone();
            checkpoint.header.config = serde_json::from_value(config).unwrap();
        }
    });
    let text = fs::read_to_string(place.path("run/config.toml")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
    replace(place, "config.toml", line, &format!("{name} = {value}"));
}

#[test]
fn overrides_that_no_run_can_have_are_refused() {
    refuses(&["step 10: an override of no run"], |place| overridden(place, 10, None));
    refuses(&["step 10: an override cannot change this: hash-every 100 -> 7"], |place| {
        overridden(place, 10, Some(("hash-every", 7.into())));
    });
    refuses(&["step 30: the override cannot be: the run is finished"], |place| {
        overridden(place, 30, Some(("epochs", 2.into())));
    });
    refuses(&["step 15: the override cannot be: the run is within epoch 2"], |place| {
        overridden(place, 15, Some(("epochs", 1.into())));
    });
}

/// What the log says besides the steps.
#[test]
fn the_log_is_held_against_the_run() {
    let row = |place: &Place, event: &str| {
        let log = fs::read_to_string(place.path("run/log.jsonl")).unwrap();
        format!("{}\n", log.lines().find(|line| line.contains(&format!("\"event\":\"{event}\""))).unwrap())
    };
    refuses(&["log.jsonl: epoch 4 is said to have ended"], |place| {
        let extra = row(place, "epoch").replace("\"epoch\":1,", "\"epoch\":4,");
        let end = row(place, "end");
        replace(place, "log.jsonl", &end, &format!("{extra}{end}"));
    });
    refuses(&["log.jsonl: the end of epoch 1 is missing"], |place| {
        replace(place, "log.jsonl", &row(place, "epoch"), "");
    });
    refuses(&["log.jsonl, line 2: no JSON object: `loss` stands twice"], |place| {
        replace(place, "log.jsonl", "\"loss\":", "\"loss\":0.1,\"loss\":");
    });
    refuses(&["step 0: log.jsonl: images is recorded as"], |place| {
        replace(place, "log.jsonl", "\"images\":[", "\"images\":[1");
    });
    refuses(&["step 30: the log ends with the weights"], |place| {
        replace(
            place,
            "log.jsonl",
            "\"event\":\"end\",\"weights_sha256\":\"",
            "\"event\":\"end\",\"weights_sha256\":\"0",
        );
    });
}

/// What we and others read must be one: no name stands twice, and nothing is said that we do not know.
#[test]
fn records_are_written_in_one_way() {
    refuses(&["chain.jsonl, line 1", "the link is not written as a link is"], |place| {
        let path = place.path("run/chain.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        let (open, _) = first.split_once(",\"hash\":").unwrap();
        let forged = open.replacen("},\"seed\":", "},\"seed\":7,\"seed\":", 1);
        assert!(forged != open);
        let hash = kinone::runs::hash::bytes(forged.as_bytes());
        fs::write(&path, format!("{forged},\"hash\":\"{hash}\"}}\n{rest}")).unwrap();
    });
    refuses(&["summary.json", "test_auroc_micro"], |place| {
        replace(place, "summary.json", "{", "{\"test_auroc_micro\":0.99,");
    });
}

/// A part that was made again proves nothing of the end.
#[test]
fn the_end_is_claimed_where_it_was_made_again() {
    let place = recorded(&[]);
    let said = place.succeeds(&[&VERIFY[..], &["--to=12"]].concat());
    assert!(!said.contains("its end"), "{said}");
    assert!(place.succeeds(&[&VERIFY[..], &["--from=28"]].concat()).contains("its end"));
}

/// Where the weights of the best epoch are lost the best is chosen anew: the chain says so, and the rest follows.
#[test]
fn a_run_whose_best_was_lost_is_proved() {
    let train =
        ["train", "--json", "--model=resnet10w8", "--images=300", "--image-size=32", "--batch-size=32"];
    let own = ["--epochs=3", "--seed=1", "--lr=0.03", "--schedule=constant", "--patience=3", "--threads=1"];
    for (epochs, more, parting) in [
        ("--epochs=3", &[][..], "lost the weights of its best epoch"),
        ("--epochs=6", &["--override"], "other settings"),
    ] {
        let place = Place::new();
        let best = &place.json(&[&train[..], &own, &["--run-dir=run"]].concat())["best_epoch"];
        assert_eq!(best, 1, "of this run the first epoch is the best");
        fs::create_dir(place.path("before")).unwrap();
        for name in ["chain.jsonl", "config.toml"] {
            fs::copy(place.path("run").join(name), place.path("before").join(name)).unwrap();
        }
        fs::remove_file(file(&place, 7)).unwrap();
        fs::remove_file(weights_file(&place, "best")).unwrap();
        let resume = ["train", "--json", "--resume=run", "--threads=1", epochs];
        let output = place.command(&[&resume[..], more].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("are lost"), "{said}");
        let said = place.succeeds(&VERIFY);
        assert!(said.contains("after step 21 the weights of the best epoch were lost"), "{said}");
        let output = place.command(&["diff", "before", "run"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(parting), "{said}");
        place.succeeds(&[&VERIFY[..], &["--from=20"]].concat());
        place.succeeds(&resume);
    }
}

/// Beside the chain a finished run has a log and an index, which are made again like its results.
#[test]
fn a_finished_run_gets_back_its_log_and_its_index() {
    let place = recorded(&[]);
    let resume = ["train", "--json", "--resume=run", "--threads=1"];
    for name in ["log.jsonl", "data.index"] {
        fs::remove_file(place.path(&format!("run/{name}"))).unwrap();
        place.refuses(1, &[name], &VERIFY);
        let output = place.command(&resume).output().unwrap();
        assert!(output.status.success() && !output.stderr.is_empty(), "{name}");
        place.succeeds(&VERIFY);
    }
}

/// A checkpoint under right hashes in which no run can stand.
#[test]
fn a_checkpoint_in_which_no_run_can_stand_is_damaged() {
    for change in [
        (|c: &mut Checkpoint| c.header.progress.best = None) as fn(&mut Checkpoint),
        |c| c.header.progress.epoch = 0,
        |c| c.header.progress.epoch = u32::MAX,
        |c| c.header.progress.epoch_steps = u64::MAX,
        |c| c.header.progress.loss_images = u64::MAX,
        |c| c.header.progress.best.as_mut().unwrap().epoch = u32::MAX,
    ] {
        let place = recorded(&[]);
        for step in (5..30).step_by(5).filter(|step| file(&place, *step).exists()) {
            fs::remove_file(file(&place, step)).unwrap();
        }
        seal(&place, change);
        let output = place.command(&["train", "--json", "--resume=run", "--threads=1"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(4) && said.contains("no run stands so"), "{said}");
    }
}
