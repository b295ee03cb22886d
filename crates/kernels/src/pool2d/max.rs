//! The greatest value of each window, and which tap it was.

use super::{GRAIN, Pool, Rows};
use crate::product::ask_for_part;
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
        let Max { pool, x, first, y, winner } = self;
        let (input, output) = (pool.input[0] * pool.input[1], pool.output[0] * pool.output[1]);
        let mut windows = Windows::new(pool);
        let outputs = y.chunks_exact_mut(output).zip(winner.chunks_exact_mut(output));
        for (plane, (y, winner)) in outputs.enumerate() {
            windows.plane(&x[(first + plane) * input..][..input], |x| x, &[], y, winner);
        }
    }
}

/// Planes one after the other, and memory for it; rows of outputs are padded to whole vectors here.
pub(crate) struct Windows<'a> {
    pool: &'a Pool,
    rows: Rows,
    /// For each row of taps the first tap of each output inside the image, if that row is the first inside.
    first: Vec<f32>,
    /// The taps inside, each with its place in `rows`.
    taps: Vec<(usize, f32)>,
    best: Vec<f32>,
    tap: Vec<f32>,
}

impl Windows<'_> {
    pub(crate) fn new(pool: &Pool) -> Windows<'_> {
        let [kh, kw] = pool.kernel;
        let rows = Rows::new(pool, f32::NEG_INFINITY);
        let outputs = rows.outputs();
        let column = |j: usize| (0..kw).find(|q| pool.position(1, j, *q).is_some());
        let columns: Vec<_> = (0..outputs).map(column).collect();
        let tap = |p: usize, q: Option<usize>| q.map_or(kh * kw, |q| p * kw + q) as f32;
        let mut first = Vec::with_capacity(kh * outputs);
        for p in 0..kh {
            first.extend(columns.iter().map(|q| tap(p, *q)));
        }
        let [best, tap] = [(); 2].map(|()| vec![0.0; outputs]);
        Windows { pool, rows, first, taps: vec![(0, 0.0); kh * kw], best, tap }
    }

    /// The outputs of a plane of a function of `x`, and their taps; asks for what is `ahead` meanwhile. For use inside a
    /// [`Task`].
    #[inline(always)]
    pub(crate) fn plane(
        &mut self,
        x: &[f32],
        of: impl Fn(f32) -> f32,
        ahead: &[f32],
        y: &mut [f32],
        winner: &mut [f32],
    ) {
        let [oh, ow] = self.pool.output;
        self.rows.forget();
        for (i, (y, winner)) in y.chunks_exact_mut(ow).zip(winner.chunks_exact_mut(ow)).enumerate() {
            ask_for_part(ahead, i, oh);
            self.row(x, &of, i, y, winner);
        }
    }

    /// One output row. Taps outside are -∞ here and so never take the place of the first inside, which is the
    /// winner from the start.
    #[inline(always)]
    fn row(&mut self, x: &[f32], of: &impl Fn(f32) -> f32, i: usize, y: &mut [f32], winner: &mut [f32]) {
        let Windows { pool, rows, first, taps, best, tap } = self;
        let ([kh, kw], w) = (pool.kernel, pool.input[1]);
        let mut inside = 0;
        for p in 0..kh {
            let Some(row) = pool.position(0, i, p) else { continue };
            rows.set(row, &x[row * w..][..w], of);
            if inside == 0 {
                tap.copy_from_slice(&first[p * rows.outputs()..][..rows.outputs()]);
            }
            let place = rows.place(row);
            for (q, to) in taps[inside..][..kw].iter_mut().enumerate() {
                *to = (place + rows.taps[q], (p * kw + q) as f32);
            }
            inside += kw;
        }
        if inside == 0 {
            tap.fill((kh * kw) as f32);
        }
        best.fill(f32::NEG_INFINITY);
        let mut left = &taps[..inside];
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
