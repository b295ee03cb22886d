//! A run from its first step, or from a checkpoint, to its summary.

use crate::course::{Course, Made, Plan, Validation};
use crate::diagnose;
use crate::evaluate::{self, EvaluateError};
use crate::index::{Index, IndexError};
use crate::prepare::{self, PrepareError};
use crate::record::{Record, Saving};
use crate::trainer::{Step, StepError};
use kinone_files::FileError;
use kinone_kernels::Cpu;
use kinone_metrics::Report;
use kinone_nn::state::{Dictionary, StateError};
use kinone_runs::CONTRACT;
use kinone_runs::chain::ChainError;
use kinone_runs::checkpoint::CheckpointError;
use kinone_runs::config::Difference;
use kinone_runs::control::{Control, Doing, Request};
use kinone_runs::directory::{RunDirectory, RunError};
use kinone_runs::log::Event;
use kinone_runs::progress::Best;
use kinone_runs::store::Newest;
use kinone_runs::summary::Summary;
use kinone_runs::weights::{self, WeightsError};
use kinone_xray::{DataError, Part};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// It could not begin.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data are not those of the run.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A step was refused.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Images could not be scored.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Weights could not be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint does not fit the configuration.
    #[error("the checkpoint does not fit the configuration: {0}")]
    State(#[from] StateError),
    /// The chain cannot be gone on with.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The run directory cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The run directory is gone, and what the run had made was written elsewhere.
    #[error(
        "{error}: the run directory is gone; all up to step {step} was saved in {path}, go on with --resume {path}",
        path = path.display()
    )]
    Rescued {
        /// Why no checkpoint could be written.
        error: CheckpointError,
        /// Steps made.
        step: u64,
        /// The run directory that was made instead.
        path: PathBuf,
    },
}

impl FitError {
    /// Whether the disk refused to write, and nothing else is wrong.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        match self {
            FitError::File(_) => true,
            FitError::Checkpoint(CheckpointError::File(error)) => error.action != "read",
            FitError::Weights(WeightsError::File(error)) => error.action != "read",
            _ => false,
        }
    }
}

/// Someone who watches a run, and may stop it.
pub trait Observer {
    /// The run is accepted, and begins or goes on.
    fn begins(&mut self) {}
    /// An epoch begins or goes on: its images, and how many of them are done.
    fn epoch_begins(&mut self, epoch: u32, images: usize, done: usize);
    /// A step was made on so many images.
    fn step(&mut self, step: &Step, images: usize);
    /// An epoch ended.
    fn epoch_ends(&mut self, epoch: &Epoch);
    /// Something went wrong that does not end the run.
    fn alarm(&mut self, line: &str);
    /// The signal by which the process was asked to end, if it was.
    fn signal(&self) -> Option<i32>;
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

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// All was done.
    Finished(Box<Outcome>),
    /// It was asked to stop, saved, and can be resumed.
    Stopped {
        /// Steps made.
        step: u64,
        /// The signal that asked; `None` when it was the control file.
        signal: Option<i32>,
    },
}

/// Where a run begins.
#[derive(Debug)]
pub enum Start {
    /// At its first step.
    Fresh,
    /// At a checkpoint, with what `--override` changes.
    Resumed {
        /// The checkpoint.
        newest: Box<Newest>,
        /// The settings that change.
        changes: Vec<Difference>,
    },
}

