//! Going on with a run: from which checkpoint, under which settings.

use crate::record::{archive, best_of, holds, is_index, kept_weights};
use kinone_kernels::Cpu;
use kinone_runs::chain::{self, Body, Link};
use kinone_runs::checkpoint::{Checkpoint, CheckpointError};
use kinone_runs::config::{Config, Difference};
use kinone_runs::directory::RunDirectory;
use kinone_runs::progress::Progress;
use kinone_runs::store::Newest;
use kinone_runs::summary::Summary;
use kinone_runs::{log, npz, transcript, weights};
use std::path::{Path, PathBuf};

/// Why a run cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The checkpoints cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There were checkpoints, and none is left.
    #[error(
        "{}: the chain has {steps} steps but no checkpoint is left; restore one, or train anew with another \
         --run-dir", path.display()
    )]
    Lost {
        /// Where checkpoints lie.
        path: PathBuf,
        /// The steps of the chain.
        steps: u64,
    },
    /// Other settings were asked for.
    #[error(
        "the run was made with other settings: {}; leave them as they were, or pass --override to change them \
         from here on", listed(.0)
    )]
    Changed(Vec<Difference>),
    /// Settings were to change that a run under way cannot change.
    #[error(
        "a run that was begun cannot change these: {}{}; leave them as they were, or start another run, with \
         --load-checkpoint where its weights are to begin as this one's are", of_the_data(.0), listed(.0)
    )]
    Fixed(Vec<Difference>),
    /// Under these settings the run would end before the epoch it is in.
    #[error(
        "the run is within epoch {epoch}, and under these settings would end without it; with --override give \
         {way_on}, so that the epoch can end"
    )]
    Within {
        /// The epoch under way, from 1.
        epoch: u32,
        /// The settings under which it can end.
        way_on: String,
    },
    /// Settings were to change of a run that has ended, and still has nothing left to train.
    #[error(
        "the run is finished after {epochs} epochs: there is no step left for {}; give {way_on} with --override to \
         go on",
        listed(changes)
    )]
    Finished {
        /// The epochs that were trained.
        epochs: u32,
        /// What was to change.
        changes: Vec<Difference>,
        /// The settings under which there is a step left.
        way_on: String,
    },
}

/// Where settings of the built-in set stand against those of files, the data are others.
fn of_the_data(differences: &[Difference]) -> &'static str {
    let is_other = |d: &Difference| d.setting == "images" && (d.from == "none" || d.to == "none");
    if differences.iter().any(is_other) { "the data, built-in or in files: " } else { "" }
}

