//! Chest radiographs: labels, splits, decoding, resizing, normalization, batches.
//!
//! Everything here is integers until [`Preprocessing::table`] turns a gray value into an f32, and nothing
//! depends on threads, on the order of files or on the order of rows.
//!
//! ```no_run
//! use kinone_kernels::Cpu;
//! use kinone_xray::{Dataset, Loader, Options, Part};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cpu = Cpu::detect()?;
//! let options = Options { size: 64, ..Options::default() };
//! let data = Dataset::from_directory("nih".as_ref(), &options, &cpu, &|_done, _all| {})?;
//! let preprocessing = data.preprocessing()?; // stored with the run
//! println!("{}: {:?} images", data.report().split, data.report().images);
//! let loader = Loader::new(&data, Part::Train, &preprocessing, 32)?;
//! for batch in loader.train(42, 0) {
//!     let _x: Vec<f32> = batch.images; // [b, 1, 64, 64]
//!     let _t: Vec<f32> = batch.targets; // [b, 14]
//! }
//! for batch in Loader::new(&data, Part::Test, &preprocessing, 32)?.eval() {
//!     let _names = batch.indices.iter().map(|&k| &data.entries()[k].image);
//! }
//! let _one = preprocessing.read("00000001_000.png".as_ref(), &cpu)?; // [1, 1, 64, 64]
//! # Ok(())
//! # }
//! ```
//!
//! | what | where |
//! |---|---|
//! | load | [`Dataset::from_directory`] (`--data-dir`), [`Dataset::from_files`] (`--image-dir`, `--csv-file`), [`Dataset::from_source`] (built in), with [`Options`] |
//! | record | [`Report`] (serde), [`Preprocessing`] (serde, exact) |
//! | batches | [`Loader::train`], [`Loader::eval`] |
//! | one file | [`Preprocessing::read`] |
//! | classes | [`Classes::names`], [`FINDINGS`] |
//! | write | [`write_nih_directory`] from a [`Source`] |
//! | errors | [`DataError`], one line each |
//!
//! Reading order: [`labels`], [`table`], [`split`], [`directory`], [`decode`], [`resize`], [`preprocess`],
//! [`source`], [`dataset`], [`loader`], [`export`]. A cache of decoded images on disk belongs between
//! [`decode`] and [`dataset`], where `Dataset::build` asks for image `k`.

pub mod dataset;
pub mod decode;
pub mod directory;
pub mod error;
pub mod export;
mod fill;
pub mod labels;
pub mod loader;
pub mod preprocess;
pub mod resize;
pub mod source;
pub mod split;
pub mod synth;
pub mod table;

pub use dataset::{Dataset, Entry, Options, Progress, Report, Skipped};
pub use decode::{Gray, read_png};
pub use error::DataError;
pub use export::write_nih_directory;
pub use labels::{Classes, FINDINGS, Findings, NO_FINDING};
pub use loader::{Batch, Loader};
pub use preprocess::Preprocessing;
pub use source::{Record, Source};
pub use split::{Lists, Part, Split};
pub use table::{Sex, Table, View};

use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::Path;

/// The content of a regular file of at most `limit` bytes.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Read { path: path.to_owned(), source };
    let wrong = |problem: String| DataError::File { path: path.to_owned(), problem };
    // Opening a FIFO would wait for a writer.
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(wrong("no regular file; give the path of a file".to_owned()));
    }
    let mut bytes = Vec::with_capacity(meta.len().min(limit) as usize);
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(wrong(format!("larger than {limit} bytes, which no such file is; give another")));
    }
    Ok(bytes)
}

/// The SHA-256 of `bytes` in lower-case hexadecimal digits.
fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
