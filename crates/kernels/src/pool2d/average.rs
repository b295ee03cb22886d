//! The mean of each window.

use super::{GRAIN, Pool, Rows};
use crate::cpu::SharedMut;
use crate::{Cpu, Task};

/// Fills `y`. Equals [`super::reference::average`].
///
/// # Panics
/// When a slice does not have the length of its shape, or the dilation is not 1.
pub fn average(cpu: &Cpu, pool: &Pool, include_padding: bool, x: &[f32], y: &mut [f32]) {
    pool.check(x.len(), y.len());
    assert_eq!(pool.dilation, [1, 1], "a mean is of neighbours");
    let plane = pool.output[0] * pool.output[1];
    if y.is_empty() {
        return;
    }
    let columns: Vec<usize> = (0..pool.output[1]).map(|j| pool.taps(1, j, include_padding)).collect();
    cpu.for_slices(y.len(), GRAIN.div_ceil(plane) * plane, &mut [Some(y)], |offset, parts| {
        for y in parts.iter_mut().flatten() {
            cpu.vectorize(Average { pool, include_padding, columns: &columns, x, first: offset / plane, y });
        }
    });
}

struct Average<'a> {
    pool: &'a Pool,
    include_padding: bool,
    columns: &'a [usize],
    x: &'a [f32],
    first: usize,
    y: &'a mut [f32],
}

impl Task for Average<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let pool = self.pool;
        let [oh, ow] = pool.output;
        let [h, w] = pool.input;
        // A sum is never -0, so the +0 of a tap outside leaves it as it is.
        let mut taps = Rows::new(pool, 0.0);
        let mut sums = vec![0.0; taps.outputs()];
        for (row, y) in self.y.chunks_exact_mut(ow).enumerate() {
            let i = row % oh;
            let top = (self.first + row / oh) * h;
            sums.fill(0.0);
            for p in 0..pool.kernel[0] {
                let Some(row) = pool.position(0, i, p) else { continue };
                let row = top + row;
                taps.set(row, &self.x[row * w..][..w], &|x| x);
                for q in 0..pool.kernel[1] {
                    for (sum, tap) in sums.iter_mut().zip(taps.at(taps.place(row) + taps.taps[q])) {
                        *sum += f64::from(*tap);
                    }
                }
            }
            let rows = pool.taps(0, i, self.include_padding);
            for (y, (sum, columns)) in y.iter_mut().zip(sums.iter().zip(self.columns)) {
                *y = mean(*sum, rows * columns);
            }
        }
    }
}

/// `f32(sum / count)`; +0 of nothing.
#[inline(always)]
fn mean(sum: f64, count: usize) -> f32 {
    // A sum of nothing is +0, which any divisor leaves as it is.
    (sum / if count == 0 { 1.0 } else { count as f64 }) as f32
}

/// Fills `dx`. Equals [`super::reference::average_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape, or the dilation is not 1.
pub fn average_backward(cpu: &Cpu, pool: &Pool, include_padding: bool, dy: &[f32], dx: &mut [f32]) {
    pool.check(dx.len(), dy.len());
    assert_eq!(pool.dilation, [1, 1], "a mean is of neighbours");
    let [h, w] = pool.input;
    let columns: Vec<usize> = (0..pool.output[1]).map(|j| pool.taps(1, j, include_padding)).collect();
    let dx = SharedMut::new(dx);
    let grain = GRAIN.div_ceil((h * w).max(1));
    cpu.for_ranges(pool.planes, grain, |planes| {
        // SAFETY: each plane is in one range only.
        let dx = unsafe { dx.slice(planes.start * h * w..planes.end * h * w) };
        let dy = &dy[planes.start * pool.output[0] * pool.output[1]..];
        cpu.vectorize(AverageBackward { pool, include_padding, columns: &columns, dy, dx });
    });
}

struct AverageBackward<'a> {
    pool: &'a Pool,
    include_padding: bool,
    columns: &'a [usize],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Task for AverageBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let pool = self.pool;
        let [oh, ow] = pool.output;
        let [h, w] = pool.input;
        let mut shares = vec![0.0; oh * ow];
        let mut sums = vec![0.0; w];
        for (plane, dx) in self.dx.chunks_exact_mut((h * w).max(1)).enumerate() {
            for i in 0..oh {
                let rows = pool.taps(0, i, self.include_padding);
                let dy = &self.dy[(plane * oh + i) * ow..][..ow];
                let shares = &mut shares[i * ow..][..ow];
                for (share, (dy, columns)) in shares.iter_mut().zip(dy.iter().zip(self.columns)) {
                    *share = f64::from(*dy) / (rows * columns) as f64;
                }
            }
            for (row, dx) in dx.chunks_exact_mut(w).enumerate() {
                sums.fill(0.0);
                // A later output has an earlier tap here, so taps are taken backwards.
                for p in (0..pool.kernel[0]).rev() {
                    let Some(i) = output_with(pool, row, p) else { continue };
                    for q in (0..pool.kernel[1]).rev() {
                        let columns = pool.inside(1, q);
                        if let Some(start) = pool.position(1, columns.start, q) {
                            spread(&shares[i * ow..][columns], pool.stride[1], &mut sums[start..]);
                        }
                    }
                }
                for (dx, sum) in dx.iter_mut().zip(&sums) {
                    *dx = *sum as f32;
                }
            }
        }
    }
}

/// The output row whose tap `p` is image row `row`.
#[inline(always)]
fn output_with(pool: &Pool, row: usize, p: usize) -> Option<usize> {
    let from_first = (row + pool.padding[0]).checked_sub(p)?;
    let i = from_first / pool.stride[0];
    (from_first % pool.stride[0] == 0 && i < pool.output[0]).then_some(i)
}

/// `to[k·stride] += from[k]`
#[inline(always)]
fn spread(from: &[f64], stride: usize, to: &mut [f64]) {
    if stride == 1 {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    } else {
        for (to, from) in to.iter_mut().step_by(stride).zip(from) {
            *to += from;
        }
    }
}
