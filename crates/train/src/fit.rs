//! A run from its first step to its summary.

use crate::evaluate::{self, EvaluateError};
use crate::prepare::{self, PrepareError};
use crate::trainer::{Batch, Step, StepError, Trainer};
use kinone_core::array::Array;
use kinone_files::FileError;
use kinone_kernels::Cpu;
use kinone_metrics::Report;
use kinone_nn::models::ResNet;
use kinone_nn::optim::Optimizer;
use kinone_nn::state::{Dictionary, dictionary};
use kinone_runs::CONTRACT;
use kinone_runs::config::Config;
use kinone_runs::directory::RunDirectory;
use kinone_runs::log::{Event, Log};
use kinone_runs::summary::Summary;
use kinone_runs::weights::{self, Header, WeightsError};
use kinone_xray::{DataError, Dataset, Loader, Part, Preprocessing};
use std::time::Instant;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// It could not begin.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A step was refused.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Images could not be scored.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Weights could not be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Someone who watches a run.
pub trait Observer {
    /// An epoch begins, of so many images.
    fn epoch_begins(&mut self, epoch: u32, images: usize);
    /// A step was made on so many images.
    fn step(&mut self, step: &Step, images: usize);
    /// An epoch ended.
    fn epoch_ends(&mut self, epoch: &Epoch);
}

/// What an epoch came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u32,
    /// The mean loss of its steps, each weighed by its images.
    pub train_loss: f64,
    /// The loss on the validation part, if it has images.
    pub val_loss: Option<f64>,
    /// The mean area under the curve there.
    pub val_auroc_macro: Option<f64>,
    /// The learning rate of its last step.
    pub lr: f32,
    /// Images a second while training.
    pub images_per_second: f64,
    /// Whether these are the best weights so far.
    pub is_best: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was written.
    pub summary: Summary,
    /// The worth of the best weights on the test part, if it has images.
    pub test: Option<Report>,
}

struct Best {
    epoch: u32,
    auroc: Option<f64>,
    weights: Dictionary,
}

/// A run before its first step: what its data can refuse is refused here, before anything is written.
#[derive(Debug)]
pub struct Plan<'a> {
    config: &'a Config,
    data: &'a Dataset,
    preprocessing: Preprocessing,
    loader: Loader<'a>,
}

impl<'a> Plan<'a> {
    /// A run of `config` on `data`.
    ///
    /// # Errors
    /// Nothing can be learned from the data.
    pub fn new(config: &'a Config, data: &'a Dataset) -> Result<Plan<'a>, DataError> {
        let preprocessing = data.preprocessing()?;
        let loader = Loader::new(data, Part::Train, &preprocessing, config.batch_size)?;
        if loader.train_batches() == 0 {
            return Err(DataError::TooFew { part: "train", count: 1, need: 2 });
        }
        Ok(Plan { config, data, preprocessing, loader })
    }
}

