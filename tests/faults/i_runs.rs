//! Runs that are resumed otherwise than they were made, records that were edited, many images to predict.

use crate::harness::{Fault, Place, Whole, is_full, sample};
use kinone::kernels::Cpu;
use kinone::runs::checkpoint::Checkpoint;
use std::fs;

/// A run that ended after its first epoch: with one checkpoint, of step 10.
fn after_one_epoch() -> Place {
    let place = Whole::get().place.copy();
    fs::remove_file(place.path("run/summary.json")).unwrap();
    let steps = place.store().steps();
    fs::remove_file(place.store().path(steps[steps.len() - 1])).unwrap();
    place
}

/// Flags that change a setting, and how the change is said.
const CHANGES: &[(&str, &str)] = &[
    ("--lr=0.5", "lr 0.001 -> 0.5"),
    ("--epochs=3", "epochs 2 -> 3"),
    ("--schedule=constant", "schedule cosine -> constant"),
    ("--warmup-steps=5", "warmup-steps 0 -> 5"),
    ("--momentum=0.5", "momentum 0.9 -> 0.5"),
    ("--weight-decay=0.1", "weight-decay 0.0 -> 0.1"),
    ("--clip-norm=1", "clip-norm 0.0 -> 1.0"),
    ("--patience=1", "patience 0 -> 1"),
    ("--batch-size=16", "batch-size 8 -> 16"),
    ("--accumulate=2", "accumulate 1 -> 2"),
    ("--optimizer=sgd", "optimizer adam -> sgd"),
    ("--ema=0.9", "ema 0.0 -> 0.9"),
    ("--model=resnet18", "model resnet10w8 -> resnet18"),
    ("--image-size=64", "image-size 32 -> 64"),
    ("--images=200", "images 100 -> 200"),
    ("--seed=7", "seed 42 -> 7"),
    ("--hash-every=5", "hash-every 1 -> 5"),
    ("--no-finding", "no-finding false -> true"),
    ("--conv-algo=winograd", "conv-algo direct -> winograd"),
];

#[test]
fn fault_i08_resumed_under_another_setting() {
    let fault = Fault::new("I08");
    let place = after_one_epoch();
    let resume = ["train", "--json", "--threads=1", "--resume", "run"];
    let chain = place.read("run/chain.jsonl");
    let (changeable, fixed) = CHANGES.split_at(8);
    for (flag, change) in CHANGES {
        let way = if changeable.contains(&(*flag, *change)) { "--override" } else { "cannot change" };
        place.run(&[&resume[..], &[flag]].concat()).failed(2, &[change, way]);
    }
    for (flag, change) in fixed {
        let arguments = [&resume[..], &["--override", flag]].concat();
        place.run(&arguments).failed(2, &["cannot change", change, "--load-checkpoint"]);
    }
    assert!(place.read("run/chain.jsonl") == chain, "the chain was changed");
    let overridden = sample(changeable, 3);
    for (flag, change) in &overridden {
        let place = place.copy();
        place.json(&[&resume[..], &["--override", flag]].concat());
        let text = place.text("run/chain.jsonl");
        let links: Vec<&str> = text.lines().filter(|line| line.contains("\"link\":\"override\"")).collect();
        let [link] = links[..] else { panic!("{flag}: {links:?}") };
        let (setting, values) = change.split_once(' ').unwrap();
        let (from, to) = values.split_once(" -> ").unwrap();
        for word in [setting, from, to, "\"after_step\":10"] {
            assert!(link.contains(word), "no `{word}` in {link}");
        }
        place.run(&["verify", "--run-dir", "run"]).succeeded();
    }
    place.resumes_to(Whole::get());
    fault.survived(
        CHANGES.len() + fixed.len() + overridden.len(),
        "each setting changed alone: refused by name; with --override recorded in the chain and verified, or refused for good",
    );
}

