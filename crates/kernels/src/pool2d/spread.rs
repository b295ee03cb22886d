//! The gradient of the greatest values: a pixel takes that of every window it won.

use super::{GRAIN, Pool};
use crate::cpu::SharedMut;
use crate::interleave::weave;
use crate::memory::Buffer;
use crate::product::{LINE, ask_for_part};
use crate::{Cpu, Task};
use std::array::from_fn;
use std::ops::Range;

/// Fills `dx`. Equals [`super::reference::max_backward`] for what [`max`](super::max) gives as winners; others end in
/// other sums.
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn max_backward(cpu: &Cpu, pool: &Pool, winner: &[f32], dy: &[f32], dx: &mut [f32]) {
    pool.check(dx.len(), dy.len());
    assert_eq!(winner.len(), dy.len(), "one winner an output");
    let plane = (pool.output[0] * pool.output[1]).max(1);
    let dx = SharedMut::new(dx);
    cpu.for_ranges(pool.planes, GRAIN.div_ceil(plane), |planes| {
        cpu.vectorize(MaxBackward { pool, winner, dy, planes, dx });
    });
}

struct MaxBackward<'a> {
    pool: &'a Pool,
    winner: &'a [f32],
    dy: &'a [f32],
    planes: Range<usize>,
    dx: SharedMut<'a, f32>,
}

impl Task for MaxBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let [h, w] = self.pool.input;
        let mut spread = Spread::new(self.pool);
        let size = self.pool.output[0] * self.pool.output[1];
        for plane in self.planes {
            let outputs = plane * size..(plane + 1) * size;
            // SAFETY: each plane is in one range only.
            let dx = unsafe { self.dx.slice(plane * h * w..(plane + 1) * h * w) };
            spread.plane(&self.winner[outputs.clone()], &self.dy[outputs], &[], dx);
        }
    }
}

/// A tap that nothing has.
const NO_TAP: f32 = -1.0;

/// The values of a phase that are computed together, about.
const STRIP: usize = 1024;

/// Planes one after the other, and memory for it.
///
/// The pixels of one residue to the stride, a phase, are the same taps of windows that lie alike: with windows around that
/// have no gradient, all of a phase are one long loop. In the end rows are put together from the phases. Windows are taken in
/// their order.
pub(crate) struct Spread<'a> {
    pool: &'a Pool,
    /// Of each phase, in rows: where the window of the first pixel lies in what is padded, and which tap it is, in the order
    /// of the windows.
    taps: Vec<Vec<(usize, f32)>>,
    /// Winners and gradients of a plane, padded, in rows of `row`.
    winner: Buffer,
    dy: Buffer,
    before: [usize; 2],
    row: usize,
    /// Some rows of every phase.
    pixels: Buffer,
    strip: usize,
    /// Phases of a row.
    across: usize,
}

