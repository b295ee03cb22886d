//! What `kinone train` was asked for: flags over the configuration file over defaults.

use crate::Failure;
use crate::values::{real, whole};
use clap::ValueEnum;
use kinone_nn::models::Depth;
use kinone_runs::CONTRACT;
use kinone_runs::config::{self, Config, ConvAlgo as ConvAlgoName, Data, OptimizerName, ScheduleName};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every setting of a run, each of which may be left open. The names in a configuration file are those of
/// the flags, with `_` for `-`.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// NIH data directory: the table, the images, and the official lists if there are any
    #[arg(long, value_name = "D", conflicts_with_all = ["image_dir", "csv_file", "images"])]
    data_dir: Option<PathBuf>,
    /// Folder of images, together with --csv-file
    #[arg(long, value_name = "D", requires = "csv_file", conflicts_with = "images")]
    image_dir: Option<PathBuf>,
    /// Table in NIH's form, together with --image-dir
    #[arg(long, value_name = "F", requires = "image_dir")]
    csv_file: Option<PathBuf>,
    /// Leave out rows of the table whose image is missing
    #[arg(long)]
    #[serde(default)]
    allow_missing: bool,
    /// Images of the built-in set, used where no data are named, from 100 [default: 2400]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    images: Option<usize>,
    /// resnet18, resnet34, resnet50, resnet101, resnet152, or resnet10w8, a small one for trying things out
    /// [default: resnet18]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Pixels of a side of the images, 32 to 1024 [default: 64 for the built-in set, 224 otherwise]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    image_size: Option<usize>,
    /// Make "No Finding" a class of its own, the fifteenth
    #[arg(long)]
    #[serde(default)]
    no_finding: bool,
    /// Passes over the training images [default: 8]
    #[arg(long, value_name = "N", value_parser = whole::<u32>)]
    epochs: Option<u32>,
    /// Images a batch, from 2 [default: 32]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    batch_size: Option<usize>,
    /// Batches a step: their gradients are added, weighted by their images; batch normalization takes its
    /// statistics over each batch [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    accumulate: Option<usize>,
    /// Learning rate [default: 1e-3]
    #[arg(long, value_name = "X", value_parser = real)]
    lr: Option<f64>,
    /// How the learning rate changes [default: cosine]
    #[arg(long, value_name = "NAME")]
    schedule: Option<Schedule>,
    /// Steps over which the learning rate rises at the start [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    warmup_steps: Option<u64>,
    /// Optimizer [default: adam]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<Optimizer>,
    /// Momentum of sgd and nesterov [default: 0.9]
    #[arg(long, value_name = "X", value_parser = real)]
    momentum: Option<f64>,
    /// Decay of the weights [default: 0]
    #[arg(long, value_name = "X", value_parser = real)]
    weight_decay: Option<f64>,
    /// Largest norm of the gradient, 0 for no limit [default: 0]
    #[arg(long, value_name = "X", value_parser = real)]
    clip_norm: Option<f64>,
    /// Evaluate and keep a moving average of the weights, which keeps this share of itself a step, such as
    /// 0.999; 0 for the weights themselves [default: 0]
    #[arg(long, value_name = "X", value_parser = real)]
    ema: Option<f64>,
    /// End after so many epochs without a better validation score, 0 for never [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u32>)]
    patience: Option<u32>,
    /// Every so many steps the chain's link holds a hash of all state, 0 for the last step of an epoch alone
    /// [default: 100]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    hash_every: Option<u64>,
    /// Seed of everything random [default: 42]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    seed: Option<u64>,
    /// How convolutions are computed: other sums, so other bits [default: direct]
    #[arg(long, value_name = "NAME")]
    conv_algo: Option<ConvAlgo>,
    /// Recompute inner values instead of keeping them: less memory, equal bits
    #[arg(long)]
    #[serde(default)]
    recompute: bool,
    /// Start from these weights instead of fresh ones
    #[arg(long, value_name = "F")]
    load_checkpoint: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
