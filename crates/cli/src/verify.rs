//! `kinone verify`.

use crate::Failure;
use crate::console::out;
use crate::values::whole;
use kinone_kernels::Cpu;
use kinone_runs::chain::{self, Link};
use kinone_runs::directory::RunDirectory;
use kinone_train::verify::{Stretch, verify};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The run
    #[arg(long, value_name = "R")]
    run_dir: PathBuf,

    /// The first step to make again [default: 1]
    #[arg(long, value_name = "A", conflicts_with = "sample", value_parser = whole::<u64>)]
    from: Option<u64>,

    /// The last step to make again [default: the last]
    #[arg(long, value_name = "B", conflicts_with = "sample", value_parser = whole::<u64>)]
    to: Option<u64>,

    /// Make about this share of the steps again, such as 1%: stretches that begin at the start and behind checkpoints,
    /// chosen at random. Where few checkpoints were kept, steps far behind one are never chosen
    #[arg(long, value_name = "P", value_parser = share)]
    sample: Option<f64>,
}

/// `1%` or `0.01`.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let share = number.trim().parse().map(|number: f64| number * unit);
    match share {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("give a share above 0% and up to 100%".to_owned()),
    }
}

/// Steps that the record cannot have are a wrong command line; of a broken chain `verify` says more.
fn refuse_outside(arguments: &Arguments, run: &RunDirectory) -> Result<(), Failure> {
    if arguments.from.or(arguments.to).is_none() {
        return Ok(());
    }
    let chain::Read { links, broken } = chain::read(&run.chain_file()).map_err(Failure::model)?;
    let last = links.last().map_or(0, Link::step);
    let (from, to) = (arguments.from.unwrap_or(1), arguments.to.unwrap_or(last));
    if broken.is_none() && (from < 1 || to > last || from > to) {
        let message =
            format_args!("the record has the steps 1 to {last}, not {from} to {to}; see --from and --to");
        return Err(Failure::usage(message));
    }
    Ok(())
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (run, config) = RunDirectory::open(&arguments.run_dir)?;
    refuse_outside(arguments, &run)?;
    let stretch = match arguments.sample {
        // Whoever made the run must not know which steps will be looked at.
        Some(share) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| past.as_nanos());
            Stretch::Sample(share, now as u64 ^ u64::from(std::process::id()))
        }
        None => Stretch::Steps(arguments.from, arguments.to),
    };
    let mut count = 0_u64;
    let proof = verify(&run, &config, stretch, &Cpu::current(), &mut |_| count += 1)?;
    let stretches: Vec<String> =
        proof.stretches.iter().map(|s| format!("{} to {}", s.start(), s.end())).collect();
    if let Some(step) = proof.forgotten.first() {
        out(format_args!(
            "after step {step} the weights of the best epoch were lost, and the best was chosen anew"
        ))?;
    }
    let end = if proof.end { "; the weights, scores and summary of its end follow from them" } else { "" };
    out(format_args!(
        "{} links and {} checkpoints are sound; {count} steps made again with equal bits, among them {}{end}",
        proof.links,
        proof.checkpoints,
        stretches.join(", ")
    ))?;
    Ok(ExitCode::SUCCESS)
}