impl Spread<'_> {
    pub(crate) fn new(pool: &Pool) -> Spread<'_> {
        let Pool { kernel, stride, padding, dilation, .. } = *pool;
        let before = from_fn(|axis| {
            ((kernel[axis] - 1) * dilation[axis]).saturating_sub(padding[axis]) / stride[axis]
        });
        let size: [usize; 2] = from_fn(|axis| {
            let windows = pool.input[axis].div_ceil(stride[axis]) + padding[axis].div_ceil(stride[axis]);
            before[axis] + windows.max(pool.output[axis])
        });
        let row = size[1].next_multiple_of(LINE);
        // A plane has no more residues than pixels.
        let phases: [usize; 2] = from_fn(|axis| stride[axis].min(pool.input[axis]).max(1));
        // Along an axis, for each residue: the taps that its first pixel is, and of which padded windows, in their order.
        let windows = |axis: usize| -> Vec<Vec<(usize, usize)>> {
            let of = |residue: usize| {
                let place = before[axis] * stride[axis] + residue + padding[axis];
                let window = move |tap: usize| {
                    let first = place.checked_sub(tap * dilation[axis])?;
                    first.is_multiple_of(stride[axis]).then_some((tap, first / stride[axis]))
                };
                (0..kernel[axis]).rev().filter_map(window)
            };
            let list = |residue| {
                let mut list = Vec::with_capacity(of(residue).count());
                list.extend(of(residue));
                list
            };
            (0..phases[axis]).map(list).collect()
        };
        let [rows, columns] = [windows(0), windows(1)];
        let mut taps = vec![Vec::new(); phases[0] * phases[1]];
        for (phase, taps) in taps.iter_mut().enumerate() {
            let (rows, columns) = (&rows[phase / phases[1]], &columns[phase % phases[1]]);
            taps.reserve_exact(rows.len() * columns.len());
            for (p, i) in rows {
                taps.extend(columns.iter().map(|(q, j)| (i * row + j, (p * kernel[1] + q) as f32)));
            }
        }
        let strip = (STRIP / row).clamp(1, pool.input[0].div_ceil(stride[0]).max(1));
        // Beyond the last row, a loop over whole rows looks at one more.
        let padded = (size[0] + strip + 1) * row;
        Spread {
            pool,
            taps,
            winner: Buffer::zeros(padded),
            dy: Buffer::zeros(padded),
            before,
            row,
            pixels: Buffer::zeros(phases[0] * phases[1] * strip * row),
            strip,
            across: phases[1],
        }
    }

    /// Writes the gradient of a plane from its winners and gradients, and asks for what is `ahead` meanwhile. For use inside a
    /// [`Task`].
    #[inline(always)]
    pub(crate) fn plane(&mut self, winner: &[f32], dy: &[f32], ahead: &[&[f32]], to: &mut [f32]) {
        let (ow, [h, w], stride) = (self.pool.output[1], self.pool.input, self.pool.stride[0]);
        for (padded, from) in [(&mut self.winner, winner), (&mut self.dy, dy)] {
            let padded = padded.chunks_exact_mut(self.row).skip(self.before[0]);
            for (padded, from) in padded.zip(from.chunks_exact(ow.max(1))) {
                padded[self.before[1]..][..ow].copy_from_slice(from);
            }
        }
        let part = self.strip * self.row;
        for (strip, to) in to.chunks_mut((self.strip * stride * w).max(1)).enumerate() {
            for (taps, pixels) in self.taps.iter().zip(self.pixels.chunks_exact_mut(part)) {
                let (winner, dy) = (&self.winner[strip * part..], &self.dy[strip * part..]);
                let (mut first, mut left) = (true, &taps[..]);
                while first || !left.is_empty() {
                    let (group, rest) = left.split_at(left.len().min(4));
                    match group.len() {
                        1 => collect::<1>(winner, dy, group, first, pixels),
                        2 => collect::<2>(winner, dy, group, first, pixels),
                        _ => collect::<4>(winner, dy, group, first, pixels),
                    }
                    (first, left) = (false, rest);
                }
            }
            for (r, to) in to.chunks_exact_mut(w.max(1)).enumerate() {
                let phases = &self.pixels[r % stride * self.across * part + r / stride * self.row..];
                let row = strip * self.strip * stride + r;
                ahead.iter().for_each(|ahead| ask_for_part(ahead, row, h));
                weave(self.across, |residue| &phases[residue * part..], to);
            }
        }
    }
}

/// Adds to each pixel the gradients of the windows that it won as one of at most `G` taps; to nothing if they are the `first`.
#[inline(always)]
fn collect<const G: usize>(
    winner: &[f32],
    dy: &[f32],
    taps: &[(usize, f32)],
    first: bool,
    pixels: &mut [f32],
) {
    let len = pixels.len();
    let (mut winners, mut gradients): ([&[f32]; G], [&[f32]; G]) = ([&[]; G], [&[]; G]);
    let mut index = [NO_TAP; G];
    for g in 0..G {
        let (place, tap) = *taps.get(g).unwrap_or(&(0, NO_TAP));
        winners[g] = &winner[place..][..len];
        gradients[g] = &dy[place..][..len];
        index[g] = tap;
    }
    for k in 0..len {
        // +0 plus anything is never -0, so that the +0 of a window won by another changes nothing.
        let mut sum = if first { 0.0 } else { pixels[k] };
        for g in 0..G {
            let (winner, gradient) = (winners[g][k], gradients[g][k]);
            sum += if winner == index[g] { gradient } else { 0.0 };
        }
        pixels[k] = sum;
    }
}
