//! The fault suite: one test for every fault of `list.rs`, named after it.
//!
//! `cargo test --test faults` tries an evenly spread sample of each fault's cases; `cargo xtask faults` tries
//! all and writes `docs/FAULTS.md`. What cannot be tried on a machine is recorded as not tried, with the reason.

#![cfg(target_os = "linux")]

mod harness;
mod list;

mod a_disk;
mod a_files;
mod a_folder;
mod a_kills;
mod a_mounts;
mod a_power;
mod a_tamper;
mod b_limits;
mod b_signals;
mod b_surroundings;
mod c_data;
mod c_numbers;
mod c_steps;
mod i_flags;
mod i_paths;
mod i_runs;
mod j_builds;
mod j_inside;
mod j_kernels;
mod j_machine;
mod j_resume;

use std::path::Path;

/// The ids of the test functions in the sources beside this one.
fn tested() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults");
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (before, after) in text.split("\nfn fault_").zip(text.split("\nfn fault_").skip(1)) {
            assert!(before.ends_with("#[test]"), "{}: fault_{} is no test", path.display(), &after[..20]);
            ids.push(after[..3].to_uppercase());
        }
    }
    ids
}

#[test]
fn every_fault_has_its_test_and_every_test_its_fault() {
    let ids: Vec<&str> = list::FAULTS.iter().map(|fault| fault.id).collect();
    assert!(ids.is_sorted() && ids.len() == 84, "{} ids", ids.len());
    let mut tested = tested();
    tested.sort_unstable();
    assert_eq!(tested, ids);
}
