//! `kinone export-onnx`.

use crate::Failure;
use crate::best;
use crate::console::out;
use crate::values::place;
use kinone_core::array::Array;
use kinone_core::tensor::Tensor;
use kinone_nn::init::Init;
use kinone_nn::models::ResNet;
use kinone_nn::state::variables;
use kinone_nn::{Module, Pass};
use kinone_onnx::graph::Model;
use kinone_onnx::{Replay, Run, Trace, export, manifest};
use kinone_runs::directory::RunDirectory;
use kinone_runs::weights::Header;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The run
    #[arg(long, value_name = "R")]
    run_dir: PathBuf,

    /// The file to write
    #[arg(long, value_name = "F", default_value = "model.onnx", value_parser = place())]
    output_filename: PathBuf,

    /// Also write the model here with inputs and outputs for 1 and 8 images, to be replayed elsewhere
    #[arg(long, value_name = "D", value_parser = place())]
    replay_dir: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    for folder in [Some(kinone_files::folder_of(&arguments.output_filename)), arguments.replay_dir.as_deref()]
    {
        folder.map_or(Ok(()), kinone_files::refuse_unusable).map_err(Failure::place)?;
    }
    kinone_files::refuse_folder(&arguments.output_filename).map_err(Failure::place)?;
    let (run, config) = RunDirectory::open(&arguments.run_dir)?;
    refuse_files_of(&run, &arguments.output_filename)?;
    let (model, header) = best::load(&run, &config)?;
    let exported = traced(&model, &header)?;
    exported.write(&arguments.output_filename)?;
    out(format_args!(
        "{}: {} of epoch {}, input images [N, 1, {size}, {size}], output logits [N, {}], opset 17",
        arguments.output_filename.display(),
        header.model,
        header.epoch,
        header.classes.len(),
        size = header.image_size,
    ))?;
    if let Some(folder) = &arguments.replay_dir {
        let replay = Replay { name: header.model.clone(), model: exported, runs: runs(&model, &header)? };
        manifest::write(folder, &[replay], Vec::new())?;
        out(format_args!("{}: the model with inputs and outputs", folder.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What lies in a run directory is its record; a model may lie beside it, as `.onnx`.
fn refuse_files_of(run: &RunDirectory, output: &Path) -> Result<(), Failure> {
    let folder = kinone_files::folder_of(output).canonicalize();
    let is_inside =
        folder.is_ok_and(|folder| run.path().canonicalize().is_ok_and(|run| folder.starts_with(run)));
    if is_inside && output.extension().is_none_or(|extension| extension != "onnx") {
        return Err(Failure::usage(format_args!(
            "{} lies in the run directory, whose files are the run's record: name it .onnx, or a file elsewhere",
            output.display()
        )));
    }
    Ok(())
}

/// Numbers like those of prepared images.
fn drawn(header: &Header, name: &str, n: usize) -> Array {
    Init::new(1).at(name).normal([n, 1, header.image_size, header.image_size], 1.0)
}

fn traced(model: &ResNet, header: &Header) -> Result<Model, Failure> {
    // Two images, so that the extent of the batch is seen to be free.
    let images = Tensor::variable(drawn(header, "traced", 2));
    let logits = model.forward(&Pass::trace(), &images)?;
    let trace = Trace {
        name: &header.model,
        inputs: &[("images", &images)],
        weights: &variables(model),
        output: ("logits", &logits),
    };
    let preparation = "gray pixels resized to the square, divided by 255, less pixel_mean, over pixel_std";
    let metadata = [
        ("classes", serde_json::to_string(&header.classes)?),
        ("contract", header.contract.to_string()),
        ("epoch", header.epoch.to_string()),
        ("image_size", header.image_size.to_string()),
        ("model", header.model.clone()),
        ("output", "logits; the probability of a class is 1/(1 + exp(-logit))".to_owned()),
        ("pixel_mean", header.pixel_mean.to_string()),
        ("pixel_std", header.pixel_std.to_string()),
        ("preprocessing", preparation.to_owned()),
        ("weights_sha256", header.weights_sha256.clone()),
    ];
    Ok(export(&trace, &metadata)?)
}

fn runs(model: &ResNet, header: &Header) -> Result<Vec<Run>, Failure> {
    let mut runs = Vec::new();
    for (name, n) in [("one", 1), ("eight", 8)] {
        let images = drawn(header, name, n);
        let logits = model.forward(&Pass::evaluation(), &Tensor::constant(images.clone()))?;
        runs.push(Run { inputs: vec![images], output: Array::clone(logits.value()) });
    }
    Ok(runs)
}
