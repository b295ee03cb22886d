//! A run from training to prediction: what it leaves behind, and that its bits are those of the contract.

mod common;

use common::{Place, TINY, printed};
use kinone::kernels::Isa;
use kinone::kernels::math::sigmoid;
use kinone::runs::config::ConvAlgo;
use kinone::runs::weights;
use serde_json::Value;
use std::fs;

fn train<'a>(run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--json", "--run-dir", run], &TINY[..], more].concat()
}

fn parsed(place: &Place, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(place.path(name)).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_its_record() {
    let place = Place::new();
    let printed = place.succeeds(&[&["train", "--run-dir", "run"], &TINY[..]].concat());
    assert_eq!(printed, fs::read_to_string(place.path("run/console.log")).unwrap());
    for words in ["built-in set", "epoch  1/1", "val AUROC", "Hernia", "images of"] {
        assert!(printed.contains(words), "{words}");
    }
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    for line in
        ["contract = 1", "model = \"resnet18\"", "image_size = 32", "epochs = 1", "seed = 42", "images = 120"]
    {
        assert!(config.lines().any(|found| found == line), "{line}");
    }

    let summary = parsed(&place, "run/summary.json");
    assert_eq!((&summary["contract"], &summary["epochs"]), (&1.into(), &1.into()));
    let positive = |name: &str| summary[name].as_f64().is_some_and(|x| x > 0.0 && x.is_finite());
    assert!(["train_loss", "images_per_second", "wall_seconds"].into_iter().all(positive));
    let fraction = |name: &str| summary[name].as_f64().is_some_and(|x| (0.0..=1.0).contains(&x));
    assert!(["val_auroc_macro", "test_auroc_macro"].into_iter().all(fraction));

    let log = fs::read_to_string(place.path("run/log.jsonl")).unwrap();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    // 88 images to train on, 32 a step.
    assert_eq!(names, ["start", "step", "step", "step", "epoch", "end"]);
    assert_eq!(events[0]["images"], serde_json::json!([88, 13, 19]));
    let steps: Vec<u64> = events[1..4].iter().map(|step| step["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3]);
    for field in ["loss", "gradient_norm", "lr", "images_per_second"] {
        assert!(events[1..4].iter().all(|step| step[field].as_f64().is_some_and(|x| x > 0.0)), "{field}");
    }
    for field in ["train_loss", "val_auroc_macro"] {
        assert_eq!(events[4][field], summary[field], "{field}");
    }
    assert_eq!(events[5]["weights_sha256"], summary["weights_sha256"]);

    for (file, field) in [("last", "weights_sha256"), ("best", "best_weights_sha256")] {
        let path = place.path(&format!("run/checkpoints/{file}.safetensors"));
        let (header, dictionary) = weights::load(&path).unwrap();
        assert_eq!(summary[field], weights::digest(&dictionary));
        assert_eq!((header.epoch, header.classes.len(), header.image_size), (1, 14, 32));
        assert!(dictionary.contains_key("layer4.1.bn2.running_var"));
    }
    evaluate_gives_what_the_run_saw(&place, &summary);
    predict_gives_what_evaluate_saw(&place);
    a_run_can_start_from_weights(&place, &summary);
}

/// In another process, from the files: the same score, bit for bit.
fn evaluate_gives_what_the_run_saw(place: &Place, summary: &Value) {
    let metrics = place.json(&["evaluate", "--run-dir", "run", "--json"]);
    let bits = |value: &Value| value.as_f64().unwrap().to_bits();
    assert_eq!(bits(&metrics["auroc_macro"]), bits(&summary["test_auroc_macro"]));
    assert_eq!(metrics["weights_sha256"], summary["best_weights_sha256"]);
    assert_eq!((&metrics["part"], &metrics["images"]), (&"test".into(), &19.into()));
    assert_eq!(parsed(place, "run/metrics.json"), metrics);
    let classes = metrics["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 14);
    let table = place.succeeds(&["evaluate", "--run-dir", "run"]);
    for class in classes {
        let name = class["name"].as_str().unwrap();
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        // A class without both labels has no curve.
        let both = class["positives"] != 0 && class["negatives"] != 0;
        assert_eq!((class["auroc"].is_number(), !line.contains("n/a")), (both, both), "{line}");
    }
    let validation = place.json(&["evaluate", "--run-dir", "run", "--json", "--split", "validation"]);
    assert_eq!(bits(&validation["auroc_macro"]), bits(&summary["val_auroc_macro"]));
}

/// The same images from files, one at a time: the scores in the table, bit for bit.
fn predict_gives_what_evaluate_saw(place: &Place) {
    place.succeeds(&["synth", "--out-dir", "d", "--images", "120", "--size", "32"]);
    let csv = fs::read_to_string(place.path("run/scores_test.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 20);
    assert!(rows.iter().all(|row| row.len() == 2 + 14 + 14));
    let paths: Vec<String> = rows[1..4].iter().map(|row| format!("d/images/{}", row[0])).collect();
    let mut arguments = vec!["predict", "--run-dir", "run", "--json", "--image-path"];
    arguments.extend(paths.iter().map(String::as_str));
    let predicted = place.json(&arguments);
    let predicted = predicted.as_array().unwrap();
    assert_eq!(predicted.len(), 3);
    let (header, _) = weights::load(&place.path("run/checkpoints/best.safetensors")).unwrap();
    assert!(header.thresholds.len() == 14 && header.thresholds.iter().any(Option::is_some));
    for ((object, path), row) in predicted.iter().zip(&paths).zip(&rows[1..]) {
        assert_eq!(object["image"], **path);
        for (class, threshold) in header.classes.iter().zip(&header.thresholds) {
            let probability = object["probabilities"][class].as_f64().unwrap() as f32;
            // The threshold is one of the logits, and the probabilities are in their order.
            let is_right = match (object["positive"][class].as_bool(), threshold) {
                (Some(true), Some(threshold)) => probability >= sigmoid(*threshold),
                (Some(false), Some(threshold)) => probability <= sigmoid(*threshold),
                (stated, threshold) => stated.is_none() && threshold.is_none(),
            };
            assert!(is_right, "{path} {class}: {object}");
        }
        for (class, score) in rows[0][2..16].iter().zip(&row[2..16]) {
            let predicted = object["probabilities"][class].as_f64().unwrap() as f32;
            assert_eq!(predicted.to_bits(), score.parse::<f32>().unwrap().to_bits(), "{path} {class}");
        }
    }
    arguments.retain(|argument| *argument != "--json");
    let text = place.succeeds(&arguments);
    assert_eq!(text.lines().filter(|line| line.starts_with("d/images/")).count(), 3);
    assert!(text.contains("Not a diagnosis"));
}

fn a_run_can_start_from_weights(place: &Place, summary: &Value) {
    let second = place.json(&train("second", &["--load-checkpoint", "run/checkpoints/last.safetensors"]));
    assert_ne!(second["weights_sha256"], summary["weights_sha256"]);
    // Three more steps on the same images: what was learned before was kept.
    assert!(second["train_loss"].as_f64() < summary["train_loss"].as_f64());
    assert_eq!(parsed(place, "second/summary.json"), second);
}

/// A flag goes before the file, the file before the default; and a run is evaluated from anywhere.
#[test]
fn settings_come_from_flags_and_files() {
    let place = Place::new();
    place.succeeds(&["synth", "--out-dir", "d", "--images", "100", "--size", "40", "--seed", "5"]);
    let file = "data_dir = \"d\"\nimage_size = 32\nepochs = 1\nseed = 7\noptimizer = \"sgd\"\nlr = 0.01\n";
    fs::write(place.path("kinone.toml"), file).unwrap();
    let train = ["train", "--json", "--run-dir", "run", "--config", "kinone.toml", "--seed", "8"];
    let summary = place.json(&train);
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    for line in ["seed = 8", "optimizer = \"sgd\"", "lr = 0.01", "image_size = 32", "batch_size = 32"] {
        assert!(config.lines().any(|found| found == line), "no `{line}` in:\n{config}");
    }
    let arguments = ["evaluate", "--run-dir", ".", "--json"];
    let mut command = place.command(&arguments);
    command.current_dir(place.path("run"));
    let metrics: Value = serde_json::from_str(&printed(command.output().unwrap(), &arguments)).unwrap();
    assert_eq!(metrics["auroc_macro"], summary["test_auroc_macro"]);
    assert_eq!(metrics["images"], summary["images"][2]);

    // The configuration of a run repeats it; flags go before it too.
    let again = ["train", "--json", "--run-dir", "again", "--config", "run/config.toml"];
    assert_eq!(place.json(&again)["weights_sha256"], summary["weights_sha256"]);
    place.succeeds(&["diff", "run", "again"]);
    let other = ["train", "--json", "--run-dir", "other", "--config", "run/config.toml", "--seed", "9"];
    assert_ne!(place.json(&other)["weights_sha256"], summary["weights_sha256"]);
}

/// Threads, instruction sets and recomputation decide speed and memory, and no bit.
#[test]
fn one_seed_is_one_hash() {
    let place = Place::new();
    let mut number = 0;
    let mut hash = |isa: Option<Isa>, more: &[&str]| -> String {
        number += 1;
        let run = format!("run{number}");
        let arguments = train(&run, more);
        let mut command = place.command(&arguments);
        if let Some(isa) = isa {
            command.env("KINONE_ISA", isa.name());
        }
        let summary: Value = serde_json::from_str(&printed(command.output().unwrap(), &arguments)).unwrap();
        if let Some(isa) = isa {
            assert_eq!(summary["isa"], isa.name());
        }
        // A run's weights are 90 MB.
        fs::remove_dir_all(place.path(&run)).unwrap();
        summary["weights_sha256"].as_str().unwrap().to_owned()
    };
    let first = hash(None, &["--threads", "1"]);
    assert_eq!(first.len(), 64);
    let mut others = vec![
        ("again", hash(None, &["--threads", "1"])),
        ("recomputed", hash(None, &["--recompute", "--threads", "2"])),
        ("unfused", hash(None, &["--unfused", "--threads", "2"])),
    ];
    for (isa, threads) in Isa::present().into_iter().zip(["3", "2"].into_iter().cycle()) {
        others.push((isa.name(), hash(Some(isa), &["--threads", threads])));
    }
    let different: Vec<_> = others.iter().filter(|(_, hash)| *hash != first).collect();
    assert!(different.is_empty(), "{first}, but {different:?}");

    assert_ne!(hash(None, &["--seed", "43"]), first);
}

/// Minimal filtering is another definition: other bits than the plain sum, the same on every instruction set and number
/// of threads, recorded, and followed by what uses the weights.
#[test]
fn minimal_filtering_is_recorded_and_followed() {
    let place = Place::new();
    let run = |name: &str, algorithm: &str, isa: Isa, threads: &str| -> Value {
        let arguments = train(name, &["--conv-algo", algorithm, "--threads", threads]);
        let mut command = place.command(&arguments);
        command.env("KINONE_ISA", isa.name());
        serde_json::from_str(&printed(command.output().unwrap(), &arguments)).unwrap()
    };
    let widest = Isa::present().pop().unwrap();
    let direct = run("direct", "direct", widest, "2");
    let minimal = run("minimal", "winograd", widest, "2");
    assert_ne!(minimal["weights_sha256"], direct["weights_sha256"]);
    assert_eq!(run("scalar", "winograd", Isa::Scalar, "3")["weights_sha256"], minimal["weights_sha256"]);
    let config = fs::read_to_string(place.path("minimal/config.toml")).unwrap();
    assert!(config.lines().any(|line| line == "conv_algo = \"winograd\""), "{config}");
    let metrics = place.json(&["evaluate", "--run-dir", "minimal", "--json"]);
    assert_eq!(metrics["auroc_macro"], minimal["test_auroc_macro"]);
    let (header, _) = weights::load(&place.path("minimal/checkpoints/best.safetensors")).unwrap();
    assert_eq!(header.conv_algo, ConvAlgo::Winograd);
}