/// Trains, keeps checkpoints and the best and the last weights, tests the best, and writes the summary.
///
/// # Errors
/// The run ended early; what was written before is whole.
pub fn fit(
    plan: &Plan,
    start: Start,
    run: &RunDirectory,
    saving: Saving,
    observer: &mut dyn Observer,
) -> Result<End, FitError> {
    let cpu = Cpu::current();
    let index = Index::of(plan.data, &cpu);
    let (mut course, mut record) = match start {
        Start::Fresh => {
            let course = Course::begin(plan, prepare::model(plan.config)?);
            let record = Record::begin(run, saving, plan, &course, &index)?;
            (course, record)
        }
        Start::Resumed { newest, changes } => {
            index.matches(&newest.checkpoint.header.data_sha256, &run.index_file())?;
            let mut course = Course::restore(plan, prepare::fresh(plan.config)?, &newest.checkpoint)?;
            let record = Record::resume(run, saving, plan, &mut course, &index, &newest, changes)?;
            (course, record)
        }
    };
    observer.begins();
    let result = Fit { plan, cpu, control: Control::new(run.path()), observer, unknown: None }
        .run(&mut course, &mut record);
    if let Err(error) = &result {
        let event = Event::Error { step: course.progress.step, reason: &error.to_string() };
        // The error itself is what matters.
        let _ = record.log.append(&event);
    }
    let doing = if matches!(result, Ok(End::Finished(_))) { Doing::Finished } else { Doing::Stopped };
    record.pulse.beat(doing, course.last_epoch(), course.progress.step);
    result
}

struct Fit<'a> {
    plan: &'a Plan<'a>,
    cpu: Cpu,
    control: Control,
    observer: &'a mut dyn Observer,
    /// What stood in the control file and is no request, once it was said.
    unknown: Option<String>,
}

/// The run is to stop: by which signal, if by one.
struct Stop(Option<i32>);

