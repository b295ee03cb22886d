//! What lies beside the chain, held against it before anything is made again: settings, log, index, weights.

use super::{Records, VerifyError, fault, has_summary, listed};
use kinone_runs::chain::{Body, Link};
use kinone_runs::config::Config;
use kinone_runs::directory::RunDirectory;
use kinone_runs::log::Rows;
use kinone_runs::{hash, log, weights};

impl Records {
    /// The configuration file against the chain, and the chain's settings against each other.
    pub(super) fn compare_settings(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let mut before = self.settings(&self.header.config, 0)?;
        if self.header.seed != before.seed {
            let (seed, other) = (self.header.seed, before.seed);
            return fault(format!("step 0: the header's seed is {seed}, that of its settings {other}"));
        }
        for link in &self.links {
            let Body::Override(link) = &link.body else { continue };
            let (step, settings) = (link.after_step, self.settings(&link.config, link.after_step)?);
            if link.changes != before.differences(&settings) {
                return fault(format!(
                    "step {step}: the override names other changes than its settings have"
                ));
            }
            if let Some(fixed) = link.changes.iter().find(|change| !Config::is_changeable(change)) {
                return fault(format!("step {step}: an override cannot change this: {fixed}"));
            }
            if link.changes.is_empty() || step == 0 {
                return fault(format!(
                    "step {step}: an override of no run: it has changes, and steps before it"
                ));
            }
            before = settings;
        }
        // The file is written after the override that changes it: of those after the last step it may lack some.
        let last = self.last_step();
        let mut differences = Vec::new();
        for place in self.links.partition_point(|link| link.step() < last)..self.links.len() {
            differences = self.settings_at(place)?.differences(&self.config);
            if differences.is_empty() {
                return Ok(());
            }
        }
        let mut overrides = self.links.iter().filter(|link| matches!(link.body, Body::Override(_)));
        let step = overrides.next_back().map_or(0, Link::step) + 1;
        let file = run.config_file();
        let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
        fault(format!(
            "from step {step} on the chain and {} state other settings: {}",
            file.display(),
            differences.join(", ")
        ))
    }

    /// The log against the chain: every step in its order, up to the newest checkpoint at least. What comes after
    /// that may be lost where a run was killed, and the ends of epochs where a log was made anew.
    pub(super) fn compare_log(&mut self, run: &RunDirectory) -> Result<(), VerifyError> {
        let file = run.log_file();
        self.log = match log::rows(&file) {
            Ok(rows) => rows,
            Err(reason) => return fault(reason),
        };
        let Rows { steps: rows, epochs, is_mended, .. } = &self.log;
        if let Some(pair) = epochs.windows(2).find(|pair| pair[0].epoch >= pair[1].epoch) {
            return fault(format!("{}: epoch {} ends twice", file.display(), pair[1].epoch));
        }
        let newest = self.checkpoints.last_key_value().map(|(_, header)| &header.progress);
        let ended = newest.map_or(0, |progress| progress.epoch - 1);
        let committed = newest.map_or(0, |progress| progress.step);
        if (rows.len() as u64) < committed {
            let step = rows.len() + 1;
            return fault(format!("step {step}: {} has no row of it, the chain has one", file.display()));
        }
        for (row, step) in self.log.steps.iter().zip(1..) {
            if row.step != step {
                return fault(format!(
                    "step {step}: {} has a row of step {} in its place",
                    file.display(),
                    row.step
                ));
            }
            let Some(link) = self.link(step) else {
                return fault(format!("step {step}: {} has a row of it, the chain has none", file.display()));
            };
            let differences = link.differences(&row.as_link(link));
            if !differences.is_empty() {
                let what = listed(&differences);
                return fault(format!("step {}: {} and the chain differ: {what}", row.step, file.display()));
            }
        }
        let missing = (1..=ended).find(|epoch| !epochs.iter().any(|row| row.epoch == *epoch));
        if let Some(epoch) = missing.filter(|_| !is_mended) {
            return fault(format!("{}: the end of epoch {epoch} is missing", file.display()));
        }
        Ok(())
    }

    /// The index of the data against the header.
    pub(super) fn compare_index(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let file = run.index_file();
        let found = match kinone_files::read_regular(&file, 64 << 30) {
            Ok(text) => hash::bytes(&text),
            Err(error) => return fault(format!("step 0: {error}; the chain's header states its hash")),
        };
        let stated = &self.header.data_sha256;
        if found == *stated {
            return Ok(());
        }
        fault(format!("step 0: {} hashes to {found}, the chain's header states {stated}", file.display()))
    }

    /// The best weights of a run that has not ended against the checkpoints. One that was killed may have those of a
    /// checkpoint before, or none. (Those of a run that has ended are looked at where its end is.)
    pub(super) fn compare_weights(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let file = run.best_weights();
        let bests = self.checkpoints.values().filter_map(|header| header.progress.best.as_ref());
        let known: Vec<&str> = bests.map(|best| best.weights_sha256.as_str()).collect();
        if has_summary(run) || known.is_empty() || !file.exists() {
            return Ok(());
        }
        let found = match weights::load(&file) {
            Ok((header, _)) => header.weights_sha256,
            Err(error) => return fault(format!("step {}: {error}", self.last_step())),
        };
        if known.contains(&found.as_str()) {
            return Ok(());
        }
        fault(format!(
            "step {}: {} holds the weights {found}, the checkpoints lead to {}",
            self.last_step(),
            file.display(),
            known.join(" or ")
        ))
    }
}