#[test]
fn fault_i09_another_version() {
    let fault = Fault::new("I09");
    let place = after_one_epoch();
    let path = place.store().path(10);
    let good = fs::read(&path).unwrap();
    let resume = ["train", "--resume", "run"];
    let forged = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = Checkpoint::load(&Cpu::current(), &path).unwrap();
        change(&mut checkpoint);
        checkpoint.save(&Cpu::current(), &path).unwrap();
    };
    // Another contract, in the checkpoint or in the configuration: both numbers are named.
    for contract in [0, 2, u32::MAX] {
        forged(&|checkpoint| checkpoint.header.contract = contract);
        place.run(&resume).failed(4, &["contract", &contract.to_string(), "contract 1"]);
        fs::write(&path, &good).unwrap();
        let config = place.text("run/config.toml");
        let other = config.replacen("contract = 1", &format!("contract = {contract}"), 1);
        place.write("run/config.toml", other.as_bytes());
        place.run(&resume).failed(4, &["config.toml", &format!("contract {contract}"), "contract 1"]);
        place.write("run/config.toml", config.as_bytes());
    }
    // Another version of the program under the same contract: the same bits.
    forged(&|checkpoint| "0.0.0-other".clone_into(&mut checkpoint.header.version));
    place.resumes_to(Whole::get());
    place.run(&["verify", "--run-dir", "run"]).succeeded();
    fault.survived(
        7,
        "checkpoint and configuration of three other contracts: refused; of another program version: equal bits",
    );
}

/// What `verify` says of `run` with this file changed; the file is restored.
fn verify_after(place: &Place, name: &str, change: impl FnOnce(&str) -> String, words: &[&str]) {
    let text = place.text(name);
    let changed = change(&text);
    assert!(changed != text, "{name}: nothing was edited");
    place.write(name, changed.as_bytes());
    place.run(&["verify", "--run-dir", "run"]).failed(1, words);
    place.write(name, text.as_bytes());
}

/// The text with this line (from 0) changed.
fn edited(text: &str, number: usize, change: impl FnOnce(&str) -> String) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[number] = change(&lines[number]);
    lines.join("\n") + "\n"
}

/// The last digit before this word, made another.
fn other_digit(line: &str, before: &str) -> String {
    let at = line.find(before).unwrap() - 1;
    let digit = if line.as_bytes()[at] == b'1' { "2" } else { "1" };
    format!("{}{digit}{}", &line[..at], &line[at + 1..])
}

#[test]
fn fault_i10_a_record_edited_by_hand() {
    let fault = Fault::new("I10");
    let place = Whole::get().place.copy();
    place.run(&["verify", "--run-dir", "run"]).succeeded();
    let steps = place.links() - 1;
    let mut tried = 0;
    for step in sample(1..=steps, 6) {
        let (line, said) = (format!("line {} (step {step})", step + 1), format!("step {step}"));
        // One hexadecimal digit of the loss, of the learning rate, of the gradient's norm, of the state, one sample.
        for field in ["\",\"gradient_norm", "\",\"loss", "\",\"state", "\",\"prev", "],\"lr"] {
            let change = |text: &str| edited(text, step, |line| other_digit(line, field));
            verify_after(&place, "run/chain.jsonl", change, &["chain.jsonl", &line, "was changed"]);
            tried += 1;
        }
        let gone = |text: &str| {
            let kept = text.lines().enumerate().filter(|(number, _)| *number != step);
            kept.map(|(_, line)| format!("{line}\n")).collect()
        };
        if step < steps {
            verify_after(&place, "run/chain.jsonl", gone, &["chain.jsonl", &format!("line {}", step + 1)]);
            tried += 1;
        }
        // The log is held against the chain.
        for name in ["loss", "gradient_norm", "lr"] {
            let change = |text: &str| {
                let row = text.lines().position(|line| line.contains(&format!("\"step\":{step},"))).unwrap();
                edited(text, row, |line| {
                    // The first digit; a last one may round to the same number.
                    let at = line.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
                    other_digit(line, &line[at + 1..])
                })
            };
            verify_after(
                &place,
                "run/log.jsonl",
                change,
                &[&said, "log.jsonl", &format!("{name} is recorded")],
            );
            tried += 1;
        }
    }
    let header = |text: &str| edited(text, 0, |line| line.replacen("\"seed\":42", "\"seed\":43", 1));
    verify_after(&place, "run/chain.jsonl", header, &["chain.jsonl", "line 1"]);
    for (from, to, said) in [
        ("lr = 0.001", "lr = 0.002", "lr 0.001 -> 0.002"),
        ("seed = 42", "seed = 43", "seed 42 -> 43"),
        ("epochs = 2", "epochs = 3", "epochs 2 -> 3"),
        ("batch_size = 8", "batch_size = 4", "batch-size 8 -> 4"),
    ] {
        let change = |text: &str| text.replacen(from, to, 1);
        verify_after(&place, "run/config.toml", change, &["from step 1 on", said]);
    }
    for (name, field) in
        [("chain_sha256", "\",\n  \"train_loss"), ("weights_sha256", "\",\n  \"best_weights")]
    {
        let change = |text: &str| other_digit(text, field);
        verify_after(&place, "run/summary.json", change, &["summary.json", name]);
    }
    verify_after(
        &place,
        "run/data.index",
        |text| edited(text, 3, |line| format!("{line}x")),
        &["data.index", "hashes to"],
    );
    place.run(&["verify", "--run-dir", "run"]).succeeded();
    fault.survived(
        tried + 9,
        "each link, each row of the log, settings, summary, index: the first step that is not as recorded is named",
    );
}

