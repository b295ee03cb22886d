//! The log: one JSON object a line, appended as things happen.

use kinone_files::FileError;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file of JSON lines.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Opens the file for appending.
    ///
    /// # Errors
    /// The system refused.
    pub fn open(path: &Path) -> Result<Log, FileError> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|source| FileError::new("open", path, source))?;
        Ok(Log { file, path: path.to_owned() })
    }

    /// Appends one line, in one write.
    ///
    /// # Errors
    /// The system refused.
    pub fn append(&mut self, event: &impl Serialize) -> Result<(), FileError> {
        let wrong = |source| FileError::new("write", &self.path, source);
        let mut line = serde_json::to_vec(event).map_err(|error| wrong(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(wrong)
    }
}

/// What happens in a run.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The run begins.
    Start {
        /// The version of the numeric contract.
        contract: u32,
        /// The network.
        model: &'a str,
        /// The number of its parameters.
        parameters: usize,
        /// How images were divided.
        split: &'a str,
        /// Where they came from.
        data: &'a str,
        /// Images to train on, to choose on, to test on.
        images: [usize; 3],
        /// The instruction set: decides the speed alone.
        isa: &'a str,
        /// The number of threads: decides the speed alone.
        threads: usize,
    },
    /// A step was made.
    Step {
        /// The epoch, from 1.
        epoch: u32,
        /// The step, from 1 over the whole run.
        step: u64,
        /// The loss of the batch.
        loss: f32,
        /// The norm of the gradient.
        gradient_norm: f64,
        /// The learning rate.
        lr: f32,
        /// Images a second in this step.
        images_per_second: f64,
    },
    /// An epoch ended.
    Epoch {
        /// The epoch, from 1.
        epoch: u32,
        /// The mean loss of its steps.
        train_loss: f64,
        /// The loss on the validation part.
        val_loss: Option<f64>,
        /// The mean area under the curve on the validation part.
        val_auroc_macro: Option<f64>,
        /// The learning rate of its last step.
        lr: f32,
        /// Images a second, training alone.
        images_per_second: f64,
        /// Seconds since the run began.
        seconds: f64,
    },
    /// The run ended.
    End {
        /// The hash of the weights.
        weights_sha256: &'a str,
    },
}
