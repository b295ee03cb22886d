//! Softmax and its logarithm as plain loops: what the kernels of [`super`] return, bit for bit.
//!
//! Sums run in f64 by the leaves of a long sum ([`crate::sums::reference::sum`]).

use crate::math::{exp, log};
use crate::sums::reference::sum;

/// The greatest value along a fibre by strict `>`, a zero as +0. NaN is left out; it comes back with the
/// exponentials.
fn greatest(len: usize, x: impl Fn(usize) -> f32) -> f32 {
    let mut best = f32::NEG_INFINITY;
    for k in 0..len {
        if x(k) > best {
            best = x(k);
        }
    }
    best + 0.0
}

/// The flat indices of each fibre of `[outer, len, inner]`.
fn fibres(outer: usize, len: usize, inner: usize) -> impl Iterator<Item = impl Fn(usize) -> usize> {
    (0..outer).flat_map(move |o| (0..inner).map(move |i| move |k: usize| (o * len + k) * inner + i))
}

/// `m = max x`, `e = exp(x - m)`, `s = Σ f64(e)`, `y = f32(f64(e) / s)`.
///
/// A fibre with a NaN or +∞, or of -∞ alone, becomes NaN.
pub fn softmax(outer: usize, len: usize, inner: usize, x: &[f32], y: &mut [f32]) {
    for at in fibres(outer, len, inner) {
        let m = greatest(len, |k| x[at(k)]);
        let s = sum(len, |k| f64::from(exp(x[at(k)] - m)));
        for k in 0..len {
            y[at(k)] = (f64::from(exp(x[at(k)] - m)) / s) as f32;
        }
    }
}

/// `s = Σ f64(dy)·f64(y)`, `dx = f32(f64(y)·(f64(dy) - s))`, each operation rounded to f64.
pub fn softmax_backward(outer: usize, len: usize, inner: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for at in fibres(outer, len, inner) {
        let s = sum(len, |k| f64::from(dy[at(k)]) * f64::from(y[at(k)]));
        for k in 0..len {
            dx[at(k)] = (f64::from(y[at(k)]) * (f64::from(dy[at(k)]) - s)) as f32;
        }
    }
}

/// m and s as in [`softmax`], `y = (x - m) - log(f32(s))`.
pub fn log_softmax(outer: usize, len: usize, inner: usize, x: &[f32], y: &mut [f32]) {
    for at in fibres(outer, len, inner) {
        let m = greatest(len, |k| x[at(k)]);
        let s = sum(len, |k| f64::from(exp(x[at(k)] - m)));
        for k in 0..len {
            y[at(k)] = (x[at(k)] - m) - log(s as f32);
        }
    }
}

/// `s = Σ f64(dy)`, `dx = f32(f64(dy) - f64(exp(y))·s)`, each operation rounded to f64.
pub fn log_softmax_backward(outer: usize, len: usize, inner: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for at in fibres(outer, len, inner) {
        let s = sum(len, |k| f64::from(dy[at(k)]));
        for k in 0..len {
            dx[at(k)] = (f64::from(dy[at(k)]) - f64::from(exp(y[at(k)])) * s) as f32;
        }
    }
}
