//! Going on with a run: from which checkpoint, under which settings.

use kinone_kernels::Cpu;
use kinone_runs::chain::{self, Body, Link};
use kinone_runs::checkpoint::CheckpointError;
use kinone_runs::config::{Config, Difference};
use kinone_runs::directory::RunDirectory;
use kinone_runs::store::Newest;
use kinone_runs::transcript;
use std::path::PathBuf;

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

    /// Whether nothing is left to train under `config`.
    pub fn is_finished(&self, config: &Config) -> bool {
        self.newest.as_ref().is_some_and(|newest| {
            let progress = &newest.checkpoint.header.progress;
            progress.epoch > config.epochs
                || (progress.stopped_early && self.config.differences(config).is_empty())
        })
    }

    /// The settings in which `wanted` differs, if that is allowed.
    ///
    /// # Errors
    /// They differ without `overriding`, or in what cannot change.
    pub fn changes(&self, wanted: &Config, overriding: bool) -> Result<Vec<Difference>, ResumeError> {
        let changes = self.config.differences(wanted);
        let fixed: Vec<Difference> =
            changes.iter().filter(|change| !Config::is_changeable(change)).cloned().collect();
        let begins_anew = self.newest.is_none() && overriding;
        if changes.is_empty() || begins_anew {
            return Ok(changes);
        }
        if !fixed.is_empty() {
            return Err(ResumeError::Fixed(fixed));
        }
        if overriding { Ok(changes) } else { Err(ResumeError::Changed(changes)) }
    }
}

/// Whether a run that has steps and no checkpoint had one. A run that was killed before its first has nothing of
/// what is written after it, and may begin anew: the same steps are made again.
fn had_checkpoint(run: &RunDirectory, links: &[Link]) -> bool {
    let folder = run.path().join("checkpoints");
    let is_later = |link: &Link| match &link.body {
        Body::Step(link) => link.epoch > 1,
        Body::Override(_) => true,
        Body::Header(_) => false,
    };
    !folder.is_dir()
        || links.iter().any(is_later)
        || folder.join("newest").exists()
        || [run.best_weights(), run.last_weights(), run.summary_file()].iter().any(|path| path.exists())
        || transcript::steps(run.path()).into_iter().any(|(step, _)| step > 1)
}
