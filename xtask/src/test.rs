//! `cargo xtask test`.

use crate::shell::{cargo, command, install, root, run, succeeds};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

type Step = (&'static str, fn() -> Result<(), String>);

/// Every check, cheap ones first.
const STEPS: &[Step] = &[
    ("formatting", || run(&mut cargo(&["fmt", "--all", "--check"]))),
    ("lints", || run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))),
    ("documentation", || {
        run(cargo(&["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("tests", || run(&mut cargo(&["test", "--workspace"]))),
    ("licences and sources", licences),
    ("ONNX in onnxruntime", onnx),
];

/// Runs every step, though an earlier one failed, and says at the end which did.
fn run_all(steps: &[Step]) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, step) in steps {
        println!("\n== {name}");
        let start = Instant::now();
        let result = step();
        let seconds = start.elapsed().as_secs();
        match result {
            Ok(()) => println!("== {name}: passed in {seconds} s"),
            Err(reason) => {
                println!("== {name}: FAILED after {seconds} s: {reason}");
                failures.push(format!("{name}: {reason}"));
            }
        }
    }
    failures
}

/// The command.
pub(crate) fn every_check() -> ExitCode {
    let failures = run_all(STEPS);
    println!("\nxtask: {} passed, {} failed", STEPS.len() - failures.len(), failures.len());
    for failure in &failures {
        println!("  {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// cargo-deny, installed under `target/tools` where it is missing. The database of advisories is not part
/// of any registry: where it cannot be reached, that one check is left out and said so.
fn licences() -> Result<(), String> {
    const VERSION: &str = "0.20.2";
    let tools = root().join("target/tools");
    let deny = tools.join("bin/cargo-deny");
    if !deny.is_file() {
        let tools = tools.to_string_lossy().into_owned();
        run(&mut cargo(&["install", "cargo-deny", "--locked", "--version", VERSION, "--root", &tools]))?;
    }
    run(&mut command(&deny, &["check", "licenses", "bans", "sources"]))?;
    if !succeeds(&mut command(&deny, &["fetch", "db"])) {
        println!("the database of advisories cannot be reached: advisories were NOT checked");
        return Ok(());
    }
    run(&mut command(&deny, &["check", "advisories"]))
}

/// Every operator that ONNX expresses, and a whole network, replayed by onnxruntime.
fn onnx() -> Result<(), String> {
    let python = python_environment()?;
    let models = root().join("target/oracle/models");
    let folder = models.to_string_lossy().into_owned();
    // With the features of the whole workspace, as the tests have built it.
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path));
    run(&mut cargo(&["build", "--quiet", "--workspace", "--examples"]))?;
    run(&mut command(target.join("debug/examples/dump_models"), &[&folder]))?;
    run(&mut command(python, &["oracle/onnx_check.py", &folder]))
}

/// A virtual environment with the pinned requirements, under `target/oracle`.
fn python_environment() -> Result<PathBuf, String> {
    let folder = root().join("target/oracle/venv");
    let python = folder.join("bin/python");
    let path = folder.to_string_lossy().into_owned();
    if !python.is_file() {
        if !succeeds(&mut command("python3", &["-m", "venv", "--help"])) || !has_ensurepip() {
            install(&["python3", "python3-venv"])?;
        }
        run(&mut command("python3", &["-m", "venv", &path]))?;
    }
    let requirements = "oracle/requirements-onnx.txt";
    run(&mut command(&python, &["-m", "pip", "install", "--quiet", "--requirement", requirements]))?;
    Ok(python)
}

fn has_ensurepip() -> bool {
    succeeds(&mut command("python3", &["-c", "import ensurepip"]))
}
