//! What a person reads. A closed pipe ends the reading, never the run.

use crate::Failure;
use crate::failure::one_line;
use kinone_files::FileError;
use kinone_metrics::Report;
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// A line to the standard output. That the reader has left is no error; that the disk is full is one.
pub(crate) fn out(line: fmt::Arguments) -> Result<(), Failure> {
    written(&one_line(&line.to_string()))
}

/// A value as JSON to the standard output.
pub(crate) fn out_json(value: &impl Serialize) -> Result<(), Failure> {
    written(&serde_json::to_string_pretty(value)?)
}

/// Text of several lines, such as a file of JSON, to the standard output.
pub(crate) fn written(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::disk(format_args!("cannot write to the standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// So many of something: `1 image`, `2 images`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// Prints, and keeps what was printed in a file.
#[derive(Debug)]
pub(crate) struct Console {
    file: File,
}

impl Console {
    /// Keeps what is printed in `path`.
    pub(crate) fn keeping(path: &Path) -> Result<Console, FileError> {
        Ok(Console { file: kinone_files::open_to_append(path)? })
    }

    /// Keeps a line without printing it, in one write, so that none is torn.
    pub(crate) fn keep(&mut self, line: &str) {
        let _ = self.file.write_all(format!("{}\n", one_line(line)).as_bytes());
    }
}

/// The table of a report, line by line.
pub(crate) fn table(report: &Report) -> Vec<String> {
    let figure = |x: Option<f64>| x.map_or("n/a".to_owned(), |x| format!("{x:.3}"));
    let mut lines = vec![format!(
        "{:<20} {:>9} {:>9} {:>7} {:>15} {:>7}",
        "finding", "positive", "negative", "AUROC", "95 % interval", "AUPRC"
    )];
    for class in &report.classes {
        let interval =
            class.auroc_interval.map_or("n/a".to_owned(), |[low, high]| format!("{low:.3} - {high:.3}"));
        lines.push(format!(
            "{:<20} {:>9} {:>9} {:>7} {:>15} {:>7}",
            class.name,
            class.positives,
            class.negatives,
            figure(class.auroc),
            interval,
            figure(class.auprc)
        ));
    }
    lines.push(format!(
        "{:<20} {:>9} {:>9} {:>7} {:>15} {:>7}",
        "mean",
        "",
        "",
        figure(report.auroc_macro),
        "",
        figure(report.auprc_macro)
    ));
    lines.push(format!(
        "{} of {}; intervals resample patients",
        counted(report.images, "image"),
        counted(report.patients, "patient")
    ));
    lines
}
