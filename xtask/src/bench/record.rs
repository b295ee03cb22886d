//! What is kept of a measurement.

use super::program::Run;
use crate::shell::{command, output, root};
use serde_json::{Value, json};
use std::fmt;
use std::path::PathBuf;

/// Where and on what a measurement is made.
pub(super) struct Machine {
    commit: String,
    /// Whether the work tree differs from the commit.
    changed: bool,
    cpu: String,
    cores: usize,
    compiler: String,
}

impl Machine {
    pub(super) fn here() -> Machine {
        let said = |program: &str, arguments: &[&str]| {
            output(command(program, arguments).stderr(std::process::Stdio::null())).ok()
        };
        let word = |text: Option<String>| text.map_or("unknown".to_owned(), |text| text.trim().to_owned());
        Machine {
            commit: word(said("git", &["rev-parse", "HEAD"])),
            // Records themselves do not count.
            changed: said("git", &["status", "--porcelain", "--", ".", ":!benchmarks/record"])
                .is_none_or(|text| !text.is_empty()),
            cpu: cpu(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            compiler: word(said("rustc", &["--version"])),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = if self.changed { ", changed since" } else { "" };
        write!(f, "{}, {} cores; commit {}{changed}; {}", self.cpu, self.cores, self.commit, self.compiler)
    }
}

/// The processor's name for itself, or its architecture where it has none.
fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().unwrap_or("").trim() == name)?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    match (field("model name"), field("cpu family"), field("model")) {
        (Some(name), Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        (Some(name), ..) => name,
        _ => std::env::consts::ARCH.to_owned(),
    }
}

/// Writes the record of one measurement; where.
pub(super) fn keep(machine: &Machine, name: &str, quick: bool, runs: &[Run]) -> Result<PathBuf, String> {
    let now = jiff::Timestamp::now();
    let of_first = |key: &str| runs.first().and_then(|run| run.figures.first()?.get(key)).cloned();
    let runs: Vec<Value> =
        runs.iter().map(|run| json!({"command": run.command, "figures": run.figures})).collect();
    let record = json!({
        "what": name,
        "command": format!("cargo xtask bench {name}{}", if quick { " --quick" } else { "" }),
        "date": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "commit": machine.commit,
        "changed_since_commit": machine.changed,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "isa": of_first("isa").unwrap_or(Value::Null),
        "compiler": machine.compiler,
        "quick": quick,
        "runs": runs,
    });
    let folder = root().join("benchmarks/record");
    kinone_files::make_folder(&folder).map_err(|error| error.to_string())?;
    let path = folder.join(format!("{}_{name}.json", now.strftime("%Y%m%d_%H%M%S")));
    let mut text = serde_json::to_string_pretty(&record).map_err(|error| error.to_string())?;
    text.push('\n');
    kinone_files::write(&path, text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(path)
}