enum Optimizer {
    Sgd,
    Nesterov,
    Adam,
    AdamW,
    RmsProp,
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
enum ConvAlgo {
    Direct,
    Winograd,
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
enum Schedule {
    Constant,
    Step,
    Cosine,
    Plateau,
}

/// The most bytes of a configuration file: a thousand times what every setting needs.
const MOST: u64 = 1 << 20;

impl Settings {
    /// Reads a configuration file, or that of a run, to repeat it.
    pub(crate) fn from_file(path: &Path) -> Result<Settings, Failure> {
        // Through links, and from a pipe too.
        let bytes = kinone_files::read_up_to(path, MOST).map_err(Failure::usage)?;
        // What the configuration of a run says and no other.
        let names = config::parse::<BTreeMap<String, IgnoredAny>>(&bytes).unwrap_or_default();
        let settings = match names.contains_key("contract") {
            true => config::parse(&bytes).map(Settings::of),
            false => config::parse(&bytes),
        };
        settings.map_err(|reason| Failure::usage(format_args!("{}: {reason}", path.display())))
    }

    /// These settings where they are given, `below` elsewhere.
    pub(crate) fn over(self, below: Settings) -> Settings {
        // Which data are used is one setting; that some may be missing holds for other files too.
        let names_files = self.data_dir.is_some() || self.image_dir.is_some() || self.csv_file.is_some();
        let (data_dir, image_dir, csv_file, images) = if names_files || self.images.is_some() {
            (self.data_dir, self.image_dir, self.csv_file, self.images)
        } else {
            (below.data_dir, below.image_dir, below.csv_file, below.images)
        };
        let allow_missing = self.allow_missing || (below.allow_missing && self.images.is_none());
        Settings {
            data_dir,
            image_dir,
            csv_file,
            allow_missing,
            images,
            model: self.model.or(below.model),
            image_size: self.image_size.or(below.image_size),
            no_finding: self.no_finding || below.no_finding,
            epochs: self.epochs.or(below.epochs),
            batch_size: self.batch_size.or(below.batch_size),
            accumulate: self.accumulate.or(below.accumulate),
            lr: self.lr.or(below.lr),
            schedule: self.schedule.or(below.schedule),
            warmup_steps: self.warmup_steps.or(below.warmup_steps),
            optimizer: self.optimizer.or(below.optimizer),
            momentum: self.momentum.or(below.momentum),
            weight_decay: self.weight_decay.or(below.weight_decay),
            clip_norm: self.clip_norm.or(below.clip_norm),
            ema: self.ema.or(below.ema),
            patience: self.patience.or(below.patience),
            hash_every: self.hash_every.or(below.hash_every),
            seed: self.seed.or(below.seed),
            conv_algo: self.conv_algo.or(below.conv_algo),
            recompute: self.recompute || below.recompute,
            load_checkpoint: self.load_checkpoint.or(below.load_checkpoint),
        }
    }

    /// The settings of a run that was made.
    pub(crate) fn of(config: Config) -> Settings {
        let mut settings = Settings {
            model: Some(config.model),
            image_size: Some(config.image_size),
            no_finding: config.no_finding,
            conv_algo: Some(match config.conv_algo {
                ConvAlgoName::Direct => ConvAlgo::Direct,
                ConvAlgoName::Winograd => ConvAlgo::Winograd,
            }),
            epochs: Some(config.epochs),
            batch_size: Some(config.batch_size),
            accumulate: Some(config.accumulate),
            lr: Some(config.lr),
            schedule: Some(match config.schedule {
                ScheduleName::Constant => Schedule::Constant,
                ScheduleName::Step => Schedule::Step,
                ScheduleName::Cosine => Schedule::Cosine,
                ScheduleName::Plateau => Schedule::Plateau,
            }),
            warmup_steps: Some(config.warmup_steps),
            optimizer: Some(match config.optimizer {
                OptimizerName::Sgd => Optimizer::Sgd,
                OptimizerName::Nesterov => Optimizer::Nesterov,
                OptimizerName::Adam => Optimizer::Adam,
                OptimizerName::AdamW => Optimizer::AdamW,
                OptimizerName::RmsProp => Optimizer::RmsProp,
            }),
            momentum: Some(config.momentum),
            weight_decay: Some(config.weight_decay),
            clip_norm: Some(config.clip_norm),
            ema: Some(config.ema),
            patience: Some(config.patience),
            hash_every: Some(config.hash_every),
            seed: Some(config.seed),
            recompute: config.recompute,
            load_checkpoint: config.load_checkpoint,
            ..Settings::default()
        };
        match config.data {
            Data::BuiltIn { images } => settings.images = Some(images),
            Data::Directory { data_dir, allow_missing } => {
                (settings.data_dir, settings.allow_missing) = (Some(data_dir), allow_missing);
            }
            Data::Files { image_dir, csv_file, allow_missing } => {
                (settings.image_dir, settings.csv_file) = (Some(image_dir), Some(csv_file));
                settings.allow_missing = allow_missing;
            }
        }
        settings
    }

