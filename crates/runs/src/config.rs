//! The configuration of a run: everything that decides its bits, and nothing else.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a run was asked to do. With the seed and the data this decides every bit of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of the numeric contract.
    pub contract: u32,
    /// The network: `resnet18`.
    pub model: String,
    /// Pixels of a side of the square images.
    pub image_size: usize,
    /// Passes over the training images.
    pub epochs: u32,
    /// Images a step.
    pub batch_size: usize,
    /// The base learning rate.
    pub lr: f64,
    /// How the learning rate changes.
    pub schedule: ScheduleName,
    /// Steps over which the learning rate rises at the start.
    pub warmup_steps: u64,
    /// The optimizer.
    pub optimizer: OptimizerName,
    /// The momentum of SGD.
    pub momentum: f64,
    /// The decay of the weights.
    pub weight_decay: f64,
    /// The largest gradient norm; larger gradients are scaled down. 0 for no limit.
    pub clip_norm: f64,
    /// The seed of everything random.
    pub seed: u64,
    /// Whether "No Finding" is a class of its own, the fifteenth.
    pub no_finding: bool,
    /// Whether inner values are recomputed instead of kept: less memory, equal bits.
    pub recompute: bool,
    /// Where the images come from.
    pub data: Data,
    /// Weights to start from, instead of fresh ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_checkpoint: Option<PathBuf>,
}

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Data {
    /// The procedural set.
    BuiltIn {
        /// How many images.
        images: usize,
    },
    /// A directory laid out as NIH publishes it.
    Directory {
        /// The directory.
        data_dir: PathBuf,
        /// Whether rows without an image are left out instead of refused.
        allow_missing: bool,
    },
    /// A folder of images and a table.
    Files {
        /// The folder of images.
        image_dir: PathBuf,
        /// The table, in NIH's form.
        csv_file: PathBuf,
        /// Whether rows without an image are left out instead of refused.
        allow_missing: bool,
    },
}

/// The optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// The same, looking ahead.
    Nesterov,
    /// Adam; weight decay is added to the gradient.
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
    /// RMSProp.
    RmsProp,
}

/// The schedules of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// Always the same.
    Constant,
    /// A tenth after every third of the epochs.
    Step,
    /// Half a cosine wave down to a hundredth.
    Cosine,
    /// A tenth when the validation loss has not improved for two epochs.
    Plateau,
}

/// A value that no run can have: which, what came, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {found}: {expected}")]
pub struct ConfigError {
    /// The setting, as its flag is called.
    pub field: &'static str,
    /// What came.
    pub found: String,
    /// What is possible.
    pub expected: &'static str,
}

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// The first value that no run can have.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let images = if let Data::BuiltIn { images } = self.data { Some(images) } else { None };
        let checks = [
            ("epochs", self.epochs >= 1, self.epochs.to_string(), "at least 1 epoch is needed"),
            (
                "batch-size",
                self.batch_size >= 2,
                self.batch_size.to_string(),
                "at least 2 images a step are needed (batch normalization)",
            ),
            (
                "lr",
                positive(f64::from(self.lr as f32)),
                self.lr.to_string(),
                "the learning rate must be a number above 0",
            ),
            (
                "momentum",
                not_negative(self.momentum) && self.momentum < 1.0,
                self.momentum.to_string(),
                "the momentum must be at least 0 and below 1",
            ),
            (
                "weight-decay",
                not_negative(self.weight_decay),
                self.weight_decay.to_string(),
                "the weight decay must be a number, at least 0",
            ),
            (
                "clip-norm",
                not_negative(self.clip_norm),
                self.clip_norm.to_string(),
                "the largest gradient norm must be a number, at least 0 (0 for no limit)",
            ),
            (
                "image-size",
                (32..=1024).contains(&self.image_size),
                self.image_size.to_string(),
                "images may have 32 to 1024 pixels a side",
            ),
            (
                "images",
                images.is_none_or(|images| images >= 100),
                images.unwrap_or_default().to_string(),
                "the built-in set needs at least 100 images",
            ),
        ];
        for (field, holds, found, expected) in checks {
            if !holds {
                return Err(ConfigError { field, found, expected });
            }
        }
        Ok(())
    }
}
