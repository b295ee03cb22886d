//! Writes every operator that ONNX expresses as a model, and a network, with inputs and outputs, for replay in
//! another runtime: `dump_models FOLDER`, then `oracle/onnx_check.py FOLDER`.

#[path = "../tests/common/mod.rs"]
mod common;

use common::Attempt;
use kinone_core::array::Array;
use kinone_onnx::single::RELATIVE;
use kinone_onnx::{Replay, ReplayError};
use serde::Serialize;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

#[derive(Serialize)]
struct Manifest {
    relative: f64,
    models: Vec<Model>,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Model {
    name: String,
    file: String,
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Run {
    inputs: Vec<Numbers>,
    output: Numbers,
}

/// Raw little-endian f32.
#[derive(Serialize)]
struct Numbers {
    file: String,
    shape: Vec<usize>,
}

#[derive(Serialize)]
struct Refused {
    name: String,
    reason: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: dump_models FOLDER")?;
    let folder = Path::new(&folder);
    kinone_files::make_folder(folder)?;
    let mut manifest = Manifest { relative: RELATIVE, models: Vec::new(), refused: Vec::new() };
    let (mut all, mut expressed) = (BTreeSet::new(), BTreeSet::new());
    for Attempt { operator, case, replay } in common::operators() {
        all.insert(operator);
        match replay {
            Ok(replay) => {
                expressed.insert(operator);
                manifest.models.push(dump(folder, manifest.models.len(), replay)?);
            }
            Err(ReplayError::Unsupported(reason)) => {
                manifest.refused.push(Refused { name: format!("{operator}: {case}"), reason: reason.0 });
            }
            Err(error) => return Err(error.into()),
        }
    }
    manifest.models.push(dump(folder, manifest.models.len(), common::network()?)?);
    std::fs::write(folder.join("manifest.json"), serde_json::to_string_pretty(&manifest)?)?;
    println!("{} of {} operators have a form in ONNX", expressed.len(), all.len());
    Ok(())
}

fn dump(folder: &Path, index: usize, replay: Replay) -> Result<Model, Box<dyn Error>> {
    let file = format!("{index:04}.onnx");
    std::fs::write(folder.join(&file), replay.model.to_bytes())?;
    let numbers = |name: String, array: &Array| -> Result<Numbers, std::io::Error> {
        let file = format!("{index:04}.{name}.f32");
        let bytes: Vec<u8> = array.data().iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(folder.join(&file), bytes)?;
        Ok(Numbers { file, shape: array.shape().to_vec() })
    };
    let mut runs = Vec::new();
    for (r, run) in replay.runs.iter().enumerate() {
        let mut inputs = Vec::new();
        for (k, input) in run.inputs.iter().enumerate() {
            inputs.push(numbers(format!("{r}.x{k}"), input)?);
        }
        runs.push(Run { inputs, output: numbers(format!("{r}.y"), &run.output)? });
    }
    Ok(Model { name: replay.name, file, runs })
}
