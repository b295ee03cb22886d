//! The program as other compilers and other settings make it.

use crate::harness::{Ended, Fault, Place, Whole, foreign, small};

/// Trains with every program of these kinds; their names.
fn trained_by(kinds: &[&str]) -> Vec<String> {
    let programs: Vec<_> = kinds.iter().flat_map(|kind| foreign::programs(kind)).collect();
    for program in &programs {
        let place = Place::new();
        let mut command = foreign::command(program, &place.path("."));
        let ended = Ended::of(command.args(small(&["--run-dir=run"]))).succeeded();
        let summary = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"));
        Whole::get().is_equal(&place, &summary);
    }
    programs.iter().map(|program| foreign::name(program)).collect()
}

/// What is said where nothing was built.
const NOT_BUILT: &str = "nothing was built otherwise: `cargo xtask faults` does that, and takes long";

#[test]
fn fault_j08_settings_of_the_compiler() {
    let fault = Fault::new("J08");
    let names = trained_by(&["profile-"]);
    let how = format!(
        "the tests' own build ({}), {}: equal weights, scores and chain",
        profile(),
        names.join(", ")
    );
    if names.is_empty() {
        return fault.not_tried(NOT_BUILT, 1, &how);
    }
    fault.survived(1 + names.len(), &how);
}

/// Of which profile the program under test is.
fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

#[test]
fn fault_j09_compilers_and_libraries() {
    let fault = Fault::new("J09");
    let names = trained_by(&["compiler-", "libc-"]);
    let how = format!("the tests' own build, {}: equal weights, scores and chain", names.join(", "));
    let has = |kind: &str| names.iter().any(|name| name.starts_with(kind));
    match (has("compiler-"), has("libc-")) {
        (true, true) => fault.survived(1 + names.len(), &how),
        (false, false) => fault.not_tried(NOT_BUILT, 1, &how),
        (true, false) => fault.not_tried("musl could not be installed", 1 + names.len(), &how),
        (false, true) => fault.not_tried("no other compiler could be installed", 1 + names.len(), &how),
    }
}
