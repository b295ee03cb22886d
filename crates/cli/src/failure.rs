//! Why a command ends without success: one line, and the exit code.

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// A message of one line, and whose fault it is.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The command line or the configuration is wrong: exit code 2.
    pub fn usage(error: impl fmt::Display) -> Failure {
        Failure { message: error.to_string(), code: 2 }
    }

    /// Anything else: exit code 1.
    pub fn new(error: impl fmt::Display) -> Failure {
        Failure { message: error.to_string(), code: 1 }
    }

    /// Says it on the standard error; the exit code.
    pub fn report(&self) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "kinone: {self}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Every error of the rooms below is a failure of the command.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(error)
    }
}
