//! What a run writes while it goes on, and in which order.
//!
//! The checkpoint is the commit. Before it, log and chain are flushed, so that it never names a link that a
//! loss of power took away; after it, what can be made again from it: the weights for other programs. A run
//! that resumes cuts log and chain to the checkpoint and makes the weights again where they are not its own.

use crate::course::{Course, Made, Plan};
use crate::fit::{Epoch, FitError};
use crate::index::Index;
use crate::trace::transcribed;
use kinone_files::FileError;
use kinone_kernels::Cpu;
use kinone_nn::state::{Dictionary, Value};
use kinone_runs::CONTRACT;
use kinone_runs::chain::{self, Body, Chain, Forgotten, Header, Link, Override, StepLink};
use kinone_runs::checkpoint::Checkpoint;
use kinone_runs::config::Difference;
use kinone_runs::control::{Doing, Pulse};
use kinone_runs::directory::{self, RunDirectory};
use kinone_runs::log::{self, Event, Log};
use kinone_runs::progress::{Best, Progress};
use kinone_runs::store::{Newest, Store};
use kinone_runs::{npz, transcript, weights};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// When to write checkpoints, and which to keep. Decides no bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saving {
    /// A checkpoint every so many steps; 0 for none but at the end of each epoch and at signals.
    pub checkpoint_every: u64,
    /// Of old checkpoints, those of multiples of so many steps are kept; 0 for none.
    pub keep_every: u64,
    /// What to do when one cannot be written.
    pub on_error: OnSaveError,
    /// The version of the program, for the record.
    pub version: &'static str,
}

/// What to do when the disk refuses while a run is under way. At its end, and where it was asked to stop, a save
/// that fails is an error in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSaveError {
    /// End the run.
    #[default]
    Stop,
    /// Say so and go on; the next save tries again, lines of log and chain included.
    Continue,
}

/// The files of a run under way.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) run: &'a RunDirectory,
    pub(crate) log: Log,
    pub(crate) chain: Chain,
    pub(crate) pulse: Pulse,
    store: Store,
    saving: Saving,
    pub(crate) cpu: Cpu,
    pub(crate) index: Index,
    started: String,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    /// The step of the best epoch that the newest checkpoint names.
    saved_best: Option<u64>,
    /// Whether the next step is to be written down.
    transcribes: bool,
    /// The best weights, where they could not be written.
    unwritten_best: Option<(weights::Header, Dictionary)>,
    /// What should be said aloud: saves that failed.
    alarms: Vec<String>,
    /// When this process began, and the seconds that the run took before.
    begun: Instant,
    before: f64,
}

