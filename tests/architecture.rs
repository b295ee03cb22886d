//! What ARCHITECTURE.md and the numeric contract say about the sources, held against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms each room may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("kernels", &[]),
    ("files", &[]),
    ("core", &["kernels"]),
    ("nn", &["kernels", "core"]),
    ("metrics", &["core"]),
    ("xray", &["kernels", "core", "files"]),
    ("onnx", &["core", "files"]),
    ("runs", &["kernels", "core", "nn", "files"]),
    ("train", &["kernels", "core", "nn", "xray", "metrics", "runs", "files"]),
    ("cli", &["kernels", "core", "nn", "xray", "metrics", "onnx", "runs", "train", "files"]),
];

/// Rooms whose numbers keep the contract.
const NUMERIC: &[&str] = &["kernels", "core", "nn", "train"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every line of code of a room's `src`, without comments, with its place.
fn lines(room: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    sources(&root().join("crates").join(room).join("src"), &mut files);
    assert!(!files.is_empty(), "no sources of {room}");
    let mut lines = Vec::new();
    for file in files {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("").to_owned();
            lines.push((format!("{}:{}", file.display(), number + 1), code));
        }
    }
    lines
}

fn refuse(rooms: &[&str], words: &[&str], reason: &str) {
    let mut found = Vec::new();
    for room in rooms {
        for (place, code) in lines(room) {
            if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                found.push(format!("{place}: {word}"));
            }
        }
    }
    assert!(found.is_empty(), "{reason}:\n{}", found.join("\n"));
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(room, uses)| (*room, uses.iter().copied().collect())).collect();
    let rooms: BTreeSet<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(rooms.iter().map(String::as_str).collect::<BTreeSet<_>>(), allowed.keys().copied().collect());
    for (room, allowed) in &allowed {
        let manifest = fs::read_to_string(root().join("crates").join(room).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true") || *room == "kernels",
            "{room}: no workspace lints"
        );
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or("");
        let dependencies = dependencies.split("\n[").next().unwrap_or("");
        let uses = dependencies.lines().filter_map(|line| line.strip_prefix("kinone-"));
        for used in uses.filter_map(|rest| rest.split('.').next()) {
            assert!(allowed.contains(used), "{room} uses {used}, which ARCHITECTURE.md does not show");
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_outside_the_kernels() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    let rooms: Vec<&str> = ARROWS.iter().map(|(room, _)| *room).filter(|room| *room != "kernels").collect();
    refuse(&rooms, &["unsafe "], "unsafe code outside crates/kernels");
}

#[test]
fn the_core_knows_no_files_clock_or_environment() {
    let outside = ["std::fs", "std::env", "std::time", "std::process", "std::net", "Instant", "SystemTime"];
    refuse(&["core", "nn"], &outside, "the outside world in a room that must not know it");
    refuse(&["kernels"], &["Tensor", "std::fs", "std::time", "SystemTime"], "a thing kernels must not know");
}

#[test]
fn numeric_code_uses_nothing_whose_order_or_bits_are_not_stated() {
    let words = [
        "rayon",
        "algebraic_",
        ".sum::<f32>",
        ".sum::<f64>",
        ".product::<f32>",
        ".product::<f64>",
        "_reduce_add_",
        "_hadd_",
        "_dp_ps",
        "_rcp",
        "_rsqrt",
        "vrecpe",
        "vrsqrte",
        "vaddvq_",
        "_mm_setcsr",
        "HashMap",
        "HashSet",
    ];
    refuse(NUMERIC, &words, "banned by the numeric contract");
}
