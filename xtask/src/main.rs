//! The project's chores: `cargo xtask test` runs every check there is, and installs what they need.

mod shell;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

Commands:
  test   every check: formatting, lints, documentation, tests, examples, licences, ONNX replay
         (installs cargo-deny under target/tools and a Python environment under target/oracle)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => test::every_check(),
        [] | ["help" | "--help" | "-h"] => {
            eprint!("{HELP}");
            ExitCode::SUCCESS
        }
        other => {
            eprintln!("xtask: no such command: {}\n\n{HELP}", other.join(" "));
            ExitCode::from(2)
        }
    }
}
