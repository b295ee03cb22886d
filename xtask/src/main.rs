//! The project's chores: `cargo xtask test` runs every check there is, and installs what they need; `cargo xtask
//! bench` measures; `cargo xtask faults` breaks it in every way of the list.

mod bench;
mod faults;
mod shell;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

Commands:
  test   every check: formatting, lints, documentation, tests, examples, licences, ONNX replay
         (installs cargo-deny under target/tools and a Python environment under target/oracle)
  bench  [kernels|steps|inference|data|threads|all] [--quick]
         the speed of convolutions, training steps, inference, the way from files to batches, and more threads;
         figures are kept under benchmarks/record (benchmarks/README.md says how to read them)
  faults [--only A,C]
         every case of every fault of tests/faults/list.rs, or of these groups or ids; writes docs/FAULTS.md
         (installs strace where it is missing)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => test::every_check(),
        ["bench", rest @ ..] => bench::command(rest),
        ["faults", rest @ ..] => faults::command(rest),
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
