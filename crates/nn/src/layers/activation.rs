//! Activations as layers.

use crate::module::Module;
use crate::pass::Pass;
use crate::state::Visitor;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;

/// An element-wise function without state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x·σ(x)
    Silu,
    /// x·Φ(x)
    Gelu,
    /// tanh x
    Tanh,
    /// σ(x)
    Sigmoid,
}

impl Module for Activation {
    fn forward(&self, _pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        match self {
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu(),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => x.sigmoid(),
        }
    }

    fn visit(&self, _visitor: &mut Visitor) {}
}