#[test]
fn fault_i12_many_images_some_missing() {
    let fault = Fault::new("I12");
    let place = Whole::get().place.copy();
    place.run(&["synth", "--images=100", "--size=32", "--out-dir=d"]).succeeded();
    let mut images: Vec<String> = fs::read_dir(place.path("d/images"))
        .unwrap()
        .map(|entry| format!("d/images/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    images.sort();
    let count = if is_full() { 10_000 } else { 1_000 };
    // Every fiftieth is missing, among them the first and the last.
    let is_missing = |k: usize| k.is_multiple_of(50) && k < count - 50 || k == count - 1;
    let path = |k: usize| if is_missing(k) { format!("no_{k}.png") } else { images[k % 100].clone() };
    let paths: Vec<String> = (0..count).map(path).collect();
    let missing = (0..count).filter(|k| is_missing(*k)).count();
    assert_eq!(missing, count / 50);
    let predict = ["predict", "--run-dir=run", "--json", "--image-path"].map(str::to_owned);
    let ended = place.run(&[&predict[..], &paths[..]].concat());
    let words = format!("{missing} of {count} images were not scored");
    let ended = ended.failed(1, &[&words, "no_0.png"]);
    let objects: Vec<serde_json::Value> = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(objects.len(), count);
    for (k, object) in objects.iter().enumerate() {
        assert_eq!(object["image"], paths[k]);
        if is_missing(k) {
            assert!(object["error"].as_str().unwrap().contains(&paths[k]), "{object}");
            assert!(object.get("probabilities").is_none());
        } else {
            // The same image gives the same bits whatever its neighbours are.
            let twin = (k % 100..count).step_by(100).find(|twin| !is_missing(*twin)).unwrap();
            assert_eq!(object["probabilities"], objects[twin]["probabilities"], "{k}");
            assert_eq!(object["probabilities"].as_object().unwrap().len(), 14);
        }
    }
    // For a person: each is reported where it would have stood.
    let text = ["predict", "--run-dir=run", "--image-path"].map(str::to_owned);
    let ended = place.run(&[&text[..], &paths[..200]].concat()).failed(1, &["4 of 200"]);
    assert_eq!(ended.stdout.matches("not scored: ").count(), 4, "{ended}");
    assert_eq!(ended.stdout.lines().filter(|line| line.starts_with("d/images/")).count(), 196);
    // None that can be used: the data's exit code.
    place.run(&["predict", "--run-dir=run", "--image-path", "no.png", "run"]).failed(3, &["no.png"]);
    fault.survived(
        count + 202,
        "images of which each fiftieth is missing: every one reported, the others scored as alone; exit code 1",
    );
}