/// Trains `model`, keeps the best and the last weights, tests the best, and writes the summary.
///
/// # Errors
/// The run ended early; what was written before is whole.
pub fn fit(
    plan: Plan,
    model: ResNet,
    run: &RunDirectory,
    observer: &mut dyn Observer,
) -> Result<Outcome, FitError> {
    let start = Instant::now();
    let Plan { config, data, preprocessing, loader } = plan;
    let clip = (config.clip_norm > 0.0).then_some(config.clip_norm);
    let optimizer = Optimizer::new(prepare::rule(config));
    let mut trainer = Trainer::new(model, optimizer, prepare::rate(config), clip, config.seed);
    let mut log = Log::open(&run.log_file())?;
    let cpu = Cpu::current();
    log.append(&Event::Start {
        contract: CONTRACT,
        model: &config.model,
        parameters: trainer.parameter_count(),
        split: &data.report().split,
        data: &data.report().origin,
        images: data.report().images,
        isa: cpu.isa().name(),
        threads: cpu.threads(),
    })?;

    let mut best: Option<Best> = None;
    let mut last = None;
    let (mut trained, mut training) = (0, 0.0);
    for epoch in 1..=config.epochs {
        let (count, seconds, train_loss, lr) =
            train_epoch(config, &mut trainer, &loader, epoch, &mut log, observer)?;
        trained += count;
        training += seconds;
        let scores = match data.part(Part::Validation) {
            [] => None,
            _ => Some(evaluate::score(&trainer.model, data, Part::Validation, &preprocessing)?),
        };
        let val_loss = match &scores {
            Some(scores) => Some(f64::from(scores.loss().map_err(EvaluateError::from)?)),
            None => None,
        };
        let auroc = match &scores {
            Some(scores) => scores.auroc_macro().map_err(EvaluateError::from)?,
            None => None,
        };
        trainer.rate.observe(val_loss.unwrap_or(train_loss));
        // Without a validation score the latest is the best.
        let is_best = best.as_ref().is_none_or(|best| auroc.is_none() || auroc > best.auroc);
        let weights = dictionary(&trainer.model);
        let header = header(config, data, &preprocessing, epoch, auroc, &weights);
        weights::save(&run.last_weights(), &header, &weights)?;
        if is_best {
            weights::save(&run.best_weights(), &header, &weights)?;
            best = Some(Best { epoch, auroc, weights });
        }
        let ended = Epoch {
            epoch,
            train_loss,
            val_loss,
            val_auroc_macro: auroc,
            lr,
            images_per_second: count as f64 / seconds,
            is_best,
        };
        log.append(&Event::Epoch {
            epoch,
            train_loss,
            val_loss,
            val_auroc_macro: auroc,
            lr,
            images_per_second: ended.images_per_second,
            seconds: start.elapsed().as_secs_f64(),
        })?;
        observer.epoch_ends(&ended);
        last = Some((ended, header.weights_sha256));
    }

    let (Some((last, weights_sha256)), Some(best)) = (last, best) else {
        unreachable!("a configuration has at least one epoch")
    };
    let test = test(config, data, &preprocessing, &best.weights)?;
    let summary = Summary {
        contract: CONTRACT,
        model: config.model.clone(),
        parameters: trainer.parameter_count(),
        seed: config.seed,
        epochs: config.epochs,
        best_epoch: best.epoch,
        weights_sha256,
        best_weights_sha256: weights::digest(&best.weights),
        train_loss: last.train_loss,
        val_auroc_macro: best.auroc,
        test_auroc_macro: test.as_ref().and_then(|report| report.auroc_macro),
        split: data.report().split.clone(),
        images: data.report().images,
        images_per_second: trained as f64 / training,
        wall_seconds: start.elapsed().as_secs_f64(),
        isa: cpu.isa().name().to_owned(),
        threads: cpu.threads(),
    };
    log.append(&Event::End { weights_sha256: &summary.weights_sha256 })?;
    summary.write(&run.summary_file())?;
    Ok(Outcome { summary, test })
}

/// One pass over the training images: how many, in how many seconds, their mean loss, the last rate.
fn train_epoch(
    config: &Config,
    trainer: &mut Trainer<ResNet>,
    loader: &Loader,
    epoch: u32,
    log: &mut Log,
    observer: &mut dyn Observer,
) -> Result<(usize, f64, f64, f32), FitError> {
    let batches = loader.train(config.seed, epoch - 1);
    observer.epoch_begins(epoch, loader.train_images());
    let (mut count, mut loss, mut lr) = (0, 0.0, 0.0);
    let start = Instant::now();
    for batch in batches {
        let began = Instant::now();
        let n = batch.indices.len();
        let (size, classes) = (config.image_size, batch.targets.len() / n);
        let fill = |shape: &[usize], values: &[f32]| {
            Array::new(shape, values).unwrap_or_else(|| unreachable!("the loader fills what it promises"))
        };
        let batch = Batch {
            images: fill(&[n, 1, size, size], &batch.images),
            targets: fill(&[n, classes], &batch.targets),
            samples: batch.indices.iter().map(|index| *index as u64).collect(),
        };
        let step = trainer.step(epoch - 1, batch)?;
        count += n;
        loss += f64::from(step.loss) * n as f64;
        lr = step.lr;
        log.append(&Event::Step {
            epoch,
            step: step.step,
            loss: step.loss,
            gradient_norm: step.gradient_norm,
            lr,
            images_per_second: n as f64 / began.elapsed().as_secs_f64(),
        })?;
        observer.step(&step, n);
    }
    Ok((count, start.elapsed().as_secs_f64(), loss / count as f64, lr))
}

fn header(
    config: &Config,
    data: &Dataset,
    preprocessing: &Preprocessing,
    epoch: u32,
    val_auroc_macro: Option<f64>,
    weights: &Dictionary,
) -> Header {
    Header {
        contract: CONTRACT,
        model: config.model.clone(),
        classes: data.classes().names().iter().map(|&name| name.to_owned()).collect(),
        image_size: preprocessing.size,
        pixel_mean: preprocessing.mean,
        pixel_std: preprocessing.std,
        epoch,
        val_auroc_macro,
        weights_sha256: weights::digest(weights),
    }
}

fn test(
    config: &Config,
    data: &Dataset,
    preprocessing: &Preprocessing,
    weights: &Dictionary,
) -> Result<Option<Report>, FitError> {
    if data.part(Part::Test).is_empty() {
        return Ok(None);
    }
    let model = prepare::holding(config, weights)?;
    let scores = evaluate::score(&model, data, Part::Test, preprocessing)?;
    Ok(Some(scores.report(data.classes().names()).map_err(EvaluateError::from)?))
}
