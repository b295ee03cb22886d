//! One step of training.

use crate::diagnose;
use kinone_core::array::Array;
use kinone_core::graph::{Adjoints, BackwardError};
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use kinone_nn::clip::clip_gradients;
use kinone_nn::ema::Ema;
use kinone_nn::optim::Optimizer;
use kinone_nn::schedule::Rate;
use kinone_nn::state::{self, Dictionary, Parameter, StateError, parameters};
use kinone_nn::{Module, Pass};

/// A model, its optimizer, and where they stand.
#[derive(Debug)]
pub struct Trainer<M> {
    /// The model.
    pub model: M,
    /// The learning rate over time.
    pub rate: Rate,
    parameters: Vec<(String, Parameter)>,
    optimizer: Optimizer,
    ema: Option<Ema>,
    clip_norm: Option<f64>,
    seed: u64,
    step: u64,
}

/// The images of one batch.
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
    /// The mean binary cross entropy of its images, before the update.
    pub loss: f32,
    /// The norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub lr: f32,
}

/// Why a step was not made. But for [`StepError::Overflow`] the model is as it was before.
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
        "step {step}: the {what} is {value}, so nothing was updated; it begins {origin}; lower --lr or --weight-decay, or set \
         --clip-norm (samples {samples:?})"
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// The loss, or the norm of the gradient.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The first operator whose result is not finite.
        origin: String,
        /// The ids of the batch's samples.
        samples: Vec<u64>,
    },
    /// The update made weights that are too large to go on with: the model is lost.
    #[error(
        "step {step}: after the update {what}; no checkpoint of it is kept; lower --lr or --weight-decay, or set --clip-norm"
    )]
    Overflow {
        /// The step, from 1.
        step: u64,
        /// The first parameter that is not finite, or the largest.
        what: String,
    },
}

/// A batch as the graph takes it: cheap to use twice.
struct Inputs {
    images: Tensor,
    targets: Tensor,
    samples: Vec<u64>,
}

impl<M: Module> Trainer<M> {
    /// At the first step of a run.
    pub fn new(model: M, optimizer: Optimizer, rate: Rate, clip_norm: Option<f64>, seed: u64) -> Self {
        let parameters = parameters(&model);
        Trainer { model, rate, parameters, optimizer, ema: None, clip_norm, seed, step: 0 }
    }

    /// The same with a moving average of the weights, which begins as they are now.
    pub fn averaging(self, decay: f64) -> Self {
        Trainer { ema: Some(Ema::new(decay, &self.parameters)), ..self }
    }

