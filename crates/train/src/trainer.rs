//! One step of training.

use kinone_core::array::Array;
use kinone_core::graph::BackwardError;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use kinone_nn::clip::clip_gradients;
use kinone_nn::optim::Optimizer;
use kinone_nn::schedule::Rate;
use kinone_nn::state::{Parameter, parameters};
use kinone_nn::{Module, Pass};

/// A model, its optimizer, and where they stand.
#[derive(Debug)]
pub struct Trainer<M> {
    /// The model.
    pub model: M,
    /// The learning rate over time.
    pub rate: Rate,
    /// Whether one operator may stand for several: decides speed and memory, no bit.
    pub fused: bool,
    parameters: Vec<(String, Parameter)>,
    optimizer: Optimizer,
    clip_norm: Option<f64>,
    seed: u64,
    step: u64,
}

/// The images of one step.
#[derive(Debug)]
pub struct Batch {
    /// `[n, 1, h, w]`
    pub images: Array,
    /// `[n, classes]`, 0 or 1
    pub targets: Array,
    /// The ids of the samples: what dropout draws from, and what an error names.
    pub samples: Vec<u64>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The number of the step, from 1.
    pub step: u64,
    /// The mean binary cross entropy of the batch, before the update.
    pub loss: f32,
    /// The norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub lr: f32,
}

/// Why a step was not made. The model is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The images do not fit the model.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The graph could not be walked.
    #[error(transparent)]
    Backward(#[from] BackwardError),
    /// The loss or the gradient is not a number or infinite.
    #[error(
        "step {step}: the {what} is {value}, so nothing was updated; lower --lr or set --clip-norm \
         (samples {samples:?})"
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// The loss, or the norm of the gradient.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The ids of the batch's samples.
        samples: Vec<u64>,
    },
}

impl<M: Module> Trainer<M> {
    /// At the first step of a run.
    pub fn new(model: M, optimizer: Optimizer, rate: Rate, clip_norm: Option<f64>, seed: u64) -> Self {
        let parameters = parameters(&model);
        Trainer { model, rate, fused: true, parameters, optimizer, clip_norm, seed, step: 0 }
    }

    /// The number of learned numbers.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|(_, parameter)| parameter.tensor().shape().size()).sum()
    }

    /// Forward, backward, update.
    ///
    /// # Errors
    /// The batch does not fit, or the loss or the gradient is not finite; then nothing has changed.
    pub fn step(&mut self, epoch: u32, batch: Batch) -> Result<Step, StepError> {
        let Batch { images, targets, samples } = batch;
        let step = self.step + 1;
        let not_finite = |what, value| StepError::NotFinite { step, what, value, samples: samples.clone() };
        let pass = Pass::training(self.seed, epoch, &samples);
        let pass = if self.fused { pass } else { pass.unfused() };
        let logits = self.model.forward(&pass, &Tensor::constant(images))?;
        let loss = logits.binary_cross_entropy_with_logits(&Tensor::constant(targets), None, None)?;
        drop(logits);
        let value = loss.data()[0];
        if !value.is_finite() {
            return Err(not_finite("loss", f64::from(value)));
        }
        let mut adjoints = loss.backward()?;
        let limit = self.clip_norm.unwrap_or(f64::INFINITY);
        let gradient_norm = clip_gradients(&self.parameters, &mut adjoints, limit);
        if !gradient_norm.is_finite() {
            return Err(not_finite("norm of the gradient", gradient_norm));
        }
        let lr = self.rate.at(epoch, self.step);
        drop(loss);
        self.optimizer.update(&self.parameters, &adjoints, lr);
        pass.commit();
        self.step = step;
        Ok(Step { step, loss: value, gradient_norm, lr })
    }
}
