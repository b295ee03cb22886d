//! Proving a record: a stretch of a run is made again on this machine, and every link compared.

mod beside;

use crate::course::{Course, Made, Plan};
use crate::fit::FitError;
use crate::index::Index;
use crate::trace::transcribed;
use crate::{prepare, record};
use kinone_core::rng::Stream;
use kinone_kernels::Cpu;
use kinone_runs::chain::{self, Body, Header, Link, StepLink};
use kinone_runs::checkpoint::Checkpoint;
use kinone_runs::config::{Config, Difference};
use kinone_runs::directory::RunDirectory;
use kinone_runs::progress::Progress;
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
    /// Every sound checkpoint's step, and the hashes of its state.
    checkpoints: BTreeMap<u64, BTreeMap<String, String>>,
    /// What the newest of them says of the run's end: where it stands, and the hash of its weights.
    newest: Option<(Progress, String)>,
    /// The hashes of the best weights that the checkpoints state, in the order of their steps.
    bests: Vec<String>,
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
    for stretch in &stretches {
        records.make_again(run, &data, stretch, cpu, progress)?;
    }
    Ok(Proof { links: records.links.len(), checkpoints: records.checkpoints.len(), stretches })
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
        let (checkpoints, bests) = (BTreeMap::new(), Vec::new());
        let mut records = Records { config: config.clone(), header, links, checkpoints, newest: None, bests };
        records.compare_settings(run)?;
        records.read_checkpoints(run, cpu)?;
        records.compare_log(run)?;
        records.compare_index(run)?;
        records.compare_summary(run)?;
        records.compare_weights(run)?;
        Ok(records)
    }

    fn last_step(&self) -> u64 {
        self.links.last().map_or(0, Link::step)
    }

    fn link(&self, step: u64) -> Option<&StepLink> {
        self.links.iter().find_map(|link| match &link.body {
            Body::Step(found) if found.step == step => Some(found),
            _ => None,
        })
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
        match self.config.with_identity(identity) {
            Ok(config) => Ok((config, until)),
            Err(error) => fault(format!("the chain's settings are none of this program: {error}")),
        }
    }

    /// Every checkpoint's bytes, and that it stands on its link.
    fn read_checkpoints(&mut self, run: &RunDirectory, cpu: &Cpu) -> Result<(), VerifyError> {
        let store = run.store();
        for step in store.steps() {
            let checkpoint = match Checkpoint::load(cpu, &store.path(step)) {
                Ok(checkpoint) => checkpoint,
                Err(error) => return fault(format!("step {step}: {error}")),
            };
            let found = &checkpoint.header;
            let stands = self.links.iter().any(|l| l.step() == step && l.hash == found.link);
            if !stands || found.progress.step != step {
                let path = store.path(step);
                return fault(format!("step {step}: {} is not of this chain", path.display()));
            }
            let recorded = self.link(step).and_then(|link| link.state.as_ref());
            if let Some(state) = recorded.filter(|state| **state != found.state_sha256) {
                return fault(format!(
                    "step {step}: the checkpoint's state hashes to {}, the link states {state}",
                    found.state_sha256
                ));
            }
            let weights = weights::digest(&record::kept_weights(&checkpoint.tensors));
            self.bests.extend(found.progress.best.as_ref().map(|best| best.weights_sha256.clone()));
            self.newest = Some((checkpoint.header.progress, weights));
            self.checkpoints.insert(step, checkpoint.header.tensors);
        }
        Ok(())
    }

    fn stretches(&self, wanted: Stretch) -> Vec<RangeInclusive<u64>> {
        let last = self.last_step();
        match wanted {
            Stretch::Steps(from, to) => vec![from.unwrap_or(1)..=to.unwrap_or(last)],
            Stretch::Sample(share, seed) => {
                let mut left = (share * last as f64).ceil() as u64;
                // A stretch begins where its state is known: at the start and after each checkpoint.
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

    /// Makes a stretch again, from the checkpoint before it, and compares every link.
    fn make_again(
        &self,
        run: &RunDirectory,
        data: &Dataset,
        stretch: &RangeInclusive<u64>,
        cpu: &Cpu,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), VerifyError> {
        let base = self.checkpoints.range(..*stretch.start()).next_back().map(|(step, _)| *step);
        let mut step = base.unwrap_or(0);
        let mut state = match base {
            Some(step) => Some(Checkpoint::load(cpu, &run.store().path(step)).map_err(FitError::from)?),
            None => None,
        };
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
            while step < until {
                step = self.compare_next(run, &mut course, &config, cpu)?;
                progress(step);
            }
            state = Some(course.checkpoint("", "", "", ""));
        }
        Ok(())
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

    /// Makes one step and compares it: its link, its transcript, its checkpoint, as far as there are any.
    fn compare_next(
        &self,
        run: &RunDirectory,
        course: &mut Course,
        config: &Config,
        cpu: &Cpu,
    ) -> Result<u64, VerifyError> {
        if course.is_epoch_over() {
            let follows = config.schedule == kinone_runs::config::ScheduleName::Plateau;
            let validation = if follows { course.validate(&|| false).map_err(FitError::from)? } else { None };
            course.end_epoch(&validation.unwrap_or_default());
        }
        let step = course.progress.step + 1;
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
        if let Some(kept) = self.checkpoints.get(&step) {
            let found = hash::values(cpu, &course.trainer.state());
            let names = kept.keys().chain(found.keys());
            if let Some(name) = names.into_iter().find(|name| kept.get(*name) != found.get(*name)) {
                let of = |hashes: &BTreeMap<String, String>| hashes.get(name).cloned().unwrap_or_default();
                let (kept, found) = (of(kept), of(&found));
                return fault(format!(
                    "step {step}: tensor `{name}` of the checkpoint hashes to {kept}, made again to {found}"
                ));
            }
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
