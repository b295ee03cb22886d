//! The program `kinone`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kinone_cli::main()
}
