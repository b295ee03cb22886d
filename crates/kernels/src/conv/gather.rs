//! The patches of images, gathered while they are packed.

use super::Tap;
use std::ops::Range;

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

    /// The runs of positions `first..first + width`, as far as there are any.
    pub(super) fn runs(self, first: usize, width: usize) -> impl Iterator<Item = Run> {
        let end = self.positions().min(first + width);
        let (rows, columns) = self.size;
        let mut next = first;
        std::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let j = next % columns;
            let len = (columns - j).min(end - next);
            let run = Run { n: next / (rows * columns), i: next / columns % rows, j, at: next - first, len };
            next += len;
            Some(run)
        })
    }
}

/// A matrix that is never stored: for each term (channel, tap) and each position, the pixel under the tap, +0
/// outside the image.
pub(super) struct Gather<'a> {
    images: &'a [f32],
    channels: usize,
    chosen: Range<usize>,
    size: (usize, usize),
    grid: Grid,
    taps: &'a [Tap],
}

impl<'a> Gather<'a> {
    /// The patches of `images [n, channels, size]`, of the `chosen` channels alone.
    pub(super) fn new(
        images: &'a [f32],
        channels: usize,
        chosen: Range<usize>,
        size: (usize, usize),
        grid: Grid,
        taps: &'a [Tap],
    ) -> Gather<'a> {
        Gather { images, channels, chosen, size, grid, taps }
    }

    pub(super) fn positions(&self) -> usize {
        self.grid.positions()
    }

    pub(super) fn terms(&self) -> usize {
        self.chosen.len() * self.taps.len()
    }

    /// `out[term][width]` for positions `first..first + width`.
    pub(super) fn pack_positions(&self, first: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        let runs: Vec<Run> = self.grid.runs(first, width).collect();
        let used: usize = runs.iter().map(|run| run.len).sum();
        let (height, columns) = self.size;
        for (out, term) in out.chunks_exact_mut(width).zip(terms) {
            let (channel, tap) =
                (self.chosen.start + term / self.taps.len(), self.taps[term % self.taps.len()]);
            for run in &runs {
                let out = &mut out[run.at..run.at + run.len];
                let y = (run.i * self.grid.step.0) as isize + tap.y;
                if y < 0 || y >= height as isize {
                    out.fill(0.0);
                    continue;
                }
                let line = ((run.n * self.channels + channel) * height + y as usize) * columns;
                let line = &self.images[line..line + columns];
                let x = (run.j * self.grid.step.1) as isize + tap.x;
                copy_line(line, x, self.grid.step.1, out);
            }
            out[used..].fill(0.0);
        }
    }

    /// `out[position][width]` for terms `first..first + width`, +0 beyond the last; positions by their number.
    pub(super) fn pack_terms(
        &self,
        first: usize,
        positions: impl Iterator<Item = (usize, usize, usize)>,
        width: usize,
        out: &mut [f32],
    ) {
        let (height, columns) = (self.size.0 as isize, self.size.1 as isize);
        let terms: Vec<(isize, Tap)> = (first..self.terms().min(first + width))
            .map(|term| {
                let tap = self.taps[term % self.taps.len()];
                let channel = (self.chosen.start + term / self.taps.len()) as isize;
                ((channel * height + tap.y) * columns + tap.x, tap)
            })
            .collect();
        let reach = Reach::of(self.taps);
        for (out, (n, i, j)) in out.chunks_exact_mut(width).zip(positions) {
            let (y, x) = ((i * self.grid.step.0) as isize, (j * self.grid.step.1) as isize);
            let base = (n * self.channels) as isize * height * columns + y * columns + x;
            let (used, rest) = out.split_at_mut(terms.len());
            if reach.is_inside((y, x), (height, columns)) {
                for (value, (offset, _)) in used.iter_mut().zip(&terms) {
                    *value = self.images[(base + offset) as usize];
                }
            } else {
                for (value, (offset, tap)) in used.iter_mut().zip(&terms) {
                    let inside = (0..height).contains(&(y + tap.y)) && (0..columns).contains(&(x + tap.x));
                    *value = if inside { self.images[(base + offset) as usize] } else { 0.0 };
                }
            }
            rest.fill(0.0);
        }
    }
}

/// `out[k] = line[x + k·step]`, +0 outside the line.
fn copy_line(line: &[f32], x: isize, step: usize, out: &mut [f32]) {
    if step == 1 {
        let before = (-x).clamp(0, out.len() as isize) as usize;
        let end = (line.len() as isize - x).clamp(before as isize, out.len() as isize) as usize;
        out[..before].fill(0.0);
        out[end..].fill(0.0);
        if before < end {
            let from = (x + before as isize) as usize;
            out[before..end].copy_from_slice(&line[from..from + end - before]);
        }
    } else {
        for (k, value) in out.iter_mut().enumerate() {
            let at = x + (k * step) as isize;
            *value = if at >= 0 { line.get(at as usize).copied().unwrap_or(0.0) } else { 0.0 };
        }
    }
}

/// How far the taps reach from a position's origin.
struct Reach {
    least: (isize, isize),
    most: (isize, isize),
}

impl Reach {
    fn of(taps: &[Tap]) -> Reach {
        let ys = || taps.iter().map(|tap| tap.y);
        let xs = || taps.iter().map(|tap| tap.x);
        Reach {
            least: (ys().min().unwrap_or(0), xs().min().unwrap_or(0)),
            most: (ys().max().unwrap_or(0), xs().max().unwrap_or(0)),
        }
    }

    fn is_inside(&self, (y, x): (isize, isize), (height, columns): (isize, isize)) -> bool {
        y + self.least.0 >= 0
            && y + self.most.0 < height
            && x + self.least.1 >= 0
            && x + self.most.1 < columns
    }
}
