//! The pixels that some positions need, laid out so that every tap is one distance.
//!
//! Position (i, j) and tap t meet at pixel `(i·step + y_t, j·step + x_t)`. Pixels are sorted into planes by
//! their residue to the step, rows and columns of zeros around them: within a plane neighbouring positions have
//! neighbouring pixels, whatever the step, and padding needs no question.
//!
//! ```text
//! plane [channel][residue][row][column]    pixel of (position, channel, tap) = at(position) + of(channel, tap)
//! ```

use super::Tap;
use crate::cpu::SharedMut;
use crate::product::{LINE, prefetch};
use crate::{Cpu, Task};
use std::ops::Range;

/// Values staged that are work enough for a thread.
const GRAIN: usize = 1 << 13;

/// Positions of a convolution: `n` images of `size` rows and columns, `step` pixels apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) n: usize,
    pub(super) size: (usize, usize),
    pub(super) step: (usize, usize),
}

/// Neighbouring positions of one row of one image: `len` of them from (i, j), the `at`-th of those asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) n: usize,
    pub(super) i: usize,
    pub(super) j: usize,
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Grid {
    pub(super) fn positions(&self) -> usize {
        self.n * self.size.0 * self.size.1
    }

    /// The rows of these positions.
    pub(super) fn runs(self, positions: Range<usize>) -> Runs {
        Runs { grid: self, next: positions.start, positions }
    }
}

/// The rows of some positions, one after the other.
pub(super) struct Runs {
    grid: Grid,
    positions: Range<usize>,
    next: usize,
}

impl Iterator for Runs {
    type Item = Run;
    #[inline]
    fn next(&mut self) -> Option<Run> {
        let Runs { grid: Grid { size: (rows, columns), .. }, ref positions, next } = *self;
        if next >= positions.end {
            return None;
        }
        let j = next % columns;
        let len = (columns - j).min(positions.end - next);
        let (n, i) = (next / (rows * columns), next / columns % rows);
        self.next += len;
        Some(Run { n, i, j, at: next - positions.start, len })
    }
    /// Exact: what is collected finds room at once.
    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let columns = self.grid.size.1.max(1);
        let left = self.positions.end.div_ceil(columns).saturating_sub(self.next / columns);
        let left = if self.next < self.positions.end { left } else { 0 };
        (left, Some(left))
    }
}

/// Images, the channels of them that take part, and the positions and taps that meet their pixels.
#[derive(Clone, Copy)]
pub(super) struct Patches<'a> {
    pub(super) images: &'a [f32],
    /// All channels of an image, and the first that takes part.
    pub(super) channels: (usize, usize),
    /// Channels that take part.
    pub(super) chosen: usize,
    pub(super) size: (usize, usize),
    pub(super) grid: Grid,
    pub(super) taps: &'a [Tap],
}

impl Patches<'_> {
    /// Whether each position needs one pixel, its own.
    pub(super) fn are_pixels(&self) -> bool {
        let Patches { size, grid, taps, .. } = *self;
        taps.len() == 1 && (taps[0].y, taps[0].x) == (0, 0) && grid.step == (1, 1) && grid.size == size
    }

    /// Whether the row of a tap's pixel is inside the image, for positions of row i.
    pub(super) fn has_row(&self, i: usize, tap: usize) -> bool {
        inside(i, self.grid.step.0, self.taps[tap].y, self.size.0).is_some()
    }

    /// Whether the column of a tap's pixel is inside the image, for positions of column j.
    pub(super) fn has_column(&self, j: usize, tap: usize) -> bool {
        inside(j, self.grid.step.1, self.taps[tap].x, self.size.1).is_some()
    }

    /// The pixel that a position and a tap meet; +0 on the padding.
    pub(super) fn value(&self, (n, i, j): (usize, usize, usize), channel: usize, tap: &Tap) -> f32 {
        let Patches { images, channels, size, grid, .. } = *self;
        match (inside(i, grid.step.0, tap.y, size.0), inside(j, grid.step.1, tap.x, size.1)) {
            (Some(y), Some(x)) => images[((n * channels.0 + channels.1 + channel) * size.0 + y) * size.1 + x],
            _ => 0.0,
        }
    }

    /// From how many rows of planes the taps of a position take their pixels.
    pub(super) fn rows_of_taps(&self) -> usize {
        let across = self.grid.step.1 as isize;
        let mut rows: Vec<_> = self.taps.iter().map(|t| (t.y, t.x.rem_euclid(across))).collect();
        rows.sort_unstable();
        rows.dedup();
        rows.len().max(1)
    }
}