impl<'a> Record<'a> {
    /// Of a run that begins, or begins anew because it was ended before its first checkpoint.
    pub(crate) fn begin(
        run: &'a RunDirectory,
        saving: Saving,
        plan: &Plan,
        course: &Course,
        index: &Index,
    ) -> Result<Record<'a>, FitError> {
        // At its peak a run has the last two checkpoints, that of the best epoch, and the one that is being written;
        // besides them the best and the last weights, and the archive.
        enough_space(run, course, 4, 3)?;
        index.write(&run.index_file())?;
        let weights = weights::digest(&kinone_nn::state::dictionary(&course.trainer.model));
        let header = Header::new(plan.config, saving.version, &index.sha256, &weights);
        let mut record = Record {
            run,
            log: Log::begin(&run.log_file())?,
            chain: Chain::begin(&run.chain_file(), header)?,
            pulse: Pulse::new(run.path()),
            store: run.store(),
            saving,
            cpu: Cpu::current(),
            started: directory::now(),
            index: index.clone(),
            saved: None,
            saved_best: None,
            transcribes: true,
            unwritten_best: None,
            alarms: Vec::new(),
            begun: Instant::now(),
            before: 0.0,
        };
        record.pulse.beat(Doing::Training, 1, 0);
        let report = plan.data.report();
        record.log.append(&Event::Start {
            contract: CONTRACT,
            model: &plan.config.model,
            parameters: course.trainer.parameter_count(),
            split: &report.split,
            data: &report.origin,
            images: report.images,
            isa: record.cpu.isa().name(),
            threads: record.cpu.threads(),
        })?;
        Ok(record)
    }

    /// Of a run that goes on: nothing is left of what came after the checkpoint.
    pub(crate) fn resume(
        run: &'a RunDirectory,
        saving: Saving,
        plan: &Plan,
        course: &mut Course,
        index: &Index,
        newest: &Newest,
        changes: Vec<Difference>,
    ) -> Result<Record<'a>, FitError> {
        enough_space(run, course, 1, 1)?;
        let header = &newest.checkpoint.header;
        let step = header.progress.step;
        let links = chain::leading_to(&run.chain_file(), step, &header.link)?;
        let alarms = mended(run, index, &links)?;
        // The log never has a row of a step that the chain has not.
        log::cut(&run.log_file(), step, header.progress.epoch - 1)?;
        let mut chain = Chain::resume(&run.chain_file(), &links)?;
        let store = run.store();
        store.discard_after(step);
        if !changes.is_empty() {
            let config = plan.config.identity();
            chain.append(&Body::Override(Override { after_step: step, changes: changes.clone(), config }))?;
        }
        let mut record = Record {
            run,
            log: Log::open(&run.log_file())?,
            chain,
            pulse: Pulse::new(run.path()),
            store,
            saving,
            cpu: Cpu::current(),
            started: header.started.clone(),
            index: index.clone(),
            saved: Some(step),
            saved_best: header.progress.best.as_ref().map(|best| best.step),
            transcribes: true,
            unwritten_best: None,
            alarms,
            begun: Instant::now(),
            before: log::seconds(&run.log_file()),
        };
        record.pulse.beat(Doing::Training, course.last_epoch(), step);
        let (isa, threads) = (record.cpu.isa().name(), record.cpu.threads());
        record.log.append(&Event::Resume { step, isa, threads })?;
        if !changes.is_empty() {
            // The override is committed with the settings it names, before any step under them.
            record.saved = None;
            record.save(course)?;
        }
        run.write_config(plan.config)?;
        // What was the end is none any more.
        let _ = std::fs::remove_file(run.summary_file());
        record.repair_weights(course)?;
        Ok(record)
    }

    /// Makes the next step, and writes down what its operators make where that is due.
    pub(crate) fn transcribed(&mut self, course: &mut Course) -> Result<Option<Made>, FitError> {
        if !self.transcribes || course.is_epoch_over() {
            return Ok(course.next_step()?);
        }
        let parameters = course.trainer.parameters().to_vec();
        let (made, entries) = transcribed(&parameters, || course.next_step());
        let made = made?;
        if let Some(made) = &made {
            // Evidence, not state: that it cannot be written is found by the next save.
            let _ = transcript::write(self.run.path(), made.step.step, &entries);
        }
        self.transcribes = false;
        Ok(made)
    }

    /// Writes a step, and a checkpoint where one is due.
    pub(crate) fn step(&mut self, course: &Course, made: &Made, began: Instant) -> Result<(), FitError> {
        let linked = self.chain.append(&Body::Step(course.link(&self.cpu, made)));
        self.tolerate(linked)?;
        let logged = self.log.append(&Event::Step {
            epoch: made.epoch,
            step: made.step.step,
            loss: made.step.loss,
            gradient_norm: made.step.gradient_norm,
            lr: made.step.lr,
            images_per_second: made.samples.len() as f64 / began.elapsed().as_secs_f64(),
            seconds: self.seconds(),
        });
        self.tolerate(logged)?;
        self.pulse.beat(Doing::Training, made.epoch, made.step.step);
        let every = self.saving.checkpoint_every;
        if every != 0 && made.step.step.is_multiple_of(every) {
            let saved = self.save(course);
            self.tolerate(saved)?;
        }
        Ok(())
    }

    /// Turns an error of the disk into an alarm where the run is to go on.
    fn tolerate<E: Into<FitError>>(&mut self, result: Result<(), E>) -> Result<(), FitError> {
        let Err(error) = result.map_err(Into::into) else { return Ok(()) };
        if self.saving.on_error == OnSaveError::Stop || !error.is_of_the_disk() {
            return Err(error);
        }
        self.alarms.push(format!("{error}; the run goes on without this save, as --on-save-error asks"));
        Ok(())
    }

    /// Seconds since the run began, without those while it was stopped.
    pub(crate) fn seconds(&self) -> f64 {
        self.before + self.begun.elapsed().as_secs_f64()
    }

    /// What should be said aloud since the last time.
    pub(crate) fn alarms(&mut self) -> Vec<String> {
        std::mem::take(&mut self.alarms)
    }

    /// Writes an epoch's end: log, checkpoint, weights.
    pub(crate) fn epoch(&mut self, course: &Course, ended: &Epoch) -> Result<(), FitError> {
        let logged = self.log.append(&Event::Epoch {
            epoch: ended.epoch,
            train_loss: ended.train_loss,
            val_loss: ended.val_loss,
            val_auroc_macro: ended.val_auroc_macro,
            lr: ended.lr,
            images_per_second: ended.images_per_second,
            seconds: self.seconds(),
        });
        self.tolerate(logged)?;
        // A checkpoint of this step from before the epoch's end is replaced.
        self.saved = None;
        let saved = self.save(course);
        self.tolerate(saved)?;
        let written = self.write_last(course);
        self.tolerate(written)?;
        if ended.is_best {
            self.unwritten_best = None;
            let written = self.write_best(course);
            if written.is_err() {
                let weights = course.trainer.weights();
                let hash = weights::digest(&weights);
                let header = course.weights_header(None, hash);
                self.unwritten_best = Some((header, weights));
            }
            self.tolerate(written)?;
        }
        Ok(())
    }

    /// Makes up for what could not be written while the run went on.
    pub(crate) fn settle(&mut self, course: &mut Course) -> Result<(), FitError> {
        self.save(course)?;
        if let Some((header, weights)) = &self.unwritten_best {
            weights::save(&self.run.best_weights(), header, weights)?;
            self.unwritten_best = None;
        }
        self.repair_weights(course)
    }

    /// Writes a checkpoint, unless this one is written already.
    pub(crate) fn save(&mut self, course: &Course) -> Result<(), FitError> {
        let step = course.progress.step;
        if self.saved == Some(step) {
            return Ok(());
        }
        self.chain.flush()?;
        self.log.flush()?;
        let version = self.saving.version;
        let mut checkpoint = course.checkpoint(&self.started, version, &self.index.sha256, self.chain.last());
        let best = course.progress.best.as_ref().map(|best| best.step);
        // That of the checkpoint before too: it may yet be fallen back to.
        let bests: Vec<u64> = [best, self.saved_best].into_iter().flatten().collect();
        if let Err(error) = self.store.save(&self.cpu, &mut checkpoint, &bests, self.saving.keep_every) {
            return Err(self.rescue(course, checkpoint, error));
        }
        (self.saved, self.saved_best, self.transcribes) = (Some(step), best, true);
        let steps = self.store.steps();
        transcript::prune(self.run.path(), |step| step == 1 || steps.binary_search(&(step - 1)).is_ok());
        Ok(())
    }

    /// Makes `last` and `best` what the checkpoint says, where they are not: the run may have ended between
    /// the checkpoint and them.
    fn repair_weights(&mut self, course: &mut Course) -> Result<(), FitError> {
        let progress = &course.progress;
        if progress.epoch_steps == 0 && progress.epoch > 1 {
            let hash = weights::digest(&course.trainer.weights());
            if !holds(&self.run.last_weights(), &hash) {
                self.write_last(course)?;
            }
        }
        let Some(best) = progress.best.clone() else { return Ok(()) };
        if best_of(&self.run.best_weights(), &best).is_some() {
            return Ok(());
        }
        let written = self.write_best(course);
        if !matches!(written, Err(FitError::Checkpoint(_))) {
            return written;
        }
        // Its checkpoint was lost with a disk or a folder: that ends no run.
        self.alarms.push(format!(
            "the weights of epoch {}, the best, are lost; the best is chosen anew among those that are left",
            best.epoch
        ));
        let Progress { step, epoch, .. } = course.progress;
        self.chain.append(&Body::Forgotten(Forgotten { after_step: step, epoch }))?;
        course.forget_best();
        self.saved = None;
        self.save(course)?;
        self.write_best(course)
    }

    /// Writes the best weights as NumPy's archive, under the time at which the run began.
    pub(crate) fn write_archive(&self, weights: &Dictionary) -> Result<(), FitError> {
        Ok(npz::save(&archive(self.run, &self.started), weights)?)
    }

    /// Writes the weights of the epoch that just ended.
    fn write_last(&self, course: &Course) -> Result<(), FitError> {
        let weights = course.trainer.weights();
        let header = course.weights_header(None, weights::digest(&weights));
        Ok(weights::save(&self.run.last_weights(), &header, &weights)?)
    }

    /// Writes the weights of the best epoch, from its checkpoint if that is not where the run stands.
    fn write_best(&self, course: &Course) -> Result<(), FitError> {
        let Some(best) = &course.progress.best else { return Ok(()) };
        let weights = if best.step == course.progress.step {
            course.trainer.weights()
        } else {
            kept_weights(&Checkpoint::load(&self.cpu, &self.store.path(best.step))?.tensors)
        };
        let header = course.weights_header(Some(best), best.weights_sha256.clone());
        Ok(weights::save(&self.run.best_weights(), &header, &weights)?)
    }
}

