//! `batch_norm2d_relu_max_pool2d`: batch normalization in training, a ReLU and max pooling, in one pass over memory: the
//! stem of a residual network (He et al., CVPR 2016).

use super::batch_norm2d::{BatchStatistics, channels, gradients, known_images, shapes, unsupported};
use super::batch_norm2d_relu::{forward_relu, vjp_relu};
use super::max_pool2d::MaxPool2d;
use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply_with_auxiliaries};
use crate::window::arity;
use kinone_kernels::Cpu;
use kinone_kernels::norm::{self, Pooled, Unpool};

/// `max_pool2d(relu(batch_norm2d(x, gamma, beta)))`
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm2dReluMaxPool2d {
    /// Added to the variance.
    pub eps: f32,
    /// The windows.
    pub pool: MaxPool2d,
}

impl Tensor {
    /// [`Tensor::batch_norm2d`], [`Tensor::relu`] and [`Tensor::max_pool2d`] with the same bits, the values between them
    /// never stored.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn batch_norm2d_relu_max_pool2d(
        &self,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f32,
        pool: MaxPool2d,
    ) -> Result<(Tensor, BatchStatistics), ShapeError> {
        let operator = BatchNorm2dReluMaxPool2d { eps, pool };
        let (y, auxiliaries) = apply_with_auxiliaries(operator, &[self, gamma, beta])?;
        Ok((y, BatchStatistics::of(&auxiliaries)))
    }
}

impl Operator for BatchNorm2dReluMaxPool2d {
    const DOC: Doc = Doc {
        name: "batch_norm2d_relu_max_pool2d",
        summary: "Batch normalization by the statistics of the batch, the rectified linear unit, and the largest value \
            of each window.",
        formula: r"z = \max(\mathrm{batch\_norm2d}(x, \gamma, \beta), 0), \quad y = \mathrm{max\_pool2d}(z)",
        gradient: r"\bar z = \sum_{ij:\ (h,v)\ \text{wins}\ (i,j)} \bar y_{ncij}, \quad \text{then as batch\_norm2d\_relu}",
        shapes: "x [n, c, h, w], gamma [c], beta [c]; y [n, c, i, j], auxiliaries mean, var, 1/deviation [c] and the \
            winner's tap, like y",
        conventions: "Those of batch_norm2d, relu and max_pool2d, of which this is the composition bit for bit.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1, 2]).and_auxiliaries();

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[3], x.len())?;
        let Shapes { mut auxiliaries, .. } = shapes(Self::DOC.name, x, self.eps)?;
        let windows = self.pool.windows(x[0])?;
        let value = Shape::from([x[0][0], x[0][1], windows.oh, windows.ow]);
        auxiliaries.push(value.clone());
        Ok(Shapes { value, auxiliaries })
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let shape = x[0].shape();
        let [mean, var, invstd, winner] = &mut y.auxiliaries[..] else { unreachable!("four auxiliaries") };
        let mut z = vec![F::zero(); shape.size()];
        forward_relu(self.eps, x, &mut Output { shape, value: &mut z, auxiliaries: vec![mean, var, invstd] });
        let mut pooled = Output { shape: y.shape, value: y.value, auxiliaries: vec![winner] };
        self.pool.forward(&[View::new(shape, &z)], &mut pooled);
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let shape = saved.shape(0);
        let mut dz = vec![F::zero(); shape.size()];
        self.pool.spread(shape, saved.auxiliary(3), dy, &mut dz);
        vjp_relu(saved, &dz, dx);
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let [mean, var, invstd, winner] = &mut y.auxiliaries[..] else { unreachable!("four auxiliaries") };
        let (shape, pool) = (known_images(x[0].shape()), self.pool.known(x[0].shape()).kernel());
        let parameters = (x[1].data(), x[2].data(), self.eps);
        let to = Pooled { pool: &pool, y: y.value, winner };
        norm::train_forward_pooled(cpu, shape, x[0].data(), parameters, to, [mean, var, invstd]);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let (x, beta, winner) = (saved.input(0), saved.input(2), saved.auxiliary(3));
        let (shape, pool) = (known_images(x.shape()), self.pool.known(x.shape()).kernel());
        let from = Unpool { pool: &pool, winner: winner.data(), dy: dy.data() };
        let (channels, gradients) = (channels(saved), gradients(dx));
        norm::train_backward_pooled(cpu, shape, x.data(), from, channels, beta.data(), gradients);
    }

    fn onnx(&self, _graph: &mut Fragment, _x: &[Value]) -> Result<String, Unsupported> {
        Err(unsupported())
    }

    fn cases() -> Vec<Case<Self>> {
        let pool = |kernel, stride, padding| MaxPool2d {
            kernel: (kernel, kernel),
            stride: (stride, stride),
            padding: (padding, padding),
            dilation: (1, 1),
            ceil_mode: false,
        };
        let case = |name, pool: MaxPool2d, x: [usize; 4]| {
            let vector = || Input::real([x[1]]);
            let operator = BatchNorm2dReluMaxPool2d { eps: 1e-5, pool };
            Case::new(name, operator, [Input::distinct(x), vector(), vector()])
        };
        vec![
            case("a grid", pool(2, 2, 0), [2, 2, 4, 6]),
            case("windows that overlap, padded", pool(3, 2, 1), [2, 3, 6, 7]),
            case("small planes", pool(3, 2, 1), [9, 5, 3, 4]).bits_only(),
            case("a stem", pool(3, 2, 1), [9, 5, 34, 33]).bits_only(),
            case("large images", pool(3, 2, 1), [2, 3, 67, 66]).bits_only(),
        ]
    }
}
