//! `kinone gradcheck`: the proof of every operator, as a table or as JSON.

use crate::Failure;
use crate::console::{out, out_json};
use kinone_core::check::{Checker, Proof};
use kinone_core::ops::{Entry, OPERATORS};
use serde_json::json;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these operators [default: all]
    operators: Vec<String>,

    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let entries = selected(&arguments.operators)?;
    let checker = Checker::new();
    let mut proofs = Vec::new();
    if !arguments.json {
        out(format_args!(
            "{:<28} {:>5} {:>10} {:>10} {:>9} {:>6}  compared on",
            "operator", "cases", "eps_rel", "adjoint", "rounding", "bits"
        ))?;
    }
    for entry in entries {
        let proof = entry.prove(&checker);
        if !arguments.json {
            print_row(&proof)?;
        }
        proofs.push(proof);
    }
    let failed = proofs.iter().filter(|proof| !proof.holds()).count();
    if arguments.json {
        let rows: Vec<serde_json::Value> = proofs.iter().map(to_json).collect();
        out_json(&rows)?;
    } else {
        out(format_args!("{} operators, {} proved, {failed} failed", proofs.len(), proofs.len() - failed))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn selected(names: &[String]) -> Result<Vec<&'static Entry>, Failure> {
    if names.is_empty() {
        return Ok(OPERATORS.iter().collect());
    }
    let find = |name: &String| {
        let found = OPERATORS.iter().find(|entry| entry.doc.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = OPERATORS.iter().map(|entry| entry.doc.name).collect();
            Failure::usage(format_args!("no operator `{name}`; known are {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

fn print_row(proof: &Proof) -> Result<(), Failure> {
    let figure = |x: Option<f64>| x.map_or("none".to_owned(), |x| format!("{x:.2e}"));
    out(format_args!(
        "{:<28} {:>5} {:>10} {:>10} {:>9} {:>6}  {} x {:?} threads",
        proof.operator,
        proof.cases,
        figure(proof.eps_rel),
        figure(proof.adjoint_error),
        proof.rounding_fraction.map_or("none".to_owned(), |x| format!("{x:.3}")),
        if proof.bit_equal { "equal" } else { "DIFFER" },
        proof.isas.join(" "),
        proof.threads,
    ))?;
    for failure in &proof.failures {
        out(format_args!("    {failure}"))?;
    }
    Ok(())
}

fn to_json(proof: &Proof) -> serde_json::Value {
    json!({
        "operator": proof.operator,
        "cases": proof.cases,
        "eps_rel": proof.eps_rel,
        "adjoint_error": proof.adjoint_error,
        "rounding_fraction": proof.rounding_fraction,
        "bit_equal": proof.bit_equal,
        "isas": proof.isas,
        "threads": proof.threads,
        "bits_fnv1a64": format!("{:016x}", proof.hash),
        "failures": proof.failures,
    })
}
