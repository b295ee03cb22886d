//! Where two runs part.

use crate::chain::{self, Body, Header, Link};
use crate::config::Difference;
use crate::transcript::{self, Entry};
use kinone_files::FileError;
use std::path::{Path, PathBuf};

/// How two records compare.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What the headers state differently.
    pub header: Vec<Difference>,
    /// Steps with equal content before they part, or all.
    pub equal_steps: u64,
    /// Where they part; `None` where they do not.
    pub parting: Option<Parting>,
    /// What could not be read of either chain.
    pub remarks: Vec<String>,
}

/// The first difference after the headers.
#[derive(Clone, Debug, PartialEq)]
pub enum Parting {
    /// A step that differs, and in what.
    Step {
        /// Which.
        step: u64,
        /// Its fields that differ.
        fields: Vec<Difference>,
        /// The first operator that made something else, in each, where both have a transcript.
        operator: Option<Box<(Option<Entry>, Option<Entry>)>>,
        /// Whether both have a transcript of the step.
        is_transcribed: bool,
    },
    /// A run was given other settings here, the other was not, or others.
    Override {
        /// Steps made before.
        after_step: u64,
    },
    /// A run lost the weights of its best epoch here, the other did not.
    Forgotten {
        /// Steps made before.
        after_step: u64,
    },
    /// One ends here, the other goes on.
    Length {
        /// The steps of each.
        steps: [u64; 2],
    },
}

/// Why two records cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A chain cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A chain has not even a header: two of these are equal, and say nothing of their runs.
    #[error("{} is empty; restore it, or name another run", .0.display())]
    Empty(PathBuf),
}

/// Compares the records of two runs.
///
/// # Errors
/// A chain cannot be read, or is empty.
pub fn compare(a: &Path, b: &Path) -> Result<Comparison, DiffError> {
    let mut remarks = Vec::new();
    let mut read = |run: &Path| -> Result<Vec<Link>, DiffError> {
        let path = run.join("chain.jsonl");
        let read = chain::read(&path)?;
        if read.links.is_empty() && read.broken.is_none() {
            return Err(DiffError::Empty(path));
        }
        remarks.extend(read.broken.map(|broken| broken.to_string()));
        Ok(read.links)
    };
    let (first, second) = (read(a)?, read(b)?);
    let mut comparison = Comparison { header: Vec::new(), equal_steps: 0, parting: None, remarks };
    let length = first.len().max(second.len());
    for k in 0..length {
        let parting = match (first.get(k).map(|link| &link.body), second.get(k).map(|link| &link.body)) {
            (Some(Body::Header(one)), Some(Body::Header(other))) => {
                comparison.header = header_differences(one, other);
                continue;
            }
            (Some(Body::Step(one)), Some(Body::Step(other))) => {
                let fields = one.differences(other);
                if fields.is_empty() {
                    comparison.equal_steps = one.step;
                    continue;
                }
                let transcripts = transcript::read(a, one.step).zip(transcript::read(b, one.step));
                let is_transcribed = transcripts.is_some();
                let operator = transcripts.and_then(|(one, other)| {
                    let (one, other) = transcript::parting(&one, &other)?;
                    Some(Box::new((one.cloned(), other.cloned())))
                });
                Parting::Step { step: one.step, fields, operator, is_transcribed }
            }
            (Some(Body::Override(one)), Some(Body::Override(other))) if one == other => continue,
            (Some(Body::Forgotten(one)), Some(Body::Forgotten(other))) if one == other => continue,
            (Some(Body::Override(link)), _) | (_, Some(Body::Override(link))) => {
                Parting::Override { after_step: link.after_step }
            }
            (Some(Body::Forgotten(link)), _) | (_, Some(Body::Forgotten(link))) => {
                Parting::Forgotten { after_step: link.after_step }
            }
            _ => Parting::Length { steps: [&first, &second].map(|links| links.last().map_or(0, Link::step)) },
        };
        comparison.parting = Some(parting);
        break;
    }
    Ok(comparison)
}

fn header_differences(one: &Header, other: &Header) -> Vec<Difference> {
    let fields = |header: &Header| {
        let mut fields: std::collections::BTreeMap<String, String> =
            header.config.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        fields.insert("contract".to_owned(), header.contract.to_string());
        fields.insert("version".to_owned(), header.version.clone());
        fields.insert("data_sha256".to_owned(), header.data_sha256.clone());
        fields.insert("weights_sha256".to_owned(), header.weights_sha256.clone());
        fields
    };
    let (one, other) = (fields(one), fields(other));
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let text = |found: Option<&String>| found.cloned().unwrap_or_else(|| "none".to_owned());
    let unequal = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    unequal
        .map(|name| Difference {
            setting: name.clone(),
            from: text(one.get(name)),
            to: text(other.get(name)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Chain, StepLink};
    use crate::config::Config;
    use crate::config::tests::example;

    fn run(lr: f64, losses: &[&str], operators: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("transcripts")).unwrap();
        let config = Config { lr, ..example() };
        let header = Header::new(&config, "0.0.0", "data", "weights");
        let mut chain = Chain::begin(&folder.path().join("chain.jsonl"), header).unwrap();
        for (step, loss) in (1..).zip(losses) {
            let link = StepLink {
                step,
                epoch: 1,
                samples: vec![1, 2],
                lr: "0".to_owned(),
                loss: (*loss).to_owned(),
                gradient_norm: "0".to_owned(),
                state: None,
            };
            chain.append(&Body::Step(link)).unwrap();
        }
        let entry = |sha256: &&str| Entry {
            phase: "forward".to_owned(),
            operator: "conv2d".to_owned(),
            with: vec![],
            part: 0,
            sha256: (*sha256).to_owned(),
        };
        let entries: Vec<Entry> = operators.iter().map(entry).collect();
        if !entries.is_empty() {
            transcript::write(folder.path(), 2, &entries).unwrap();
        }
        folder
    }

    #[test]
    fn runs_part_where_they_do() {
        let a = run(0.1, &["1", "2", "3"], &["x", "y"]);
        let compare = |b: &tempfile::TempDir| super::compare(a.path(), b.path()).unwrap();
        let same = compare(&run(0.1, &["1", "2", "3"], &[]));
        assert_eq!((same.header.len(), same.equal_steps, same.parting), (0, 3, None));
        let other = compare(&run(0.2, &["1", "5", "6"], &["x", "z"]));
        assert_eq!((other.header[0].to_string(), other.equal_steps), ("lr 0.1 -> 0.2".to_owned(), 1));
        let Some(Parting::Step { step: 2, fields, operator: Some(operator), .. }) = other.parting else {
            panic!()
        };
        let (Some(one), Some(two)) = *operator else { panic!() };
        assert_eq!(fields[0].to_string(), "loss 2 -> 5");
        assert_eq!((one.sha256.as_str(), two.sha256.as_str()), ("y", "z"));
        let shorter = compare(&run(0.1, &["1"], &[]));
        assert_eq!(shorter.parting, Some(Parting::Length { steps: [3, 1] }));
    }

    #[test]
    fn an_empty_chain_is_equal_to_none() {
        let (whole, empty) = (run(0.1, &["1"], &[]), run(0.1, &[], &[]));
        let chain = empty.path().join("chain.jsonl");
        std::fs::write(&chain, "").unwrap();
        for (a, b) in [(&empty, &empty), (&whole, &empty), (&empty, &whole)] {
            let error = compare(a.path(), b.path()).unwrap_err();
            assert!(matches!(&error, DiffError::Empty(path) if *path == chain), "{error}");
        }
    }
}
