//! The program on real radiographs, where `shared/data` lies beside the checkout; without them this test says
//! so and passes.

mod common;

use common::Place;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn real() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/nih");
    if path.is_dir() {
        return Some(path.canonicalize().unwrap());
    }
    eprintln!("SKIPPED: no {}; the real NIH files are not here", path.display());
    None
}

/// The first image of each colour type: byte 25 of a PNG file, 0 for gray and 6 for RGBA.
fn first_of(real: &Path, color: u8, count: usize) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(real.join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.retain(|name| fs::read(real.join("images").join(name)).unwrap()[25] == color);
    names.truncate(count);
    assert_eq!(names.len(), count);
    names
}

#[test]
fn real_radiographs_train_evaluate_and_predict() {
    let Some(real) = real() else { return };
    let place = Place::new();
    symlink(&real, place.path("nih")).unwrap();
    let train = ["train", "--data-dir", "nih", "--run-dir", "run", "--image-size", "32", "--epochs", "1"];
    place.refuses(3, &["111960 of 112120 images", "00000001_000.png", "--allow-missing"], &train);
    let printed = place.succeeds(&[&train[..], &["--allow-missing"]].concat());
    for words in ["official lists", "20 to test", "111960 images of the table are missing"] {
        assert!(printed.contains(words), "no `{words}` in:\n{printed}");
    }

    let metrics: Value =
        serde_json::from_str(&place.succeeds(&["evaluate", "--run-dir", "run", "--json"])).unwrap();
    assert_eq!((&metrics["images"], &metrics["patients"]), (&20.into(), &20.into()));
    assert!(metrics["split"].as_str().unwrap().starts_with("official lists"), "{}", metrics["split"]);
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(place.path("run/summary.json")).unwrap()).unwrap();
    assert_eq!(metrics["auroc_macro"], summary["test_auroc_macro"]);
    assert!(metrics["auroc_macro"].is_number());

    let csv = fs::read_to_string(place.path("run/scores_test.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let listed = fs::read_to_string(real.join("test_list.txt")).unwrap();
    let listed: BTreeSet<&str> = listed.lines().collect();
    assert!(rows.iter().all(|row| listed.contains(row[0])));
    assert_eq!(rows.iter().map(|row| row[1]).collect::<BTreeSet<_>>().len(), 20);

    // Two gray files, one of RGBA, and one that evaluate has scored.
    let mut names = first_of(&real, 0, 2);
    names.extend(first_of(&real, 6, 1));
    names.push(rows[0][0].to_owned());
    let paths: Vec<String> = names.iter().map(|name| format!("nih/images/{name}")).collect();
    let mut predict = vec!["predict", "--run-dir", "run", "--json", "--image-path"];
    predict.extend(paths.iter().map(String::as_str));
    let predicted: Value = serde_json::from_str(&place.succeeds(&predict)).unwrap();
    let predicted = predicted.as_array().unwrap();
    assert_eq!(predicted.len(), 4);
    for (object, path) in predicted.iter().zip(&paths) {
        assert_eq!(object["image"], **path);
        let scores = object["probabilities"].as_object().unwrap();
        assert_eq!(scores.len(), 14);
        assert!(scores.values().all(|score| score.as_f64().is_some_and(|x| x > 0.0 && x < 1.0)));
    }
    let header: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    for (class, score) in header[2..16].iter().zip(&rows[0][2..16]) {
        let predicted = predicted[3]["probabilities"][class].as_f64().unwrap() as f32;
        assert_eq!(predicted.to_bits(), score.parse::<f32>().unwrap().to_bits(), "{class}");
    }
}
