//! The operators, one file each, in reading order.
//!
//! A new operator touches two places: its own file, and this one (its `mod` line and its line in
//! [`OPERATORS`]). Everything else is a loop over the list.

mod add;
mod relu;

pub use add::Add;
pub use relu::Relu;

use crate::case::{Case, Input};
use crate::check::{Checker, Proof};
use crate::operator::{Doc, Operator, Primitive};
use std::sync::Arc;

/// Every operator of this crate.
pub static OPERATORS: &[Entry] = &[
    // Element-wise.
    Entry::of::<Add>(),
    Entry::of::<Relu>(),
];

/// What is known about an operator without its type.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is.
    pub doc: &'static Doc,
    prove: fn(&Checker) -> Proof,
    cases: fn() -> Vec<Case<Arc<dyn Primitive>>>,
}

impl Entry {
    /// The entry of `O`.
    pub const fn of<O: Operator>() -> Entry {
        Entry { doc: &O::DOC, prove: |checker| checker.prove::<O>(), cases: erased::<O> }
    }

    /// The chain of trust.
    pub fn prove(&self, checker: &Checker) -> Proof {
        (self.prove)(checker)
    }

    /// What the checks run on, as the graph sees it.
    pub fn cases(&self) -> Vec<Case<Arc<dyn Primitive>>> {
        (self.cases)()
    }
}

fn erased<O: Operator>() -> Vec<Case<Arc<dyn Primitive>>> {
    O::cases()
        .into_iter()
        .map(|Case { name, operator, inputs, bits_only }| {
            let operator: Arc<dyn Primitive> = Arc::new(operator);
            let inputs: Vec<Input> = inputs;
            Case { name, operator, inputs, bits_only }
        })
        .collect()
}
