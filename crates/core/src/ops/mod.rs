//! The operators, one file each, in reading order.
//!
//! A new operator touches two places: its own file, and this one (its `mod` line and its line in
//! [`OPERATORS`]). Everything else is a loop over the list.

mod abs;
mod adaptive_avg_pool2d;
mod add;
mod avg_pool2d;
mod batch_norm2d;
mod batch_norm2d_add_relu;
mod batch_norm2d_eval;
mod batch_norm2d_relu;
mod batch_norm2d_relu_max_pool2d;
mod binary_cross_entropy_with_logits;
mod clamp;
mod concat;
mod conv2d;
mod conv2d_batch_norm2d_eval;
mod conv2d_winograd;
mod conv_transpose2d;
mod cross_entropy_with_logits;
mod div;
mod dropout;
mod exp;
mod gelu;
mod hard_sigmoid;
mod hard_swish;
mod hard_tanh;
mod leaky_relu;
mod linear;
mod log;
mod log_softmax;
mod matmul;
mod max_pool2d;
mod maximum;
mod mean;
mod mean_absolute_error;
mod mean_squared_error;
mod mul;
mod neg;
mod pad;
mod permute;
mod pow;
mod relu;
mod reshape;
mod sigmoid;
mod silu;
mod slice;
mod softmax;
mod softplus;
mod sqrt;
mod square;
mod sub;
mod sum;
mod tanh;
mod var;
mod r#where;

pub use abs::Abs;
pub use adaptive_avg_pool2d::AdaptiveAvgPool2d;
pub use add::Add;
pub use avg_pool2d::AvgPool2d;
pub use batch_norm2d::{BatchNorm2d, BatchStatistics};
pub use batch_norm2d_add_relu::BatchNorm2dAddRelu;
pub use batch_norm2d_eval::BatchNorm2dEval;
pub use batch_norm2d_relu::BatchNorm2dRelu;
pub use batch_norm2d_relu_max_pool2d::BatchNorm2dReluMaxPool2d;
pub use binary_cross_entropy_with_logits::BinaryCrossEntropyWithLogits;
pub use clamp::Clamp;
pub use concat::Concat;
pub use conv_transpose2d::ConvTranspose2d;
pub use conv2d::Conv2d;
pub use conv2d_batch_norm2d_eval::{Conv2dBatchNorm2dEval, Convolution};
pub use conv2d_winograd::Conv2dWinograd;
pub use cross_entropy_with_logits::CrossEntropyWithLogits;
pub use div::Div;
pub use dropout::Dropout;
pub use exp::Exp;
pub use gelu::Gelu;
pub use hard_sigmoid::HardSigmoid;
pub use hard_swish::HardSwish;
pub use hard_tanh::HardTanh;
pub use leaky_relu::LeakyRelu;
pub use linear::Linear;
pub use log::Log;
pub use log_softmax::LogSoftmax;
pub use matmul::Matmul;
pub use max_pool2d::MaxPool2d;
pub use maximum::Maximum;
pub use mean::Mean;
pub use mean_absolute_error::MeanAbsoluteError;
pub use mean_squared_error::MeanSquaredError;
pub use mul::Mul;
pub use neg::Neg;
pub use pad::Pad;
pub use permute::Permute;
pub use pow::Pow;
pub use relu::Relu;
pub use reshape::Reshape;
pub use sigmoid::Sigmoid;
pub use silu::Silu;
pub use slice::Slice;
pub use softmax::Softmax;
pub use softplus::Softplus;
pub use sqrt::Sqrt;
pub use square::Square;
pub use sub::Sub;
pub use sum::Sum;
pub use tanh::Tanh;
pub use var::Var;
pub use r#where::Where;

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
    Entry::of::<Div>(),
    Entry::of::<Neg>(),
    Entry::of::<Abs>(),
    Entry::of::<Square>(),
    Entry::of::<Sqrt>(),
    Entry::of::<Exp>(),
    Entry::of::<Log>(),
    Entry::of::<Pow>(),
    Entry::of::<Relu>(),
    Entry::of::<LeakyRelu>(),
    Entry::of::<Sigmoid>(),
    Entry::of::<Tanh>(),
    Entry::of::<Silu>(),
    Entry::of::<Gelu>(),
    Entry::of::<Softplus>(),
    Entry::of::<HardSigmoid>(),
    Entry::of::<HardTanh>(),
    Entry::of::<HardSwish>(),
    Entry::of::<Clamp>(),
    Entry::of::<Maximum>(),
    Entry::of::<Where>(),
    // Products.
    Entry::of::<Matmul>(),
    Entry::of::<Linear>(),
    // Reductions.
    Entry::of::<Sum>(),
    Entry::of::<Mean>(),
    Entry::of::<Var>(),
    Entry::of::<Softmax>(),
    Entry::of::<LogSoftmax>(),
    // Shapes.
    Entry::of::<Reshape>(),
    Entry::of::<Permute>(),
    Entry::of::<Concat>(),
    Entry::of::<Slice>(),
    Entry::of::<Pad>(),
    // Convolution and pooling.
    Entry::of::<Conv2d>(),
    Entry::of::<Conv2dWinograd>(),
    Entry::of::<ConvTranspose2d>(),
    Entry::of::<MaxPool2d>(),
    Entry::of::<AvgPool2d>(),
    Entry::of::<AdaptiveAvgPool2d>(),
    // Normalization.
    Entry::of::<BatchNorm2d>(),
    Entry::of::<BatchNorm2dRelu>(),
    Entry::of::<BatchNorm2dReluMaxPool2d>(),
    Entry::of::<BatchNorm2dAddRelu>(),
    Entry::of::<BatchNorm2dEval>(),
    Entry::of::<Conv2dBatchNorm2dEval>(),
    Entry::of::<Dropout>(),
    // Losses.
    Entry::of::<BinaryCrossEntropyWithLogits>(),
    Entry::of::<CrossEntropyWithLogits>(),
    Entry::of::<MeanSquaredError>(),
    Entry::of::<MeanAbsoluteError>(),
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
