//! Models with inputs and outputs in a folder, for replay by other programs: `manifest.json`, the models, and
//! raw little-endian f32. `oracle/onnx_check.py` and `examples/tract_check.rs` read it.

use crate::single::{RELATIVE, Replay};
use kinone_core::array::Array;
use kinone_files::{self as files, FileError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What `manifest.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The largest difference allowed, relative to the largest magnitude of Kinone's output.
    pub relative: f64,
    /// The models.
    pub models: Vec<Model>,
    /// What ONNX cannot express.
    pub refused: Vec<Refused>,
}

/// One model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    /// What it shows.
    pub name: String,
    /// Its file in the folder.
    pub file: String,
    /// What Kinone computes with it.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// In the order of the model's inputs.
    pub inputs: Vec<Numbers>,
    /// What Kinone makes of them.
    pub output: Numbers,
}

/// Raw little-endian f32.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Numbers {
    /// Their file in the folder.
    pub file: String,
    /// Their shape.
    pub shape: Vec<usize>,
}

/// A case that ONNX has no form for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// The operator and its case.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Writes models and their runs into `folder`.
///
/// # Errors
/// The system refused.
pub fn write(folder: &Path, replays: &[Replay], refused: Vec<Refused>) -> Result<(), FileError> {
    files::make_folder(folder)?;
    let mut models = Vec::new();
    for (index, replay) in replays.iter().enumerate() {
        let file = format!("{index:04}.onnx");
        files::write(&folder.join(&file), &replay.model.to_bytes())?;
        let numbers = |name: String, array: &Array| -> Result<Numbers, FileError> {
            let file = format!("{index:04}.{name}.f32");
            let bytes: Vec<u8> = array.data().iter().flat_map(|x| x.to_le_bytes()).collect();
            files::write(&folder.join(&file), &bytes)?;
            Ok(Numbers { file, shape: array.shape().to_vec() })
        };
        let mut runs = Vec::new();
        for (r, run) in replay.runs.iter().enumerate() {
            let inputs = run.inputs.iter().enumerate();
            let inputs = inputs.map(|(k, input)| numbers(format!("{r}.x{k}"), input));
            let inputs = inputs.collect::<Result<Vec<Numbers>, FileError>>()?;
            runs.push(Run { inputs, output: numbers(format!("{r}.y"), &run.output)? });
        }
        models.push(Model { name: replay.name.clone(), file, runs });
    }
    let path = folder.join("manifest.json");
    let text = serde_json::to_vec_pretty(&Manifest { relative: RELATIVE, models, refused })
        .map_err(|error| FileError::new("write", &path, error.into()))?;
    files::write(&path, &text)
}
