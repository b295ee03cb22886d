//! What scores are worth: areas under curves with ties counted right, their uncertainty by patient, thresholds,
//! and whether a probability means what it says.
//!
//! Reading order: [`auc`] (one class), [`interval`] (its uncertainty), [`report`] (all classes), [`operating`]
//! (thresholds), [`calibration`].

pub mod auc;
pub mod calibration;
pub mod error;
pub mod interval;
pub mod operating;
pub mod report;

pub use auc::{Ranking, auprc, auroc};
pub use calibration::Calibration;
pub use error::ScoreError;
pub use operating::OperatingPoint;
pub use report::{ClassReport, Report};
