//! Convolution as a layer.

use super::BatchNorm2d;
use crate::init::{Fan, Init};
use crate::module::Module;
use crate::pass::Pass;
use crate::state::{Parameter, Visitor};
use kinone_core::ops::Conv2d as Operator;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;

/// The geometry of a [`Conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct ConvConfig {
    /// Pixels of a side of the square kernel.
    pub kernel: usize,
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Channel groups that do not see each other.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl ConvConfig {
    /// A square kernel that keeps the image's size at stride 1 (an odd `kernel`), without a bias.
    pub fn same(kernel: usize, stride: usize) -> ConvConfig {
        ConvConfig { kernel, stride, padding: kernel / 2, groups: 1, bias: false }
    }
}

/// `x [n, in, h, w] -> [n, out, i, j]`; parameters `weight [out, in/groups, k, k]` and, if asked for,
/// `bias [out]`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Parameter,
    bias: Option<Parameter>,
    operator: Operator,
}

impl Conv2d {
    /// Weights drawn from He's normal with the fan-out, as torchvision's ResNets have it; a bias of zero.
    pub fn new(init: &Init, inputs: usize, outputs: usize, config: ConvConfig) -> Conv2d {
        let ConvConfig { kernel, stride, padding, groups, bias } = config;
        let shape = [outputs, inputs / groups, kernel, kernel];
        let weight = Parameter::new(init.at("weight").kaiming_normal(shape, Fan::Out));
        let bias = bias.then(|| Parameter::new(init.at("bias").uniform([outputs], 0.0)));
        let operator =
            Operator { stride: (stride, stride), padding: (padding, padding), dilation: (1, 1), groups };
        Conv2d { weight, bias, operator }
    }
}

impl Conv2d {
    /// `relu(norm(forward(x)) + residual)`, the residual and relu where they are wanted: by as few operators as the
    /// pass allows, with the same bits.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn forward_norm(
        &self,
        pass: &Pass,
        norm: &BatchNorm2d,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor, ShapeError> {
        if pass.infers() && self.bias.is_none() {
            let weight = pass.parameter(&self.weight);
            return norm.infer(pass, (x, &weight), self.operator.clone(), residual, relu);
        }
        let y = self.forward(pass, x)?;
        match (relu, residual) {
            (true, residual) => norm.forward_relu(pass, &y, residual),
            (false, Some(residual)) => norm.forward(pass, &y)?.add(residual),
            (false, None) => norm.forward(pass, &y),
        }
    }
}

impl Module for Conv2d {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        let bias = self.bias.as_ref().map(|bias| pass.parameter(bias));
        x.conv2d(&pass.parameter(&self.weight), bias.as_ref(), self.operator.clone())
    }

    fn visit(&self, visitor: &mut Visitor) {
        visitor.parameter("weight", &self.weight);
        if let Some(bias) = &self.bias {
            visitor.parameter("bias", bias);
        }
    }
}
