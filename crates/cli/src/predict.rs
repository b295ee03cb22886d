//! `kinone predict`.

use crate::Failure;
use crate::console::out;
use kinone_kernels::Cpu;
use kinone_runs::directory::RunDirectory;
use kinone_train::{evaluate, prepare};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The run
    #[arg(long, value_name = "R")]
    run_dir: PathBuf,

    /// Image files (PNG)
    #[arg(long, value_name = "F", required = true, num_args = 1..)]
    image_path: Vec<PathBuf>,

    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (run, _) = RunDirectory::open(&arguments.run_dir)?;
    let (model, header) = prepare::trained(&run.best_weights())?;
    let preprocessing = prepare::preprocessing(&header);
    let cpu = Cpu::current();
    // Every file is read before anything is printed.
    let mut scored = Vec::new();
    for path in &arguments.image_path {
        let image = preprocessing.read(path, &cpu)?;
        let logits = evaluate::logits(&model, &image, preprocessing.size)?;
        scored.push((path, evaluate::probabilities(&logits)));
    }
    if arguments.json {
        let object = |(path, scores): &(&PathBuf, kinone_core::array::Array)| {
            let classes: serde_json::Map<String, serde_json::Value> =
                header.classes.iter().cloned().zip(scores.data().iter().map(|score| json!(score))).collect();
            json!({ "image": path.to_string_lossy(), "probabilities": classes })
        };
        let objects: Vec<serde_json::Value> = scored.iter().map(object).collect();
        out(format_args!("{}", serde_json::to_string_pretty(&objects)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (path, scores) in scored {
        out(format_args!("{}", path.display()))?;
        let mut classes: Vec<(&String, f32)> =
            header.classes.iter().zip(scores.data().iter().copied()).collect();
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (class, score) in classes {
            out(format_args!("  {class:<20} {score:.3}"))?;
        }
    }
    out(format_args!("Not a diagnosis: probabilities of a model, calibrated on nothing but its training."))?;
    Ok(ExitCode::SUCCESS)
}
