//! A stretch of a run, made again step by step and held against the record.

use super::{Records, VerifyError, fault, listed};
use crate::course::{Course, Made, Plan};
use crate::fit::FitError;
use crate::prepare;
use crate::resume;
use crate::trace::transcribed;
use kinone_kernels::Cpu;
use kinone_runs::chain::{Body, Forgotten};
use kinone_runs::checkpoint::{self, Checkpoint};
use kinone_runs::directory::RunDirectory;
use kinone_runs::progress::{Best, Progress};
use kinone_runs::transcript::{self, Entry};
use kinone_runs::{hash, weights};
use kinone_xray::Dataset;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What was found on the way.
#[derive(Default)]
pub(super) struct Found {
    /// The epochs that ended.
    pub(super) ends: Vec<Best>,
    /// Those that were the best at some time.
    pub(super) bests: Vec<Best>,
    /// How far the run had come after its last step: before and after the end of the epoch, and wherever its best was
    /// forgotten.
    stands: Vec<Progress>,
}

impl Records {
    /// Makes a stretch again, from the checkpoint before it, and compares every link. Whether it reached the end of a
    /// run that has ended, and all that lies there is right.
    pub(super) fn make_again(
        &self,
        run: &RunDirectory,
        data: &Dataset,
        stretch: &RangeInclusive<u64>,
        cpu: &Cpu,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, VerifyError> {
        let base = self.checkpoints.range(..*stretch.start()).next_back().map(|(step, _)| *step);
        let mut step = base.unwrap_or(0);
        let mut state = match base {
            Some(step) => Some(Checkpoint::load(cpu, &run.store().path(step)).map_err(FitError::from)?),
            None => None,
        };
        let mut found = Found::default();
        while step < *stretch.end() {
            // Settings hold until the next override; the state is carried over it.
            let (config, until) = self.settings_after(step)?;
            let until = until.min(*stretch.end());
            let plan = Plan::new(&config, data).map_err(FitError::from)?;
            let mut course = match &state {
                Some(checkpoint) => restored(&plan, checkpoint)?,
                None => self.begin(&plan)?,
            };
            found.bests.extend(course.progress.best.clone());
            self.settle(&mut course, &mut found)?;
            while step < until {
                step = self.compare_next(run, &mut course, &mut found, cpu)?;
                progress(step);
            }
            state = Some(course.checkpoint("", "", "", ""));
            self.compare_overrides(step, &found)?;
        }
        let Some(state) = state.filter(|_| step == self.last_step()) else { return Ok(false) };
        if base.is_none() {
            self.compare_ends(run, &found)?;
        }
        if super::has_summary(run) {
            return self.compare_end(run, data, &state).map(|()| true);
        }
        if base.is_none() {
            self.compare_unended(run, data, &state, &found)?;
        }
        Ok(false)
    }

    /// The course before the first step, its weights held against the header.
    fn begin<'a>(&self, plan: &'a Plan<'a>) -> Result<Course<'a>, VerifyError> {
        let course = Course::begin(plan, prepare::model(plan.config).map_err(FitError::from)?);
        let found = weights::digest(&kinone_nn::state::dictionary(&course.trainer.model));
        if found != self.header.weights_sha256 {
            let stated = &self.header.weights_sha256;
            return fault(format!("step 0: the first weights hash to {found}, the header states {stated}"));
        }
        Ok(course)
    }

    /// What follows a step before the next: the end of its epoch, if it completes one, and that the best is forgotten,
    /// where the chain says so.
    fn settle(&self, course: &mut Course, found: &mut Found) -> Result<(), VerifyError> {
        found.stands = vec![course.progress.clone()];
        self.forget(course, found);
        if course.is_epoch_over() {
            found.ends.push(self.compare_epoch(course)?);
            found.bests.extend(course.progress.best.clone());
            found.stands.push(course.progress.clone());
            self.forget(course, found);
        }
        Ok(())
    }

    /// Where the chain says that the best was lost where the run stands.
    fn forget(&self, course: &mut Course, found: &mut Found) {
        let Progress { step, epoch, .. } = course.progress;
        if self.forgotten.contains(&Forgotten { after_step: step, epoch }) {
            course.forget_best();
            found.bests.extend(course.progress.best.clone());
            found.stands.push(course.progress.clone());
        }
    }

    /// What the chain says after a step of the stretch: settings that change where the run could be gone on with under
    /// them, and a best that is forgotten in an epoch where the run stood.
    fn compare_overrides(&self, step: u64, found: &Found) -> Result<(), VerifyError> {
        for (place, link) in self.links.iter().enumerate().filter(|(_, link)| link.step() == step) {
            match &link.body {
                Body::Override(link) => {
                    let (before, after) = (self.settings_at(place - 1)?, self.settings(&link.config, step)?);
                    let refusals = found.stands.iter().map(|stand| resume::refusal(stand, &before, &after));
                    if let Some(refusals) = refusals.collect::<Option<Vec<_>>>() {
                        let reason = refusals.last().map(ToString::to_string).unwrap_or_default();
                        return fault(format!("step {step}: the override cannot be: {reason}"));
                    }
                }
                Body::Forgotten(link) if !found.stands.iter().any(|stand| stand.epoch == link.epoch) => {
                    let epoch = link.epoch;
                    return fault(format!("step {step}: the best is said to be lost in epoch {epoch}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes one step and compares it: its link, its transcript, the end of its epoch, its checkpoint, as far as there
    /// are any.
    fn compare_next(
        &self,
        run: &RunDirectory,
        course: &mut Course,
        found: &mut Found,
        cpu: &Cpu,
    ) -> Result<u64, VerifyError> {
        let step = course.progress.step + 1;
        if course.is_finished() {
            return fault(format!("step {step}: the record has it, but its settings end the run before"));
        }
        let recorded = transcript::read(run.path(), step);
        let (made, entries) = match recorded {
            Some(_) => {
                let parameters = course.trainer.parameters().to_vec();
                transcribed(&parameters, || course.next_step())
            }
            None => (course.next_step(), Vec::new()),
        };
        let operator = recorded.as_ref().map(|recorded| differing_operator(recorded, &entries));
        let made = match made.map_err(FitError::from)? {
            Some(made) => made,
            None => return fault(format!("step {step}: the record has a step that the run has not")),
        };
        self.compare_link(course, cpu, &made, operator.clone())?;
        if let Some(Some(operator)) = operator {
            return fault(format!("step {step}: the link is right, but the transcript is not: {operator}"));
        }
        self.settle(course, found)?;
        if let Some(kept) = self.checkpoints.get(&step) {
            compare_checkpoint(kept, course, &found.stands, cpu)?;
        }
        Ok(step)
    }

    fn compare_link(
        &self,
        course: &Course,
        cpu: &Cpu,
        made: &Made,
        operator: Option<Option<String>>,
    ) -> Result<(), VerifyError> {
        let step = made.step.step;
        let Some(recorded) = self.link(step) else { return fault(format!("step {step}: no link")) };
        let differences = recorded.differences(&course.link(cpu, made));
        if differences.is_empty() {
            return Ok(());
        }
        let where_it_begins = match operator {
            Some(Some(operator)) => format!("the first operator that differs: {operator}"),
            Some(None) => "every operator's output is that of the transcript: the link or the settings \
                           were changed, not the computation"
                .to_owned(),
            None => "of this step there is no transcript to tell the operator from".to_owned(),
        };
        fault(format!("step {step}: {}; {where_it_begins}", listed(&differences)))
    }
}

/// The course where a checkpoint stands.
pub(super) fn restored<'a>(plan: &'a Plan<'a>, state: &Checkpoint) -> Result<Course<'a>, VerifyError> {
    let model = prepare::fresh(plan.config).map_err(FitError::from)?;
    Ok(Course::restore(plan, model, state).map_err(FitError::from)?)
}

/// The first operator that made something else than the transcript says.
fn differing_operator(recorded: &[Entry], found: &[Entry]) -> Option<String> {
    let (recorded, found) = transcript::parting(recorded, found)?;
    let hash = |entry: Option<&Entry>| entry.map_or("nothing".to_owned(), |entry| entry.sha256.clone());
    let name = recorded.or(found).map(ToString::to_string).unwrap_or_default();
    Some(format!("{name}: recorded {}, found {}", hash(recorded), hash(found)))
}

/// A checkpoint against the state that was made again: its tensors, and how far the run had come.
fn compare_checkpoint(
    kept: &checkpoint::Header,
    course: &Course,
    stands: &[Progress],
    cpu: &Cpu,
) -> Result<(), VerifyError> {
    let step = kept.progress.step;
    let found = hash::values(cpu, &course.trainer.state());
    let names = kept.tensors.keys().chain(found.keys());
    if let Some(name) = names.into_iter().find(|name| kept.tensors.get(*name) != found.get(*name)) {
        let of = |hashes: &BTreeMap<String, String>| hashes.get(name).cloned().unwrap_or_default();
        let (kept, found) = (of(&kept.tensors), of(&found));
        return fault(format!(
            "step {step}: tensor `{name}` of the checkpoint hashes to {kept}, made again to {found}"
        ));
    }
    // Whether patience is over follows from the settings, and is looked at in no checkpoint. As text, zeros have a sign.
    let said = |progress: &Progress| serde_json::json!(Progress { stopped_early: false, ..progress.clone() });
    let (stated, stands): (_, Vec<_>) = (said(&kept.progress), stands.iter().map(said).collect());
    if stands.contains(&stated) {
        return Ok(());
    }
    let found = stands.last().map(ToString::to_string).unwrap_or_default();
    fault(format!(
        "step {step}: the checkpoint does not say how far the run had come: it says {stated}, found was {found}"
    ))
}
