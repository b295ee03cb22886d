//! Proving a record: a stretch of a run is made again on this machine, and every link compared.

mod beside;
mod end;
mod replay;

use crate::fit::FitError;
use crate::index::Index;
use crate::prepare;
use kinone_core::rng::Stream;
use kinone_kernels::Cpu;
use kinone_runs::CONTRACT;
use kinone_runs::chain::{self, Body, Forgotten, Header, Link, StepLink};
use kinone_runs::checkpoint::{self, Checkpoint};
use kinone_runs::config::{Config, Difference};
use kinone_runs::directory::RunDirectory;
use kinone_runs::log::Rows;
use kinone_xray::Part;
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
    /// Whether the run has ended, and its weights, scores and summary are what the steps made again lead to.
    pub end: bool,
    /// After which steps the weights of the best epoch were lost, and the best was chosen anew.
    pub forgotten: Vec<u64>,
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

/// Whether there is a summary, sound or not.
fn has_summary(run: &RunDirectory) -> bool {
    run.summary_file().symlink_metadata().is_ok()
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
    /// What the log says.
    log: Rows,
    /// Where the chain says that the weights of the best epoch were lost.
    forgotten: Vec<Forgotten>,
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
    if !end {
        records.compare_kept_end(run, &data, cpu)?;
    }
    let forgotten = records.forgotten.iter().map(|link| link.after_step).collect();
    let (links, checkpoints) = (records.links.len(), records.checkpoints.len());
    Ok(Proof { links, checkpoints, stretches, end, forgotten })
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
        let forgotten = links.iter().filter_map(|link| match &link.body {
            Body::Forgotten(link) => Some(link.clone()),
            _ => None,
        });
        let forgotten = forgotten.collect();
        let (checkpoints, log) = (BTreeMap::new(), Rows::default());
        let mut records =
            Records { config: config.clone(), header, links, places, checkpoints, log, forgotten };
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
        let is_later = |link: &&Link| matches!(&link.body, Body::Override(link) if link.after_step > step);
        let until = self.links.iter().find(is_later).map_or(self.last_step(), Link::step);
        let place = self.links.partition_point(|link| link.step() <= step);
        Ok((self.settings_at(place - 1)?, until))
    }

    /// The settings that hold once the link at `place` was written.
    fn settings_at(&self, place: usize) -> Result<Config, VerifyError> {
        let stated = self.links[..=place].iter().rev().find_map(|link| match &link.body {
            Body::Override(link) => Some(&link.config),
            _ => None,
        });
        self.settings(stated.unwrap_or(&self.header.config), self.links[place].step())
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
            if step == 0 {
                return fault(format!(
                    "step 0: {} is none of a run: it begins without",
                    store.path(0).display()
                ));
            }
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
            let settings = self.settings_at(place)?;
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
}
