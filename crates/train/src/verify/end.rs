//! What a run came to, held against what was made again: the ends of its epochs, its weights, its summary.

use super::replay::{Found, restored};
use super::{Records, VerifyError, fault, has_summary, listed};
use crate::course::{Course, Plan};
use crate::fit::{self, FitError};
use kinone_kernels::Cpu;
use kinone_runs::CONTRACT;
use kinone_runs::checkpoint::Checkpoint;
use kinone_runs::config::Difference;
use kinone_runs::directory::RunDirectory;
use kinone_runs::log::{EpochRow, StartRow};
use kinone_runs::progress::Best;
use kinone_runs::summary::Summary;
use kinone_runs::weights;
use kinone_xray::{Dataset, Preprocessing};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Two things of one kind must have the same entries, but for those that `passed_over` names.
fn agree<T: Serialize>(
    step: u64,
    file: &Path,
    stated: &T,
    found: &T,
    passed_over: &[&str],
) -> Result<(), VerifyError> {
    let entries = |thing: &T| match serde_json::json!(thing) {
        Value::Object(entries) => entries,
        _ => unreachable!("a structure is an object"),
    };
    let mut differences = Difference::between(&entries(stated), &entries(found));
    differences.retain(|difference| !passed_over.contains(&difference.setting.as_str()));
    if differences.is_empty() {
        return Ok(());
    }
    fault(format!("step {step}: {}: {}", file.display(), listed(&differences)))
}

impl Records {
    /// How the run began, as the log says, and how images were prepared, as each checkpoint says, against the data.
    pub(super) fn compare_preparation(&self, data: &Dataset) -> Result<(), VerifyError> {
        let plan = Plan::new(&self.config, data).map_err(FitError::from)?;
        let report = data.report();
        let found = StartRow {
            contract: CONTRACT,
            model: self.config.model.clone(),
            split: report.split.clone(),
            images: report.images,
        };
        if let Some(row) = &self.log.start {
            agree(0, Path::new("log.jsonl"), row, &found, &[])?;
        }
        let (classes, Preprocessing { size, mean, std, .. }) = (plan.classes(), plan.preprocessing);
        let found = (&classes, size, mean, std);
        for (step, header) in &self.checkpoints {
            let stated = (&header.classes, header.image_size, header.pixel_mean, header.pixel_std);
            if stated != found {
                return fault(format!(
                    "step {step}: the checkpoint says that images were prepared so: {stated:?}; found was {found:?}"
                ));
            }
        }
        Ok(())
    }

    /// Ends an epoch, and holds the log's row of it against that, if there is one.
    pub(super) fn compare_epoch(&self, course: &mut Course) -> Result<Best, VerifyError> {
        let validation = course.validate(&|| false).map_err(FitError::from)?.unwrap_or_default();
        let (step, epoch) = (course.progress.step, course.progress.epoch);
        course.end_epoch(&validation);
        let found = EpochRow {
            epoch,
            train_loss: course.progress.train_loss.unwrap_or_default(),
            val_loss: validation.loss,
            val_auroc_macro: validation.auroc_macro,
            lr: course.progress.lr,
        };
        if let Some(row) = self.log.epochs.iter().find(|row| row.epoch == epoch) {
            agree(step, Path::new("log.jsonl"), row, &found, &[])?;
        }
        // If it is the best, its weights have been hashed.
        let best = course.progress.best.clone().filter(|best| best.epoch == epoch);
        Ok(best.unwrap_or_else(|| course.ended()))
    }

    /// The end of a run that has ended, from its last checkpoint if that is still there. No proof: who forges a
    /// checkpoint can forge what follows from it.
    pub(super) fn compare_kept_end(
        &self,
        run: &RunDirectory,
        data: &Dataset,
        cpu: &Cpu,
    ) -> Result<(), VerifyError> {
        let last = self.last_step();
        if !has_summary(run) || !self.checkpoints.contains_key(&last) {
            return Ok(());
        }
        let checkpoint = Checkpoint::load(cpu, &run.store().path(last)).map_err(FitError::from)?;
        self.compare_end(run, data, &checkpoint)
    }

