//! `kinone synth`.

use crate::Failure;
use crate::console::{counted, out};
use crate::values::{place, whole};
use kinone_kernels::Cpu;
use kinone_train::prepare;
use kinone_xray::synth::Synth;
use kinone_xray::write_nih_directory;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory to make
    #[arg(long, value_name = "D", value_parser = place())]
    out_dir: PathBuf,

    /// How many images, from 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = whole::<usize>)]
    images: usize,

    /// Pixels of a side, 16 to 2048
    #[arg(long, value_name = "S", default_value_t = 256, value_parser = whole::<usize>)]
    size: usize,

    /// The seed of the set
    #[arg(long, value_name = "N", default_value_t = 42, value_parser = whole::<u64>)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    kinone_files::refuse_unusable(&arguments.out_dir).map_err(Failure::place)?;
    let source = Synth::new(arguments.seed, arguments.images, arguments.size).map_err(Failure::usage)?;
    write_nih_directory(&arguments.out_dir, &source, prepare::SPLIT_SEED, &Cpu::current(), &|_, _| {})?;
    out(format_args!(
        "{} of {} px in {}; train with --data-dir {}",
        counted(arguments.images, "image"),
        arguments.size,
        arguments.out_dir.display(),
        arguments.out_dir.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