/// The pixel that a position and a tap meet, along one axis; `None` on the padding.
fn inside(at: usize, step: usize, offset: isize, size: usize) -> Option<usize> {
    usize::try_from((at * step) as isize + offset).ok().filter(|pixel| *pixel < size)
}

/// Rows of one image, stacked in the planes from `row` on.
struct Stack {
    n: usize,
    rows: Range<usize>,
    row: usize,
}

/// A row to be copied: from `from` of channel 0 to `to` of channel 0. They come in the order in which they are written.
struct Line {
    from: usize,
    to: usize,
    len: usize,
}

/// Where the pixels of some positions lie.
pub(super) struct Planes {
    /// One channel, and one plane of it.
    channel: usize,
    /// From one row of a plane to the next.
    pitch: usize,
    stacks: Vec<Stack>,
    /// The distance of each tap.
    taps: Vec<usize>,
    /// What is copied, or nothing where the images serve as they are.
    lines: Option<Vec<Line>>,
}

impl Planes {
    /// For neighbouring positions. The images serve as they are where each position is one pixel.
    pub(super) fn new(patches: &Patches, positions: Range<usize>) -> Planes {
        if patches.are_pixels() {
            let size = patches.size;
            let plane = (size.0 * size.1).max(1);
            let row = |n: usize| (n * patches.channels.0 + patches.channels.1) * size.0;
            let images = positions.start / plane..positions.end.div_ceil(plane);
            let stacks = images.map(|n| Stack { n, rows: 0..size.0, row: row(n) }).collect();
            return Planes { channel: plane, pitch: size.1, stacks, taps: vec![0], lines: None };
        }
        Planes::sorted(patches, positions)
    }