    /// The log's ends of epochs against all that ended.
    pub(super) fn compare_ends(&self, run: &RunDirectory, found: &Found) -> Result<(), VerifyError> {
        let is_none = |row: &&EpochRow| !found.ends.iter().any(|end| end.epoch == row.epoch);
        match self.log.epochs.iter().find(is_none) {
            Some(row) => {
                let (file, epoch) = (run.log_file(), row.epoch);
                fault(format!("{}: epoch {epoch} is said to have ended, and has not", file.display()))
            }
            None => Ok(()),
        }
    }

    /// The weights for other programs beside a run without a summary: as they are of epochs that ended. A run that was
    /// killed may have those of an epoch before, or none.
    pub(super) fn compare_unended(
        &self,
        run: &RunDirectory,
        data: &Dataset,
        state: &Checkpoint,
        found: &Found,
    ) -> Result<(), VerifyError> {
        let plan = Plan::new(&self.config, data).map_err(FitError::from)?;
        let course = restored(&plan, state)?;
        let step = course.progress.step;
        for (file, known) in [(run.best_weights(), &found.bests), (run.last_weights(), &found.ends)] {
            if file.symlink_metadata().is_err() {
                continue;
            }
            let header = match weights::load(&file) {
                Ok((header, _)) => header,
                Err(error) => return fault(format!("step {step}: {error}")),
            };
            let Some(epoch) = known.iter().find(|epoch| epoch.epoch == header.epoch) else {
                let (file, epoch) = (file.display(), header.epoch);
                return fault(format!("step {step}: {file} cannot be of epoch {epoch}, as it says"));
            };
            let expected = course.weights_header(Some(epoch), epoch.weights_sha256.clone());
            agree(step, &file, &header, &expected, &["header_sha256"])?;
        }
        Ok(())
    }

    /// The weights for other programs, what they say of themselves, and the summary with the score of the test part,
    /// against where the run stands after its last step. The settings are the last: an override may be what ended it.
    pub(super) fn compare_end(
        &self,
        run: &RunDirectory,
        data: &Dataset,
        state: &Checkpoint,
    ) -> Result<(), VerifyError> {
        let (step, file) = (self.last_step(), run.summary_file());
        let stated = match Summary::read(&file) {
            Ok(summary) => summary,
            Err(error) => return fault(format!("step {step}: {error}")),
        };
        // A run that was killed when it was to go on under other settings has their link already.
        let place = self.links.iter().rposition(|l| l.step() == step && l.hash == stated.chain_sha256);
        let place = place.unwrap_or(self.links.len() - 1);
        let config = self.settings_at(place)?;
        let plan = Plan::new(&config, data).map_err(FitError::from)?;
        let course = restored(&plan, state)?;
        let has_ended = course.is_finished() && course.progress.epoch_steps == 0;
        let Some(best) = course.progress.best.clone().filter(|_| has_ended) else {
            return fault(format!("step {step}: {} is of a run that had not ended", file.display()));
        };
        let last = weights::digest(&course.trainer.weights());
        if let Some(end) = self.log.end.as_ref().filter(|end| **end != last) {
            return fault(format!("step {step}: the log ends with the weights {end}, the run with {last}"));
        }
        let headers = [
            (run.best_weights(), course.weights_header(Some(&best), best.weights_sha256.clone())),
            (run.last_weights(), course.weights_header(None, last)),
        ];
        let mut best_weights = None;
        for (file, expected) in headers {
            let (header, weights) = match weights::load(&file) {
                Ok(loaded) => loaded,
                Err(error) => return fault(format!("step {step}: {error}")),
            };
            agree(step, &file, &header, &expected, &["header_sha256"])?;
            best_weights.get_or_insert(weights);
        }
        let test = match &best_weights {
            Some(weights) => fit::test(&plan, weights, &|| false)?.flatten(),
            None => None,
        };
        let expected = fit::summary(&plan, &course, &best, test.as_ref(), &self.links[place].hash);
        // What decides no bit is not held against anything.
        agree(step, &file, &stated, &expected, &["images_per_second", "wall_seconds", "isa", "threads"])
    }
}
