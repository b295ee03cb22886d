//! `dropout`: random zeros in training (Srivastava et al., JMLR 2014).

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::rng::{Stream, uniform};
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use kinone_kernels::Cpu;
use std::sync::Arc;

/// Which elements are dropped is a pure function of the stream, the epoch, the id of the sample and the place
/// within the sample: not of the batch, its order, or what was drawn before.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// The share of elements that become 0.
    pub p: f32,
    /// Whose random numbers.
    pub stream: Stream,
    /// The epoch.
    pub epoch: u32,
    /// The id of each sample of the batch.
    pub samples: Arc<[u64]>,
}

impl Tensor {
    /// `self [n, ..]` with elements set to 0 by chance, the others scaled to keep the mean.
    ///
    /// # Errors
    /// The share is not in [0, 1), or there is not one id a sample.
    pub fn dropout(&self, dropout: Dropout) -> Result<Tensor, ShapeError> {
        apply(dropout, &[self])
    }
}

impl Dropout {
    /// `y[n, k] = x[n, k]·scale` where the draw keeps it, else +0.
    fn mask<F: Real>(&self, x: &[F], y: &mut [F]) {
        let scale = F::one() / (F::one() - F::of(f64::from(self.p)));
        let size = x.len() / self.samples.len().max(1);
        for (n, sample) in self.samples.iter().enumerate() {
            let stream = self.stream.at(self.epoch, *sample);
            for k in 0..size {
                let kept = stream.uniform(k as u64) >= self.p;
                y[n * size + k] = if kept { x[n * size + k] * scale } else { F::zero() };
            }
        }
    }
}

/// The elements a thread takes at least.
const GRAIN: usize = 4096;

impl Dropout {
    /// The same on all threads, each block of four draws made once.
    fn mask_fast(&self, cpu: &Cpu, x: &[f32], y: &mut [f32]) {
        let scale = 1.0 / (1.0 - self.p);
        let size = x.len() / self.samples.len().max(1);
        cpu.for_slices(y.len(), GRAIN, &mut [Some(y)], |offset, parts| {
            for y in parts.iter_mut().flatten() {
                let mut block = [0; 4];
                for (at, y) in (offset..).zip(y.iter_mut()) {
                    let (n, k) = (at / size, at % size);
                    if k % 4 == 0 || at == offset {
                        block = self.stream.at(self.epoch, self.samples[n]).block(k as u64 / 4);
                    }
                    *y = if uniform(block[k % 4]) >= self.p { x[at] * scale } else { 0.0 };
                }
            }
        });
    }
}

impl Operator for Dropout {
    const DOC: Doc = Doc {
        name: "dropout",
        summary: "Random zeros, for training.",
        formula: r"y_{nk} = x_{nk} [u_{nk} \ge p] / (1-p)",
        gradient: r"\bar x_{nk} = \bar y_{nk} [u_{nk} \ge p] / (1-p)",
        shapes: "x [n, ..]; y like x",
        conventions: "u is the Philox uniform of (stream, epoch, id of sample n, k). A dropped NaN becomes 0.",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        let fail = |reason: String| Err(ShapeError::new(Self::DOC.name, reason));
        if !(0.0..1.0).contains(&self.p) {
            return fail(format!("the share {} is not in [0, 1)", self.p));
        }
        if let Some(id) = self.samples.iter().find(|id| **id >= 1 << 40) {
            return fail(format!("the sample id {id} is not below 2^40"));
        }
        match x {
            [x] if x.first() == Some(&self.samples.len()) => Ok((*x).clone().into()),
            [x] => fail(format!("{} ids for the samples of {x}", self.samples.len())),
            _ => fail(format!("takes 1 input, not {}", x.len())),
        }
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        self.mask(x[0].data(), y.value);
    }

    fn vjp<F: Real>(&self, _saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        if let Some(dx) = &mut dx[0] {
            self.mask(dy.data(), dx);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        self.mask_fast(cpu, x[0].data(), y.value);
    }

    fn vjp_fast(&self, cpu: &Cpu, _saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        if let Some(dx) = &mut dx[0] {
            self.mask_fast(cpu, dy.data(), dx);
        }
    }

    fn onnx(&self, _graph: &mut Fragment, _x: &[Value]) -> Result<String, Unsupported> {
        let reason =
            "dropout is for training, and ONNX's has random numbers of its own; in evaluation it is absent";
        Err(Unsupported(reason.to_owned()))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, p, x: &[usize]| {
            let samples = (0..x[0] as u64).map(|n| 1000 - 7 * n).collect();
            let dropout = Dropout { p, stream: Stream::new(5, "case"), epoch: 2, samples };
            Case::new(name, dropout, [Input::real(x)])
        };
        vec![
            case("half", 0.5, &[3, 8]),
            case("a tenth, of images", 0.1, &[2, 2, 3, 4]),
            case("nothing", 0.0, &[2, 5]),
            case("many", 0.3, &[7, 4001]).bits_only(),
            case("no samples", 0.3, &[0, 5]).bits_only(),
        ]
    }
}
