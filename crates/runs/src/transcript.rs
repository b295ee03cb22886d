//! What every operator made in one step, as hashes: where two runs of one step part can be told from it.
//!
//! One is written for the step after each checkpoint (and for the first), beside the run's other files as
//! `transcripts/step_00000013.jsonl`. It is evidence and no part of the chain, which does not depend on when
//! checkpoints are written.

use kinone_files::{self as files, FileError};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// One array that an operator made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `forward` or `backward`.
    pub phase: String,
    /// The operator.
    pub operator: String,
    /// The parameters among its inputs.
    pub with: Vec<String>,
    /// Forward: 0 for the value, then the auxiliary outputs. Backward: the input it contributes to.
    pub part: usize,
    /// The hash of the numbers ([`crate::hash::numbers`]).
    pub sha256: String,
}

impl Entry {
    /// Whether both say what was made by the same operator at the same place.
    fn has_the_name_of(&self, other: &Entry) -> bool {
        let name = |entry: &Entry| (entry.phase.clone(), entry.operator.clone(), entry.part);
        name(self) == name(other) && self.with == other.with
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = if self.phase == "forward" { "output" } else { "gradient of input" };
        write!(f, "{} {}, {part} {}", self.phase, self.operator, self.part)?;
        if self.with.is_empty() { Ok(()) } else { write!(f, " (with {})", self.with.join(", ")) }
    }
}

/// Where the transcript of a step lies in a run directory.
pub fn path(run: &Path, step: u64) -> PathBuf {
    run.join(format!("transcripts/step_{step:08}.jsonl"))
}

/// Writes a transcript.
///
/// # Errors
/// The system refused.
pub fn write(run: &Path, step: u64, entries: &[Entry]) -> Result<(), FileError> {
    let path = path(run, step);
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)
            .map_err(|error| FileError::new("write", &path, error.into()))?;
        text.push(b'\n');
    }
    if is_elsewhere(run) {
        let source = std::io::Error::other("its folder is a symbolic link, which is not followed; remove it");
        return Err(FileError::new("write", &path, source));
    }
    files::write_hint(&path, &text)
}

/// Whether the folder of transcripts is a link out of the run.
fn is_elsewhere(run: &Path) -> bool {
    std::fs::symlink_metadata(run.join("transcripts")).is_ok_and(|meta| meta.is_symlink())
}

/// Reads a transcript; `None` where there is none or it is damaged.
pub fn read(run: &Path, step: u64) -> Option<Vec<Entry>> {
    let bytes = files::read_regular(&path(run, step), 1 << 30).ok()?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).ok()).collect()
}

/// The steps of which there are transcripts, and their files.
pub fn steps(run: &Path) -> Vec<(u64, PathBuf)> {
    let step = |name: &std::ffi::OsStr| -> Option<u64> {
        name.to_str()?.strip_prefix("step_")?.strip_suffix(".jsonl")?.parse().ok()
    };
    let entries = std::fs::read_dir(run.join("transcripts")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((step(&entry.file_name())?, entry.path()))).collect()
}

/// Removes the transcripts of steps that are not wanted.
pub fn prune(run: &Path, is_wanted: impl Fn(u64) -> bool) {
    if is_elsewhere(run) {
        return;
    }
    for (_, path) in steps(run).into_iter().filter(|(step, _)| !is_wanted(*step)) {
        let _ = std::fs::remove_file(path);
    }
}

/// Where two transcripts of one step part: the first entry of either that is not the other's.
///
/// A fused operator stands for several and has another name, but all that it makes one of them makes too. So where the
/// names differ, each entry of the shorter transcript is looked for in the longer by its hash.
pub fn parting<'a>(a: &'a [Entry], b: &'a [Entry]) -> Option<(Option<&'a Entry>, Option<&'a Entry>)> {
    if a.len() != b.len() && a.iter().zip(b).any(|(a, b)| !a.has_the_name_of(b)) {
        let absent = |few: &'a [Entry], many: &[Entry]| {
            let made: HashSet<&str> = many.iter().map(|entry| entry.sha256.as_str()).collect();
            few.iter().find(|entry| !made.contains(entry.sha256.as_str()))
        };
        return match a.len() < b.len() {
            true => absent(a, b).map(|entry| (Some(entry), None)),
            false => absent(b, a).map(|entry| (None, Some(entry))),
        };
    }
    let length = a.len().max(b.len());
    (0..length).map(|k| (a.get(k), b.get(k))).find(|(a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_come_back_part_where_they_differ_and_are_pruned() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("transcripts")).unwrap();
        let entry = |operator: &str, sha256: &str| Entry {
            phase: "forward".to_owned(),
            operator: operator.to_owned(),
            with: vec!["fc.weight".to_owned()],
            part: 0,
            sha256: sha256.to_owned(),
        };
        let a = vec![entry("conv2d", "1"), entry("relu", "2")];
        let b = vec![entry("conv2d", "1"), entry("relu", "3")];
        write(folder.path(), 1, &a).unwrap();
        write(folder.path(), 2, &b).unwrap();
        assert_eq!(read(folder.path(), 1), Some(a.clone()));
        assert_eq!(parting(&a, &a), None);
        assert_eq!(parting(&a, &b), Some((a.get(1), b.get(1))));
        assert_eq!(parting(&a, &a[..1]), Some((a.get(1), None)));
        // conv2d and relu at once, and one after the other.
        let (fused, other) = (vec![entry("conv2d_relu", "2")], vec![entry("conv2d_relu", "4")]);
        assert_eq!((parting(&fused, &a), parting(&a, &fused)), (None, None));
        assert_eq!(parting(&other, &a), Some((other.first(), None)));
        assert_eq!(parting(&a, &other), Some((None, other.first())));
        prune(folder.path(), |step| step == 2);
        assert_eq!((read(folder.path(), 1), read(folder.path(), 2)), (None, Some(b)));
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_or_removed_behind_a_link() {
        let (run, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(others.path(), run.path().join("transcripts")).unwrap();
        let kept = others.path().join("step_00000009.jsonl");
        std::fs::write(&kept, b"kept").unwrap();
        assert!(write(run.path(), 1, &[]).unwrap_err().to_string().contains("symbolic link"));
        prune(run.path(), |_| false);
        assert!(kept.is_file() && std::fs::read_dir(others.path()).unwrap().count() == 1);
    }
}
