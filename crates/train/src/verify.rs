//! Proving a record: a stretch of a run is made again on this machine, and every link compared.

mod beside;
mod end;

use crate::course::{Course, Made, Plan};
use crate::fit::FitError;
use crate::index::Index;
use crate::prepare;
use crate::trace::transcribed;
use kinone_core::rng::Stream;
use kinone_kernels::Cpu;
use kinone_runs::chain::{self, Body, Header, Link, StepLink};
use kinone_runs::checkpoint::{self, Checkpoint};
use kinone_runs::config::{Config, Difference};
use kinone_runs::directory::RunDirectory;
use kinone_runs::log::EpochRow;
use kinone_runs::progress::{Best, Progress};
use kinone_runs::transcript::{self, Entry};
use kinone_runs::{CONTRACT, hash, weights};
use kinone_xray::{Dataset, Part};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Which steps to make again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stretch {
    /// From one step to another; the first and the last where nothing is said.
    Steps(Option<u64>, Option<u64>),
    /// About this share of all steps, in stretches chosen by a seed.
    Sample(f64, u64),
}

/// What held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Links whose hashes follow from one another.
    pub links: usize,
    /// Checkpoints whose every byte is under a hash, and which stand on their link.
    pub checkpoints: usize,
    /// The stretches that were made again.
    pub stretches: Vec<RangeInclusive<u64>>,
    /// Whether the run has ended, and its weights, scores and summary are what the record leads to.
    pub end: bool,
}

/// Why a record is not proved.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The record contradicts itself or what was made again.
    #[error("{0}")]
    Fault(String),
    /// It could not be looked at.
    #[error(transparent)]
    Fit(#[from] FitError),
}

fn fault<T>(reason: String) -> Result<T, VerifyError> {
    Err(VerifyError::Fault(reason))
}

fn listed(differences: &[Difference]) -> String {
    let one = |d: &Difference| format!("{} is recorded as {}, was found to be {}", d.setting, d.from, d.to);
    differences.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What the files say of a run, each part held against the others.
struct Records {
    config: Config,
    header: Header,
    links: Vec<Link>,
    /// Where the link of each step stands.
    places: BTreeMap<u64, usize>,
    /// What every sound checkpoint says, by its step.
    checkpoints: BTreeMap<u64, checkpoint::Header>,
    /// What the log says of the ends of epochs.
    epochs: Vec<EpochRow>,
}

/// Verifies the record of a run. `progress(step)` is told of every step that was made again.
///
/// # Errors
/// The first fault: where it is, and what differs.
pub fn verify(
    run: &RunDirectory,
    config: &Config,
    stretch: Stretch,
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64),
) -> Result<Proof, VerifyError> {
    let records = Records::read(run, config, cpu)?;
    let last = records.last_step();
    if last == 0 {
        return fault("the record has no steps: there is nothing to make again".to_owned());
    }
    let stretches = records.stretches(stretch);
    if let Some(outside) = stretches.iter().find(|s| *s.start() < 1 || *s.end() > last || s.is_empty()) {
        let (from, to) = (outside.start(), outside.end());
        return fault(format!("the record has the steps 1 to {last}, not {from} to {to}"));
    }
    let data = prepare::dataset(config, &Part::ALL, cpu, &|_, _| {}).map_err(FitError::from)?;
    let index = Index::of(&data, cpu);
    index.matches(&records.header.data_sha256, &run.index_file()).map_err(FitError::from)?;
    records.compare_preparation(&data)?;
    let mut end = false;
    for stretch in &stretches {
        end |= records.make_again(run, &data, stretch, cpu, progress)?;
    }
    let end = end || records.compare_kept_end(run, &data, cpu)?;
    Ok(Proof { links: records.links.len(), checkpoints: records.checkpoints.len(), stretches, end })
}

