//! A function with state.

use crate::pass::Pass;
use crate::state::Visitor;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use std::fmt::Debug;

/// A function with named parameters, statistics and counters.
pub trait Module: Debug + Send + Sync {
    /// The output on `x`. Changes nothing: what is observed goes to `pass`, which commits it.
    ///
    /// # Errors
    /// `x` does not fit.
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError>;

    /// Shows every piece of state, and every module inside, under its name.
    fn visit(&self, visitor: &mut Visitor);
}
