//! The run directory.

use crate::config::Config;
use kinone_files::{self as files, FileError};
use std::path::{Path, PathBuf};

/// A directory that holds everything about one run.
#[derive(Clone, Debug)]
pub struct RunDirectory(PathBuf);

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a run already.
    #[error("{} already holds a run; name another with --run-dir, or remove it", .0.display())]
    Occupied(PathBuf),
    /// There is no run.
    #[error("{} is not a run directory: it has no config.toml; name one with --run-dir", .0.display())]
    NotARun(PathBuf),
    /// The configuration cannot be read.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl RunDirectory {
    /// Makes the directory of a new run and writes its configuration.
    ///
    /// # Errors
    /// The directory holds a run already, or cannot be written.
    pub fn create(path: &Path, config: &Config) -> Result<RunDirectory, RunError> {
        RunDirectory::refuse_occupied(path)?;
        let run = RunDirectory(path.to_owned());
        files::make_folder(&path.join("checkpoints"))?;
        let text = toml::to_string(config)
            .map_err(|error| RunError::Config { path: run.config_file(), reason: error.to_string() })?;
        files::write(&run.config_file(), text.as_bytes())?;
        Ok(run)
    }

    /// Says early what [`RunDirectory::create`] would say.
    ///
    /// # Errors
    /// The directory holds a run already.
    pub fn refuse_occupied(path: &Path) -> Result<(), RunError> {
        if RunDirectory(path.to_owned()).config_file().exists() {
            return Err(RunError::Occupied(path.to_owned()));
        }
        Ok(())
    }

    /// `parent/YYYYMMDD_HHMMSS` by the local clock, with `_2`, `_3`, … where that is taken.
    pub fn fresh_path(parent: &Path) -> PathBuf {
        let name = jiff::ZonedDateTime::now().strftime("%Y%m%d_%H%M%S").to_string();
        let mut path = parent.join(&name);
        let mut count = 2;
        while path.exists() {
            path = parent.join(format!("{name}_{count}"));
            count += 1;
        }
        path
    }

    /// Opens the directory of a run that was made before.
    ///
    /// # Errors
    /// There is no run, or its configuration cannot be read.
    pub fn open(path: &Path) -> Result<(RunDirectory, Config), RunError> {
        let run = RunDirectory(path.to_owned());
        let file = run.config_file();
        if !file.is_file() {
            return Err(RunError::NotARun(path.to_owned()));
        }
        let bytes = files::read(&file)?;
        let wrong = |reason: String| RunError::Config { path: file.clone(), reason };
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        let config = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        Ok((run, config))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration as used.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The log of one JSON object a line.
    pub fn log_file(&self) -> PathBuf {
        self.0.join("log.jsonl")
    }

    /// What was printed.
    pub fn console_file(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// The weights of the best validation score.
    pub fn best_weights(&self) -> PathBuf {
        self.0.join("checkpoints/best.safetensors")
    }

    /// The weights of the last epoch.
    pub fn last_weights(&self) -> PathBuf {
        self.0.join("checkpoints/last.safetensors")
    }

    /// The summary, written at the end.
    pub fn summary_file(&self) -> PathBuf {
        self.0.join("summary.json")
    }

    /// The metrics of the last evaluation.
    pub fn metrics_file(&self) -> PathBuf {
        self.0.join("metrics.json")
    }

    /// The scores of every image of a part.
    pub fn scores_file(&self, part: &str) -> PathBuf {
        self.0.join(format!("scores_{part}.csv"))
    }
}
