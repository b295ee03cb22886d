//! A checkpoint: everything the next step depends on, in one file that proves itself.
//!
//! The file is a safetensors file whose header has one entry, `kinone`: a JSON object with the [`Header`].
//! The hash of every tensor ([`crate::hash::value`]) stands there, and `sha256` is the SHA-256 of the file
//! from its first byte to the end of its header, with its own 64 digits as zeros. Every byte of the file is
//! thus under a hash: the header under the last, the data under the tensors' hashes, and safetensors allows
//! no byte between tensors nor after them.

use crate::config::Config;
use crate::progress::Progress;
use crate::{CONTRACT, hash};
use kinone_files::{self as files, FileError};
use kinone_kernels::Cpu;
use kinone_nn::state::{Dictionary, Value};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// The version of the file's layout.
pub const FORMAT: u32 = 1;

/// What the header says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the layout: [`FORMAT`].
    pub format: u32,
    /// The version of the numeric contract.
    pub contract: u32,
    /// The version of the program.
    pub version: String,
    /// When the run began, as `YYYYMMDD_HHMMSS`.
    pub started: String,
    /// The configuration.
    pub config: Config,
    /// The hash of the data index: which images, their labels, parts and pixels.
    pub data_sha256: String,
    /// The classes, in the order of the logits.
    pub classes: Vec<String>,
    /// Pixels of a side of the square images.
    pub image_size: usize,
    /// The mean of the training pixels, in units of full white; subtracted.
    pub pixel_mean: f32,
    /// Their standard deviation, in units of full white; divided by.
    pub pixel_std: f32,
    /// How far the run has come.
    pub progress: Progress,
    /// The hash of the chain's last link.
    pub link: String,
    /// The hash of the tensors together ([`hash::root`]).
    pub state_sha256: String,
    /// The hash of each tensor.
    pub tensors: BTreeMap<String, String>,
    /// The hash of the file, see above.
    pub sha256: String,
}

/// A checkpoint: `model.…`, `optimizer.…` and `ema.…` tensors, and the header.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What the header says. The fields `state_sha256`, `tensors` and `sha256` are filled in on saving.
    pub header: Header,
    /// The tensors.
    pub tensors: Dictionary,
}

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no checkpoint, or damaged.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was made under other rules.
    #[error("{}: made under {what} {found}, this program keeps {what} {kept}; use the version that made it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Which rules.
        what: &'static str,
        /// The file's.
        found: u64,
        /// Ours.
        kept: u32,
    },
    /// A number is NaN or infinite: such a state is never written.
    #[error(
        "the tensor `{tensor}` holds a number that is not finite, so no checkpoint was written; resume from the last one with a lower --lr and --override"
    )]
    NotFinite {
        /// The first such tensor.
        tensor: String,
    },
}

/// The key of the header's one entry.
const KEY: &str = "kinone";
/// The digits of a hash that is not known yet.
const UNKNOWN: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// What stands before the file's own hash. No other field's name ends so: quotes inside the entry are escaped.
const BEFORE_HASH: &str = r#"\"sha256\":\""#;
/// No file is larger; a ResNet-152's is below 1 GB.
const LIMIT: u64 = 16 << 30;

/// A value as safetensors sees it, its bytes made when asked for.
struct Bytes<'a>(&'a Value, Vec<usize>);

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        if matches!(self.0, Value::F32(_)) { Dtype::F32 } else { Dtype::I64 }
    }
    fn shape(&self) -> &[usize] {
        &self.1
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.0.bytes().into()
    }
    fn data_len(&self) -> usize {
        self.0.shape().size() * if matches!(self.0, Value::F32(_)) { 4 } else { 8 }
    }
}

