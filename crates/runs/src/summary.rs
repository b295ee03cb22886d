//! The summary of a run, written at its end.

use kinone_files::{self as files, FileError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// No summary is larger.
const LIMIT: u64 = 1 << 20;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The version of the numeric contract.
    pub contract: u32,
    /// The network.
    pub model: String,
    /// The number of learned numbers.
    pub parameters: usize,
    /// The seed.
    pub seed: u64,
    /// Passes over the training images.
    pub epochs: u32,
    /// The epoch, from 1, of the best validation score.
    pub best_epoch: u32,
    /// The hash of the last weights.
    pub weights_sha256: String,
    /// The hash of the best weights.
    pub best_weights_sha256: String,
    /// The hash of the chain's last link.
    #[serde(default)]
    pub chain_sha256: String,
    /// The mean loss of the last epoch.
    pub train_loss: f64,
    /// The best mean area under the curve on the validation part.
    pub val_auroc_macro: Option<f64>,
    /// That of the best weights on the test part.
    pub test_auroc_macro: Option<f64>,
    /// How images were divided.
    pub split: String,
    /// Images to train on, to choose on, to test on.
    pub images: [usize; 3],
    /// Images a second, training alone.
    pub images_per_second: f64,
    /// Seconds from the first step to the last score.
    pub wall_seconds: f64,
    /// The instruction set: decides the speed alone.
    pub isa: String,
    /// The number of threads: decides the speed alone.
    pub threads: usize,
}

impl Summary {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// The system refused.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|error| FileError::new("write", path, error.into()))?;
        text.push(b'\n');
        files::write(path, &text)
    }

    /// Reads what [`Summary::write`] wrote. Links are not followed.
    ///
    /// # Errors
    /// The file cannot be read, or is no summary.
    pub fn read(path: &Path) -> Result<Summary, FileError> {
        let text = files::read_regular(path, LIMIT)?;
        serde_json::from_slice(&text).map_err(|error| FileError::new("read", path, error.into()))
    }
}
