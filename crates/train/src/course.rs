//! A run between two steps: all that a checkpoint holds, and how it moves on. Knows no files.

use crate::evaluate::{self, EvaluateError};
use crate::prepare;
use crate::trainer::{Batch, Step, StepError, Trainer};
use kinone_core::array::Array;
use kinone_kernels::Cpu;
use kinone_nn::models::ResNet;
use kinone_nn::optim::Optimizer;
use kinone_nn::schedule::Plateau;
use kinone_nn::state::StateError;
use kinone_runs::chain::StepLink;
use kinone_runs::checkpoint::{self, Checkpoint};
use kinone_runs::config::Config;
use kinone_runs::progress::{Best, Progress};
use kinone_runs::weights::{self, Header};
use kinone_runs::{CONTRACT, hash};
use kinone_xray::{DataError, Dataset, Loader, Part, Preprocessing};
use std::collections::BTreeMap;

/// A run before its first step: what its data can refuse is refused here, before anything is written.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What is asked for.
    pub config: &'a Config,
    /// The images.
    pub data: &'a Dataset,
    /// How they are prepared.
    pub preprocessing: Preprocessing,
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

    /// Images of an epoch.
    pub fn epoch_images(&self) -> usize {
        self.loader.train_images()
    }

    /// The classes, in the order of the logits.
    pub fn classes(&self) -> Vec<String> {
        self.data.classes().names().iter().map(|&name| name.to_owned()).collect()
    }

    /// The bytes of a checkpoint's tensors, about.
    pub fn state_bytes(&self, model: &ResNet) -> u64 {
        let parameters = kinone_nn::state::parameters(model);
        let count: usize = parameters.iter().map(|(_, parameter)| parameter.tensor().shape().size()).sum();
        let average = usize::from(self.config.ema > 0.0);
        let copies = 1 + prepare::rule(self.config).moments().len() + average;
        (4 * copies * count) as u64
    }

    /// Steps of an epoch.
    pub fn epoch_steps(&self) -> u64 {
        self.loader.train_batches().div_ceil(self.config.accumulate) as u64
    }
}

/// What the validation part says after an epoch; nothing where it has no images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// The mean binary cross entropy.
    pub loss: Option<f64>,
    /// The mean area under the curve.
    pub auroc_macro: Option<f64>,
    /// For each class the logit from which on its finding is stated.
    pub thresholds: Vec<Option<f32>>,
}

/// A step that was made, and on which images.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// What it did.
    pub step: Step,
    /// Its epoch, from 1.
    pub epoch: u32,
    /// The ids of its samples.
    pub samples: Vec<u64>,
}

type Batches<'a> = Box<dyn Iterator<Item = kinone_xray::Batch> + 'a>;

/// A run under way.
pub struct Course<'a> {
    plan: &'a Plan<'a>,
    /// The model and its optimizer.
    pub trainer: Trainer<ResNet>,
    /// How far they have come.
    pub progress: Progress,
    batches: Option<Batches<'a>>,
}

