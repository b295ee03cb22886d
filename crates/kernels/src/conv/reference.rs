//! The definitions: loops that say which terms there are and in which order they are added.
//!
//! Indices: n image, c channel, (h, v) pixel, o filter, (p, q) tap, (i, j) position.

use super::{Conv, Finish};
use crate::leaves::{batch_leaves, tree};

/// The pixel that tap `tap` of position `at` lies on; `None` on the padding.
fn pixel(
    at: usize,
    tap: usize,
    stride: usize,
    dilation: usize,
    padding: usize,
    size: usize,
) -> Option<usize> {
    (at * stride + tap * dilation).checked_sub(padding).filter(|pixel| *pixel < size)
}

impl Conv {
    /// The input under tap (p, q) of position (i, j); +0 on the padding.
    fn input_at(&self, x: &[f32], [n, c]: [usize; 2], [i, j]: [usize; 2], [p, q]: [usize; 2]) -> f32 {
        let h = pixel(i, p, self.stride.0, self.dilation.0, self.padding.0, self.input.0);
        let v = pixel(j, q, self.stride.1, self.dilation.1, self.padding.1, self.input.1);
        match (h, v) {
            (Some(h), Some(v)) => x[((n * self.c + c) * self.input.0 + h) * self.input.1 + v],
            _ => 0.0,
        }
    }
}

/// `y[n,o,i,j] = Σ x[n, c, i·s+p·d−pad, j·s+q·d−pad]·w[o,c,p,q]` over (c, p, q) in that order, from +0, each
/// term one fused multiply-add; taps on the padding are terms with the input +0.
pub fn forward(conv: &Conv, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (oh, ow) = conv.output();
    let (channels, filters) = (conv.group_channels(), conv.group_filters());
    for n in 0..conv.n {
        for o in 0..conv.o {
            for i in 0..oh {
                for j in 0..ow {
                    let mut sum = 0.0_f32;
                    for c in 0..channels {
                        for p in 0..conv.kernel.0 {
                            for q in 0..conv.kernel.1 {
                                let value = conv.input_at(x, [n, o / filters * channels + c], [i, j], [p, q]);
                                let weight = w[((o * channels + c) * conv.kernel.0 + p) * conv.kernel.1 + q];
                                sum = value.mul_add(weight, sum);
                            }
                        }
                    }
                    y[((n * conv.o + o) * oh + i) * ow + j] = sum;
                }
            }
        }
    }
}

/// `y[n,o,i,j] = relu(fma(y[n,o,i,j], scale[o], shift[o]) + residual[n,o,i,j])`; the residual and relu where they
/// are wanted. `plane` is the number of positions (i, j).
pub fn finish(plane: usize, finish: &Finish, y: &mut [f32]) {
    for k in 0..y.len() {
        let o = k / plane % finish.scale.len();
        y[k] = y[k].mul_add(finish.scale[o], finish.shift[o]);
        if let Some(residual) = finish.residual {
            y[k] += residual[k];
        }
        if finish.relu {
            y[k] = if 0.0 > y[k] { 0.0 } else { y[k] };
        }
    }
}

/// `dx[n,c,h,v] = Σ dy[n,o,i,j]·w[o,c,p,q]` over (o, p, q) in that order, from +0, with i = (h+pad−p·d)/s and
/// j alike. A tap that falls between two positions (the division leaves a rest) is no term; one that falls
/// beside the output is a term with `dy` +0.
pub fn input_gradient(conv: &Conv, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (oh, ow) = conv.output();
    let (channels, filters) = (conv.group_channels(), conv.group_filters());
    // `None`: no term. `Some(None)`: beside the output.
    let position = |at: usize, tap: usize, stride: usize, dilation: usize, padding: usize, size: usize| {
        let distance = (at + padding) as isize - (tap * dilation) as isize;
        let quotient = distance.div_euclid(stride as isize);
        let exact = distance.rem_euclid(stride as isize) == 0;
        exact.then(|| usize::try_from(quotient).ok().filter(|position| *position < size))
    };
    for n in 0..conv.n {
        for c in 0..conv.c {
            for h in 0..conv.input.0 {
                for v in 0..conv.input.1 {
                    let mut sum = 0.0_f32;
                    for o in c / channels * filters..(c / channels + 1) * filters {
                        for p in 0..conv.kernel.0 {
                            for q in 0..conv.kernel.1 {
                                let i = position(h, p, conv.stride.0, conv.dilation.0, conv.padding.0, oh);
                                let j = position(v, q, conv.stride.1, conv.dilation.1, conv.padding.1, ow);
                                let (Some(i), Some(j)) = (i, j) else { continue };
                                let value = match (i, j) {
                                    (Some(i), Some(j)) => dy[((n * conv.o + o) * oh + i) * ow + j],
                                    _ => 0.0,
                                };
                                let weight =
                                    ((o * channels + c % channels) * conv.kernel.0 + p) * conv.kernel.1 + q;
                                sum = value.mul_add(w[weight], sum);
                            }
                        }
                    }
                    dx[((n * conv.c + c) * conv.input.0 + h) * conv.input.1 + v] = sum;
                }
            }
        }
    }
}

/// `dw[o,c,p,q] = Σ dy[n,o,i,j]·x[n, c, i·s+p·d−pad, j·s+q·d−pad]` over positions (n, i, j) in leaves of the
/// batch: within a leaf in that order from +0, each term one fused multiply-add, taps on the padding terms with
/// the input +0; leaves added in f32 by the tree of their index.
pub fn weight_gradient(conv: &Conv, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (oh, ow) = conv.output();
    let (channels, filters) = (conv.group_channels(), conv.group_filters());
    let leaves = batch_leaves(conv.n, oh, ow);
    for o in 0..conv.o {
        for c in 0..channels {
            for p in 0..conv.kernel.0 {
                for q in 0..conv.kernel.1 {
                    let leaf = |index: usize| {
                        let mut sum = 0.0_f32;
                        for n in leaves[index].samples.clone() {
                            for i in leaves[index].rows.clone() {
                                for j in 0..ow {
                                    let channel = o / filters * channels + c;
                                    let value = conv.input_at(x, [n, channel], [i, j], [p, q]);
                                    sum = dy[((n * conv.o + o) * oh + i) * ow + j].mul_add(value, sum);
                                }
                            }
                        }
                        sum
                    };
                    let sum = tree(leaves.len(), leaf, |a, b| a + b).unwrap_or(0.0);
                    dw[((o * channels + c) * conv.kernel.0 + p) * conv.kernel.1 + q] = sum;
                }
            }
        }
    }
}
