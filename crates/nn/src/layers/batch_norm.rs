//! Batch normalization as a layer (Ioffe and Szegedy, ICML 2015).

use super::pool::MaxPool2d;
use crate::module::Module;
use crate::pass::Pass;
use crate::state::{Counter, Parameter, Statistic, Visitor};
use kinone_core::array::Array;
use kinone_core::ops::{BatchStatistics, Conv2dBatchNorm2dEval, Convolution};
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use kinone_kernels::Cpu;

/// `x [n, c, h, w] -> [n, c, h, w]`; parameters `weight [c]`, `bias [c]`, statistics `running_mean [c]`,
/// `running_var [c]`, counter `num_batches_tracked`.
///
/// In training the batch's mean and biased variance normalise, and the running statistics become
/// `0.9·running + 0.1·batch`, the variance unbiased (times m/(m−1), m = n·h·w), as PyTorch has it. In
/// evaluation the running statistics normalise.
#[derive(Debug)]
pub struct BatchNorm2d {
    weight: Parameter,
    bias: Parameter,
    running_mean: Statistic,
    running_var: Statistic,
    batches: Counter,
}

/// What is added to a variance before the root.
const EPS: f32 = 1e-5;
/// The weight of a new batch in the running statistics.
const MOMENTUM: f32 = 0.1;

impl BatchNorm2d {
    /// The identity until something is learned: weight 1, bias 0, running mean 0, running variance 1.
    pub fn new(channels: usize) -> BatchNorm2d {
        BatchNorm2d {
            weight: Parameter::new(Array::full([channels], 1.0)),
            bias: Parameter::new(Array::full([channels], 0.0)),
            running_mean: Statistic::new(Array::full([channels], 0.0)),
            running_var: Statistic::new(Array::full([channels], 1.0)),
            batches: Counter::default(),
        }
    }
}

impl BatchNorm2d {
    /// `relu(forward(x))`, or `relu(forward(x) + residual)`: in training by one operator, unless the [`Cpu`] is
    /// [unfused](Cpu::unfused).
    ///
    /// # Errors
    /// `x` or `residual` does not fit.
    pub fn forward_relu(
        &self,
        pass: &Pass,
        x: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor, ShapeError> {
        if !(pass.is_training() && Cpu::current().fuses()) {
            let y = self.forward(pass, x)?;
            return match residual {
                Some(residual) => y.add(residual)?.relu(),
                None => y.relu(),
            };
        }
        let (weight, bias) = (pass.parameter(&self.weight), pass.parameter(&self.bias));
        let (y, batch) = match residual {
            Some(residual) => x.batch_norm2d_add_relu(&weight, &bias, residual, EPS)?,
            None => x.batch_norm2d_relu(&weight, &bias, EPS)?,
        };
        self.observe(pass, x, &batch);
        Ok(y)
    }

    /// `pool(relu(forward(x)))`: in training by one operator, unless the [`Cpu`] is [unfused](Cpu::unfused), or the pass
    /// recomputing: the parts let go of `x` before the pooling, and of the pooled gradient before `x` is computed again.
    ///
    /// # Errors
    /// `x` does not fit.
    pub fn forward_relu_pool(&self, pass: &Pass, x: Tensor, pool: &MaxPool2d) -> Result<Tensor, ShapeError> {
        if !(pass.is_training() && Cpu::current().fuses()) || pass.is_recomputing() {
            let y = self.forward_relu(pass, &x, None)?;
            drop(x);
            return pool.forward(pass, &y);
        }
        let (weight, bias) = (pass.parameter(&self.weight), pass.parameter(&self.bias));
        let (y, batch) = x.batch_norm2d_relu_max_pool2d(&weight, &bias, EPS, pool.operator().clone())?;
        self.observe(pass, &x, &batch);
        Ok(y)
    }

    /// `forward(conv(x))`, with the residual and relu if asked for, where values alone are wanted: one operator.
    pub(super) fn infer(
        &self,
        pass: &Pass,
        (x, weight): (&Tensor, &Tensor),
        conv: Convolution,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor, ShapeError> {
        let (gamma, beta) = (pass.parameter(&self.weight), pass.parameter(&self.bias));
        let (mean, var) = (pass.statistic(&self.running_mean), pass.statistic(&self.running_var));
        let operator = Conv2dBatchNorm2dEval { conv, eps: EPS, relu };
        x.conv2d_batch_norm2d_eval(weight, [&gamma, &beta, &mean, &var], residual, operator)
    }

    fn observe(&self, pass: &Pass, x: &Tensor, batch: &BatchStatistics) {
        let count: usize = x.shape().size() / x.shape()[1].max(1);
        let unbiased = count as f32 / (count.max(2) - 1) as f32;
        pass.observe(&self.running_mean, &batch.mean, MOMENTUM, 1.0, None);
        pass.observe(&self.running_var, &batch.var, MOMENTUM, unbiased, Some(&self.batches));
    }
}

impl Module for BatchNorm2d {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        let (weight, bias) = (pass.parameter(&self.weight), pass.parameter(&self.bias));
        if !pass.is_training() {
            let (mean, var) = (pass.statistic(&self.running_mean), pass.statistic(&self.running_var));
            return x.batch_norm2d_eval(&weight, &bias, &mean, &var, EPS);
        }
        let (y, batch) = x.batch_norm2d(&weight, &bias, EPS)?;
        self.observe(pass, x, &batch);
        Ok(y)
    }

    fn visit(&self, visitor: &mut Visitor) {
        visitor.parameter("weight", &self.weight);
        visitor.parameter("bias", &self.bias);
        visitor.statistic("running_mean", &self.running_mean);
        visitor.statistic("running_var", &self.running_var);
        visitor.counter("num_batches_tracked", &self.batches);
    }
}
