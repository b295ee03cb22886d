//! Means over windows that divide an image into a wanted number of outputs.

use super::GRAIN;
use crate::cpu::SharedMut;
use crate::sums::{Values, serial_sum};
use crate::{Cpu, Task};
use std::ops::Range;

/// The pixels of window `at` of `outputs` along an axis of `size`: `⌊at·size/outputs⌋ .. ⌈(at + 1)·size/outputs⌉`.
#[inline(always)]
pub fn window(size: usize, outputs: usize, at: usize) -> Range<usize> {
    at * size / outputs..((at + 1) * size).div_ceil(outputs)
}

/// Fills `y [planes, oh, ow]` from `x [planes, h, w]`. Equals [`super::reference::adaptive_average`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn adaptive_average(
    cpu: &Cpu,
    planes: usize,
    input: [usize; 2],
    output: [usize; 2],
    x: &[f32],
    y: &mut [f32],
) {
    let (inside, outside) = (input[0] * input[1], output[0] * output[1]);
    assert_eq!(x.len(), planes * inside, "x is not {planes} planes of {input:?}");
    assert_eq!(y.len(), planes * outside, "y is not {planes} planes of {output:?}");
    let grain = GRAIN.div_ceil((inside / outside.max(1)).max(1));
    cpu.for_slices(y.len(), grain, &mut [Some(y)], |first, parts| {
        for y in parts.iter_mut().flatten() {
            cpu.vectorize(Adaptive { input, output, x, first, y });
        }
    });
}

struct Adaptive<'a> {
    input: [usize; 2],
    output: [usize; 2],
    x: &'a [f32],
    first: usize,
    y: &'a mut [f32],
}

impl Task for Adaptive<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let ([h, w], [oh, ow]) = (self.input, self.output);
        let (mut terms, mut leaves) = (Vec::new(), Vec::new());
        for (at, y) in self.y.iter_mut().enumerate() {
            let at = self.first + at;
            let (plane, i, j) = (at / (oh * ow), at / ow % oh, at % ow);
            let (rows, columns) = (window(h, oh, i), window(w, ow, j));
            let x = &self.x[plane * h * w..][..h * w];
            let count = (rows.len() * columns.len()) as f64;
            let terms = if columns.len() == w {
                &x[rows.start * w..rows.end * w]
            } else {
                terms.clear();
                for row in rows {
                    terms.extend_from_slice(&x[row * w..][columns.clone()]);
                }
                &terms
            };
            *y = (serial_sum(Values, [terms], &mut leaves) / count) as f32;
        }
    }
}

/// Fills `dx [planes, h, w]`. Equals [`super::reference::adaptive_average_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn adaptive_average_backward(
    cpu: &Cpu,
    planes: usize,
    input: [usize; 2],
    output: [usize; 2],
    dy: &[f32],
    dx: &mut [f32],
) {
    let (inside, outside) = (input[0] * input[1], output[0] * output[1]);
    assert_eq!(dx.len(), planes * inside, "dx is not {planes} planes of {input:?}");
    assert_eq!(dy.len(), planes * outside, "dy is not {planes} planes of {output:?}");
    let dx = SharedMut::new(dx);
    cpu.for_ranges(planes, GRAIN.div_ceil(inside.max(1)), |planes| {
        // SAFETY: each plane is in one range only.
        let dx = unsafe { dx.slice(planes.start * inside..planes.end * inside) };
        let dy = &dy[planes.start * outside..planes.end * outside];
        cpu.vectorize(AdaptiveBackward { input, output, dy, dx });
    });
}

struct AdaptiveBackward<'a> {
    input: [usize; 2],
    output: [usize; 2],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Task for AdaptiveBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let ([h, w], [oh, ow]) = (self.input, self.output);
        let planes = self.dx.chunks_exact_mut((h * w).max(1));
        if oh * ow == 1 {
            let count = (h * w) as f64;
            for (dx, dy) in planes.zip(self.dy) {
                // +0 is added as to every sum: a share of -0 becomes +0.
                dx.fill((0.0 + f64::from(*dy) / count) as f32);
            }
            return;
        }
        let mut sums = vec![0.0; h * w];
        for (plane, dx) in planes.enumerate() {
            sums.fill(0.0);
            for at in 0..oh * ow {
                let (rows, columns) = (window(h, oh, at / ow), window(w, ow, at % ow));
                let count = (rows.len() * columns.len()) as f64;
                let share = f64::from(self.dy[plane * oh * ow + at]) / count;
                for row in rows {
                    for sum in &mut sums[row * w..][columns.clone()] {
                        *sum += share;
                    }
                }
            }
            for (dx, sum) in dx.iter_mut().zip(&sums) {
                *dx = *sum as f32;
            }
        }
    }
}
