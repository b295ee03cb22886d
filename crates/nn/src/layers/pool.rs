//! Pooling as layers.

use crate::module::Module;
use crate::pass::Pass;
use crate::state::Visitor;
use kinone_core::ops::MaxPool2d as Operator;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;

/// The largest value of each window.
#[derive(Clone, Debug)]
pub struct MaxPool2d(Operator);

impl MaxPool2d {
    /// Square windows of `kernel` pixels, `stride` apart, on an image padded by `padding`.
    pub fn new(kernel: usize, stride: usize, padding: usize) -> MaxPool2d {
        MaxPool2d(Operator {
            kernel: (kernel, kernel),
            stride: (stride, stride),
            padding: (padding, padding),
            dilation: (1, 1),
            ceil_mode: false,
        })
    }

    /// What it applies.
    pub(super) fn operator(&self) -> &Operator {
        &self.0
    }
}

impl Module for MaxPool2d {
    fn forward(&self, _pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        x.max_pool2d(self.0.clone())
    }

    fn visit(&self, _visitor: &mut Visitor) {}
}

/// The mean of each cell of a grid of this many rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct AdaptiveAvgPool2d(pub usize, pub usize);

impl Module for AdaptiveAvgPool2d {
    fn forward(&self, _pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        x.adaptive_avg_pool2d((self.0, self.1))
    }

    fn visit(&self, _visitor: &mut Visitor) {}
}
