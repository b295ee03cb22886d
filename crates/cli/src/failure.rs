//! Why a command ends without success: one line, and the exit code.

use kinone_files::FileError;
use kinone_runs::chain::ChainError;
use kinone_runs::checkpoint::CheckpointError;
use kinone_runs::directory::RunError;
use kinone_runs::lock::LockError;
use kinone_runs::weights::WeightsError;
use kinone_train::evaluate::EvaluateError;
use kinone_train::fit::FitError;
use kinone_train::index::IndexError;
use kinone_train::prepare::PrepareError;
use kinone_train::resume::ResumeError;
use kinone_train::room::RoomError;
use kinone_train::trainer::StepError;
use kinone_train::verify::VerifyError;
use kinone_xray::DataError;
use std::error::Error;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// A command did a part of its work, or failed in a way that has no code of its own.
pub(crate) const PARTIAL: u8 = 1;
/// The command line or the configuration is wrong.
pub(crate) const USAGE: u8 = 2;
/// The images or the table cannot be used.
pub(crate) const DATA: u8 = 3;
/// A file of weights, a checkpoint or a chain cannot be used.
pub(crate) const MODEL: u8 = 4;
/// The disk refused.
pub(crate) const DISK: u8 = 5;
/// Somebody else trains in that run directory.
pub(crate) const LOCKED: u8 = 6;
/// A loss or a gradient is not finite.
pub(crate) const NOT_FINITE: u8 = 7;

/// A message of one line, and the exit code.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The command line or the configuration is wrong: exit code 2.
    pub fn usage(error: impl fmt::Display) -> Failure {
        Failure { message: error.to_string(), code: USAGE }
    }

    /// A file of weights, a checkpoint or a chain cannot be used: exit code 4.
    pub(crate) fn model(error: impl fmt::Display) -> Failure {
        Failure { message: error.to_string(), code: MODEL }
    }

    /// The system refused to write: exit code 5.
    pub(crate) fn disk(error: impl fmt::Display) -> Failure {
        Failure { message: error.to_string(), code: DISK }
    }

    /// Nothing can be written at a place that was named: the disk's fault where it is read-only, the command's otherwise.
    pub(crate) fn place(error: FileError) -> Failure {
        Failure { message: error.to_string(), code: place(&error) }
    }

    /// Anything without a code of its own: exit code 1.
    pub fn new(error: impl fmt::Display) -> Failure {
        Failure { message: error.to_string(), code: PARTIAL }
    }

    /// Says it on the standard error; the exit code.
    pub fn report(&self) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "kinone: {self}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.message))
    }
}

/// Text as one line: a line break or another control character in a path is shown, not made.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Every error of the rooms below is a failure of the command.
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { message: error.to_string(), code: code(&error) }
    }
}

/// The exit code of an error: one table for the whole program.
fn code(error: &(dyn Error + 'static)) -> u8 {
    if let Some(error) = error.downcast_ref::<FitError>() {
        return match error {
            FitError::Prepare(error) => code(error),
            FitError::Data(error) => code(error),
            FitError::Index(error) => code(error),
            FitError::Step(error) => code(error),
            FitError::Evaluate(error) => code(error),
            FitError::Weights(error) => code(error),
            FitError::Checkpoint(error) => code(error),
            FitError::State(_) => MODEL,
            FitError::Chain(error) => code(error),
            FitError::Run(error) => code(error),
            FitError::File(error) => model_file(error),
            FitError::Rescued { .. } => DISK,
        };
    }
    if let Some(error) = error.downcast_ref::<VerifyError>() {
        return if let VerifyError::Fit(error) = error { code(error) } else { PARTIAL };
    }
    if let Some(error) = error.downcast_ref::<PrepareError>() {
        return match error {
            PrepareError::Data(error) => code(error),
            PrepareError::Weights(error) => code(error),
            PrepareError::State { .. } | PrepareError::OtherModel { .. } => MODEL,
            PrepareError::UnknownModel(_) => USAGE,
        };
    }
    if let Some(error) = error.downcast_ref::<RoomError>() {
        return if let RoomError::Prepare(error) = error { code(error) } else { PARTIAL };
    }
    if let Some(error) = error.downcast_ref::<EvaluateError>() {
        return match error {
            EvaluateError::Data(error) => code(error),
            EvaluateError::Shape(_) => PARTIAL,
            EvaluateError::Score(_) => NOT_FINITE,
        };
    }
    if let Some(error) = error.downcast_ref::<ResumeError>() {
        return match error {
            ResumeError::Checkpoint(error) => code(error),
            ResumeError::Lost { .. } => MODEL,
            ResumeError::Changed(_)
            | ResumeError::Fixed(_)
            | ResumeError::Within { .. }
            | ResumeError::Finished { .. } => USAGE,
        };
    }
    if let Some(error) = error.downcast_ref::<RunError>() {
        return match error {
            RunError::File(error) => code(error),
            RunError::Lock(error) => code(error),
            RunError::Place(error) => place(error),
            RunError::Occupied(_) | RunError::Foreign(_) | RunError::NotARun(_) | RunError::Config { .. } => {
                USAGE
            }
            RunError::Contract { .. } => MODEL,
        };
    }
    if let Some(error) = error.downcast_ref::<LockError>() {
        return if matches!(error, LockError::Held { .. }) { LOCKED } else { DISK };
    }
    if let Some(error) = error.downcast_ref::<IndexError>() {
        return if matches!(error, IndexError::Changed { .. }) { DATA } else { DISK };
    }
    if let Some(error) = error.downcast_ref::<StepError>() {
        return if matches!(error, StepError::NotFinite { .. } | StepError::Overflow { .. }) {
            NOT_FINITE
        } else {
            PARTIAL
        };
    }
    if let Some(error) = error.downcast_ref::<DataError>() {
        return match error {
            DataError::Write { .. } => DISK,
            DataError::NotEmpty { .. } => USAGE,
            _ => DATA,
        };
    }
    if let Some(error) = error.downcast_ref::<CheckpointError>() {
        return match error {
            CheckpointError::File(error) => model_file(error),
            CheckpointError::NotFinite { .. } => NOT_FINITE,
            CheckpointError::Damaged { .. } | CheckpointError::Version { .. } => MODEL,
        };
    }
    if let Some(error) = error.downcast_ref::<ChainError>() {
        return if let ChainError::File(error) = error { model_file(error) } else { MODEL };
    }
    if let Some(error) = error.downcast_ref::<WeightsError>() {
        return if let WeightsError::File(error) = error { model_file(error) } else { MODEL };
    }
    if error.is::<FileError>() { DISK } else { PARTIAL }
}

fn place(error: &FileError) -> u8 {
    if error.source.kind() == std::io::ErrorKind::ReadOnlyFilesystem { DISK } else { USAGE }
}

/// What cannot be read is no good file of its kind; what cannot be written is the disk's fault.
fn model_file(error: &FileError) -> u8 {
    if error.action == "read" { MODEL } else { DISK }
}
