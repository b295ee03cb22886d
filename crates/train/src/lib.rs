//! The training loop, evaluation and prediction: where models, images, metrics and the record of a run meet.
//!
//! Reading order: [`trainer`] (one step), [`course`] (a run between two steps), [`fit`] (a run, with what it
//! writes in `record`), [`resume`] (going on), [`evaluate`] (scores and metrics), [`prepare`] (from a
//! configuration to data and a model), [`room`] (whether there is memory), [`index`] (what the data are), [`verify`] (proving a record).

pub mod course;
mod diagnose;
pub mod evaluate;
pub mod fit;
pub mod index;
pub mod prepare;
mod record;
mod rescue;
pub mod resume;
pub mod room;
mod trace;
pub mod trainer;
pub mod verify;

pub use record::{OnSaveError, Saving};
