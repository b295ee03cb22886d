//! The greatest value of each window, and which tap it was.

use super::{GRAIN, Pool, Rows};
use crate::cpu::SharedMut;
use crate::{Cpu, Task};
use std::ops::Range;

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
        let mut rows = Rows::new(pool, f32::NEG_INFINITY);
        let first = first_columns(pool);
        let mut best = vec![0.0; 2 * rows.outputs()];
        let outputs = self.y.chunks_exact_mut(ow).zip(self.winner.chunks_exact_mut(ow));
        for (row, (y, winner)) in outputs.enumerate() {
            let x = &self.x[(self.first + row / oh) * size..][..size];
            max_row(pool, x, row % oh, &first, &mut rows, &mut best, y, winner);
        }
    }
}

/// For each output column the first q inside the image; `kw` for none.
fn first_columns(pool: &Pool) -> Vec<f32> {
    let first = |j: usize| (0..pool.kernel[1]).find(|q| pool.position(1, j, *q).is_some());
    (0..pool.output[1]).map(|j| first(j).unwrap_or(pool.kernel[1]) as f32).collect()
}

/// One output row. Taps outside are -∞ here and so never take the place of the first inside, which is the
/// winner from the start. `best` is scratch: the greatest values and their taps, for columns padded to whole
/// vectors.
#[inline(always)]
fn max_row(
    pool: &Pool,
    x: &[f32],
    i: usize,
    first: &[f32],
    rows: &mut Rows,
    best: &mut [f32],
    y: &mut [f32],
    winner: &mut [f32],
) {
    let [kh, kw] = pool.kernel;
    let w = pool.input[1];
    let (best, tap) = best.split_at_mut(best.len() / 2);
    best.fill(f32::NEG_INFINITY);
    tap.fill((kh * kw) as f32);
    // The rows inside follow each other.
    let mut inside = 0..0;
    for p in 0..kh {
        if let Some(row) = pool.position(0, i, p) {
            inside = if inside.is_empty() { p..p + 1 } else { inside.start..p + 1 };
            rows.set(p, &x[row * w..][..w]);
        }
    }
    if !inside.is_empty() {
        for (tap, first) in tap.iter_mut().zip(first) {
            *tap = if *first < kw as f32 { (inside.start * kw) as f32 + first } else { (kh * kw) as f32 };
        }
    }
    let mut taps = inside.start * kw..inside.end * kw;
    while taps.len() > 4 {
        contend::<9>(rows, kw, &mut taps, best, tap);
    }
    while !taps.is_empty() {
        contend::<4>(rows, kw, &mut taps, best, tap);
    }
    y.copy_from_slice(&best[..y.len()]);
    winner.copy_from_slice(&tap[..winner.len()]);
}

/// The next `G` taps, which for most windows are all, so that the best so far stays in a register: where a tap is
/// greater, or the first NaN, it takes its place. Where fewer are left the last is taken again, which changes
/// nothing.
#[inline(always)]
fn contend<const G: usize>(
    rows: &Rows,
    kw: usize,
    taps: &mut Range<usize>,
    best: &mut [f32],
    tap: &mut [f32],
) {
    let len = best.len();
    let tap = &mut tap[..len];
    let mut x: [&[f32]; G] = [&[]; G];
    let mut index = [0.0; G];
    for g in 0..G {
        let at = if taps.start + g < taps.end { taps.start + g } else { taps.end - 1 };
        x[g] = &rows.taps(at / kw, at % kw)[..len];
        index[g] = at as f32;
    }
    taps.start = taps.end.min(taps.start + G);
    for j in 0..len {
        let (mut best_j, mut tap_j) = (best[j], tap[j]);
        for g in 0..G {
            let x = x[g][j];
            let wins = (x > best_j) | (x.is_nan() & !best_j.is_nan());
            best_j = if wins { x } else { best_j };
            tap_j = if wins { index[g] } else { tap_j };
        }
        best[j] = best_j;
        tap[j] = tap_j;
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
