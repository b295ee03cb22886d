//! Going on with a run: from which checkpoint, under which settings.

use kinone_kernels::Cpu;
use kinone_runs::checkpoint::CheckpointError;
use kinone_runs::config::{Config, Difference};
use kinone_runs::directory::RunDirectory;
use kinone_runs::store::Newest;

/// Why a run cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The checkpoints cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Other settings were asked for.
    #[error(
        "the run was made with other settings: {}; leave them as they were, or pass --override to change them \
         from here on", listed(.0)
    )]
    Changed(Vec<Difference>),
    /// Settings were to change that a run under way cannot change.
    #[error(
        "a run under way cannot change these: {}; start another with --load-checkpoint", listed(.0)
    )]
    Fixed(Vec<Difference>),
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
    /// There are checkpoints, and none is sound or one was made under other rules.
    pub fn find(run: &RunDirectory, config: &Config, cpu: &Cpu) -> Result<Left, ResumeError> {
        let newest = run.store().newest(cpu)?;
        let config = newest.as_ref().map_or(config, |newest| &newest.checkpoint.header.config).clone();
        Ok(Left { newest, config })
    }

    /// Whether nothing is left to train under `config`.
    pub fn is_finished(&self, config: &Config) -> bool {
        self.newest.as_ref().is_some_and(|newest| {
            let progress = &newest.checkpoint.header.progress;
            progress.epoch > config.epochs || (progress.stopped_early && *config == self.config)
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
        if !overriding {
            return Err(ResumeError::Changed(changes));
        }
        if fixed.is_empty() { Ok(changes) } else { Err(ResumeError::Fixed(fixed)) }
    }
}
