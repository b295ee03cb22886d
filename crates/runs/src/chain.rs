//! The chain: one link a step, each with the hash of the one before, so that a record cannot be changed in
//! one place without being changed from there on.
//!
//! `chain.jsonl` holds one JSON object a line. The first is the header, the others are steps, overrides where a
//! resumed run was given other settings, and a note where the weights of its best epoch were lost. Every link
//! ends in `"prev":"…","hash":"…"}`: `prev` is the hash of the link before (64 zeros in the header), `hash` the
//! SHA-256 of the line up to and without `,"hash"`. Numbers stand as the hexadecimal digits of their bits.
//!
//! Nothing here depends on when checkpoints were written, where the run was stopped or resumed, or how fast
//! it was: the chain of a run that was stopped and resumed is the chain of one that was not. So the hash of
//! all state stands in the links that the configuration names (every n-th step, and the last of each epoch),
//! and that of a checkpoint in the checkpoint, beside the hash of the link it belongs to.

use crate::config::{Config, Difference};
use crate::{CONTRACT, hash};
use kinone_files::{self as files, FileError, Journal};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a link says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "link", rename_all = "lowercase")]
pub enum Body {
    /// The first link.
    Header(Header),
    /// A step was made.
    Step(StepLink),
    /// A resumed run goes on under other settings.
    Override(Override),
    /// The weights of the best epoch were lost, and the best is chosen anew.
    Forgotten(Forgotten),
}

/// What was known before the first step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the numeric contract.
    pub contract: u32,
    /// The version of the program.
    pub version: String,
    /// The settings that decide the bits ([`Config::identity`]).
    pub config: serde_json::Map<String, serde_json::Value>,
    /// The seed.
    pub seed: u64,
    /// The hash of the data index.
    pub data_sha256: String,
    /// The hash of the weights before the first step ([`crate::weights::digest`]).
    pub weights_sha256: String,
}

impl Header {
    /// Of a run with this program.
    pub fn new(config: &Config, version: &str, data_sha256: &str, weights_sha256: &str) -> Header {
        Header {
            contract: CONTRACT,
            version: version.to_owned(),
            config: config.identity(),
            seed: config.seed,
            data_sha256: data_sha256.to_owned(),
            weights_sha256: weights_sha256.to_owned(),
        }
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepLink {
    /// Its number, from 1.
    pub step: u64,
    /// Its epoch, from 1.
    pub epoch: u32,
    /// The ids of its samples, in their order.
    pub samples: Vec<u64>,
    /// The bits of the learning rate (f32).
    pub lr: String,
    /// The bits of the loss (f32).
    pub loss: String,
    /// The bits of the norm of the gradient before clipping (f64).
    pub gradient_norm: String,
    /// The hash of all state after the step ([`hash::root`]), in every n-th link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Other settings from here on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Steps made before.
    pub after_step: u64,
    /// What changed.
    pub changes: Vec<Difference>,
    /// The settings from here on ([`Config::identity`]).
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// The best is chosen anew: the epoch that has just ended, or the next to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forgotten {
    /// Steps made before.
    pub after_step: u64,
    /// The epoch under way, from 1: tells whether the one that these steps complete had ended.
    pub epoch: u32,
}

impl StepLink {
    /// The fields, under their names, in which two links of one step differ, with both values.
    pub fn differences(&self, other: &StepLink) -> Vec<Difference> {
        let fields = |link: &StepLink| {
            [
                ("step", link.step.to_string()),
                ("epoch", link.epoch.to_string()),
                ("samples", format!("{:?}", link.samples)),
                ("lr", link.lr.clone()),
                ("loss", link.loss.clone()),
                ("gradient_norm", link.gradient_norm.clone()),
                ("state", link.state.clone().unwrap_or_else(|| "none".to_owned())),
            ]
        };
        let pairs = fields(self).into_iter().zip(fields(other));
        let unequal = pairs.filter(|((_, a), (_, b))| a != b);
        unequal.map(|((name, from), (_, to))| Difference { setting: name.to_owned(), from, to }).collect()
    }
}

/// The `prev` of the first link.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A link as it stands in the file.
#[derive(Clone, Debug)]
pub struct Link {
    /// What it says.
    pub body: Body,
    /// Its hash.
    pub hash: String,
    /// Where its line ends in the file.
    end: u64,
}

impl Body {
    /// The steps made when it was written.
    fn step(&self) -> u64 {
        match self {
            Body::Header(_) => 0,
            Body::Step(link) => link.step,
            Body::Override(link) => link.after_step,
            Body::Forgotten(link) => link.after_step,
        }
    }
}

impl Link {
    /// The steps made when it was written.
    pub fn step(&self) -> u64 {
        self.body.step()
    }
}

/// Why a chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is no link of this chain.
    #[error("{}, line {line}{}: {reason}", path.display(), step.map_or(String::new(), |step| format!(" (step {step})")))]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The step it states, where that can be read.
        step: Option<u64>,
        /// What is wrong.
        reason: String,
    },
    /// It does not lead to the checkpoint.
    #[error("{} does not lead to the checkpoint of step {step}: {reason}", path.display())]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// The checkpoint's step.
        step: u64,
        /// How.
        reason: String,
    },
}

