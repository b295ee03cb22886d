//! One run through a module: what for, on which samples, and what was observed on the way.
//!
//! There is no global mode. A pass says whether batch statistics are taken or the running ones used, and
//! whether what is computed is recorded.

use crate::state::{Counter, Parameter, Statistic};
use kinone_core::array::Array;
use kinone_core::shape::ShapeError;
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

    /// `f(x)` for an `f` that maps each of the images `x [n, c, h, w]` by itself: where the pass [infers](Pass::infers),
    /// of as many images at a time as have `pixels` for each thread, so that what `f` makes between stays in the caches,
    /// and memory holds it for these alone; of all together where one has more. The same bits.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn by_images(
        &self,
        pixels: usize,
        x: &Tensor,
        f: impl Fn(&Tensor) -> Result<Tensor, ShapeError>,
    ) -> Result<Tensor, ShapeError> {
        let &[n, _, h, w] = &x.shape()[..] else { return f(x) };
        let room = (pixels / (h * w).max(1)).saturating_mul(Cpu::current().threads());
        if !self.infers() || x.node().is_some() || room == 0 || n <= room {
            return f(x);
        }
        let each = n.div_ceil(n.div_ceil(room));
        let group = |start: usize| f(&x.slice(0, start, n.min(start + each), 1)?);
        let groups: Vec<Tensor> = (0..n).step_by(each).map(group).collect::<Result<_, _>>()?;
        Tensor::concat(&groups.iter().collect::<Vec<_>>(), 0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use kinone_kernels::Isa;
    use std::cell::RefCell;

    /// The images of each call for `n` images of 3 × 4 pixels, and what came of them.
    fn groups(pass: &Pass, threads: usize, pixels: usize, x: &Tensor) -> (Vec<usize>, Vec<f32>) {
        let seen = RefCell::new(Vec::new());
        let f = |x: &Tensor| {
            seen.borrow_mut().push(x.shape()[0]);
            x.relu()
        };
        let cpu = Cpu::new(Isa::Scalar, threads).unwrap();
        let y = cpu.scope(|| pass.by_images(pixels, x, f).unwrap());
        assert_eq!(y.shape(), x.shape());
        (seen.into_inner(), y.data().to_vec())
    }

    #[test]
    fn images_are_inferred_in_groups_of_nearly_one_size() {
        let values: Vec<f32> = (0..7 * 2 * 12).map(|k| k as f32 - 80.0).collect();
        let array = Array::new([7, 2, 3, 4], &values).unwrap();
        let x = Tensor::constant(array.clone());
        let relu: Vec<f32> = values.iter().map(|x| if *x < 0.0 { 0.0 } else { *x }).collect();
        let calls = |threads, pixels| {
            let (calls, y) = groups(&Pass::evaluation(), threads, pixels, &x);
            assert_eq!(y, relu);
            calls
        };
        assert_eq!(calls(1, 12), [1; 7]);
        assert_eq!(calls(2, 23), [2, 2, 2, 1]);
        assert_eq!(calls(2, 24), [4, 3]);
        assert_eq!(calls(2, 47), [4, 3]);
        assert_eq!(calls(2, 48), [7]);
        // An image has more.
        assert_eq!(calls(2, 11), [7]);
        // Whatever is recorded, or has statistics of the batch, stays whole.
        assert_eq!(groups(&Pass::evaluation(), 1, 12, &Tensor::variable(array)).0, [7]);
        assert_eq!(groups(&Pass::training(1, 0, &[0; 7]), 1, 12, &x).0, [7]);
        let none = Tensor::constant(Array::full([0, 2, 3, 4], 0.0));
        assert_eq!(groups(&Pass::evaluation(), 1, 12, &none).0, [0]);
    }
}
