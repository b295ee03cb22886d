//! The affine map as a layer.

use crate::init::{Fan, Init};
use crate::module::Module;
use crate::pass::Pass;
use crate::state::{Parameter, Visitor};
use kinone_core::shape::{Shape, ShapeError};
use kinone_core::tensor::Tensor;

/// `x [n, in] -> x·weightᵀ + bias [n, out]`; parameters `weight [out, in]`, `bias [out]`.
#[derive(Debug)]
pub struct Linear {
    weight: Parameter,
    bias: Parameter,
}

impl Linear {
    /// Weight and bias uniform in ±1/√in, as PyTorch has it.
    pub fn new(init: &Init, inputs: usize, outputs: usize) -> Linear {
        let shape = Shape::from([outputs, inputs]);
        let bound = 1.0 / (Fan::In.of(&shape) as f32).sqrt();
        Linear {
            weight: Parameter::new(init.at("weight").uniform(shape, bound)),
            bias: Parameter::new(init.at("bias").uniform([outputs], bound)),
        }
    }
}

impl Module for Linear {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        x.linear(&pass.parameter(&self.weight), Some(&pass.parameter(&self.bias)))
    }

    fn visit(&self, visitor: &mut Visitor) {
        visitor.parameter("weight", &self.weight);
        visitor.parameter("bias", &self.bias);
    }
}

/// `x [n, a, b, …] -> [n, a·b·…]`.
#[derive(Clone, Copy, Debug)]
pub struct Flatten;

impl Module for Flatten {
    fn forward(&self, _pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        let n = x.shape().first().copied().unwrap_or(1);
        let rest: usize = x.shape().iter().skip(1).product();
        x.reshape([n, rest])
    }

    fn visit(&self, _visitor: &mut Visitor) {}
}
