//! The command line: one file a command.

mod best;
mod console;
mod diff;
mod evaluate;
mod export_onnx;
mod failure;
mod gradcheck;
mod predict;
mod progress;
mod settings;
mod signals;
mod synth;
mod train;
mod values;
mod verify;

pub use failure::Failure;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};
use kinone_kernels::memory::OutOfMemory;
use kinone_kernels::{Cpu, Isa};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

/// Deterministic, transparent gradient-based learning, from the first kernel to chest radiographs.
///
/// The same seed, data and configuration give the same bits for every number of threads, instruction set and
/// machine.
///
/// Exit codes: 0 success; 1 failure or partial result; 2 command line or configuration; 3 data; 4 model file,
/// checkpoint or chain; 5 disk; 6 the run directory is in use; 7 loss or gradient not finite; 129, 130, 143
/// stopped by SIGHUP, SIGINT, SIGTERM: by the first after saving, by a second at once.
#[derive(Debug, Parser)]
#[command(name = "kinone", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Worker threads; decides the speed alone [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = values::threads)]
    threads: Option<usize>,

    /// Run one operator after another where one could stand for several; decides speed and memory alone
    #[arg(long, global = true)]
    unfused: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network: on the built-in set, or on NIH's files
    Train(Box<train::Arguments>),
    /// Score the images of a part with a run's best weights
    Evaluate(evaluate::Arguments),
    /// Score single image files with a run's best weights
    Predict(predict::Arguments),
    /// Write a run's best network as ONNX
    ExportOnnx(export_onnx::Arguments),
    /// Make a stretch of a run again and compare every step with its record
    Verify(verify::Arguments),
    /// Say where two runs part
    Diff(diff::Arguments),
    /// Write the built-in set as a directory like NIH's
    Synth(synth::Arguments),
    /// Check every operator: central differences, adjoints, rounding bounds, equal bits on every kernel
    Gradcheck(gradcheck::Arguments),
}

/// Runs the command line of this process.
///
/// Exit codes: see the help.
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => match wrong_usage(&error) {
            Some(failure) => return failure.report(),
            None => {
                let code = if error.use_stderr() { 2 } else { 0 };
                return match error.print() {
                    Ok(()) => ExitCode::from(code),
                    // Who closed the pipe has read enough.
                    Err(source) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(code),
                    Err(source) => Failure::disk(format_args!("cannot write the help: {source}")).report(),
                };
            }
        },
    };
    start(&cli).and_then(|()| caught(|| run(cli.command))).unwrap_or_else(|failure| failure.report())
}

/// Makes a failure of what a kernel throws when the system has no memory left.
fn caught(command: impl FnOnce() -> Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<OutOfMemory>() {
            usual(info);
        }
    }));
    // What the command has in hand is not used any more.
    panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|thrown| {
        match thrown.downcast_ref::<OutOfMemory>() {
            Some(OutOfMemory { bytes }) => Err(Failure::new(format_args!(
                "the system has no memory left ({} MiB were asked for); use a smaller batch or image, or end other \
                 programs; what was saved is intact",
                bytes.div_ceil(1 << 20)
            ))),
            None => panic::resume_unwind(thrown),
        }
    })
}

/// The command line. Where a number is expected, what begins with a dash is none of the flags, but a wrong number.
fn parse() -> Result<Cli, clap::Error> {
    let lenient = |argument: Arg| {
        let names = argument.get_value_names().unwrap_or_default();
        let is_number = names.iter().any(|name| ["A", "B", "N", "P", "S", "X"].contains(&name.as_str()));
        argument.allow_hyphen_values(is_number)
    };
    let command = Cli::command().mut_args(lenient).mut_subcommands(|command| command.mut_args(lenient));
    Cli::from_arg_matches(&command.try_get_matches()?)
}

/// What clap says in a paragraph, in one line like every other failure; nothing where it shows help.
fn wrong_usage(error: &clap::Error) -> Option<Failure> {
    let text = error.render().to_string();
    let message = text.strip_prefix("error: ")?;
    // The usage and the pointer to the help follow; the values that are possible and tips come before.
    let message = message.split("\nUsage: ").next()?.split("\nFor more information").next()?;
    let words: Vec<&str> = message.split_whitespace().collect();
    let words = words.join(" ").replace(" tip: ", "; ");
    Some(Failure::usage(format_args!("{words}; see --help")))
}

/// Chooses instruction set and threads for the whole process.
fn start(cli: &Cli) -> Result<(), Failure> {
    signals::survive_file_limit()?;
    let isa = Isa::selected().map_err(Failure::usage)?;
    let threads = match cli.threads {
        Some(threads) if !(1..=values::MAX_THREADS).contains(&threads) => {
            let message = format!(
                "threads = {threads}: at least 1 and at most {} threads are possible",
                values::MAX_THREADS
            );
            return Err(Failure::usage(message));
        }
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from).min(values::MAX_THREADS),
    };
    let cpu = Cpu::new(isa, threads).map_err(Failure::usage)?;
    if cli.unfused { cpu.unfused() } else { cpu }.install();
    Ok(())
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Train(arguments) => train::run(*arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::ExportOnnx(arguments) => export_onnx::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Synth(arguments) => synth::run(&arguments),
        Command::Gradcheck(arguments) => gradcheck::run(&arguments),
    }
}
