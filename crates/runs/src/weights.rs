//! Weights in a file: safetensors, with what a later command must know in its header.

use crate::CONTRACT;
use crate::config::ConvAlgo;
use kinone_core::array::Array;
use kinone_core::shape::Shape;
use kinone_files::{self as files, FileError};
use kinone_nn::state::{Dictionary, Value};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the header of a weights file says about them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the numeric contract.
    pub contract: u32,
    /// The network: `resnet18`.
    pub model: String,
    /// By which definition its convolutions were computed.
    #[serde(default)]
    pub conv_algo: ConvAlgo,
    /// The classes, in the order of the logits.
    pub classes: Vec<String>,
    /// Pixels of a side of the square images.
    pub image_size: usize,
    /// The mean of the training pixels, in units of full white; subtracted.
    pub pixel_mean: f32,
    /// Their standard deviation, in units of full white; divided by.
    pub pixel_std: f32,
    /// The epoch, from 1, whose weights these are.
    pub epoch: u32,
    /// The mean area under the curve on the validation part.
    pub val_auroc_macro: Option<f64>,
    /// For each class the logit from which on its finding is stated ([`crate::progress::Best::thresholds`]).
    #[serde(default)]
    pub thresholds: Vec<Option<f32>>,
    /// The hash of the weights ([`digest`]).
    pub weights_sha256: String,
    /// The hash of this header, as it stands in the file but with nothing here. Filled in on saving.
    #[serde(default)]
    pub header_sha256: String,
}

impl Header {
    /// The entry in the file, with its hash filled in.
    fn sealed(&self) -> Result<String, serde_json::Error> {
        let open = Header { header_sha256: String::new(), ..self.clone() };
        let header_sha256 = crate::hash::bytes(serde_json::to_string(&open)?.as_bytes());
        serde_json::to_string(&Header { header_sha256, ..open })
    }
}

/// Why weights cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no weights file of Kinone, or damaged.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The SHA-256 of all state: for each name in byte order, the name, its type, its shape and its
/// little-endian bytes, every NaN as 0x7fc00000.
pub fn digest(dictionary: &Dictionary) -> String {
    let mut hash = Sha256::new();
    for (name, value) in dictionary {
        let kind = match value {
            Value::F32(_) => "f32",
            Value::I64(_) => "i64",
        };
        hash.update(format!("{name}\0{kind}{}\0", value.shape()).as_bytes());
        match value {
            Value::F32(array) => crate::hash::update(&mut hash, array.data()),
            Value::I64(count) => hash.update(count.to_le_bytes()),
        }
    }
    crate::hash::hex(&hash.finalize())
}

/// The key of the header's one entry: a single one, so that a file's bytes have one order.
const KEY: &str = "kinone";

