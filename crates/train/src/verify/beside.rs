//! What lies beside the chain, held against it: settings, log, index, summary.

use super::{Records, VerifyError, fault, listed};
use crate::fit::FitError;
use kinone_runs::chain::{Body, Link};
use kinone_runs::directory::RunDirectory;
use kinone_runs::summary::Summary;
use kinone_runs::{hash, log, weights};

impl Records {
    /// The configuration file against the chain.
    pub(super) fn compare_settings(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let (chained, _) = self.settings_after(self.last_step())?;
        let differences = chained.differences(&self.config);
        if differences.is_empty() {
            return Ok(());
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
    /// that may be lost where a run was killed.
    pub(super) fn compare_log(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let file = run.log_file();
        let rows = match log::rows(&file) {
            Ok(rows) => rows,
            Err(reason) => return fault(reason),
        };
        let committed = self.checkpoints.keys().next_back().copied().unwrap_or(0);
        if (rows.len() as u64) < committed {
            let step = rows.len() + 1;
            return fault(format!("step {step}: {} has no row of it, the chain has one", file.display()));
        }
        for (row, step) in rows.iter().zip(1..) {
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

    /// The weights for other programs against the checkpoints. A run that was killed may have those of a checkpoint
    /// before, or none; one that ended has its own.
    pub(super) fn compare_weights(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let has_ended = run.summary_file().exists();
        let Some((_, last)) = self.newest.as_ref().filter(|_| has_ended || !self.bests.is_empty()) else {
            return Ok(());
        };
        let newest = self.bests.last().into_iter().cloned().collect();
        let mut pairs = vec![(run.best_weights(), if has_ended { newest } else { self.bests.clone() })];
        if has_ended {
            pairs.push((run.last_weights(), vec![last.clone()]));
        }
        for (file, known) in pairs {
            if !file.exists() && !has_ended {
                continue;
            }
            let found = match weights::load(&file) {
                Ok((header, _)) => header.weights_sha256,
                Err(error) => return fault(format!("step {}: {error}", self.last_step())),
            };
            if !known.contains(&found) {
                return fault(format!(
                    "step {}: {} holds the weights {found}, the checkpoints lead to {}",
                    self.last_step(),
                    file.display(),
                    known.join(" or ")
                ));
            }
        }
        Ok(())
    }

    /// The summary, if the run has ended, against the last link and the newest checkpoint.
    pub(super) fn compare_summary(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let file = run.summary_file();
        if !file.exists() {
            return Ok(());
        }
        let text = kinone_files::read_regular(&file, 1 << 20).map_err(FitError::from)?;
        let summary: Summary = match serde_json::from_slice(&text) {
            Ok(summary) => summary,
            Err(error) => return fault(format!("{}: {error}", file.display())),
        };
        let last = self.links.last().map(|link| link.hash.clone()).unwrap_or_default();
        let mut pairs = vec![("chain_sha256", summary.chain_sha256, last)];
        if let Some((progress, weights)) = &self.newest {
            pairs.push(("weights_sha256", summary.weights_sha256, weights.clone()));
            let best = progress.best.clone();
            pairs.extend(
                best.map(|best| ("best_weights_sha256", summary.best_weights_sha256, best.weights_sha256)),
            );
        }
        match pairs.into_iter().find(|(_, stated, found)| stated != found) {
            None => Ok(()),
            Some((name, stated, found)) => fault(format!(
                "step {}: {} states {name} {stated}, the record leads to {found}",
                self.last_step(),
                file.display()
            )),
        }
    }
}
