//! The greatest value of each window, and which tap it was.

use super::{GRAIN, Pool, gather};
use crate::cpu::SharedMut;
use crate::{Cpu, Task};

/// Fills `y` and `winner`. Equals [`super::reference::max`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn max(cpu: &Cpu, pool: &Pool, x: &[f32], y: &mut [f32], winner: &mut [f32]) {
    pool.check(x.len(), y.len());
    let plane = pool.output[0] * pool.output[1];
    if y.is_empty() {
        return;
    }
    let grain = GRAIN.div_ceil(plane) * plane;
    cpu.for_slices(y.len(), grain, &mut [Some(y), Some(winner)], |offset, parts| {
        if let [Some(y), Some(winner)] = parts {
            cpu.vectorize(Max { pool, x, first: offset / plane, y, winner });
        }
    });
}

struct Max<'a> {
    pool: &'a Pool,
    x: &'a [f32],
    first: usize,
    y: &'a mut [f32],
    winner: &'a mut [f32],
}

impl Task for Max<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let pool = self.pool;
        let [oh, ow] = pool.output;
        let size = pool.input[0] * pool.input[1];
        let mut scratch = vec![0.0; ow];
        let rows = self.y.chunks_exact_mut(ow).zip(self.winner.chunks_exact_mut(ow));
        for (row, (y, winner)) in rows.enumerate() {
            let x = &self.x[(self.first + row / oh) * size..][..size];
            max_row(pool, x, row % oh, y, winner, &mut scratch);
        }
    }
}

/// One output row: tap after tap in scan order, each over all columns that have it.
#[inline(always)]
fn max_row(pool: &Pool, x: &[f32], i: usize, y: &mut [f32], winner: &mut [f32], scratch: &mut [f32]) {
    let [kh, kw] = pool.kernel;
    let w = pool.input[1];
    y.fill(f32::NEG_INFINITY);
    winner.fill((kh * kw) as f32);
    let mut first = true;
    for p in 0..kh {
        let Some(row) = pool.position(0, i, p) else { continue };
        let x = &x[row * w..][..w];
        if first {
            // The first tap inside is the candidate to beat: of all q the last one written here.
            for q in (0..kw).rev() {
                let columns = pool.inside(1, q);
                if let Some(start) = pool.position(1, columns.start, q) {
                    y[columns.clone()].copy_from_slice(gather(
                        &x[start..],
                        pool.stride[1],
                        &mut scratch[..columns.len()],
                    ));
                    winner[columns].fill((p * kw + q) as f32);
                }
            }
        }
        for q in usize::from(first)..kw {
            let columns = pool.inside(1, q);
            if let Some(start) = pool.position(1, columns.start, q) {
                let taps = gather(&x[start..], pool.stride[1], &mut scratch[..columns.len()]);
                contend(taps, (p * kw + q) as f32, &mut y[columns.clone()], &mut winner[columns]);
            }
        }
        first = false;
    }
}

/// Where a tap is greater, or the first NaN, it takes the place of the best so far.
#[inline(always)]
fn contend(taps: &[f32], tap: f32, best: &mut [f32], winner: &mut [f32]) {
    for ((x, best), winner) in taps.iter().zip(best).zip(winner) {
        let wins = (*x > *best) | (x.is_nan() & !best.is_nan());
        *best = if wins { *x } else { *best };
        *winner = if wins { tap } else { *winner };
    }
}

/// Fills `dx`. Equals [`super::reference::max_backward`].
///
/// # Panics
/// When a slice does not have the length of its shape, or a winner lies outside the image.
pub fn max_backward(cpu: &Cpu, pool: &Pool, winner: &[f32], dy: &[f32], dx: &mut [f32]) {
    pool.check(dx.len(), dy.len());
    assert_eq!(winner.len(), dy.len(), "one winner an output");
    let [oh, ow] = pool.output;
    let plane = (oh * ow).max(1);
    let [h, w] = pool.input;
    let dx = SharedMut::new(dx);
    cpu.for_ranges(pool.planes, GRAIN.div_ceil(plane), |planes| {
        for plane in planes {
            // SAFETY: each plane is in one range only.
            let dx = unsafe { dx.slice(plane * h * w..(plane + 1) * h * w) };
            let outputs = plane * oh * ow..(plane + 1) * oh * ow;
            scatter(pool, &winner[outputs.clone()], &dy[outputs], dx);
        }
    });
}

fn scatter(pool: &Pool, winner: &[f32], dy: &[f32], dx: &mut [f32]) {
    let [kh, kw] = pool.kernel;
    let w = pool.input[1];
    // From the first tap of a window to each tap; the first may lie in the padding.
    let offsets: Vec<usize> =
        (0..kh * kw).map(|tap| tap / kw * pool.dilation[0] * w + tap % kw * pool.dilation[1]).collect();
    let padding = pool.padding[0] * w + pool.padding[1];
    dx.fill(0.0);
    let rows = winner.chunks_exact(pool.output[1].max(1)).zip(dy.chunks_exact(pool.output[1].max(1)));
    for (i, (winner, dy)) in rows.enumerate() {
        for (j, (winner, dy)) in winner.iter().zip(dy).enumerate() {
            if let Some(offset) = offsets.get(*winner as usize) {
                let first = i * pool.stride[0] * w + j * pool.stride[1];
                dx[first + offset - padding] += dy;
            }
        }
    }
}
