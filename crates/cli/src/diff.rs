//! `kinone diff`.

use crate::Failure;
use crate::console::out;
use crate::failure::PARTIAL;
use kinone_runs::config::Difference;
use kinone_runs::diff::{Parting, compare};
use kinone_runs::directory::RunDirectory;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One run
    #[arg(value_name = "R1")]
    first: PathBuf,

    /// The other
    #[arg(value_name = "R2")]
    second: PathBuf,
}

/// A difference, the number beside the digits of its bits.
fn shown(difference: &Difference) -> String {
    let with_number =
        |bits: &String| match (difference.setting.as_str(), bits.len()) {
            ("lr" | "loss", 8) => u32::from_str_radix(bits, 16)
                .map_or(bits.clone(), |b| format!("{bits} ({})", f32::from_bits(b))),
            ("gradient_norm", 16) => u64::from_str_radix(bits, 16)
                .map_or(bits.clone(), |b| format!("{bits} ({})", f64::from_bits(b))),
            _ => bits.clone(),
        };
    let Difference { setting, from, to } = difference;
    Difference { setting: setting.clone(), from: with_number(from), to: with_number(to) }.to_string()
}

/// Exit code 0 where the runs are equal, 1 where they part, 4 where a chain is broken.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    for path in [&arguments.first, &arguments.second] {
        RunDirectory::open(path)?;
    }
    let comparison = compare(&arguments.first, &arguments.second).map_err(Failure::model)?;
    let list = |all: &[Difference]| all.iter().map(shown).collect::<Vec<_>>().join(", ");
    if !comparison.header.is_empty() {
        out(format_args!("the headers differ: {}", list(&comparison.header)))?;
    }
    let equal = comparison.equal_steps;
    match &comparison.parting {
        None => out(format_args!("all {equal} steps are equal"))?,
        Some(Parting::Length { steps: [one, other] }) => {
            out(format_args!("{equal} steps are equal; one run has {one}, the other {other}"))?;
        }
        Some(Parting::Override { after_step }) => {
            out(format_args!(
                "{equal} steps are equal; after step {after_step} one was given other settings"
            ))?;
        }
        Some(Parting::Forgotten { after_step }) => {
            out(format_args!(
                "{equal} steps are equal; after step {after_step} one had lost the weights of its best epoch"
            ))?;
        }
        Some(Parting::Step { step, fields, operator, is_transcribed }) => {
            out(format_args!("{equal} steps are equal; they part in step {step}: {}", list(fields)))?;
            match operator {
                Some(operator) => {
                    let (one, other) = &**operator;
                    let hash = |entry: &Option<_>| match entry {
                        Some(kinone_runs::transcript::Entry { sha256, .. }) => sha256.clone(),
                        None => "nothing".to_owned(),
                    };
                    let name = one.as_ref().or(other.as_ref()).map(ToString::to_string).unwrap_or_default();
                    out(format_args!(
                        "the first operator that differs: {name}: {} and {}",
                        hash(one),
                        hash(other)
                    ))?;
                }
                None if *is_transcribed => out(format_args!("every operator made the same in both"))?,
                None => {
                    out(format_args!("of this step not both have a transcript to tell the operator from"))?
                }
            }
        }
    }
    if !comparison.remarks.is_empty() {
        let why = comparison.remarks.join("; ");
        return Err(Failure::model(format_args!(
            "a chain ends where it is broken, and so does the comparison: {why}"
        )));
    }
    let is_equal = comparison.parting.is_none() && comparison.header.is_empty();
    Ok(if is_equal { ExitCode::SUCCESS } else { ExitCode::from(PARTIAL) })
}