/// The line of a link after `prev`, and its hash.
fn line(body: &Body, prev: &str) -> Result<(String, String), serde_json::Error> {
    let text = serde_json::to_string(body)?;
    let open = text.strip_suffix('}').unwrap_or(&text);
    let open = format!("{open},\"prev\":\"{prev}\"");
    let hash = hash::bytes(open.as_bytes());
    Ok((format!("{open},\"hash\":\"{hash}\"}}\n"), hash))
}

/// A chain that was read: its links up to the first that is none, and why that is none.
#[derive(Debug)]
pub struct Read {
    /// The sound links.
    pub links: Vec<Link>,
    /// Why reading ended before the end of the file.
    pub broken: Option<ChainError>,
}

/// Reads a chain as far as it is sound.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Read, FileError> {
    let mut lines = files::Lines::of(path)?;
    let mut read = Read { links: Vec::new(), broken: None };
    let (mut prev, mut start) = (NOTHING.to_owned(), 0);
    for number in 0.. {
        let Some(text) = lines.next_line()? else { break };
        let end = start + text.len() as u64;
        match parse(&text, &prev, read.links.last()) {
            Ok((body, hash)) => {
                prev.clone_from(&hash);
                read.links.push(Link { body, hash, end });
            }
            Err((step, reason)) => {
                read.broken =
                    Some(ChainError::Broken { path: path.to_owned(), line: number + 1, step, reason });
                break;
            }
        }
        start = end;
    }
    Ok(read)
}

/// The links of a chain up to the link `hash`, the last of its step.
///
/// # Errors
/// There is no such link, or the chain is broken before it.
pub fn leading_to(path: &Path, step: u64, hash: &str) -> Result<Vec<Link>, ChainError> {
    let Read { mut links, broken } = read(path)?;
    let count = links.iter().take_while(|link| link.hash != hash).count() + 1;
    let elsewhere = |reason: String| ChainError::Elsewhere { path: path.to_owned(), step, reason };
    if count > links.len() {
        return Err(broken.unwrap_or_else(|| elsewhere(format!("no link has the hash {hash}"))));
    }
    links.truncate(count);
    Ok(links)
}

/// A line as the link after `last`; or its step and why it is none.
fn parse(text: &[u8], prev: &str, last: Option<&Link>) -> Result<(Body, String), (Option<u64>, String)> {
    let none = |reason: &str| (None, reason.to_owned());
    let text = std::str::from_utf8(text).map_err(|_| none("not UTF-8"))?;
    let text = text.strip_suffix('\n').ok_or_else(|| none("the line has no end"))?;
    let mut json: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| none(&format!("no JSON object: {error}")))?;
    let step = json.get("step").and_then(serde_json::Value::as_u64);
    let wrong = |reason: String| (step, reason);
    let mut take = |name: &str| match json.remove(name) {
        Some(serde_json::Value::String(text)) => Ok(text),
        _ => Err(wrong(format!("no `{name}`"))),
    };
    let (stated_prev, stated) = (take("prev")?, take("hash")?);
    let open = text.strip_suffix(&format!(",\"hash\":\"{stated}\"}}"));
    let open = open.ok_or_else(|| wrong("`hash` is not its last field".to_owned()))?;
    let found = hash::bytes(open.as_bytes());
    if found != stated {
        return Err(wrong(format!("the link was changed: it hashes to {found}, it states {stated}")));
    }
    if stated_prev != prev {
        return Err(wrong(format!("the link before hashes to {prev}, this one follows {stated_prev}")));
    }
    let body: Body = serde_json::from_value(json.into()).map_err(|error| wrong(error.to_string()))?;
    let steps_before = last.map(Link::step);
    let follows = match (&body, steps_before) {
        (Body::Header(_), None) => true,
        (Body::Step(_), Some(before)) => body.step() == before + 1,
        (Body::Override(_) | Body::Forgotten(_), Some(before)) => body.step() == before,
        _ => false,
    };
    if !follows {
        return Err(wrong("the link is out of its order".to_owned()));
    }
    // A name that stands twice, say, would be read in one way by us and in another by others.
    if line(&body, prev).ok().as_ref().and_then(|(line, _)| line.strip_suffix('\n')) != Some(text) {
        return Err(wrong("the link is not written as a link is".to_owned()));
    }
    Ok((body, found))
}

/// A chain that grows.
#[derive(Debug)]
pub struct Chain {
    journal: Journal,
    path: PathBuf,
    last: String,
}