impl Checkpoint {
    /// Writes it, whole or not at all, with every hash filled in.
    ///
    /// # Errors
    /// A number is not finite, or the system refused; what was there before is still there.
    pub fn save(&mut self, cpu: &Cpu, path: &Path) -> Result<(), CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged { path: path.to_owned(), reason };
        for (name, value) in &self.tensors {
            if let Value::F32(array) = value
                && !array.data().iter().all(|x| x.is_finite())
            {
                return Err(CheckpointError::NotFinite { tensor: name.clone() });
            }
        }
        self.header.tensors = hash::values(cpu, &self.tensors);
        self.header.state_sha256 = hash::root(&self.header.tensors);
        self.header.sha256 = UNKNOWN.to_owned();
        let text = serde_json::to_string(&self.header).map_err(|error| damaged(error.to_string()))?;
        let views = self.tensors.iter().map(|(name, value)| (name, Bytes(value, value.shape().to_vec())));
        let mut bytes = safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), text)])))
            .map_err(|error| damaged(error.to_string()))?;
        let end = header_end(&bytes).ok_or_else(|| damaged("no header".to_owned()))?;
        let place = place_of(&bytes[..end], UNKNOWN).map_err(damaged)?;
        self.header.sha256 = hash::bytes(&bytes[..end]);
        bytes[place..place + UNKNOWN.len()].copy_from_slice(self.header.sha256.as_bytes());
        Ok(files::write(path, &bytes)?)
    }

    /// Reads it and checks every hash.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or was made under other rules.
    pub fn load(cpu: &Cpu, path: &Path) -> Result<Checkpoint, CheckpointError> {
        let mut bytes = files::read_regular(path, LIMIT)?;
        let damaged = |reason: String| CheckpointError::Damaged { path: path.to_owned(), reason };
        let length = bytes.len();
        let end = header_end(&bytes)
            .ok_or_else(|| damaged(format!("damaged: it ends at byte {length}, within its header")))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            damaged(format!("damaged: {error}; its header ends at byte {end}, the file at byte {length}"))
        })?;
        let size = end + metadata.data_len();
        if size != length {
            let reason = format!("damaged: it has {length} bytes, its header says {size}");
            return Err(damaged(reason));
        }
        let text = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
        let text = text.ok_or_else(|| damaged(format!("no checkpoint: its header has no entry `{KEY}`")))?;
        let header = Header::parse(path, text)?;
        let place = place_of(&bytes[..end], &header.sha256).map_err(damaged)?;
        bytes[place..place + UNKNOWN.len()].copy_from_slice(UNKNOWN.as_bytes());
        let found = hash::bytes(&bytes[..end]);
        if found != header.sha256 {
            let stated = &header.sha256;
            let reason =
                format!("damaged: its header (bytes 0 to {end}) hashes to {found}, it states {stated}");
            return Err(damaged(reason));
        }
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| damaged(format!("damaged: {error}")))?;
        let mut dictionary = Dictionary::new();
        for (name, view) in tensors.iter() {
            let value = crate::weights::value(&view)
                .ok_or_else(|| damaged(format!("`{name}` has type {:?}", view.dtype())))?;
            dictionary.insert(name.to_owned(), value);
        }
        let found = hash::values(cpu, &dictionary);
        for (name, stated) in &header.tensors {
            if found.get(name) != Some(stated) {
                let found = found.get(name).map_or("nothing", String::as_str);
                let reason = format!("damaged: tensor `{name}` hashes to {found}, the header says {stated}");
                return Err(damaged(reason));
            }
        }
        if found.len() != header.tensors.len() || hash::root(&found) != header.state_sha256 {
            return Err(damaged("damaged: its tensors are not those its header names".to_owned()));
        }
        Ok(Checkpoint { header, tensors: dictionary })
    }
}

impl Header {
    /// Reads the entry of a file's header; rules first, so that other rules are named and not misread.
    fn parse(path: &Path, text: &str) -> Result<Header, CheckpointError> {
        let damaged = |error: serde_json::Error| CheckpointError::Damaged {
            path: path.to_owned(),
            reason: format!("damaged or no checkpoint: {error}"),
        };
        let json: serde_json::Value = serde_json::from_str(text).map_err(damaged)?;
        for (what, kept) in [("format", FORMAT), ("contract", CONTRACT)] {
            if let Some(found) = json[what].as_u64().filter(|found| *found != u64::from(kept)) {
                return Err(CheckpointError::Version { path: path.to_owned(), what, found, kept });
            }
        }
        let header: Header = serde_json::from_str(text).map_err(damaged)?;
        match header.progress.impossible() {
            None => Ok(header),
            Some(reason) => Err(CheckpointError::Damaged {
                path: path.to_owned(),
                reason: format!("damaged: no run stands so: {reason}"),
            }),
        }
    }
}

/// Where the header of a safetensors file ends: eight bytes say how long it is.
fn header_end(bytes: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(*bytes.first_chunk()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    (end <= bytes.len()).then_some(end)
}

/// Where in the header the file's own hash stands.
fn place_of(header: &[u8], digits: &str) -> Result<usize, String> {
    let pattern = format!("{BEFORE_HASH}{digits}").into_bytes();
    let mut places = header.windows(pattern.len()).enumerate().filter(|(_, window)| *window == pattern);
    match (places.next(), places.next()) {
        (Some((place, _)), None) if digits.len() == UNKNOWN.len() => Ok(place + BEFORE_HASH.len()),
        _ => Err("damaged: the place of its hash is not clear".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