fn listed(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A run as it was left.
#[derive(Debug)]
pub struct Left {
    /// Its newest sound checkpoint; `None` where it was ended before the first.
    pub newest: Option<Newest>,
    /// The settings it was made with.
    pub config: Config,
}

impl Left {
    /// Looks at a run directory, which the caller has locked; `config` is what its `config.toml` says.
    ///
    /// # Errors
    /// There are checkpoints, and none is sound or one was made under other rules; or all that were there are
    /// lost.
    pub fn find(run: &RunDirectory, config: &Config, cpu: &Cpu) -> Result<Left, ResumeError> {
        let newest = run.store().newest(cpu)?;
        if newest.is_none() {
            let links = chain::read(&run.chain_file()).map_or(Vec::new(), |read| read.links);
            let steps = links.last().map_or(0, Link::step);
            if steps > 0 && had_checkpoint(run, &links) {
                return Err(ResumeError::Lost { path: run.path().join("checkpoints"), steps });
            }
        }
        let config = newest.as_ref().map_or(config, |newest| &newest.checkpoint.header.config).clone();
        Ok(Left { newest, config })
    }

    /// How far the run has come; `None` where it was ended before its first checkpoint.
    fn progress(&self) -> Option<&Progress> {
        self.newest.as_ref().map(|newest| &newest.checkpoint.header.progress)
    }

    /// Whether nothing is left to train under `config`.
    pub fn is_finished(&self, config: &Config) -> bool {
        self.progress().is_some_and(|progress| progress.epoch_steps == 0 && allows_no_step(progress, config))
    }

    /// What to give besides `config` so that a step is left to train; empty where one is.
    pub fn way_on(&self, config: &Config) -> String {
        self.progress().map_or(String::new(), |progress| way_on(progress, config))
    }

    /// Whether what a run leaves at its end is there, sound, and its own: a summary that states the end to which
    /// chain and newest checkpoint lead, the weights that it names, and the log and the index of the way there. What
    /// is not is made again.
    pub fn has_its_results(&self, run: &RunDirectory) -> bool {
        let Some(Checkpoint { header, tensors }) = self.newest.as_ref().map(|newest| &newest.checkpoint)
        else {
            return false;
        };
        let (Some(best), Ok(summary)) = (&header.progress.best, Summary::read(&run.summary_file())) else {
            return false;
        };
        let last = weights::digest(&kept_weights(tensors));
        let stated = [&summary.chain_sha256, &summary.weights_sha256, &summary.best_weights_sha256];
        stated == [&header.link, &last, &best.weights_sha256]
            && summary.val_auroc_macro == best.val_auroc_macro
            && ends_in(&run.chain_file(), &header.link)
            && holds(&run.last_weights(), &last)
            && best_of(&run.best_weights(), best)
                .is_some_and(|weights| npz::holds(&archive(run, &header.started), &weights))
            && log::rows(&run.log_file()).is_ok_and(|rows| rows.steps.len() as u64 == header.progress.step)
            && is_index(&run.index_file(), &header.data_sha256)
    }

    /// The settings in which `wanted` differs, if that is allowed.
    ///
    /// # Errors
    /// They differ without `overriding`, or in what cannot change; or they leave an epoch half done, or change a
    /// run that has ended and leave it nothing to train.
    pub fn changes(&self, wanted: &Config, overriding: bool) -> Result<Vec<Difference>, ResumeError> {
        let changes = self.config.differences(wanted);
        let fixed: Vec<Difference> =
            changes.iter().filter(|change| !Config::is_changeable(change)).cloned().collect();
        let begins_anew = self.newest.is_none() && overriding;
        if !begins_anew && !fixed.is_empty() {
            return Err(ResumeError::Fixed(fixed));
        }
        if !overriding && !changes.is_empty() {
            return Err(ResumeError::Changed(changes));
        }
        match self.progress().and_then(|progress| refusal(progress, &self.config, wanted)) {
            Some(refusal) => Err(refusal),
            None => Ok(changes),
        }
    }
}

/// Why a run that stands at `progress` under `config` does not go on under `wanted`, if it does not.
pub(crate) fn refusal(progress: &Progress, config: &Config, wanted: &Config) -> Option<ResumeError> {
    if !allows_no_step(progress, wanted) {
        return None;
    }
    // The weights of half an epoch would be the last, and no epoch's end would lead to them.
    if progress.epoch_steps > 0 {
        return Some(ResumeError::Within { epoch: progress.epoch, way_on: way_on(progress, wanted) });
    }
    // At an epoch's end a run may be cut short, but one that has ended has no step that a change could be for.
    let changes = config.differences(wanted);
    let (epochs, way_on) = (progress.epoch - 1, way_on(progress, wanted));
    (!changes.is_empty() && allows_no_step(progress, config)).then_some(ResumeError::Finished {
        epochs,
        changes,
        way_on,
    })
}

/// Whether a chain is sound to its end, and its last link has this hash.
fn ends_in(chain: &Path, hash: &str) -> bool {
    chain::read(chain)
        .is_ok_and(|read| read.broken.is_none() && read.links.last().is_some_and(|link| link.hash == hash))
}

/// Whether `config` has no step after where the run stands: its epochs are over, or its patience is.
fn allows_no_step(progress: &Progress, config: &Config) -> bool {
    progress.epoch > config.epochs || progress.is_out_of_patience(config.patience)
}

/// The flags that have to be given for [`allows_no_step`] not to hold.
fn way_on(progress: &Progress, config: &Config) -> String {
    let mut flags = Vec::new();
    if progress.epoch > config.epochs {
        flags.push(format!("--epochs above {}", progress.epoch - 1));
    }
    if progress.is_out_of_patience(config.patience) {
        flags.push(format!("--patience above {} (or 0)", progress.epochs_since_best()));
    }
    flags.join(" and ")
}

/// Whether a run that has steps and no checkpoint had one. A run that was killed before its first has nothing of
/// what is written after it, and may begin anew: the same steps are made again.
fn had_checkpoint(run: &RunDirectory, links: &[Link]) -> bool {
    let folder = run.path().join("checkpoints");
    let is_later = |link: &Link| match &link.body {
        Body::Step(link) => link.epoch > 1,
        Body::Override(_) | Body::Forgotten(_) => true,
        Body::Header(_) => false,
    };
    !folder.is_dir()
        || links.iter().any(is_later)
        || folder.join("newest").exists()
        || [run.best_weights(), run.last_weights(), run.summary_file()].iter().any(|path| path.exists())
        || transcript::steps(run.path()).into_iter().any(|(step, _)| step > 1)
}
