//! Replays a folder that `kinone export-onnx --replay-dir` or `dump_models` wrote in tract: `tract_check FOLDER`.

#[path = "../tests/common/mod.rs"]
mod common;

use kinone_core::array::Array;
use kinone_onnx::Run;
use kinone_onnx::manifest::{Manifest, Numbers};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: tract_check FOLDER")?;
    let folder = Path::new(&folder);
    let manifest: Manifest = serde_json::from_slice(&kinone_files::read(&folder.join("manifest.json"))?)?;
    let mut agree = 0;
    for model in &manifest.models {
        let bytes = kinone_files::read(&folder.join(&model.file))?;
        let mut worst = 0.0;
        for run in &model.runs {
            let inputs = run.inputs.iter().map(|numbers| read(folder, numbers));
            let inputs = inputs.collect::<Result<Vec<Array>, Box<dyn Error>>>()?;
            let found = common::difference(&bytes, &Run { inputs, output: read(folder, &run.output)? });
            let apart = found.unwrap_or_else(|error| {
                println!("FAILED {}: {error:#}", model.name);
                f64::INFINITY
            });
            worst = if apart > worst { apart } else { worst };
        }
        println!("{}: {worst:.2e}", model.name);
        agree += usize::from(worst <= manifest.relative);
    }
    println!("tract: {agree} of {} agree", manifest.models.len());
    if agree == manifest.models.len() { Ok(()) } else { Err("some differ".into()) }
}

fn read(folder: &Path, numbers: &Numbers) -> Result<Array, Box<dyn Error>> {
    let bytes = kinone_files::read(&folder.join(&numbers.file))?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Array::new(numbers.shape.clone(), &values).ok_or_else(|| format!("{}: another size", numbers.file).into())
}
