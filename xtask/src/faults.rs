//! `cargo xtask faults`: every case of the fault suite, and the table of what came of it.

mod programs;

use crate::shell::{cargo, install, root, run, succeeds};
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

#[path = "../../tests/faults/list.rs"]
mod list;

use list::{FAULTS, Fault};

/// The command.
pub(crate) fn command(arguments: &[&str]) -> ExitCode {
    let chosen: Vec<&str> = match arguments {
        [] => vec![""],
        ["--only", ids] => ids.split(',').collect(),
        _ => {
            eprintln!("xtask: faults takes nothing, or --only with groups and ids, such as A,C03");
            return ExitCode::from(2);
        }
    };
    if let Some(stranger) = chosen.iter().find(|id| !FAULTS.iter().any(|fault| fault.id.starts_with(**id))) {
        eprintln!("xtask: no fault and no group is called `{stranger}`");
        return ExitCode::from(2);
    }
    match every_case(&chosen) {
        Ok(bad) if bad.is_empty() => ExitCode::SUCCESS,
        Ok(bad) => {
            println!("xtask: failed, or left no record: {}", bad.join(", "));
            ExitCode::FAILURE
        }
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Tries the chosen faults and writes the table; the ids of those that failed.
fn every_case(chosen: &[&str]) -> Result<Vec<&'static str>, String> {
    if !succeeds(Command::new("strace").arg("-V"))
        && let Err(reason) = install(&["strace"])
    {
        println!("strace is missing ({reason}): what needs it will be recorded as not tried");
    }
    let is_chosen = |fault: &&Fault| chosen.iter().any(|id| fault.id.starts_with(id));
    programs::build(|id| chosen.iter().any(|chosen| id.starts_with(chosen)))?;
    for fault in FAULTS.iter().filter(is_chosen) {
        let _ = std::fs::remove_file(record_file(fault.id));
    }
    let filters: Vec<String> = chosen.iter().map(|id| format!("fault_{}", id.to_lowercase())).collect();
    let mut tests = cargo(&["test", "--test", "faults", "--"]);
    tests.args(&filters).env("KINONE_FAULTS", "full").env("KINONE_FAULTS_PROGRAMS", programs::folder());
    // A failure is seen by its record, which is then missing.
    let outcome = run(&mut tests);
    let without_record = |fault: &&Fault| record(fault.id).is_none();
    let bad: Vec<&str> =
        FAULTS.iter().filter(is_chosen).filter(without_record).map(|fault| fault.id).collect();
    std::fs::write(root().join("docs/FAULTS.md"), table())
        .map_err(|error| format!("docs/FAULTS.md: {error}"))?;
    match outcome {
        Err(reason) if bad.is_empty() => Err(reason),
        _ => Ok(bad),
    }
}

fn record_file(id: &str) -> PathBuf {
    root().join("target/faults").join(format!("{id}.json"))
}

/// What a test wrote when every case was tried.
fn record(id: &str) -> Option<Value> {
    let record: Value = serde_json::from_slice(&std::fs::read(record_file(id)).ok()?).ok()?;
    (record["size"] == "full").then_some(record)
}

const INTRODUCTION: &str = "\
# Faults, and what becomes of them

Written by `cargo xtask faults` from what ran, not by hand. Each fault has a test of its name under
`tests/faults`. Verdicts: **S** the run ends with the bits of an undisturbed one; **R** started again, it goes on
to the undisturbed chain, and no committed step is lost; **E** the program stops with its exit code and one line
that says what, where and what to do, and nothing is half-written; **N** the save fails aloud and the older
checkpoint is intact. After every fault: no panic, no hang, no file changed outside the run directory.

";

/// The table of every fault.
fn table() -> String {
    let mut text = INTRODUCTION.to_owned();
    let records: Vec<(&Fault, Option<Value>)> =
        FAULTS.iter().map(|fault| (fault, record(fault.id))).collect();
    let count = |outcome: &str| {
        records.iter().filter(|(_, record)| record.as_ref().is_some_and(|r| r["outcome"] == outcome)).count()
    };
    let (survived, left_out) = (count("survived"), count("not tried here"));
    let cases: u64 = records.iter().flat_map(|(_, record)| record.as_ref()?["sub_cases"].as_u64()).sum();
    let _ = writeln!(
        text,
        "{} faults: {survived} survived, {left_out} not tried (wholly or in part), {} without a record; {cases} cases.\n",
        records.len(),
        records.len() - survived - left_out
    );
    text.push_str("| | fault | verdict | cases | how it was tried |\n|---|---|---|---|---|\n");
    for (fault, record) in &records {
        let _ = match record {
            None => {
                writeln!(text, "| {} | {} | {} | | **no record** |", fault.id, fault.title, fault.verdict)
            }
            Some(record) => writeln!(text, "{}", row(fault, record)),
        };
    }
    text
}

fn row(fault: &Fault, record: &Value) -> String {
    let said = |name: &str| record[name].as_str().map(|text| text.replace('|', "\\|"));
    let mut how = said("how").unwrap_or_default();
    if let Some(why) = said("why") {
        how = format!("**not tried here**: {why}. {how}");
    }
    let mut verdict = fault.verdict.to_owned();
    if let (Some(right), Some(because)) = (said("verdict"), said("because")) {
        verdict = format!("{right} (listed: {verdict})");
        how = format!("{how}. {right} is right here: {because}");
    }
    format!("| {} | {} | {verdict} | {} | {how} |", fault.id, fault.title, record["sub_cases"])
}