/// Writes weights, whole or not at all.
///
/// # Errors
/// The system refused.
pub fn save(path: &Path, header: &Header, dictionary: &Dictionary) -> Result<(), WeightsError> {
    let text = header
        .sealed()
        .map_err(|error| WeightsError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    write(path, dictionary, Some(HashMap::from([(KEY.to_owned(), text)])))
}

/// Writes tensors with no header of ours: for other programs.
///
/// # Errors
/// The system refused.
pub fn write_tensors(path: &Path, tensors: &Dictionary) -> Result<(), WeightsError> {
    write(path, tensors, None)
}

fn write(
    path: &Path,
    dictionary: &Dictionary,
    metadata: Option<HashMap<String, String>>,
) -> Result<(), WeightsError> {
    let damaged = |reason: String| WeightsError::Damaged { path: path.to_owned(), reason };
    let parts: Vec<(&String, Dtype, Vec<usize>, Vec<u8>)> = dictionary
        .iter()
        .map(|(name, value)| {
            let dtype = if matches!(value, Value::F32(_)) { Dtype::F32 } else { Dtype::I64 };
            (name, dtype, value.shape().to_vec(), value.bytes())
        })
        .collect();
    let mut views = Vec::new();
    for (name, dtype, shape, bytes) in &parts {
        let view =
            TensorView::new(*dtype, shape.clone(), bytes).map_err(|error| damaged(error.to_string()))?;
        views.push((name.as_str(), view));
    }
    let bytes = safetensors::serialize(views, metadata).map_err(|error| damaged(error.to_string()))?;
    Ok(files::write(path, &bytes)?)
}

/// No file is larger; a ResNet-152's is below 1 GB.
const LIMIT: u64 = 16 << 30;

/// Reads weights and checks their hash. Links are not followed.
///
/// # Errors
/// The file cannot be read, is no weights file of Kinone, or its weights do not have the hash it states.
pub fn load(path: &Path) -> Result<(Header, Dictionary), WeightsError> {
    parse(path, &files::read_regular(path, LIMIT)?)
}

/// The same of a file that somebody named: links are followed.
///
/// # Errors
/// As [`load`].
pub fn load_named(path: &Path) -> Result<(Header, Dictionary), WeightsError> {
    parse(path, &files::read_named(path, LIMIT)?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<(Header, Dictionary), WeightsError> {
    let damaged = |reason: String| WeightsError::Damaged { path: path.to_owned(), reason };
    let not_ours = |what: &dyn std::fmt::Display| {
        damaged(format!(
            "not a weights file of Kinone: {what}; give best.safetensors or last.safetensors of a run"
        ))
    };
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| not_ours(&error))?;
    let text = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
    let text = text.ok_or_else(|| not_ours(&format!("its header has no entry `{KEY}`")))?;
    let header: Header = serde_json::from_str(text).map_err(|error| not_ours(&error))?;
    if header.contract != CONTRACT {
        let reason =
            format!("made under contract {}, this program keeps contract {CONTRACT}", header.contract);
        return Err(damaged(reason));
    }
    if header.sealed().map_err(|error| not_ours(&error))? != *text {
        let stated = &header.header_sha256;
        return Err(damaged(format!("damaged: its header does not have the hash it states ({stated})")));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| not_ours(&error))?;
    let mut dictionary = Dictionary::new();
    for (name, view) in tensors.tensors() {
        let value = value(&view).ok_or_else(|| not_ours(&format!("`{name}` has type {:?}", view.dtype())))?;
        dictionary.insert(name, value);
    }
    let found = digest(&dictionary);
    if found != header.weights_sha256 {
        let stated = &header.weights_sha256;
        return Err(damaged(format!(
            "damaged: the weights hash to {found}, the header says {stated}; restore it, or train --resume the run"
        )));
    }
    Ok((header, dictionary))
}

/// A tensor of a file as a value; `None` for a type that no model has.
pub(crate) fn value(view: &TensorView) -> Option<Value> {
    match view.dtype() {
        Dtype::F32 => {
            let mut array = Array::uninitialized(Shape::from(view.shape()));
            for (x, bytes) in array.data_mut().iter_mut().zip(view.data().as_chunks::<4>().0) {
                *x = f32::from_le_bytes(*bytes);
            }
            Some(Value::F32(Arc::new(array)))
        }
        Dtype::I64 => view.data().try_into().ok().map(|bytes| Value::I64(i64::from_le_bytes(bytes))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Header, Dictionary) {
        let array = Array::new([2, 2], &[1.0, -0.0, f32::MIN_POSITIVE / 2.0, 3.5]).unwrap();
        let mut dictionary = Dictionary::new();
        dictionary.insert("bn.num_batches_tracked".into(), Value::I64(7));
        dictionary.insert("weight".into(), Value::F32(Arc::new(array)));
        let header = Header {
            contract: CONTRACT,
            model: "resnet18".into(),
            conv_algo: ConvAlgo::Winograd,
            classes: vec!["Mass".into()],
            image_size: 64,
            pixel_mean: 0.1,
            pixel_std: 0.3,
            epoch: 3,
            val_auroc_macro: Some(0.1 + 0.2),
            thresholds: vec![Some(-2.0e-7)],
            weights_sha256: digest(&dictionary),
            header_sha256: String::new(),
        };
        (header, dictionary)
    }

    #[test]
    fn what_was_saved_comes_back_bit_for_bit_and_twice_gives_equal_files() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let (header, dictionary) = example();
        save(&a, &header, &dictionary).unwrap();
        save(&b, &header, &dictionary).unwrap();
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        let (read, values) = load(&a).unwrap();
        assert_eq!(Header { header_sha256: String::new(), ..read }, header);
        assert_eq!(digest(&values), header.weights_sha256);
    }

    #[test]
    fn a_flipped_bit_a_cut_and_a_stranger_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (header, dictionary) = example();
        save(&path, &header, &dictionary).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        // A digit of the header: what a later command must know is under a hash too.
        let mean = good.windows(3).position(|window| window == b"0.1").unwrap();
        let mut header = good.clone();
        header[mean + 2] = b'9';
        for bad in [&flipped[..], &header[..], &good[..good.len() - 3], b"", b"not at all"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(load(&path), Err(WeightsError::Damaged { .. })));
        }
    }
}