    /// The number of learned numbers.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|(_, parameter)| parameter.tensor().shape().size()).sum()
    }

    /// The parameters, under their names.
    pub fn parameters(&self) -> &[(String, Parameter)] {
        &self.parameters
    }

    /// Steps made.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// What is evaluated and kept: the state of the model, its parameters replaced by their average where
    /// there is one.
    pub fn weights(&self) -> Dictionary {
        let mut weights = state::dictionary(&self.model);
        if let Some(ema) = &self.ema {
            weights.extend(ema.dictionary(&self.parameters));
        }
        weights
    }

    /// Everything that the steps so far have made: `model.…`, `optimizer.…`, `ema.…`.
    pub fn state(&self) -> Dictionary {
        let mut all = Dictionary::new();
        let mut add = |room: &str, values: Dictionary| {
            all.extend(values.into_iter().map(|(name, value)| (format!("{room}.{name}"), value)));
        };
        add("model", state::dictionary(&self.model));
        add("optimizer", self.optimizer.moments(&self.parameters));
        if let Some(ema) = &self.ema {
            add("ema", ema.dictionary(&self.parameters));
        }
        all
    }

    /// Goes back to where `steps` were made and this was the state.
    ///
    /// # Errors
    /// The state is of another model, rule or average.
    pub fn restore(&mut self, steps: u64, all: &Dictionary) -> Result<(), StateError> {
        let (mut model, mut moments, mut averages) =
            (Dictionary::new(), Dictionary::new(), Dictionary::new());
        for (name, value) in all {
            let (room, rest) = name.split_once('.').unwrap_or(("", name));
            let place = match room {
                "model" => &mut model,
                "optimizer" => &mut moments,
                "ema" if self.ema.is_some() => &mut averages,
                _ => {
                    let unknown = vec![name.clone()];
                    return Err(StateError::Names { missing: Vec::new(), unknown });
                }
            };
            place.insert(rest.to_owned(), value.clone());
        }
        state::load(&self.model, &model)?;
        self.optimizer.restore(steps, &self.parameters, &moments)?;
        if let Some(ema) = &mut self.ema {
            ema.restore(&self.parameters, &averages)?;
        }
        self.step = steps;
        Ok(())
    }

    /// Forward, backward, update, on one batch.
    ///
    /// # Errors
    /// As [`Trainer::step_over`].
    pub fn step(&mut self, epoch: u32, batch: Batch) -> Result<Step, StepError> {
        self.step_over(epoch, vec![batch])
    }

    /// One update from several batches: with nᵢ images in batch i and n in all, the gradient is
    /// `Σᵢ (nᵢ/n)·∇Lᵢ`, added in the order of the batches, and the loss `Σᵢ (nᵢ/n)·Lᵢ`, in f64. But for batch
    /// normalization that is the gradient of all images at once: it takes its statistics over each batch,
    /// and the running statistics take in the batches one after the other.
    ///
    /// # Errors
    /// A batch does not fit, or the loss or the gradient is not finite; then nothing has changed. Or the update
    /// made a parameter that is not finite; then the model is lost.
    pub fn step_over(&mut self, epoch: u32, batches: Vec<Batch>) -> Result<Step, StepError> {
        let step = self.step + 1;
        let count: usize = batches.iter().map(|batch| batch.samples.len()).sum();
        let inputs = |Batch { images, targets, samples }| Inputs {
            images: Tensor::constant(images),
            targets: Tensor::constant(targets),
            samples,
        };
        let batches: Vec<Inputs> = batches.into_iter().map(inputs).collect();
        let (mut total, mut loss_sum, mut passes) = (Adjoints::default(), 0.0, Vec::new());
        for batch in &batches {
            let pass = Pass::training(self.seed, epoch, &batch.samples);
            let loss = self.loss(&pass, batch)?;
            let value = loss.data()[0];
            if !value.is_finite() {
                drop(loss);
                let origin = diagnose::forward(&self.parameters, || self.loss(&pass.unobserved(), batch));
                return Err(not_finite(step, "loss", value.into(), origin, &batches));
            }
            let share = (batch.samples.len() as f64 / count as f64) as f32;
            let adjoints = loss.backward_from(Array::full(loss.shape().clone(), share), &[])?;
            add(&self.parameters, &mut total, adjoints);
            loss_sum += f64::from(value) * batch.samples.len() as f64;
            passes.push(pass);
        }
        let limit = self.clip_norm.unwrap_or(f64::INFINITY);
        let gradient_norm = clip_gradients(&self.parameters, &mut total, limit);
        if !gradient_norm.is_finite() {
            let origin = self.origin_of_gradient(epoch, count, &batches).map(|origin| {
                let reached = self.parameters.iter().find(|(_, parameter)| {
                    let gradient = total.of(&parameter.tensor());
                    gradient.is_some_and(|gradient| !gradient.data().iter().all(|x| x.is_finite()))
                });
                let name = reached.map_or("none", |(name, _)| name);
                format!("{origin}, and reaches the parameter {name}")
            });
            return Err(not_finite(step, "norm of the gradient", gradient_norm, origin, &batches));
        }
        let lr = self.rate.at(epoch, self.step);
        self.optimizer.update(&self.parameters, &total, lr);
        if let Some(ema) = &mut self.ema {
            ema.update(&self.parameters);
        }
        if let Some(what) = diagnose::overflow(&self.parameters) {
            return Err(StepError::Overflow { step, what });
        }
        passes.into_iter().for_each(Pass::commit);
        self.step = step;
        Ok(Step { step, loss: (loss_sum / count as f64) as f32, gradient_norm, lr })
    }

    fn loss(&self, pass: &Pass, batch: &Inputs) -> Result<Tensor, ShapeError> {
        let logits = self.model.forward(pass, &batch.images)?;
        logits.binary_cross_entropy_with_logits(&batch.targets, None, None)
    }

    /// Walks again, batch by batch, until a contribution is not finite.
    fn origin_of_gradient(&self, epoch: u32, count: usize, batches: &[Inputs]) -> Option<String> {
        batches.iter().find_map(|batch| {
            let pass = Pass::training(self.seed, epoch, &batch.samples).unobserved();
            let loss = self.loss(&pass, batch).ok()?;
            let share = (batch.samples.len() as f64 / count as f64) as f32;
            diagnose::backward(&self.parameters, || {
                loss.backward_from(Array::full(loss.shape().clone(), share), &[])
            })
        })
    }
}

fn not_finite(
    step: u64,
    what: &'static str,
    value: f64,
    origin: Option<String>,
    batches: &[Inputs],
) -> StepError {
    let samples = batches.iter().flat_map(|batch| batch.samples.iter().copied()).collect();
    let origin = origin.unwrap_or_else(|| "in the sum over the batches".to_owned());
    StepError::NotFinite { step, what, value, origin, samples }
}

/// `total += more`, parameter by parameter; the first summand is taken as it is.
fn add(parameters: &[(String, Parameter)], total: &mut Adjoints, more: Adjoints) {
    let variables: Vec<Tensor> = parameters.iter().map(|(_, parameter)| parameter.tensor()).collect();
    if variables.iter().all(|variable| total.of(variable).is_none()) {
        *total = more;
        return;
    }
    for variable in &variables {
        if let (Some(sum), Some(term)) = (total.of_mut(variable), more.of(variable)) {
            for (a, b) in sum.data_mut().iter_mut().zip(term.data()) {
                *a += b;
            }
        }
    }
}