/// Whether a file of weights is sound and its weights have this hash.
pub(crate) fn holds(path: &Path, weights_sha256: &str) -> bool {
    weights::load(path).is_ok_and(|(header, _)| header.weights_sha256 == weights_sha256)
}

/// NumPy's archive of a run that began at this time.
pub(crate) fn archive(run: &RunDirectory, started: &str) -> PathBuf {
    run.path().join(format!("checkpoints/best_model_{started}.npz"))
}

/// The weights of a file, if it is sound, they are those of the best epoch, and so is what it says of them.
pub(crate) fn best_of(file: &Path, best: &Best) -> Option<Dictionary> {
    let (header, weights) = weights::load(file).ok()?;
    let said = (header.epoch, header.val_auroc_macro, &header.thresholds, &header.weights_sha256);
    let is_best = said == (best.epoch, best.val_auroc_macro, &best.thresholds, &best.weights_sha256);
    is_best.then_some(weights)
}

/// Whether a file is the index of the data with this hash.
pub(crate) fn is_index(file: &Path, sha256: &str) -> bool {
    kinone_files::read_regular(file, 64 << 30).is_ok_and(|text| kinone_runs::hash::bytes(&text) == sha256)
}

/// What is evaluated of a checkpoint: the model's state, its parameters replaced by their average where there
/// is one.
pub(crate) fn kept_weights(tensors: &Dictionary) -> Dictionary {
    let mut weights = Dictionary::new();
    for room in ["model.", "ema."] {
        let named = tensors.iter().filter_map(|(name, value)| Some((name.strip_prefix(room)?, value)));
        weights.extend(named.map(|(name, value)| (name.to_owned(), Value::clone(value))));
    }
    weights
}