impl Chain {
    /// A new chain, which begins with its header. What was there is gone: a run that has no checkpoint yet
    /// begins anew.
    ///
    /// # Errors
    /// The system refused.
    pub fn begin(path: &Path, header: Header) -> Result<Chain, FileError> {
        let journal = Journal::open(path, Some(0))?;
        let mut chain = Chain { journal, path: path.to_owned(), last: NOTHING.to_owned() };
        chain.append(&Body::Header(header))?;
        Ok(chain)
    }

    /// The chain with these links, its first ones; what comes after them is cut off.
    ///
    /// # Errors
    /// The system refused.
    pub fn resume(path: &Path, links: &[Link]) -> Result<Chain, FileError> {
        let (end, last) = links.last().map_or((0, NOTHING), |link| (link.end, link.hash.as_str()));
        let journal = Journal::open(path, Some(end))?;
        Ok(Chain { journal, path: path.to_owned(), last: last.to_owned() })
    }

    /// Appends a link, in one write.
    ///
    /// # Errors
    /// The system refused; the next call writes the link.
    pub fn append(&mut self, body: &Body) -> Result<(), FileError> {
        let wrong = |error: serde_json::Error| FileError::new("write", &self.path, error.into());
        let (line, hash) = line(body, &self.last).map_err(wrong)?;
        self.last = hash;
        self.journal.append(line.as_bytes())
    }

    /// The hash of the last link.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Flushes to the disk what was appended.
    ///
    /// # Errors
    /// The system refused.
    pub fn flush(&mut self) -> Result<(), FileError> {
        self.journal.flush()
    }

    /// All links, also where the file's name is gone.
    ///
    /// # Errors
    /// The system refused.
    pub fn content(&mut self) -> Result<Vec<u8>, FileError> {
        self.journal.content()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;
    use std::fs;

    fn link(step: u64) -> Body {
        Body::Step(StepLink {
            step,
            epoch: 1,
            samples: vec![3, 1, 2],
            lr: "3a83126f".to_owned(),
            loss: format!("{step:08x}"),
            gradient_norm: "3ff0000000000000".to_owned(),
            state: step.is_multiple_of(2).then(|| "s".repeat(64)),
        })
    }

    fn chain(steps: u64) -> (tempfile::TempDir, PathBuf, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain.jsonl");
        let mut chain = Chain::begin(&path, Header::new(&example(), "0.0.0", "data", "weights")).unwrap();
        let mut hashes = vec![chain.last().to_owned()];
        for step in 1..=steps {
            chain.append(&link(step)).unwrap();
            hashes.push(chain.last().to_owned());
        }
        (folder, path, hashes)
    }

    #[test]
    fn a_chain_is_read_back() {
        let (_folder, path, hashes) = chain(5);
        let Read { links, broken } = read(&path).unwrap();
        assert!(broken.is_none());
        assert_eq!(links.iter().map(|link| link.hash.clone()).collect::<Vec<_>>(), hashes);
        assert_eq!(links[3].body, link(3));
        assert!(matches!(&links[0].body, Body::Header(header) if header.config["lr"] == 0.001));
    }

    /// A byte changed anywhere breaks the chain at its line and not before.
    #[test]
    fn every_changed_byte_is_found_where_it_is() {
        let (_folder, path, _) = chain(3);
        let good = fs::read(&path).unwrap();
        let mut line = 1;
        for (k, byte) in good.iter().enumerate() {
            let mut bad = good.clone();
            bad[k] ^= 1;
            fs::write(&path, &bad).unwrap();
            let read = read(&path).unwrap();
            let Some(ChainError::Broken { line: found, .. }) = read.broken else { panic!("byte {k}") };
            assert_eq!(found, line, "byte {k}");
            assert_eq!(read.links.len(), line - 1);
            line += usize::from(*byte == b'\n');
        }
    }

    #[test]
    fn links_cannot_be_left_out_exchanged_or_repeated() {
        let (_folder, path, _) = chain(3);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for (order, line) in [(&[0, 1, 3][..], 3), (&[0, 2, 1, 3], 2), (&[0, 1, 1, 2], 3), (&[1, 2, 3], 1)] {
            fs::write(&path, order.iter().map(|k| lines[*k]).collect::<String>()).unwrap();
            let Some(ChainError::Broken { line: found, .. }) = read(&path).unwrap().broken else { panic!() };
            assert_eq!(found, line, "{order:?}");
        }
    }

    #[test]
    fn a_resumed_chain_is_the_one_that_was_never_cut() {
        let (_folder, path, hashes) = chain(5);
        let whole = fs::read(&path).unwrap();
        // A line that was being written when the power went.
        fs::write(&path, &whole[..whole.len() - 40]).unwrap();
        let links = leading_to(&path, 2, &hashes[2]).unwrap();
        let mut chain = Chain::resume(&path, &links).unwrap();
        assert_eq!(links.len(), 3);
        (3..=5).for_each(|step| chain.append(&link(step)).unwrap());
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert!(matches!(leading_to(&path, 9, &"f".repeat(64)), Err(ChainError::Elsewhere { step: 9, .. })));
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}
