//! The operators, one file each, in reading order.
//!
//! A new operator touches two places: its own file, and this one (its `mod` line and its line in
//! [`OPERATORS`]). Everything else is a loop over the list.

mod adaptive_avg_pool2d;
mod add;
mod avg_pool2d;
mod batch_norm2d;
mod batch_norm2d_eval;
mod binary_cross_entropy_with_logits;
mod conv2d;
mod linear;
mod matmul;
mod max_pool2d;
mod mul;
mod relu;
mod reshape;
mod sub;

pub use adaptive_avg_pool2d::AdaptiveAvgPool2d;
pub use add::Add;
pub use avg_pool2d::AvgPool2d;
pub use batch_norm2d::{BatchNorm2d, BatchStatistics};
pub use batch_norm2d_eval::BatchNorm2dEval;
pub use binary_cross_entropy_with_logits::BinaryCrossEntropyWithLogits;
pub use conv2d::Conv2d;
pub use linear::Linear;
pub use matmul::Matmul;
pub use max_pool2d::MaxPool2d;
pub use mul::Mul;
pub use relu::Relu;
pub use reshape::Reshape;
pub use sub::Sub;

use crate::case::{Case, Input};
use crate::check::{Checker, Proof};
use crate::operator::{Doc, Operator, Primitive};
use std::sync::Arc;

/// Every operator of this crate.
pub static OPERATORS: &[Entry] = &[
    // Element-wise.
    Entry::of::<Add>(),
    Entry::of::<Sub>(),
    Entry::of::<Mul>(),
    Entry::of::<Relu>(),
    // Products.
    Entry::of::<Matmul>(),
    Entry::of::<Linear>(),
    // Shapes.
    Entry::of::<Reshape>(),
    // Convolution and pooling.
    Entry::of::<Conv2d>(),
    Entry::of::<MaxPool2d>(),
    Entry::of::<AvgPool2d>(),
    Entry::of::<AdaptiveAvgPool2d>(),
    // Normalization.
    Entry::of::<BatchNorm2d>(),
    Entry::of::<BatchNorm2dEval>(),
    // Losses.
    Entry::of::<BinaryCrossEntropyWithLogits>(),
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
