//! `cargo xtask bench`: measures, prints a table, and keeps the figures under `benchmarks/record/`.
//!
//! The measuring programs are examples of the crates they measure; this runs them, one configuration a process, so
//! that peak memory is that of the configuration. `benchmarks/README.md` says how to read the figures.

mod program;
mod record;
mod steps;
mod threads;

use program::{Program, Run};
use record::Machine;
use std::process::ExitCode;

const USAGE: &str = "cargo xtask bench [kernels|steps|inference|data|threads|all] [--quick]";

/// A thing to measure.
struct Bench {
    name: &'static str,
    programs: &'static [Program],
    measure: fn(&Sitting) -> Result<Vec<Run>, String>,
}

/// In the order of `all`.
const BENCHES: &[Bench] = &[
    Bench { name: "kernels", programs: &[program::CONV], measure: kernels },
    Bench { name: "steps", programs: &[program::STEP], measure: steps::training },
    Bench { name: "inference", programs: &[program::INFER], measure: steps::inference },
    Bench { name: "data", programs: &[program::DATA], measure: data },
    Bench { name: "threads", programs: &[program::CONV, program::STEP], measure: threads::measure },
];

/// What all measurements of one command share.
struct Sitting {
    cores: usize,
    /// Small work, to see that everything runs; the figures are rough.
    quick: bool,
}

/// The command.
pub(crate) fn command(arguments: &[&str]) -> ExitCode {
    let (flags, words): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|a| a.starts_with('-'));
    let wanted = words.first().copied().unwrap_or("all");
    let chosen: Vec<&Bench> = BENCHES.iter().filter(|b| wanted == "all" || wanted == b.name).collect();
    if chosen.is_empty() || words.len() > 1 || flags.iter().any(|flag| *flag != "--quick") {
        eprintln!("xtask: bench: no such thing to measure: {}\n\n{USAGE}", arguments.join(" "));
        return ExitCode::from(2);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sitting = Sitting { cores, quick: !flags.is_empty() };
    match sit(&chosen, &sitting) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: bench: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn sit(chosen: &[&Bench], sitting: &Sitting) -> Result<(), String> {
    // Nothing is compiled while something is measured.
    for bench in chosen {
        bench.programs.iter().try_for_each(Program::build)?;
    }
    let machine = Machine::here();
    println!("{machine}");
    for bench in chosen {
        println!("\n== {}", bench.name);
        let runs = (bench.measure)(sitting)?;
        let path = record::keep(&machine, bench.name, sitting.quick, &runs)?;
        println!("kept in {}", path.display());
    }
    Ok(())
}

/// The convolutions of the networks on one core, and on all.
fn kernels(sitting: &Sitting) -> Result<Vec<Run>, String> {
    let mut counts = vec![1, sitting.cores];
    counts.dedup();
    let run = |threads: usize| {
        let mut arguments = vec![threads.to_string()];
        arguments.extend(sitting.quick.then(|| "--quick".to_owned()));
        program::CONV.tabulate(&arguments, true)
    };
    counts.into_iter().map(run).collect()
}

/// From files to batches.
fn data(sitting: &Sitting) -> Result<Vec<Run>, String> {
    let images = if sitting.quick { "8" } else { "64" };
    Ok(vec![program::DATA.tabulate(&[images.to_owned()], true)?])
}