impl Fit<'_> {
    fn run(&mut self, course: &mut Course, record: &mut Record) -> Result<End, FitError> {
        // A request from before is none of ours.
        self.control.clear();
        self.sound(record);
        let (mut trained, mut training) = (0, 0.0);
        loop {
            while !course.is_finished() {
                let (images, seconds) = match self.epoch(course, record)? {
                    Ok(speed) => speed,
                    Err(Stop(signal)) => return Ok(End::Stopped { step: course.progress.step, signal }),
                };
                trained += images;
                training += seconds;
            }
            record.settle(course)?;
            self.sound(record);
            // Where the best was lost, patience counts anew.
            if course.is_finished() {
                break;
            }
        }
        record.pulse.beat(Doing::Evaluating, course.last_epoch(), course.progress.step);
        let Some(best) = course.progress.best.clone() else {
            unreachable!("a run that is finished has ended an epoch")
        };
        let (_, best_weights) = weights::load(&record.run.best_weights())?;
        let Some(test) = test(self.plan, &best_weights, &|| self.observer.signal().is_some())? else {
            return Ok(End::Stopped { step: course.progress.step, signal: self.observer.signal() });
        };
        let summary = Summary {
            images_per_second: if training > 0.0 { trained as f64 / training } else { 0.0 },
            wall_seconds: record.seconds(),
            isa: self.cpu.isa().name().to_owned(),
            threads: self.cpu.threads(),
            ..summary(self.plan, course, &best, test.as_ref(), record.chain.last())
        };
        record.write_archive(&best_weights)?;
        record.log.append(&Event::End { weights_sha256: &summary.weights_sha256 })?;
        record.log.flush()?;
        summary.write(&record.run.summary_file())?;
        Ok(End::Finished(Box::new(Outcome { summary, test })))
    }

    /// What is left of an epoch, its evaluation and its checkpoint: how many images in how many seconds.
    fn epoch(
        &mut self,
        course: &mut Course,
        record: &mut Record,
    ) -> Result<Result<(usize, f64), Stop>, FitError> {
        let epoch = course.progress.epoch;
        let done = course.progress.loss_images as usize;
        self.observer.epoch_begins(epoch, self.plan.epoch_images(), done);
        let (mut count, start) = (0, Instant::now());
        loop {
            let began = Instant::now();
            let Some(made) = record.transcribed(course)? else { break };
            count += made.samples.len();
            record.step(course, &made, began)?;
            self.sound(record);
            self.observer.step(&made.step, made.samples.len());
            if let Some(stop) = self.asked(record, &made) {
                record.save(course)?;
                self.control.clear();
                return Ok(Err(stop));
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        record.pulse.beat(Doing::Evaluating, epoch, course.progress.step);
        let validation = match self.validate(course)? {
            Ok(validation) => validation,
            Err(stop) => {
                record.save(course)?;
                return Ok(Err(stop));
            }
        };
        let is_best = course.end_epoch(&validation);
        let ended = Epoch {
            epoch,
            train_loss: course.progress.train_loss.unwrap_or_default(),
            val_loss: validation.loss,
            val_auroc_macro: validation.auroc_macro,
            lr: course.progress.lr,
            images_per_second: if count > 0 { count as f64 / seconds } else { 0.0 },
            is_best,
        };
        record.epoch(course, &ended)?;
        self.sound(record);
        self.observer.epoch_ends(&ended);
        match self.observer.signal() {
            Some(signal) if !course.is_finished() => Ok(Err(Stop(Some(signal)))),
            _ => Ok(Ok((count, seconds))),
        }
    }

    /// Says what went wrong and does not end the run.
    fn sound(&mut self, record: &mut Record) {
        for line in record.alarms() {
            self.observer.alarm(&line);
        }
    }

    /// Whether the run is to stop after this step; waits while it is to pause.
    fn asked(&mut self, record: &mut Record, made: &Made) -> Option<Stop> {
        loop {
            if let Some(signal) = self.observer.signal() {
                return Some(Stop(Some(signal)));
            }
            match self.control.request() {
                None => {
                    self.say_unknown();
                    return None;
                }
                Some(Request::Stop) => return Some(Stop(None)),
                Some(Request::Resume) => {
                    self.control.clear();
                    return None;
                }
                Some(Request::Pause) => {
                    record.pulse.beat(Doing::Paused, made.epoch, made.step.step);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// Says, once, that a word in the control file is no request.
    fn say_unknown(&mut self) {
        let unknown = self.control.unknown();
        if let Some(word) = unknown.as_ref().filter(|_| unknown != self.unknown) {
            self.observer
                .alarm(&format!("control says `{word}`, which is passed over; write stop, pause or resume"));
        }
        self.unknown = unknown;
    }

    /// What the validation part says; a signal ends the scoring.
    fn validate(&self, course: &Course) -> Result<Result<Validation, Stop>, FitError> {
        let validation = course.validate(&|| self.observer.signal().is_some());
        if let Err(EvaluateError::Score(error)) = validation {
            let largest = diagnose::largest(course.trainer.parameters());
            let what = format!("the validation images have no scores: {error}; {largest}");
            return Err(StepError::Overflow { step: course.progress.step, what }.into());
        }
        Ok(match validation? {
            Some(validation) => Ok(validation),
            None => Err(Stop(self.observer.signal())),
        })
    }
}

/// The worth of weights on the test part, if it has images; `None` as soon as `is_stopped` says so.
pub(crate) fn test(
    plan: &Plan,
    weights: &Dictionary,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Option<Option<Report>>, FitError> {
    let Plan { config, data, preprocessing, .. } = plan;
    if data.part(Part::Test).is_empty() {
        return Ok(Some(None));
    }
    let model = prepare::holding(config, weights)?;
    match evaluate::score_until(&model, data, Part::Test, preprocessing, is_stopped)? {
        Some(scores) => Ok(Some(Some(scores.report(data.classes().names()).map_err(EvaluateError::from)?))),
        None => Ok(None),
    }
}

/// What a run came to that stands at its end, without what depends on the machine.
pub(crate) fn summary(
    plan: &Plan,
    course: &Course,
    best: &Best,
    test: Option<&Report>,
    chain: &str,
) -> Summary {
    let Plan { config, data, .. } = plan;
    Summary {
        contract: CONTRACT,
        model: config.model.clone(),
        parameters: course.trainer.parameter_count(),
        seed: config.seed,
        epochs: course.progress.epoch - 1,
        best_epoch: best.epoch,
        weights_sha256: weights::digest(&course.trainer.weights()),
        best_weights_sha256: best.weights_sha256.clone(),
        chain_sha256: chain.to_owned(),
        train_loss: course.progress.train_loss.unwrap_or_default(),
        val_auroc_macro: best.val_auroc_macro,
        test_auroc_macro: test.and_then(|report| report.auroc_macro),
        split: data.report().split.clone(),
        images: data.report().images,
        images_per_second: 0.0,
        wall_seconds: 0.0,
        isa: String::new(),
        threads: 0,
    }
}
