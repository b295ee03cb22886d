//! The training loop, evaluation and prediction: where models, images, metrics and the record of a run meet.
//!
//! Reading order: [`trainer`] (one step), [`fit`] (a run), [`evaluate`] (scores and metrics), [`prepare`]
//! (from a configuration to data and a model).

pub mod evaluate;
pub mod fit;
pub mod prepare;
pub mod trainer;
