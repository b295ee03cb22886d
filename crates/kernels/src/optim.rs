//! The steps of optimizers: element by element, one pass over memory.
//!
//! The definition of each is its `update` of one parameter, a plain function whose every rounding is written;
//! the kernels apply it to slices. All numbers are f32. Moments kept from step to step are flushed
//! ([`flush`]): a gradient that stays 0 would otherwise let them sink into the denormal numbers and remain.

use crate::leaves::tree;
use crate::{Cpu, Task, sums};

/// The elements a thread takes at least.
const GRAIN: usize = 16_384;

/// +0 for a magnitude below 2⁻¹²⁶, otherwise `x`; NaN stays.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

/// Stochastic gradient descent, with momentum as in Sutskever et al. (2013) and PyTorch (no dampening).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub lr: f32,
    /// How much of the velocity is kept.
    pub momentum: f32,
    /// The L2 penalty `wd/2·p²`.
    pub weight_decay: f32,
    /// Whether the gradient is taken where the velocity leads (Nesterov).
    pub nesterov: bool,
}

impl Sgd {
    /// `g' = fma(wd, p, g)`, `p = fma(-lr, g', p)`: without momentum.
    #[inline(always)]
    pub fn plain(&self, g: f32, p: &mut f32) {
        let g = self.weight_decay.mul_add(*p, g);
        *p = (-self.lr).mul_add(g, *p);
    }

    /// `g' = fma(wd, p, g)`, `b = flush(fma(momentum, b, g'))`, `d = b`, or with Nesterov
    /// `d = fma(momentum, b, g')`, `p = fma(-lr, d, p)`. The velocity b starts at 0.
    #[inline(always)]
    pub fn update(&self, g: f32, p: &mut f32, velocity: &mut f32) {
        let g = self.weight_decay.mul_add(*p, g);
        *velocity = flush(self.momentum.mul_add(*velocity, g));
        let d = if self.nesterov { self.momentum.mul_add(*velocity, g) } else { *velocity };
        *p = (-self.lr).mul_add(d, *p);
    }

    /// One step of all of `p`; without `velocity` as [`Sgd::plain`], with it as [`Sgd::update`].
    ///
    /// # Panics
    /// When lengths differ.
    pub fn step(&self, cpu: &Cpu, g: &[f32], p: &mut [f32], velocity: Option<&mut [f32]>) {
        cpu.for_slices(g.len(), GRAIN, &mut [Some(p), velocity], |offset, parts| {
            let [Some(p), velocity] = parts else { return };
            let g = &g[offset..offset + p.len()];
            cpu.vectorize(SgdTask { sgd: *self, g, p, velocity: velocity.as_deref_mut() });
        });
    }
}

struct SgdTask<'a> {
    sgd: Sgd,
    g: &'a [f32],
    p: &'a mut [f32],
    velocity: Option<&'a mut [f32]>,
}

impl Task for SgdTask<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        match self.velocity {
            None => {
                for (g, p) in self.g.iter().zip(self.p) {
                    self.sgd.plain(*g, p);
                }
            }
            Some(velocity) => {
                for ((g, p), velocity) in self.g.iter().zip(self.p).zip(velocity) {
                    self.sgd.update(*g, p, velocity);
                }
            }
        }
    }
}

/// Adam (Kingma and Ba, 2015, arXiv:1412.6980) and AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101), as in
/// PyTorch. The numbers of one step; the caller computes them in f64 and rounds each once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// `1 - β1`
    pub first_rate: f32,
    /// `β2`
    pub second_keep: f32,
    /// `1 - β2`
    pub second_rate: f32,
    /// `lr / (1 - β1ᵗ)` at step t = 1, 2, …
    pub step_size: f32,
    /// `1 / √(1 - β2ᵗ)`
    pub second_scale: f32,
    /// Added to the root of the corrected second moment.
    pub eps: f32,
    /// The L2 penalty of Adam; 0 for AdamW.
    pub weight_decay: f32,
    /// `1 - lr·wd` of AdamW; 1 for Adam.
    pub shrink: f32,
}

impl Adam {
    /// `g' = fma(wd, p, g)`, `m = flush(fma(1-β1, g' - m, m))`, `v = flush(fma(β2, v, ((1-β2)·g')·g'))`,
    /// `d = fma(√v, second_scale, eps)`, `p = fma(-step_size, m/d, p·shrink)`. Both moments start at 0.
    #[inline(always)]
    pub fn update(&self, g: f32, p: &mut f32, m: &mut f32, v: &mut f32) {
        let g = self.weight_decay.mul_add(*p, g);
        *m = flush(self.first_rate.mul_add(g - *m, *m));
        *v = flush(self.second_keep.mul_add(*v, self.second_rate * g * g));
        let d = v.sqrt().mul_add(self.second_scale, self.eps);
        *p = (-self.step_size).mul_add(*m / d, *p * self.shrink);
    }

