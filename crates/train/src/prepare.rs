//! From a configuration to data, a model and a rule.

use kinone_kernels::Cpu;
use kinone_nn::models::{Depth, ResNet};
use kinone_nn::optim::Rule;
use kinone_nn::schedule::{Rate, Schedule};
use kinone_nn::state::{self, StateError};
use kinone_runs::config::{Config, Data, OptimizerName, ScheduleName};
use kinone_runs::weights::{self, Header, WeightsError};
use kinone_xray::synth::Synth;
use kinone_xray::{Classes, DataError, Dataset, Options, Part, Preprocessing};
use std::path::{Path, PathBuf};

/// The seed by which patients are divided where no official lists are; the same for every run, so that runs
/// of different seeds are compared on the same images.
pub const SPLIT_SEED: u64 = 42;
/// The seed of the built-in set, for the same reason.
const SYNTH_SEED: u64 = 42;

/// Why a run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The weights do not fit.
    #[error("{}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// How they differ.
        source: StateError,
    },
    /// The weights are of another model.
    #[error("{}: weights of a {found} for {found_classes} classes; this run has a {model} for {classes}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The model of the weights.
        found: String,
        /// Its classes.
        found_classes: usize,
        /// The model of the run.
        model: String,
        /// Its classes.
        classes: usize,
    },
    /// The name in the record is no model.
    #[error(transparent)]
    UnknownModel(#[from] kinone_nn::models::UnknownModel),
}

/// The classes of a run.
pub fn classes(config: &Config) -> Classes {
    if config.no_finding { Classes::WithNoFinding } else { Classes::Findings }
}

/// Loads the chosen parts of a run's images. `progress(done, all)` is told as they come.
///
/// # Errors
/// The data cannot be used.
pub fn dataset(
    config: &Config,
    parts: &[Part],
    cpu: &Cpu,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Dataset, DataError> {
    let allow_missing = match config.data {
        Data::BuiltIn { .. } => false,
        Data::Directory { allow_missing, .. } | Data::Files { allow_missing, .. } => allow_missing,
    };
    let options = Options {
        size: config.image_size,
        classes: classes(config),
        split_seed: SPLIT_SEED,
        allow_missing,
        parts: parts.to_vec(),
        ..Options::default()
    };
    match &config.data {
        Data::BuiltIn { images } => {
            let source = Synth::new(SYNTH_SEED, *images, config.image_size)?;
            Dataset::from_source(&source, &options, cpu, progress)
        }
        Data::Directory { data_dir, .. } => Dataset::from_directory(data_dir, &options, cpu, progress),
        Data::Files { image_dir, csv_file, .. } => {
            Dataset::from_files(image_dir, csv_file, &options, cpu, progress)
        }
    }
}

/// The model of a run, fresh or from the weights it starts from.
///
/// # Errors
/// The weights cannot be read, or are of another model.
pub fn model(config: &Config) -> Result<ResNet, PrepareError> {
    let count = classes(config).count();
    let model = fresh(config)?;
    if let Some(path) = &config.load_checkpoint {
        let (header, dictionary) = weights::load_named(path)?;
        if header.model != config.model || header.classes.len() != count {
            return Err(PrepareError::OtherModel {
                path: path.clone(),
                found: header.model,
                found_classes: header.classes.len(),
                model: config.model.clone(),
                classes: count,
            });
        }
        fill(&model, path, &dictionary)?;
    }
    Ok(model)
}

/// The model of a run with fresh weights, whatever weights it starts from: for one whose state is elsewhere.
///
/// # Errors
/// There is no model of that name.
pub fn fresh(config: &Config) -> Result<ResNet, PrepareError> {
    let depth: Depth = config.model.parse()?;
    let count = classes(config).count();
    let model = ResNet::computed_by(config.conv_algo.into(), depth, 1, count, config.seed);
    Ok(if config.recompute { model.recomputing() } else { model })
}

/// The model of a run with these weights.
///
/// # Errors
/// They are of another model.
pub fn holding(config: &Config, weights: &state::Dictionary) -> Result<ResNet, PrepareError> {
    let (depth, count) = (config.model.parse()?, classes(config).count());
    let model = ResNet::computed_by(config.conv_algo.into(), depth, 1, count, config.seed);
    fill(&model, Path::new("(in memory)"), weights)?;
    Ok(model)
}

/// The model that a weights file holds, and what its header says.
///
/// # Errors
/// The file cannot be read, or its weights are not those of its model.
pub fn trained(path: &Path) -> Result<(ResNet, Header), PrepareError> {
    let (header, dictionary) = weights::load(path)?;
    let (depth, count) = (header.model.parse()?, header.classes.len());
    let model = ResNet::computed_by(header.conv_algo.into(), depth, 1, count, 0);
    fill(&model, path, &dictionary)?;
    Ok((model, header))
}

fn fill(model: &ResNet, path: &Path, dictionary: &state::Dictionary) -> Result<(), PrepareError> {
    state::load(model, dictionary).map_err(|source| PrepareError::State { path: path.to_owned(), source })
}

/// How the images of a weights file were prepared.
pub fn preprocessing(header: &Header) -> Preprocessing {
    Preprocessing { size: header.image_size, channels: 1, mean: header.pixel_mean, std: header.pixel_std }
}

/// The optimizer's rule of a run.
pub fn rule(config: &Config) -> Rule {
    let (momentum, weight_decay) = (config.momentum, config.weight_decay);
    let adam = |decoupled| Rule::Adam { betas: (0.9, 0.999), eps: 1e-8, weight_decay, decoupled };
    match config.optimizer {
        OptimizerName::Sgd => Rule::Sgd { momentum, nesterov: false, weight_decay },
        OptimizerName::Nesterov => Rule::Sgd { momentum, nesterov: true, weight_decay },
        OptimizerName::Adam => adam(false),
        OptimizerName::AdamW => adam(true),
        OptimizerName::RmsProp => Rule::RmsProp { alpha: 0.99, eps: 1e-8, weight_decay, momentum: 0.0 },
    }
}

/// The learning rate of a run over time.
pub fn rate(config: &Config) -> Rate {
    let schedule = match config.schedule {
        ScheduleName::Constant => Schedule::Constant,
        ScheduleName::Step => Schedule::Step { every: config.epochs.div_ceil(3), factor: 0.1 },
        ScheduleName::Cosine => Schedule::Cosine { epochs: config.epochs, floor: config.lr * 0.01 },
        ScheduleName::Plateau => {
            Schedule::Plateau { patience: 2, factor: 0.1, threshold: 1e-4, floor: config.lr * 1e-3 }
        }
    };
    Rate::new(config.lr, schedule, config.warmup_steps)
}