impl Records {
    /// Reads everything and holds it against each other; nothing is made again.
    fn read(run: &RunDirectory, config: &Config, cpu: &Cpu) -> Result<Records, VerifyError> {
        let chain::Read { links, broken } = chain::read(&run.chain_file()).map_err(FitError::from)?;
        if let Some(broken) = broken {
            return fault(broken.to_string());
        }
        let Some(Link { body: Body::Header(header), .. }) = links.first() else {
            return fault(format!("{} is empty", run.chain_file().display()));
        };
        let header = header.clone();
        if header.contract != CONTRACT {
            let found = header.contract;
            return fault(format!("the run was made under contract {found}, this program keeps {CONTRACT}"));
        }
        let step_of = |(place, link): (usize, &Link)| match &link.body {
            Body::Step(link) => Some((link.step, place)),
            _ => None,
        };
        let places = links.iter().enumerate().filter_map(step_of).collect();
        let (checkpoints, epochs) = (BTreeMap::new(), Vec::new());
        let mut records = Records { config: config.clone(), header, links, places, checkpoints, epochs };
        records.compare_settings(run)?;
        records.read_checkpoints(run, cpu)?;
        records.compare_log(run)?;
        records.compare_index(run)?;
        records.compare_weights(run)?;
        Ok(records)
    }

    fn last_step(&self) -> u64 {
        self.links.last().map_or(0, Link::step)
    }

    fn link(&self, step: u64) -> Option<&StepLink> {
        match &self.links[*self.places.get(&step)?].body {
            Body::Step(link) => Some(link),
            _ => None,
        }
    }

    /// The settings under which step `step + 1` was made, and up to which step they hold.
    fn settings_after(&self, step: u64) -> Result<(Config, u64), VerifyError> {
        let (mut identity, mut until) = (&self.header.config, self.last_step());
        for link in &self.links {
            if let Body::Override(link) = &link.body {
                if link.after_step > step {
                    until = link.after_step;
                    break;
                }
                identity = &link.config;
            }
        }
        Ok((self.settings(identity, step)?, until))
    }

    /// The settings that a link states.
    fn settings(
        &self,
        identity: &serde_json::Map<String, serde_json::Value>,
        step: u64,
    ) -> Result<Config, VerifyError> {
        let stated = self.config.with_identity(identity);
        stated.or_else(|error| fault(format!("step {step}: the chain's settings are none of a run: {error}")))
    }

    /// Every checkpoint's bytes, and that it stands on its link, under its settings.
    fn read_checkpoints(&mut self, run: &RunDirectory, cpu: &Cpu) -> Result<(), VerifyError> {
        let store = run.store();
        let folder = run.path().join("checkpoints");
        if let Err(error) = std::fs::read_dir(&folder) {
            return fault(format!("{}: {error}", folder.display()));
        }
        for step in store.steps() {
            let checkpoint = match Checkpoint::load(cpu, &store.path(step)) {
                Ok(checkpoint) => checkpoint,
                Err(error) => return fault(format!("step {step}: {error}")),
            };
            let found = &checkpoint.header;
            let path = store.path(step);
            let place = self.links.iter().position(|l| l.step() == step && l.hash == found.link);
            let Some(place) = place.filter(|_| found.progress.step == step) else {
                return fault(format!("step {step}: {} is not of this chain", path.display()));
            };
            let settings = self.links[..=place].iter().rev().find_map(|link| match &link.body {
                Body::Override(link) => Some(&link.config),
                _ => None,
            });
            let settings = self.settings(settings.unwrap_or(&self.header.config), step)?;
            let differences = settings.differences(&found.config);
            if !differences.is_empty() || found.data_sha256 != self.header.data_sha256 {
                let what = if differences.is_empty() {
                    "the hash of the data".to_owned()
                } else {
                    listed(&differences)
                };
                return fault(format!("step {step}: {} and the chain differ: {what}", path.display()));
            }
            let recorded = self.link(step).and_then(|link| link.state.as_ref());
            if let Some(state) = recorded.filter(|state| **state != found.state_sha256) {
                return fault(format!(
                    "step {step}: the checkpoint's state hashes to {}, the link states {state}",
                    found.state_sha256
                ));
            }
            self.checkpoints.insert(step, checkpoint.header);
        }
        Ok(())
    }

