//! Batch normalization as plain loops: what the kernels of [`super`] return, bit for bit.
//!
//! Lower-case names of one value: `m = n·h·w`, `f64(·)` is exact, `f32(·)` rounds once.

use super::{Channels, Cotangent, Gradients, Mask, Then, inverse_deviation, variance};
use crate::sums::{Images, reference::channel_sum};

/// The flat index of a position of a channel of an image.
fn index(shape: Images, n: usize, c: usize, at: usize) -> usize {
    (n * shape.c + c) * shape.plane() + at
}

/// `s = Σ x`, `q = Σ x²`, `mean = f32(s/m)`, `var = f32(max(0, q/m - (s/m)²))`,
/// `invstd = f32(1/√(f64(var) + f64(eps)))`, then z as [`affine`], and of it y as [`follow`].
pub fn train_forward(
    shape: Images,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    then: Then,
    y: &mut [f32],
    mean: &mut [f32],
    var: &mut [f32],
    invstd: &mut [f32],
) {
    let m = (shape.n * shape.plane()) as f64;
    for c in 0..shape.c {
        let s = channel_sum(shape, c, |at| f64::from(x[at]));
        let q = channel_sum(shape, c, |at| f64::from(x[at]) * f64::from(x[at]));
        mean[c] = (s / m) as f32;
        var[c] = variance(q, m, s / m) as f32;
        invstd[c] = inverse_deviation(var[c], eps);
        affine(shape, c, x, mean[c], invstd[c], gamma[c], beta[c], y);
    }
    follow(then, y);
}

/// `y = z`, `y = relu(z)` or `y = relu(z + residual)`, with `relu(z) = if 0 > z { 0 } else { z }`.
pub fn follow(then: Then, y: &mut [f32]) {
    if let Then::AddRelu(residual) = then {
        for (y, residual) in y.iter_mut().zip(residual) {
            *y += residual;
        }
    }
    if !matches!(then, Then::Nothing) {
        for y in y {
            *y = if 0.0 > *y { 0.0 } else { *y };
        }
    }
}

/// `invstd` of the given variance, then as [`affine`].
pub fn eval_forward(
    shape: Images,
    x: &[f32],
    mean: &[f32],
    var: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    y: &mut [f32],
) {
    for c in 0..shape.c {
        affine(shape, c, x, mean[c], inverse_deviation(var[c], eps), gamma[c], beta[c], y);
    }
}

/// `scale = gamma·invstd`, `shift = fma(-mean, scale, beta)`, `y = fma(x, scale, shift)` in one channel.
pub fn affine(
    shape: Images,
    c: usize,
    x: &[f32],
    mean: f32,
    invstd: f32,
    gamma: f32,
    beta: f32,
    y: &mut [f32],
) {
    let scale = gamma * invstd;
    let shift = (-mean).mul_add(scale, beta);
    for n in 0..shape.n {
        for at in 0..shape.plane() {
            let k = index(shape, n, c, at);
            y[k] = x[k].mul_add(scale, shift);
        }
    }
}

/// `s1 = Σ dy` and `s2 = Σ f64(dy)·(f64(x) - f64(mean))`, each operation rounded to f64.
fn sums(shape: Images, c: usize, x: &[f32], dy: &[f32], mean: f32) -> (f64, f64) {
    let s1 = channel_sum(shape, c, |at| f64::from(dy[at]));
    let s2 = channel_sum(shape, c, |at| f64::from(dy[at]) * (f64::from(x[at]) - f64::from(mean)));
    (s1, s2)
}

/// `dz = dy` where the ReLU let z or z + residual through, otherwise +0; then `dresidual = dz`,
/// `dbeta = f32(s1)`, `dgamma = f32(s2·f64(invstd))` with the `sums` of dz;
/// `k1 = f32(s1/m)`, `k2 = f32(((s2·f64(invstd))·f64(invstd))/m)`, `a = gamma·invstd`,
/// `dx = a·fma(-(x - mean), k2, dz - k1)`.
pub fn train_backward(
    shape: Images,
    x: &[f32],
    dy: Cotangent,
    channels: Channels,
    mask: Mask,
    gradients: Gradients,
) {
    let Gradients { mut dx, mut dresidual, mut dgamma, mut dbeta } = gradients;
    let (mut dz, over) = match dy {
        Cotangent::Kept(dy) => (dy.to_vec(), None),
        Cotangent::Spent(dy) => (dy.to_vec(), Some(dy)),
        Cotangent::Added(dy, more) => {
            assert_eq!(dy.len(), more.len(), "two cotangents of one value");
            let sum = |(a, b): (&f32, &f32)| a + b;
            (dy.iter().zip(more).map(sum).collect(), Some(dy))
        }
    };
    if over.is_some() {
        *(if matches!(mask, Mask::AddRelu(_)) { &mut dresidual } else { &mut dx }) = over;
    }
    let y = match mask {
        Mask::Nothing => None,
        Mask::AddRelu(y) => Some(y.to_vec()),
        Mask::Relu(beta) => {
            let mut y = vec![0.0; shape.len()];
            for c in 0..shape.c {
                let Channels { mean, invstd, gamma } = channels;
                affine(shape, c, x, mean[c], invstd[c], gamma[c], beta[c], &mut y);
            }
            Some(y)
        }
    };
    for (dz, y) in dz.iter_mut().zip(y.iter().flatten()) {
        *dz = if *y > 0.0 { *dz } else { 0.0 };
    }
    if let Some(dresidual) = dresidual {
        dresidual.copy_from_slice(&dz);
    }
    let m = (shape.n * shape.plane()) as f64;
    for c in 0..shape.c {
        let (mean, invstd) = (channels.mean[c], channels.invstd[c]);
        let (s1, s2) = sums(shape, c, x, &dz, mean);
        if let Some(dbeta) = &mut dbeta {
            dbeta[c] = s1 as f32;
        }
        if let Some(dgamma) = &mut dgamma {
            dgamma[c] = (s2 * f64::from(invstd)) as f32;
        }
        let Some(dx) = &mut dx else { continue };
        let k1 = (s1 / m) as f32;
        let k2 = (s2 * f64::from(invstd) * f64::from(invstd) / m) as f32;
        let a = channels.gamma[c] * invstd;
        for n in 0..shape.n {
            for at in 0..shape.plane() {
                let k = index(shape, n, c, at);
                dx[k] = a * (-(x[k] - mean)).mul_add(k2, dz[k] - k1);
            }
        }
    }
}

/// `dbeta = f32(s1)`, `dgamma = f32(s2·f64(invstd))`, `dx = dy·(gamma·invstd)`.
pub fn eval_backward(shape: Images, x: &[f32], dy: &[f32], channels: Channels, gradients: Gradients) {
    let Gradients { mut dx, mut dgamma, mut dbeta, .. } = gradients;
    for c in 0..shape.c {
        let (s1, s2) = sums(shape, c, x, dy, channels.mean[c]);
        if let Some(dbeta) = &mut dbeta {
            dbeta[c] = s1 as f32;
        }
        if let Some(dgamma) = &mut dgamma {
            dgamma[c] = (s2 * f64::from(channels.invstd[c])) as f32;
        }
        let Some(dx) = &mut dx else { continue };
        let scale = channels.gamma[c] * channels.invstd[c];
        for n in 0..shape.n {
            for at in 0..shape.plane() {
                let k = index(shape, n, c, at);
                dx[k] = dy[k] * scale;
            }
        }
    }
}
