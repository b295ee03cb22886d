//! The chain of trust of every registered operator, their pinned bits, and the registry against the folder.

use kinone_core::check::Checker;
use kinone_core::ops::OPERATORS;
use std::collections::BTreeSet;

#[test]
fn every_operator_is_proved() {
    kinone_kernels::memory::set_poison(true);
    let checker = Checker::new();
    let mut failed = Vec::new();
    let mut lines = Vec::new();
    for entry in OPERATORS {
        let proof = entry.prove(&checker);
        if !proof.holds() {
            failed.push(format!("{}:\n  {}", proof.operator, proof.failures.join("\n  ")));
        }
        lines.push(format!("{} {:016x}", proof.operator, proof.hash));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // No bit of any operator changes unnoticed: a new contract has a new table.
    let golden: Vec<&str> =
        include_str!("golden.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let new: Vec<&String> = lines.iter().filter(|line| !golden.contains(&line.as_str())).collect();
    assert!(new.is_empty(), "not in golden.txt as it stands:\n{new:#?}");
    assert_eq!(golden.len(), lines.len(), "golden.txt names an operator that is gone");
}

/// One operator, one file, one line of the list.
#[test]
fn the_list_is_the_folder() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ops");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "mod")
        .collect();
    let listed: BTreeSet<String> = OPERATORS.iter().map(|entry| entry.doc.name.to_owned()).collect();
    assert_eq!(listed.len(), OPERATORS.len(), "two operators of one name");
    assert_eq!(files, listed);
}
