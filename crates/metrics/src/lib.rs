//! What scores are worth: areas under curves with ties counted right, and their uncertainty by patient.
//!
//! Reading order: [`auc`] (one class), [`interval`] (its uncertainty), [`report`] (all classes).

pub mod auc;
pub mod interval;
pub mod report;

pub use auc::{ScoreError, auprc, auroc};
pub use report::{ClassReport, Report};
