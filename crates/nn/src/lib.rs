//! Neural networks: modules with named state, initial values, optimizers, schedules, and the ResNets.
//!
//! Reading order: [`state`] (what a module remembers), [`pass`] (one run through a module), [`module`],
//! [`layers`], [`init`], [`models`]; then [`optim`], [`schedule`] and [`clip`].

pub mod clip;
pub mod ema;
pub mod init;
pub mod layers;
pub mod models;
pub mod module;
pub mod optim;
pub mod pass;
pub mod schedule;
pub mod state;

pub use module::Module;
pub use pass::Pass;
pub use state::{Counter, Parameter, Statistic};