/// Refuses to begin where not even so many checkpoints and files of weights would fit.
fn enough_space(run: &RunDirectory, course: &Course, count: u64, files: u64) -> Result<(), FileError> {
    let size = course.state_bytes();
    let weights = 4 * course.trainer.parameter_count() as u64;
    let needed = size * count + weights * files;
    match kinone_files::free_space(run.path()) {
        Some(free) if free < needed => {
            let reason = format!(
                "{count} checkpoints of {size} bytes and {files} files of weights of {weights} bytes need {needed} \
                 bytes, {free} are free; make room or name another --run-dir"
            );
            Err(FileError::new("write", run.path(), io::Error::new(io::ErrorKind::StorageFull, reason)))
        }
        _ => Ok(()),
    }
}

/// Makes again what is missing or damaged of a run's log and index, from its chain and its data; what was made.
fn mended(run: &RunDirectory, index: &Index, links: &[Link]) -> Result<Vec<String>, FitError> {
    let mut remarks = Vec::new();
    let steps: Vec<&StepLink> = links
        .iter()
        .filter_map(|link| if let Body::Step(step) = &link.body { Some(step) } else { None })
        .collect();
    let rows = log::mend(&run.log_file(), &steps)?;
    if rows > 0 {
        let file = run.log_file();
        remarks.push(format!("{}: {rows} rows of steps were missing; made from the chain", file.display()));
    }
    let file = run.index_file();
    if !is_index(&file, &index.sha256) {
        index.write(&file)?;
        remarks.push(format!("{} was missing or damaged; made from the data", file.display()));
    }
    Ok(remarks)
}
