//! The measuring programs.

use crate::shell::{cargo, output, root, run};
use serde_json::Value;
use std::process::Stdio;

/// An example that measures.
pub(super) struct Program {
    package: &'static str,
    example: &'static str,
}

pub(super) const CONV: Program = Program { package: "kinone-kernels", example: "conv_speed" };
pub(super) const STEP: Program = Program { package: "kinone-train", example: "step_speed" };
pub(super) const INFER: Program = Program { package: "kinone-train", example: "infer_speed" };
pub(super) const DATA: Program = Program { package: "kinone-xray", example: "data_speed" };

/// What one run of a program gave.
pub(super) struct Run {
    /// The program and its arguments.
    pub(super) command: String,
    /// JSON objects; the first says what was run.
    pub(super) figures: Vec<Value>,
}

impl Run {
    /// A number of figure `index`.
    pub(super) fn number(&self, index: usize, name: &str) -> Result<f64, String> {
        let value = self.figures.get(index).and_then(|figure| figure.get(name));
        value.and_then(Value::as_f64).ok_or_else(|| format!("{}: no number `{name}`", self.command))
    }
}

impl Program {
    /// Compiles it.
    pub(super) fn build(&self) -> Result<(), String> {
        run(&mut cargo(&[
            "build",
            "--quiet",
            "--release",
            "--package",
            self.package,
            "--example",
            self.example,
        ]))
    }

    /// Runs it; it prints one JSON object.
    pub(super) fn measure(&self, arguments: &[String]) -> Result<Run, String> {
        let text = output(self.command(arguments).stderr(Stdio::inherit()))?;
        self.read(arguments, &text)
    }

    /// Runs it; it prints a table, if that is wanted, and writes its rows to a file.
    pub(super) fn tabulate(&self, arguments: &[String], shown: bool) -> Result<Run, String> {
        let folder = root().join("target/bench");
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join(format!("{}.jsonl", self.example));
        let mut all = arguments.to_vec();
        all.extend(["--record".to_owned(), path.display().to_string()]);
        let mut command = self.command(&all);
        if !shown {
            command.stdout(Stdio::null());
        }
        run(&mut command)?;
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        self.read(arguments, &text)
    }

    fn command(&self, arguments: &[String]) -> std::process::Command {
        let mut command = cargo(&[
            "run",
            "--quiet",
            "--release",
            "--package",
            self.package,
            "--example",
            self.example,
            "--",
        ]);
        command.args(arguments);
        command
    }

    fn read(&self, arguments: &[String], text: &str) -> Result<Run, String> {
        let command = format!("{} {}", self.example, arguments.join(" "));
        let lines = text.lines().map(|line| {
            serde_json::from_str(line).map_err(|error| format!("{command}: no JSON ({error}): {line}"))
        });
        let figures = lines.collect::<Result<_, _>>()?;
        Ok(Run { command, figures })
    }
}