    /// One step of all of `p`.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn step(&self, cpu: &Cpu, g: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
        cpu.for_slices(g.len(), GRAIN, &mut [Some(p), Some(m), Some(v)], |offset, parts| {
            let [Some(p), Some(m), Some(v)] = parts else { return };
            cpu.vectorize(AdamTask { adam: *self, g: &g[offset..offset + p.len()], p, m, v });
        });
    }
}

struct AdamTask<'a> {
    adam: Adam,
    g: &'a [f32],
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Task for AdamTask<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (((g, p), m), v) in self.g.iter().zip(self.p).zip(self.m).zip(self.v) {
            self.adam.update(*g, p, m, v);
        }
    }
}

/// RMSProp (Tieleman and Hinton, 2012), as in PyTorch, not centred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// The learning rate.
    pub lr: f32,
    /// `α`
    pub keep: f32,
    /// `1 - α`
    pub rate: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// The L2 penalty `wd/2·p²`.
    pub weight_decay: f32,
    /// How much of the velocity is kept.
    pub momentum: f32,
}

impl RmsProp {
    /// `g' = fma(wd, p, g)`, `v = flush(fma(α, v, ((1-α)·g')·g'))`, `g'/(√v + eps)`.
    #[inline(always)]
    fn direction(&self, g: f32, p: f32, v: &mut f32) -> f32 {
        let g = self.weight_decay.mul_add(p, g);
        *v = flush(self.keep.mul_add(*v, self.rate * g * g));
        g / (v.sqrt() + self.eps)
    }

    /// `d = g'/(√v + eps)` with `g' = fma(wd, p, g)` and `v = flush(fma(α, v, ((1-α)·g')·g'))`, then
    /// `p = fma(-lr, d, p)`: without momentum.
    #[inline(always)]
    pub fn plain(&self, g: f32, p: &mut f32, v: &mut f32) {
        let d = self.direction(g, *p, v);
        *p = (-self.lr).mul_add(d, *p);
    }

    /// d and v as in [`RmsProp::plain`], `b = flush(fma(momentum, b, d))`, `p = fma(-lr, b, p)`.
    #[inline(always)]
    pub fn update(&self, g: f32, p: &mut f32, v: &mut f32, velocity: &mut f32) {
        let d = self.direction(g, *p, v);
        *velocity = flush(self.momentum.mul_add(*velocity, d));
        *p = (-self.lr).mul_add(*velocity, *p);
    }

    /// One step of all of `p`; without `velocity` as [`RmsProp::plain`], with it as [`RmsProp::update`].
    ///
    /// # Panics
    /// When lengths differ.
    pub fn step(&self, cpu: &Cpu, g: &[f32], p: &mut [f32], v: &mut [f32], velocity: Option<&mut [f32]>) {
        cpu.for_slices(g.len(), GRAIN, &mut [Some(p), Some(v), velocity], |offset, parts| {
            let [Some(p), Some(v), velocity] = parts else { return };
            let g = &g[offset..offset + p.len()];
            cpu.vectorize(RmsPropTask { rmsprop: *self, g, p, v, velocity: velocity.as_deref_mut() });
        });
    }
}

struct RmsPropTask<'a> {
    rmsprop: RmsProp,
    g: &'a [f32],
    p: &'a mut [f32],
    v: &'a mut [f32],
    velocity: Option<&'a mut [f32]>,
}

impl Task for RmsPropTask<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let terms = self.g.iter().zip(self.p).zip(self.v);
        match self.velocity {
            None => {
                for ((g, p), v) in terms {
                    self.rmsprop.plain(*g, p, v);
                }
            }
            Some(velocity) => {
                for (((g, p), v), velocity) in terms.zip(velocity) {
                    self.rmsprop.update(*g, p, v, velocity);
                }
            }
        }
    }
}

/// `x = x·factor`
pub fn scale(cpu: &Cpu, factor: f32, x: &mut [f32]) {
    cpu.for_slices(x.len(), GRAIN, &mut [Some(x)], |_, parts| {
        for x in parts.iter_mut().flatten() {
            cpu.vectorize(ScaleTask { factor, x });
        }
    });
}

struct ScaleTask<'a> {
    factor: f32,
    x: &'a mut [f32],
}

impl Task for ScaleTask<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for x in self.x {
            *x *= self.factor;
        }
    }
}

/// The Euclidean norm of all values: `√(Σ x²)` in f64, each tensor by [`sums::sum_squares`] and the tensors by
/// the tree of their index.
pub fn norm(cpu: &Cpu, tensors: &[&[f32]]) -> f64 {
    let squares = tree(tensors.len(), |k| sums::sum_squares(cpu, tensors[k]), |a, b| a + b);
    squares.unwrap_or(0.0).sqrt()
}
