//! What a run leaves behind: its configuration, its log, its chain, its checkpoints, its weights, its summary.
//!
//! README.md shows the directory. Reading order: [`config`], [`directory`], [`progress`] and [`checkpoint`]
//! (what the next step depends on), [`store`] (which checkpoints are kept), [`chain`] and [`transcript`] (what
//! can be proved), [`log`], [`weights`] and [`npz`] (for others), [`lock`] and [`control`] (others at work).

pub mod chain;
pub mod checkpoint;
pub mod config;
pub mod control;
pub mod diff;
pub mod directory;
pub mod hash;
pub mod lock;
pub mod log;
pub mod npz;
mod path;
pub mod progress;
pub mod store;
pub mod summary;
pub mod transcript;
pub mod weights;

/// The version of the numeric contract: changed bits mean a new number.
pub const CONTRACT: u32 = 1;
