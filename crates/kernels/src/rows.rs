//! Softmax and its logarithm along one axis of `x [outer, len, inner]`.
//!
//! Definitions, along each fibre `x[o, :, i]`: [`mod@reference`].

pub mod reference;

use crate::math::{exp, log};
use crate::sums::{Products, Values, serial_sum};
use crate::{Cpu, Task};

/// The values a thread takes at least: each costs an exponential.
const GRAIN: usize = 4096;

/// Fills `y`. Equals [`reference::softmax`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn softmax(cpu: &Cpu, outer: usize, len: usize, inner: usize, x: &[f32], y: &mut [f32]) {
    over_fibres(cpu, [outer, len, inner], [x], Softmax, y);
}

/// Fills `dx` from the output and its cotangent. Equals [`reference::softmax_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn softmax_backward(
    cpu: &Cpu,
    outer: usize,
    len: usize,
    inner: usize,
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    over_fibres(cpu, [outer, len, inner], [y, dy], SoftmaxBackward, dx);
}

/// Fills `y`. Equals [`reference::log_softmax`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn log_softmax(cpu: &Cpu, outer: usize, len: usize, inner: usize, x: &[f32], y: &mut [f32]) {
    over_fibres(cpu, [outer, len, inner], [x], LogSoftmax, y);
}

/// Fills `dx` from the output and its cotangent. Equals [`reference::log_softmax_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn log_softmax_backward(
    cpu: &Cpu,
    outer: usize,
    len: usize,
    inner: usize,
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    over_fibres(cpu, [outer, len, inner], [y, dy], LogSoftmaxBackward, dx);
}

/// A function of the whole of a fibre; `leaves` is scratch for sums.
trait FibreMap<const N: usize>: Copy + Sync {
    /// Mark it `#[inline(always)]`.
    fn fill(self, x: [&[f32]; N], y: &mut [f32], leaves: &mut Vec<[f64; 1]>);
}

#[derive(Clone, Copy)]
struct Softmax;
impl FibreMap<1> for Softmax {
    #[inline(always)]
    fn fill(self, [x]: [&[f32]; 1], y: &mut [f32], leaves: &mut Vec<[f64; 1]>) {
        let m = greatest(x);
        for (y, x) in y.iter_mut().zip(x) {
            *y = exp(*x - m);
        }
        let s = serial_sum(Values, [y], leaves);
        for y in y {
            *y = (f64::from(*y) / s) as f32;
        }
    }
}

#[derive(Clone, Copy)]
struct SoftmaxBackward;
impl FibreMap<2> for SoftmaxBackward {
    #[inline(always)]
    fn fill(self, [y, dy]: [&[f32]; 2], dx: &mut [f32], leaves: &mut Vec<[f64; 1]>) {
        let s = serial_sum(Products, [dy, y], leaves);
        for (dx, (y, dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
            *dx = (f64::from(*y) * (f64::from(*dy) - s)) as f32;
        }
    }
}

#[derive(Clone, Copy)]
struct LogSoftmax;
impl FibreMap<1> for LogSoftmax {
    #[inline(always)]
    fn fill(self, [x]: [&[f32]; 1], y: &mut [f32], leaves: &mut Vec<[f64; 1]>) {
        let m = greatest(x);
        for (y, x) in y.iter_mut().zip(x) {
            *y = exp(*x - m);
        }
        let log = log(serial_sum(Values, [y], leaves) as f32);
        for (y, x) in y.iter_mut().zip(x) {
            *y = (*x - m) - log;
        }
    }
}

#[derive(Clone, Copy)]
struct LogSoftmaxBackward;
impl FibreMap<2> for LogSoftmaxBackward {
    #[inline(always)]
    fn fill(self, [y, dy]: [&[f32]; 2], dx: &mut [f32], leaves: &mut Vec<[f64; 1]>) {
        let s = serial_sum(Values, [dy], leaves);
        for (dx, (y, dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
            *dx = (f64::from(*dy) - f64::from(exp(*y)) * s) as f32;
        }
    }
}

/// The greatest value, a zero as +0: so no order of comparing shows in the result. NaN is left out; it comes
/// back with the exponentials.
#[inline(always)]
fn greatest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 32];
    let (chunks, rest) = x.as_chunks::<32>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *x);
        }
    }
    let mut best = f32::NEG_INFINITY;
    for x in rest {
        best = greater(best, *x);
    }
    for lane in lanes {
        best = greater(best, lane);
    }
    best + 0.0
}

#[inline(always)]
fn greater(best: f32, x: f32) -> f32 {
    if x > best { x } else { best }
}

/// Applies `map` to every fibre of `[outer, len, inner]`, whole blocks `[len, inner]` to a thread.
fn over_fibres<const N: usize>(
    cpu: &Cpu,
    shape: [usize; 3],
    x: [&[f32]; N],
    map: impl FibreMap<N>,
    y: &mut [f32],
) {
    let [outer, len, inner] = shape;
    assert!(x.iter().all(|x| x.len() == outer * len * inner), "an input is not {shape:?}");
    assert_eq!(y.len(), outer * len * inner, "the output is not {shape:?}");
    if y.is_empty() {
        return;
    }
    let block = len * inner;
    cpu.for_slices(y.len(), GRAIN.div_ceil(block) * block, &mut [Some(y)], |offset, parts| {
        for y in parts.iter_mut().flatten() {
            let x = x.map(|x| &x[offset..offset + y.len()]);
            cpu.vectorize(Fibres { len, inner, x, map, y });
        }
    });
}

struct Fibres<'a, M, const N: usize> {
    len: usize,
    inner: usize,
    x: [&'a [f32]; N],
    map: M,
    y: &'a mut [f32],
}

impl<M: FibreMap<N>, const N: usize> Task for Fibres<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Fibres { len, inner, x, map, y } = self;
        let mut leaves = Vec::new();
        if inner == 1 {
            for (row, y) in y.chunks_exact_mut(len).enumerate() {
                let mut x = x;
                for x in &mut x {
                    *x = &x[row * len..][..len];
                }
                map.fill(x, y, &mut leaves);
            }
            return;
        }
        // The values of a fibre lie apart: they are brought together, and the results taken back.
        let mut scratch = vec![0.0; (N + 1) * len];
        let (fibre, result) = scratch.split_at_mut(N * len);
        for (block, y) in y.chunks_exact_mut(len * inner).enumerate() {
            for i in 0..inner {
                for (x, fibre) in x.iter().zip(fibre.chunks_exact_mut(len)) {
                    let x = &x[block * len * inner..][..len * inner];
                    for (k, value) in fibre.iter_mut().enumerate() {
                        *value = x[k * inner + i];
                    }
                }
                let mut inputs: [&[f32]; N] = [&[]; N];
                for (input, fibre) in inputs.iter_mut().zip(fibre.chunks_exact(len)) {
                    *input = fibre;
                }
                map.fill(inputs, result, &mut leaves);
                for (k, value) in result.iter().enumerate() {
                    y[k * inner + i] = *value;
                }
            }
        }
    }
}
