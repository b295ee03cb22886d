//! Where a run directory vanishes under a run, what the run has made is not lost with it.

use crate::course::Course;
use crate::fit::FitError;
use crate::record::Record;
use kinone_files as files;
use kinone_runs::checkpoint::{Checkpoint, CheckpointError};
use kinone_runs::directory::RunDirectory;
use std::path::{Path, PathBuf};

impl Record<'_> {
    /// What is to be said of a checkpoint that could not be written. Where the run directory is gone, the state
    /// goes to another beside it, or in the folder for temporary files, from which the run can be resumed.
    pub(crate) fn rescue(
        &mut self,
        course: &Course,
        mut checkpoint: Checkpoint,
        error: CheckpointError,
    ) -> FitError {
        if self.run.path().join("checkpoints").is_dir() {
            return error.into();
        }
        let mut name = self.run.path().file_name().unwrap_or_default().to_owned();
        name.push("_rescued");
        for path in [self.run.path().with_file_name(&name), std::env::temp_dir().join(&name)] {
            if self.write_rescued(&path, course, &mut checkpoint).is_ok() {
                return FitError::Rescued { error, step: course.progress.step, path };
            }
        }
        error.into()
    }

    fn write_rescued(
        &mut self,
        path: &Path,
        course: &Course,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), FitError> {
        let (rescued, _lock) = RunDirectory::create(path, course.config())?;
        // The names are gone; what the open files hold is not.
        files::write(&rescued.chain_file(), &self.chain.content()?)?;
        files::write(&rescued.log_file(), &self.log.content()?)?;
        self.index.write(&rescued.index_file())?;
        let file: PathBuf = rescued.store().path(course.progress.step);
        Ok(checkpoint.save(&self.cpu, &file)?)
    }
}
