//! The greatest value of each window, and which tap it was.

use super::{GRAIN, Pool, Rows};
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

/// The same of the planes that `y` is the outputs of, from plane `first` of `x` on.
pub(crate) struct Max<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) x: &'a [f32],
    pub(crate) first: usize,
    pub(crate) y: &'a mut [f32],
    pub(crate) winner: &'a mut [f32],
}

impl Task for Max<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let pool = self.pool;
        let [oh, ow] = pool.output;
        let mut rows = Rows::new(pool, f32::NEG_INFINITY);
        let first = first_columns(pool);
        let mut best = vec![0.0; 2 * rows.outputs()];
        let mut taps = Vec::new();
        let outputs = self.y.chunks_exact_mut(ow).zip(self.winner.chunks_exact_mut(ow));
        for (row, (y, winner)) in outputs.enumerate() {
            max_row(
                pool,
                self.x,
                self.first + row / oh,
                row % oh,
                &first,
                &mut rows,
                &mut best,
                &mut taps,
                y,
                winner,
            );
        }
    }
}

/// For each output column the first q inside the image; `kw` for none.
fn first_columns(pool: &Pool) -> Vec<f32> {
    let first = |j: usize| (0..pool.kernel[1]).find(|q| pool.position(1, j, *q).is_some());
    (0..pool.output[1]).map(|j| first(j).unwrap_or(pool.kernel[1]) as f32).collect()
}

/// One output row. Taps outside are -∞ here and so never take the place of the first inside, which is the
/// winner from the start. `best` and `taps` are scratch: the greatest values and their taps, for columns
/// padded to whole vectors, and the taps inside, each with its place in `rows`.
#[inline(always)]
fn max_row(
    pool: &Pool,
    x: &[f32],
    plane: usize,
    i: usize,
    first: &[f32],
    rows: &mut Rows,
    best: &mut [f32],
    taps: &mut Vec<(usize, f32)>,
    y: &mut [f32],
    winner: &mut [f32],
) {
    let [kh, kw] = pool.kernel;
    let w = pool.input[1];
    let (best, tap) = best.split_at_mut(best.len() / 2);
    best.fill(f32::NEG_INFINITY);
    tap.fill((kh * kw) as f32);
    taps.clear();
    for p in 0..kh {
        let Some(row) = pool.position(0, i, p) else { continue };
        let row = plane * pool.input[0] + row;
        rows.set(row, &x[row * w..][..w]);
        if taps.is_empty() {
            for (tap, first) in tap.iter_mut().zip(first) {
                *tap = if *first < kw as f32 { (p * kw) as f32 + first } else { (kh * kw) as f32 };
            }
        }
        taps.extend((0..kw).map(|q| (rows.place(row, q), (p * kw + q) as f32)));
    }
    let mut left = &taps[..];
    while left.len() > 4 {
        let (group, rest) = left.split_at(left.len().min(9));
        contend::<9>(rows, group, best, tap);
        left = rest;
    }
    if !left.is_empty() {
        contend::<4>(rows, left, best, tap);
    }
    y.copy_from_slice(&best[..y.len()]);
    winner.copy_from_slice(&tap[..winner.len()]);
}

/// At most `G` taps, which for most windows are all, so that the best so far stays in a register: where a tap is
/// greater, or the first NaN, it takes its place. Where there are fewer the last is taken again, which changes
/// nothing.
#[inline(always)]
fn contend<const G: usize>(rows: &Rows, taps: &[(usize, f32)], best: &mut [f32], tap: &mut [f32]) {
    let len = best.len();
    let tap = &mut tap[..len];
    let mut x: [&[f32]; G] = [&[]; G];
    let mut index = [0.0; G];
    for g in 0..G {
        let (place, this) = taps[if g < taps.len() { g } else { taps.len() - 1 }];
        x[g] = &rows.at(place)[..len];
        index[g] = this;
    }
    for j in 0..len {
        let (mut best_j, mut tap_j) = (best[j], tap[j]);
        for g in 0..G {
            let x = x[g][j];
            #[allow(clippy::neg_cmp_op_on_partial_ord, reason = "true of NaN, which is to win")]
            let wins = !(x <= best_j) & !best_j.is_nan();
            best_j = if wins { x } else { best_j };
            tap_j = if wins { index[g] } else { tap_j };
        }
        best[j] = best_j;
        tap[j] = tap_j;
    }
}

/// Fills `dx`. Equals [`super::reference::max_backward`] for what [`max`] gives as winners; others end in other sums, or
/// in a panic.
///
/// # Panics
/// When a slice does not have the length of its shape.
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

/// One plane of it.
pub(crate) fn scatter(pool: &Pool, winner: &[f32], dy: &[f32], dx: &mut [f32]) {
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