    /// Weights to begin with are none for a run that goes on.
    pub(crate) fn refuse_weights(&self) -> Result<(), Failure> {
        match &self.load_checkpoint {
            None => Ok(()),
            Some(_) => Err(Failure::usage(
                "--resume goes on with the run's own weights: leave out load_checkpoint, or start another run with \
                 --run-dir",
            )),
        }
    }

    /// The whole configuration, every value checked.
    pub(crate) fn resolve(self) -> Result<Config, Failure> {
        let allow_missing = self.allow_missing;
        // A run is evaluated from anywhere.
        let absolute = |path: Option<PathBuf>| {
            path.map(std::path::absolute).transpose().map_err(|error| {
                Failure::usage(format_args!(
                    "a path of the data or weights is empty or cannot be completed: {error}"
                ))
            })
        };
        let load_checkpoint = absolute(self.load_checkpoint)?;
        let paths = (absolute(self.data_dir)?, absolute(self.image_dir)?, absolute(self.csv_file)?);
        let data = match paths {
            (Some(data_dir), None, None) => Data::Directory { data_dir, allow_missing },
            (None, Some(image_dir), Some(csv_file)) => Data::Files { image_dir, csv_file, allow_missing },
            (None, None, None) => Data::BuiltIn { images: self.images.unwrap_or(2400) },
            _ => {
                let message = "name either data_dir, or image_dir together with csv_file";
                return Err(Failure::usage(message));
            }
        };
        match data {
            Data::BuiltIn { .. } if allow_missing => {
                return Err(Failure::usage(
                    "allow_missing is for images in files: name data_dir, or image_dir and csv_file, or leave it out",
                ));
            }
            Data::Directory { .. } | Data::Files { .. } if self.images.is_some() => {
                return Err(Failure::usage(
                    "images is for the built-in set: leave it out, or data_dir, image_dir and csv_file",
                ));
            }
            _ => {}
        }
        let model: Depth = self.model.as_deref().unwrap_or("resnet18").parse().map_err(Failure::usage)?;
        let usual_size = if matches!(data, Data::BuiltIn { .. }) { 64 } else { 224 };
        let config = Config {
            contract: CONTRACT,
            model: model.name().to_owned(),
            image_size: self.image_size.unwrap_or(usual_size),
            epochs: self.epochs.unwrap_or(8),
            batch_size: self.batch_size.unwrap_or(32),
            accumulate: self.accumulate.unwrap_or(1),
            lr: self.lr.unwrap_or(1e-3),
            schedule: match self.schedule.unwrap_or(Schedule::Cosine) {
                Schedule::Constant => ScheduleName::Constant,
                Schedule::Step => ScheduleName::Step,
                Schedule::Cosine => ScheduleName::Cosine,
                Schedule::Plateau => ScheduleName::Plateau,
            },
            warmup_steps: self.warmup_steps.unwrap_or(0),
            optimizer: match self.optimizer.unwrap_or(Optimizer::Adam) {
                Optimizer::Sgd => OptimizerName::Sgd,
                Optimizer::Nesterov => OptimizerName::Nesterov,
                Optimizer::Adam => OptimizerName::Adam,
                Optimizer::AdamW => OptimizerName::AdamW,
                Optimizer::RmsProp => OptimizerName::RmsProp,
            },
            momentum: self.momentum.unwrap_or(0.9),
            weight_decay: self.weight_decay.unwrap_or(0.0),
            clip_norm: self.clip_norm.unwrap_or(0.0),
            ema: self.ema.unwrap_or(0.0),
            patience: self.patience.unwrap_or(0),
            hash_every: self.hash_every.unwrap_or(100),
            seed: self.seed.unwrap_or(42),
            no_finding: self.no_finding,
            conv_algo: match self.conv_algo.unwrap_or(ConvAlgo::Direct) {
                ConvAlgo::Direct => ConvAlgoName::Direct,
                ConvAlgo::Winograd => ConvAlgoName::Winograd,
            },
            recompute: self.recompute,
            data,
            load_checkpoint,
        };
        config.validate().map_err(Failure::usage)?;
        Ok(config)
    }
}