    fn sorted(patches: &Patches, positions: Range<usize>) -> Planes {
        let Patches { size, grid, taps, .. } = *patches;
        // Each tap as a residue and a whole number of steps.
        let split = |at: isize, step: usize| (at.rem_euclid(step as isize), at.div_euclid(step as isize));
        let split: Vec<_> = taps.iter().map(|t| (split(t.y, grid.step.0), split(t.x, grid.step.1))).collect();
        let mut residues: Vec<(isize, isize)> = split.iter().map(|(y, x)| (y.0, x.0)).collect();
        residues.sort_unstable();
        residues.dedup();
        let (mut low, mut high) = ((isize::MAX, isize::MAX), (isize::MIN, isize::MIN));
        for (y, x) in &split {
            low = (low.0.min(y.1), low.1.min(x.1));
            high = (high.0.max(y.1), high.1.max(x.1));
        }
        let reach = ((high.0 - low.0) as usize, (high.1 - low.1) as usize);
        let pitch = grid.size.1 + reach.1;
        let plane = (grid.size.0 * grid.size.1).max(1);
        let images = positions.end.div_ceil(plane).saturating_sub(positions.start / plane);
        let mut stacks: Vec<Stack> = Vec::with_capacity(images);
        let mut row = 0;
        for run in grid.runs(positions) {
            match stacks.last_mut() {
                Some(last) if last.n == run.n => {
                    row += run.i + 1 - last.rows.end;
                    last.rows.end = run.i + 1;
                }
                _ => {
                    stacks.push(Stack { n: run.n, rows: run.i..run.i + 1, row });
                    row += 1 + reach.0;
                }
            }
        }
        let plane = row * pitch;
        let place =
            |residue: (isize, isize)| residues.iter().position(|r| *r == residue).unwrap_or(0) * plane;
        let taps = split
            .iter()
            .map(|(y, x)| place((y.0, x.0)) + (y.1 - low.0) as usize * pitch + (x.1 - low.1) as usize);
        let taps = taps.collect();
        let mut lines = Vec::with_capacity(residues.len() * row);
        for (index, residue) in residues.iter().enumerate() {
            // The columns v of a row that lie inside the image: step·(v + low) + residue in 0..size.
            let inside = |residue: isize, low: isize, step: usize, size: usize| {
                let step = step as isize;
                let least = |pixel: isize| (pixel - residue - step * low + step - 1).div_euclid(step);
                let first = least(0).clamp(0, pitch as isize);
                first as usize..least(size as isize).clamp(first, pitch as isize) as usize
            };
            let columns = inside(residue.1, low.1, grid.step.1, size.1);
            if columns.is_empty() {
                continue;
            }
            let x = grid.step.1 as isize * (columns.start as isize + low.1) + residue.1;
            for stack in &stacks {
                for u in 0..stack.rows.len() + reach.0 {
                    let y = grid.step.0 as isize * ((stack.rows.start + u) as isize + low.0) + residue.0;
                    if (0..size.0 as isize).contains(&y) {
                        let from = (stack.n * patches.channels.0 + patches.channels.1) * size.0 * size.1
                            + y as usize * size.1
                            + x as usize;
                        let to = index * plane + (stack.row + u) * pitch + columns.start;
                        lines.push(Line { from, to, len: columns.len() });
                    }
                }
            }
        }
        Planes { channel: residues.len() * plane, pitch, stacks, taps, lines: Some(lines) }
    }

    /// Values that `channels` need in `scratch`.
    pub(super) fn scratch(&self, channels: usize) -> usize {
        if self.lines.is_some() { channels * self.channel } else { 0 }
    }

    /// Copies the pixels of some channels to `scratch`, and +0 to wherever there are none if it is `fresh`: they stay
    /// there for the next channels. Threads share the channels, unless they are at work already.
    pub(super) fn stage(
        &self,
        cpu: &Cpu,
        patches: &Patches,
        channels: Range<usize>,
        scratch: &mut [f32],
        fresh: bool,
    ) {
        if let Some(lines) = &self.lines {
            let scratch = SharedMut::new(scratch);
            let grain = (GRAIN / self.channel.max(1)).max(1);
            cpu.for_ranges(channels.len(), grain, |part| {
                // SAFETY: every part is other channels.
                let scratch = unsafe { scratch.slice(part.start * self.channel..part.end * self.channel) };
                let channels = channels.start + part.start..channels.start + part.end;
                cpu.vectorize(Stage { lines, channel: self.channel, patches, channels, scratch, fresh });
            });
        }
    }

    /// Where the pixels of channel 0 lie that are copied, `step` apart: one of every `every` values at least.
    pub(super) fn read(&self, step: usize, every: usize) -> Vec<usize> {
        let lines = || {
            self.lines.iter().flatten().map(|line| (line.from..line.from + line.len * step).step_by(every))
        };
        let mut places = Vec::with_capacity(lines().map(|places| places.len()).sum());
        places.extend(lines().flatten());
        places.sort_unstable_by_key(|at| at / every);
        places.dedup_by_key(|at| *at / every);
        places
    }

