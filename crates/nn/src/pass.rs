//! One run through a module: what for, on which samples, and what was observed on the way.
//!
//! There is no global mode. A pass says whether batch statistics are taken or the running ones used, and
//! whether what is computed is recorded.

use crate::state::{Counter, Parameter, Statistic};
use kinone_core::array::Array;
use kinone_core::tensor::Tensor;
use kinone_kernels::Cpu;
use std::sync::{Arc, Mutex, PoisonError};

/// The context of one run.
#[derive(Clone, Debug)]
pub struct Pass {
    purpose: Purpose,
    observations: Option<Arc<Mutex<Vec<Observation>>>>,
    recomputing: bool,
}

#[derive(Clone, Debug)]
enum Purpose {
    Training { seed: u64, epoch: u32, samples: Arc<[u64]> },
    Evaluation,
    Trace,
}

/// What a batch normalization saw in one batch.
#[derive(Debug)]
struct Observation {
    target: Statistic,
    batch: Arc<Array>,
    momentum: f32,
    factor: f32,
    counter: Option<Counter>,
}

impl Pass {
    /// Training: batch statistics, dropout drawn from (`seed`, `epoch`, the ids of the batch's `samples`),
    /// parameters recorded.
    pub fn training(seed: u64, epoch: u32, samples: &[u64]) -> Pass {
        let purpose = Purpose::Training { seed, epoch, samples: samples.into() };
        Pass { purpose, observations: Some(Arc::default()), recomputing: false }
    }

    /// Evaluation: running statistics, no dropout, nothing recorded.
    pub fn evaluation() -> Pass {
        Pass { purpose: Purpose::Evaluation, observations: None, recomputing: false }
    }

    /// Evaluation with everything recorded, the statistics too, so that the graph shows the whole function.
    pub fn trace() -> Pass {
        Pass { purpose: Purpose::Trace, observations: None, recomputing: false }
    }

    /// The same pass, whose observations are discarded: for running a checkpoint's body again.
    pub fn unobserved(&self) -> Pass {
        Pass { observations: None, ..self.clone() }
    }

    /// The same pass in which layers keep less for the gradient and compute the rest again. Decides memory and
    /// speed; every bit is the same.
    pub fn recomputing(self) -> Pass {
        Pass { recomputing: true, ..self }
    }

    /// Whether it is [recomputing](Pass::recomputing).
    pub fn is_recomputing(&self) -> bool {
        self.recomputing
    }

    /// `tensor`, to be computed again by the gradients that read it if the pass is [recomputing](Pass::recomputing).
    pub fn spare(&self, tensor: Tensor) -> Tensor {
        if self.recomputing { tensor.recomputed() } else { tensor }
    }

    /// Whether values are all that is wanted: evaluation that nothing records, by fused operators.
    pub fn infers(&self) -> bool {
        matches!(self.purpose, Purpose::Evaluation) && Cpu::current().fuses()
    }

    /// Whether this is training.
    pub fn is_training(&self) -> bool {
        matches!(self.purpose, Purpose::Training { .. })
    }

    /// The seed, the epoch and the ids of the samples; `None` outside training.
    pub fn draws(&self) -> Option<(u64, u32, &[u64])> {
        match &self.purpose {
            Purpose::Training { seed, epoch, samples } => Some((*seed, *epoch, samples)),
            Purpose::Evaluation | Purpose::Trace => None,
        }
    }

    /// A parameter as an operand.
    pub fn parameter(&self, parameter: &Parameter) -> Tensor {
        match self.purpose {
            Purpose::Training { .. } | Purpose::Trace => parameter.tensor(),
            Purpose::Evaluation => parameter.tensor().detach(),
        }
    }

    /// A statistic as an operand.
    pub fn statistic(&self, statistic: &Statistic) -> Tensor {
        match self.purpose {
            Purpose::Trace => statistic.tensor(),
            Purpose::Training { .. } | Purpose::Evaluation => statistic.tensor().detach(),
        }
    }

    /// Notes that `target` is to become `(1 − momentum)·target + momentum·(factor·batch)`, and that `counter`
    /// grows by one.
    pub fn observe(
        &self,
        target: &Statistic,
        batch: &Arc<Array>,
        momentum: f32,
        factor: f32,
        counter: Option<&Counter>,
    ) {
        if let Some(observations) = &self.observations {
            let (target, batch) = (target.clone(), Arc::clone(batch));
            let observation = Observation { target, batch, momentum, factor, counter: counter.cloned() };
            observations.lock().unwrap_or_else(PoisonError::into_inner).push(observation);
        }
    }

    /// Applies what was observed, in the order of observation. A step that is refused (a loss that is not
    /// finite) never calls this, and leaves no trace.
    pub fn commit(self) {
        let Some(observations) = self.observations else { return };
        let taken = std::mem::take(&mut *observations.lock().unwrap_or_else(PoisonError::into_inner));
        for Observation { target, batch, momentum, factor, counter } in taken {
            target.modify(|running| {
                for (r, b) in running.iter_mut().zip(batch.data()) {
                    // As PyTorch has it: (1 − m)·r + m·b, each operation rounded.
                    *r = (1.0 - momentum) * *r + momentum * (factor * b);
                }
            });
            if let Some(counter) = counter {
                counter.set(counter.get() + 1);
            }
        }
    }
}