    fn stretches(&self, wanted: Stretch) -> Vec<RangeInclusive<u64>> {
        let last = self.last_step();
        match wanted {
            Stretch::Steps(from, to) => vec![from.unwrap_or(1)..=to.unwrap_or(last)],
            Stretch::Sample(share, seed) => {
                let mut left = (share * last as f64).ceil() as u64;
                // A stretch begins where its state is known, at the start and after each checkpoint: others would
                // cost all steps up to them.
                let starts: Vec<u64> = std::iter::once(0)
                    .chain(self.checkpoints.keys().copied().filter(|step| (1..last).contains(step)))
                    .collect();
                let mut chosen = Vec::new();
                for k in Stream::new(seed, "verify").at(0, 0).permutation(starts.len()) {
                    let end = starts.get(k + 1).copied().unwrap_or(last);
                    let length = left.min(end - starts[k]);
                    if length > 0 {
                        chosen.push(starts[k] + 1..=starts[k] + length);
                    }
                    left -= length;
                }
                chosen.sort_by_key(|stretch| *stretch.start());
                chosen
            }
        }
    }

    /// Makes a stretch again, from the checkpoint before it, and compares every link. Whether it reached the end of a
    /// run that has ended, and all that lies there is right.
    fn make_again(
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
        let mut ends = Vec::new();
        while step < *stretch.end() {
            // Settings hold until the next override; the state is carried over it.
            let (config, until) = self.settings_after(step)?;
            let until = until.min(*stretch.end());
            let plan = Plan::new(&config, data).map_err(FitError::from)?;
            let mut course = match &state {
                Some(checkpoint) => {
                    let model = prepare::fresh(&config).map_err(FitError::from)?;
                    Course::restore(&plan, model, checkpoint).map_err(FitError::from)?
                }
                None => self.begin(&plan)?,
            };
            ends.extend(course.progress.best.clone());
            while step < until {
                step = self.compare_next(run, &mut course, &mut ends, cpu)?;
                progress(step);
            }
            state = Some(course.checkpoint("", "", "", ""));
        }
        match state.filter(|_| step == self.last_step() && run.summary_file().exists()) {
            Some(state) => self.compare_end(run, data, &state).map(|()| true),
            None => Ok(false),
        }
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

    /// Makes one step and compares it: its link, its transcript, the end of its epoch, its checkpoint, as far as there
    /// are any. `ends` are the epochs that may be called the best.
    fn compare_next(
        &self,
        run: &RunDirectory,
        course: &mut Course,
        ends: &mut Vec<Best>,
        cpu: &Cpu,
    ) -> Result<u64, VerifyError> {
        let step = course.progress.step + 1;
        if course.is_epoch_over() {
            ends.push(self.compare_epoch(course)?);
        }
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
        let before = course.progress.clone();
        if course.is_epoch_over() {
            ends.push(self.compare_epoch(course)?);
        }
        if let Some(kept) = self.checkpoints.get(&step) {
            compare_checkpoint(kept, &before, course, ends, cpu)?;
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

/// The first operator that made something else than the transcript says.
fn differing_operator(recorded: &[Entry], found: &[Entry]) -> Option<String> {
    let (recorded, found) = transcript::parting(recorded, found)?;
    let hash = |entry: Option<&Entry>| entry.map_or("nothing".to_owned(), |entry| entry.sha256.clone());
    let name = recorded.or(found).map(ToString::to_string).unwrap_or_default();
    Some(format!("{name}: recorded {}, found {}", hash(recorded), hash(found)))
}

/// A checkpoint against the state that was made again: its tensors, and how far the run had come, before or after the
/// end of an epoch.
fn compare_checkpoint(
    kept: &checkpoint::Header,
    before: &Progress,
    course: &mut Course,
    ends: &[Best],
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
    // Whether patience is over follows from the settings. Where the weights of the best epoch were lost, another of the
    // epochs that ended is the best.
    let best = kept.progress.best.clone();
    let comparable = |progress: &Progress| Progress {
        stopped_early: false,
        best: best.clone().filter(|best| progress.best.as_ref() == Some(best) || ends.contains(best)),
        ..progress.clone()
    };
    let stated = Progress { stopped_early: false, ..kept.progress.clone() };
    let after = comparable(&course.progress);
    if stated != after && stated != comparable(before) {
        return fault(format!(
            "step {step}: the checkpoint does not say how far the run had come: it says {}, found was {}",
            serde_json::json!(stated),
            serde_json::json!(after)
        ));
    }
    if stated == after {
        course.progress.best = best;
    }
    Ok(())
}