    /// Where `first`, the first channel staged, begins, and in what.
    pub(super) fn staged<'s>(
        &self,
        images: &'s [f32],
        first: usize,
        scratch: &'s [f32],
    ) -> (&'s [f32], usize) {
        if self.lines.is_some() { (scratch, 0) } else { (images, first * self.channel) }
    }

    /// From one channel to the next.
    pub(super) fn channel(&self) -> usize {
        self.channel
    }

    /// The distance of each tap.
    pub(super) fn taps(&self) -> &[usize] {
        &self.taps
    }

    /// Where the pixels of a run's first position lie.
    pub(super) fn at(&self, run: &Run) -> usize {
        let first = self.stacks.first().map_or(0, |stack| stack.n);
        let stack = &self.stacks[run.n - first];
        (stack.row + run.i - stack.rows.start) * self.pitch + run.j
    }
}

/// Copies lines of some channels.
struct Stage<'a> {
    lines: &'a [Line],
    channel: usize,
    patches: &'a Patches<'a>,
    channels: Range<usize>,
    scratch: &'a mut [f32],
    /// Whether zeros are missing.
    fresh: bool,
}

impl Task for Stage<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let plane = self.patches.size.0 * self.patches.size.1;
        let step = self.patches.grid.step.1;
        for (index, channel) in self.channels.enumerate() {
            let from = &self.patches.images[channel * plane..];
            let to = &mut self.scratch[index * self.channel..][..self.channel];
            let mut end = 0;
            for line in self.lines {
                if self.fresh {
                    zero(to, end..line.to);
                    end = line.to + line.len;
                }
                // The next channel's pixels, which the processor does not foresee where lines are skipped.
                let next = from.as_ptr().wrapping_add(line.from + plane);
                for at in (0..line.len * step).step_by(LINE.max(step)) {
                    prefetch(next.wrapping_add(at));
                }
                copy_line(&from[line.from..], step, &mut to[line.to..line.to + line.len]);
            }
            if self.fresh {
                zero(to, end..self.channel);
            }
        }
    }
}

/// Writes +0 to a gap between lines, and anything behind it.
#[inline(always)]
fn zero(to: &mut [f32], gap: Range<usize>) {
    if gap.is_empty() {
        return;
    }
    match to[gap.start..].first_chunk_mut::<8>() {
        // A call costs more than a short gap.
        Some(eight) if gap.len() <= 8 => *eight = [0.0; 8],
        _ => to[gap].fill(0.0),
    }
}

/// `to[k] = from[k·step]`
#[inline(always)]
fn copy_line(from: &[f32], step: usize, to: &mut [f32]) {
    if step == 2 {
        every_second(from, to);
    } else if step > 1 {
        for (k, value) in to.iter_mut().enumerate() {
            *value = from[k * step];
        }
    } else if to.len() >= 64 {
        to.copy_from_slice(&from[..to.len()]);
    } else {
        // A call costs more than a short line.
        let from = &from[..to.len()];
        let (whole, rest) = to.as_chunks_mut::<8>();
        let (from_whole, from_rest) = from.as_chunks::<8>();
        for (to, from) in whole.iter_mut().zip(from_whole) {
            *to = *from;
        }
        for (to, from) in rest.iter_mut().zip(from_rest) {
            *to = *from;
        }
    }
}

/// `to[k] = from[2k]`, mostly by whole registers: many lines are shorter than a loop that the compiler widens.
#[inline(always)]
fn every_second(from: &[f32], to: &mut [f32]) {
    // Nothing may follow the last value.
    let pairs = to.len().min(from.len() / 2);
    let (paired, last) = to.split_at_mut(pairs);
    if let [last] = last {
        *last = from[2 * pairs];
    }
    let (whole, rest) = paired.as_chunks_mut::<8>();
    let (from_whole, from_rest) = from[..2 * pairs].as_chunks::<16>();
    for (to, from) in whole.iter_mut().zip(from_whole) {
        let (from, mut eight) = (*from, [0.0; 8]);
        for k in 0..8 {
            eight[k] = from[2 * k];
        }
        *to = eight;
    }
    for (value, [first, _]) in rest.iter_mut().zip(from_rest.as_chunks().0) {
        *value = *first;
    }
}
