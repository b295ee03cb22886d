//! What a run leaves behind: its configuration, its log, its weights, its summary.
//!
//! ```text
//! runs/20260131_142233/
//!   config.toml                    the configuration as used
//!   log.jsonl                      one JSON object a line: the start, each step, each epoch, the end
//!   console.log                    what was printed
//!   checkpoints/best.safetensors   the weights of the best validation score
//!   checkpoints/last.safetensors   the weights of the last epoch
//!   summary.json                   written at the end
//! ```

pub mod chain;
pub mod checkpoint;
pub mod config;
pub mod control;
pub mod directory;
pub mod hash;
pub mod lock;
pub mod log;
pub mod progress;
pub mod store;
pub mod summary;
pub mod weights;

/// The version of the numeric contract: changed bits mean a new number.
pub const CONTRACT: u32 = 1;