impl std::fmt::Debug for Course<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Course").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl<'a> Course<'a> {
    /// Before the first step.
    pub fn begin(plan: &'a Plan<'a>, model: ResNet) -> Course<'a> {
        let config = plan.config;
        let clip = (config.clip_norm > 0.0).then_some(config.clip_norm);
        let optimizer = Optimizer::new(prepare::rule(config));
        let trainer = Trainer::new(model, optimizer, prepare::rate(config), clip, config.seed);
        let trainer = if config.ema > 0.0 { trainer.averaging(config.ema) } else { trainer };
        Course { plan, trainer, progress: Progress::start(), batches: None }
    }

    /// Where a checkpoint stands.
    ///
    /// # Errors
    /// The checkpoint is of another model, optimizer or average.
    pub fn restore(
        plan: &'a Plan<'a>,
        model: ResNet,
        checkpoint: &Checkpoint,
    ) -> Result<Course<'a>, StateError> {
        let mut course = Course::begin(plan, model);
        let progress = checkpoint.header.progress.clone();
        course.trainer.restore(progress.step, &checkpoint.tensors)?;
        course.trainer.rate.plateau = Plateau {
            best: progress.plateau_best,
            waited: progress.plateau_waited,
            scale: progress.plateau_scale,
        };
        course.progress = progress;
        course.progress.stopped_early = course.progress.is_out_of_patience(plan.config.patience);
        Ok(course)
    }

    /// Whether nothing is left to train.
    pub fn is_finished(&self) -> bool {
        self.progress.is_finished(self.plan.config.epochs)
    }

    /// The epoch under way, or the last where none is left.
    pub fn last_epoch(&self) -> u32 {
        self.progress.epoch - u32::from(self.is_finished())
    }

    /// Whether every step of the epoch under way was made.
    pub fn is_epoch_over(&self) -> bool {
        self.progress.epoch_steps >= self.plan.epoch_steps()
    }

    /// Makes the next step of the epoch; `None` when there is none.
    ///
    /// # Errors
    /// The step was refused; nothing has changed.
    pub fn next_step(&mut self) -> Result<Option<Made>, StepError> {
        let Progress { epoch, epoch_steps, .. } = self.progress;
        if self.is_epoch_over() {
            return Ok(None);
        }
        let (plan, config) = (self.plan, self.plan.config);
        let batches = self.batches.get_or_insert_with(|| {
            let done = epoch_steps as usize * config.accumulate;
            Box::new(plan.loader.train_from(config.seed, epoch - 1, done))
        });
        let some =
            batches.by_ref().take(config.accumulate).map(|batch| as_arrays(plan, batch)).collect::<Vec<_>>();
        let samples: Vec<u64> = some.iter().flat_map(|batch| batch.samples.iter().copied()).collect();
        let step = self.trainer.step_over(epoch - 1, some)?;
        let progress = &mut self.progress;
        progress.step = step.step;
        progress.epoch_steps += 1;
        progress.loss_sum += f64::from(step.loss) * samples.len() as f64;
        progress.loss_images += samples.len() as u64;
        progress.lr = step.lr;
        Ok(Some(Made { step, epoch, samples }))
    }

    /// Ends the epoch with what the validation part says; whether it is the best so far.
    pub fn end_epoch(&mut self, validation: &Validation) -> bool {
        let train_loss = self.progress.loss_sum / self.progress.loss_images as f64;
        self.trainer.rate.observe(validation.loss.unwrap_or(train_loss));
        let Plateau { best: plateau_best, waited, scale } = self.trainer.rate.plateau;
        let auroc = validation.auroc_macro;
        // Without a validation score the latest is the best.
        let is_best =
            self.progress.best.as_ref().is_none_or(|best| auroc.is_none() || auroc > best.val_auroc_macro);
        let progress = &mut self.progress;
        progress.train_loss = Some(train_loss);
        progress.val_auroc_macro = auroc;
        progress.thresholds.clone_from(&validation.thresholds);
        progress.plateau_best = plateau_best;
        progress.plateau_waited = waited;
        progress.plateau_scale = scale;
        progress.epoch += 1;
        (progress.epoch_steps, progress.loss_sum, progress.loss_images) = (0, 0.0, 0);
        self.batches = None;
        if is_best {
            self.progress.best = Some(self.ended());
        }
        self.progress.stopped_early = self.progress.is_out_of_patience(self.plan.config.patience);
        is_best
    }

    /// Goes on without the weights of the best epoch, which are lost: the best of those that are left.
    pub(crate) fn forget_best(&mut self) {
        let Progress { epoch, epoch_steps, .. } = self.progress;
        self.progress.best = (epoch > 1 && epoch_steps == 0).then(|| self.ended());
        self.progress.stopped_early = self.progress.is_out_of_patience(self.plan.config.patience);
    }

    /// The epoch that has just ended, as it is kept where it is the best.
    pub(crate) fn ended(&self) -> Best {
        let progress = &self.progress;
        Best {
            epoch: progress.epoch - 1,
            step: progress.step,
            val_auroc_macro: progress.val_auroc_macro,
            thresholds: progress.thresholds.clone(),
            weights_sha256: weights::digest(&self.trainer.weights()),
        }
    }

    /// The configuration of the run.
    pub(crate) fn config(&self) -> &Config {
        self.plan.config
    }

    /// What the validation part says of the weights as they are; `None` as soon as `is_stopped` says so.
    ///
    /// # Errors
    /// A score is not a number.
    pub fn validate(&self, is_stopped: &dyn Fn() -> bool) -> Result<Option<Validation>, EvaluateError> {
        let Plan { config, data, preprocessing, .. } = self.plan;
        if data.part(Part::Validation).is_empty() {
            return Ok(Some(Validation::default()));
        }
        let score =
            |model: &ResNet| evaluate::score_until(model, data, Part::Validation, preprocessing, is_stopped);
        let scores = if config.ema > 0.0 {
            match prepare::holding(config, &self.trainer.weights()) {
                Ok(model) => score(&model)?,
                Err(error) => unreachable!("the weights are of this model: {error}"),
            }
        } else {
            score(&self.trainer.model)?
        };
        let Some(scores) = scores else { return Ok(None) };
        Ok(Some(Validation {
            loss: Some(f64::from(scores.loss()?)),
            auroc_macro: scores.auroc_macro()?,
            thresholds: scores.thresholds()?,
        }))
    }

    /// The bytes of a checkpoint's tensors, about.
    pub fn state_bytes(&self) -> u64 {
        self.plan.state_bytes(&self.trainer.model)
    }

    /// The hash of all state.
    pub fn state_sha256(&self, cpu: &Cpu) -> String {
        hash::root(&hash::values(cpu, &self.trainer.state()))
    }

    /// The link of the step just made, with the hash of all state where the configuration wants it.
    pub fn link(&self, cpu: &Cpu, made: &Made) -> StepLink {
        let every = self.plan.config.hash_every;
        let is_due = (every != 0 && made.step.step.is_multiple_of(every)) || self.is_epoch_over();
        StepLink {
            step: made.step.step,
            epoch: made.epoch,
            samples: made.samples.clone(),
            lr: format!("{:08x}", made.step.lr.to_bits()),
            loss: format!("{:08x}", made.step.loss.to_bits()),
            gradient_norm: format!("{:016x}", made.step.gradient_norm.to_bits()),
            state: is_due.then(|| self.state_sha256(cpu)),
        }
    }

    /// A checkpoint of where the run stands; `link` is the hash of the chain's last link.
    pub fn checkpoint(&self, started: &str, version: &str, data_sha256: &str, link: &str) -> Checkpoint {
        let Plan { config, preprocessing, .. } = self.plan;
        let header = checkpoint::Header {
            format: checkpoint::FORMAT,
            contract: CONTRACT,
            version: version.to_owned(),
            started: started.to_owned(),
            config: Config::clone(config),
            data_sha256: data_sha256.to_owned(),
            classes: self.plan.classes(),
            image_size: preprocessing.size,
            pixel_mean: preprocessing.mean,
            pixel_std: preprocessing.std,
            progress: self.progress.clone(),
            link: link.to_owned(),
            state_sha256: String::new(),
            tensors: BTreeMap::new(),
            sha256: String::new(),
        };
        Checkpoint { header, tensors: self.trainer.state() }
    }

    /// The header of a file of weights: those of the best epoch, or those of the last that ended.
    pub fn weights_header(&self, best: Option<&Best>, weights_sha256: String) -> Header {
        let progress = &self.progress;
        let (epoch, val_auroc_macro, thresholds) = match best {
            Some(best) => (best.epoch, best.val_auroc_macro, &best.thresholds),
            None => (progress.epoch - 1, progress.val_auroc_macro, &progress.thresholds),
        };
        let Plan { config, preprocessing, .. } = self.plan;
        Header {
            contract: CONTRACT,
            model: config.model.clone(),
            conv_algo: config.conv_algo,
            classes: self.plan.classes(),
            image_size: preprocessing.size,
            pixel_mean: preprocessing.mean,
            pixel_std: preprocessing.std,
            epoch,
            val_auroc_macro,
            thresholds: thresholds.clone(),
            weights_sha256,
            header_sha256: String::new(),
        }
    }
}

fn as_arrays(plan: &Plan, batch: kinone_xray::Batch) -> Batch {
    let n = batch.indices.len();
    let (size, classes) = (plan.config.image_size, batch.targets.len() / n);
    let fill = |shape: &[usize], values: &[f32]| {
        Array::new(shape, values).unwrap_or_else(|| unreachable!("the loader fills what it promises"))
    };
    Batch {
        images: fill(&[n, 1, size, size], &batch.images),
        targets: fill(&[n, classes], &batch.targets),
        samples: batch.indices.iter().map(|index| *index as u64).collect(),
    }
}
