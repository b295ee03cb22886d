//! What lies beside the chain, held against it: settings, log, index, summary.

use super::{Records, VerifyError, fault, listed};
use crate::fit::FitError;
use kinone_runs::chain::{Body, Link, StepLink};
use kinone_runs::directory::RunDirectory;
use kinone_runs::summary::Summary;
use kinone_runs::{hash, log};

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

    /// The log against the chain.
    pub(super) fn compare_log(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let rows = log::steps(&run.log_file()).map_err(FitError::from)?;
        for row in rows {
            let Some(link) = self.link(row.step) else { continue };
            let logged = StepLink {
                epoch: row.epoch,
                lr: format!("{:08x}", row.lr.to_bits()),
                loss: format!("{:08x}", row.loss.to_bits()),
                gradient_norm: format!("{:016x}", row.gradient_norm.to_bits()),
                ..link.clone()
            };
            let differences = link.differences(&logged);
            if !differences.is_empty() {
                let file = run.log_file();
                let what = listed(&differences);
                return fault(format!("step {}: {} and the chain differ: {what}", row.step, file.display()));
            }
        }
        Ok(())
    }

    /// The index of the data against the header.
    pub(super) fn compare_index(&self, run: &RunDirectory) -> Result<(), VerifyError> {
        let file = run.index_file();
        let found = hash::bytes(&kinone_files::read_regular(&file, 64 << 30).map_err(FitError::from)?);
        let stated = &self.header.data_sha256;
        if found == *stated {
            return Ok(());
        }
        fault(format!("step 0: {} hashes to {found}, the chain's header states {stated}", file.display()))
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
