//! Convolution of images `[n, c, h, w]` with filters `[o, c/groups, kh, kw]`, and its gradients.
//!
//! The definitions are the loops of [`mod@reference`]. The kernels are products ([`crate::product`]) whose right
//! operand, the patches of the image, is gathered while it is packed: no matrix of patches is ever stored.
//!
//! | | rows | columns | terms, in order |
//! |---|---|---|---|
//! | forward | filters | positions (n, i, j) | (channel, tap row, tap column) |
//! | input gradient | channels | pixels (n, h, v) of one residue of the stride | (filter, tap row, tap column) |
//! | weight gradient | filters | (channel, tap row, tap column) | positions, in leaves of the batch |

mod gather;
pub mod reference;
mod weight;

use crate::Cpu;
use crate::cpu::SharedMut;
use crate::product::{Product, multiply};
use crate::sums::{self, Images};
use gather::{Gather, Grid};
use std::ops::Range;

/// The geometry of a convolution. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Input rows and columns.
    pub input: (usize, usize),
    /// Filters: output channels.
    pub o: usize,
    /// Taps.
    pub kernel: (usize, usize),
    /// Pixels from one position to the next.
    pub stride: (usize, usize),
    /// Zeros added on every side.
    pub padding: (usize, usize),
    /// Pixels from one tap to the next.
    pub dilation: (usize, usize),
    /// Channel groups that do not see each other; divides `c` and `o`.
    pub groups: usize,
}

impl Conv {
    /// Output rows and columns: `⌊(size + 2·padding − dilation·(taps − 1) − 1)/stride⌋ + 1`, or 0 where the
    /// filter does not fit.
    pub fn output(&self) -> (usize, usize) {
        let extent = |size: usize, taps: usize, stride: usize, padding: usize, dilation: usize| {
            let span = dilation * (taps - 1) + 1;
            if size + 2 * padding < span { 0 } else { (size + 2 * padding - span) / stride + 1 }
        };
        let (s, p, d) = (self.stride, self.padding, self.dilation);
        (
            extent(self.input.0, self.kernel.0, s.0, p.0, d.0),
            extent(self.input.1, self.kernel.1, s.1, p.1, d.1),
        )
    }

    fn group_channels(&self) -> usize {
        self.c / self.groups
    }

    fn group_filters(&self) -> usize {
        self.o / self.groups
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    fn check(&self, x: usize, w: usize, y: usize) {
        let (oh, ow) = self.output();
        assert!(self.groups > 0 && self.c.is_multiple_of(self.groups) && self.o.is_multiple_of(self.groups));
        assert_eq!(x, self.n * self.c * self.input.0 * self.input.1, "images of another size");
        assert_eq!(w, self.o * self.group_channels() * self.taps(), "filters of another size");
        assert_eq!(y, self.n * self.o * oh * ow, "outputs of another size");
    }
}

/// `y[n, o, i, j]`: [`reference::forward`].
///
/// # Panics
/// When a slice does not have the geometry's size.
pub fn forward(cpu: &Cpu, conv: &Conv, x: &[f32], w: &[f32], y: &mut [f32]) {
    conv.check(x.len(), w.len(), y.len());
    let channels = conv.group_channels();
    let offset = |tap: usize, taps: usize, dilation: usize, padding: usize| {
        debug_assert!(tap < taps);
        (tap * dilation) as isize - padding as isize
    };
    let taps: Vec<Tap> = (0..conv.taps())
        .map(|index| {
            let (p, q) = (index / conv.kernel.1, index % conv.kernel.1);
            let y = offset(p, conv.kernel.0, conv.dilation.0, conv.padding.0);
            let x = offset(q, conv.kernel.1, conv.dilation.1, conv.padding.1);
            Tap { index, y, x }
        })
        .collect();
    let grid = Grid { n: conv.n, size: conv.output(), step: conv.stride };
    let y = SharedMut::new(y);
    for group in 0..conv.groups {
        let first = group * channels;
        multiply(
            cpu,
            &Direct {
                rows: conv.group_filters(),
                patches: Gather::new(x, conv.c, first..first + channels, conv.input, grid, &taps),
                weight: |row: usize, channel: usize, tap: usize| {
                    w[((group * conv.group_filters() + row) * channels + channel) * conv.taps() + tap]
                },
                taps: &taps,
                target: Target {
                    out: y,
                    channels: conv.o,
                    first: group * conv.group_filters(),
                    size: conv.output(),
                    origin: (0, 0),
                    step: (1, 1),
                    grid,
                },
            },
        );
    }
}

/// `dx[n, c, h, v]`: [`reference::input_gradient`].
///
/// Pixels are taken by the residue of (h + padding) and (v + padding) to the stride: those of one residue
/// meet the same taps, and their gradient is a convolution of `dy` without strides.
///
/// # Panics
/// When a slice does not have the geometry's size.
pub fn input_gradient(cpu: &Cpu, conv: &Conv, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    conv.check(dx.len(), w.len(), dy.len());
    let (channels, filters) = (conv.group_channels(), conv.group_filters());
    let dx = SharedMut::new(dx);
    let phases = (0..conv.stride.0).flat_map(|a| (0..conv.stride.1).map(move |b| (a, b)));
    for (a, b) in phases {
        let pixels = |size: usize, start: usize, stride: usize| size.saturating_sub(start).div_ceil(stride);
        let size = (pixels(conv.input.0, a, conv.stride.0), pixels(conv.input.1, b, conv.stride.1));
        let grid = Grid { n: conv.n, size, step: (1, 1) };
        let taps = phase_taps(conv, (a, b));
        for group in 0..conv.groups {
            let first = group * filters;
            multiply(
                cpu,
                &Direct {
                    rows: channels,
                    patches: Gather::new(dy, conv.o, first..first + filters, conv.output(), grid, &taps),
                    weight: |row: usize, filter: usize, tap: usize| {
                        w[((first + filter) * channels + row) * conv.taps() + tap]
                    },
                    taps: &taps,
                    target: Target {
                        out: dx,
                        channels: conv.c,
                        first: group * channels,
                        size: conv.input,
                        origin: (a, b),
                        step: conv.stride,
                        grid,
                    },
                },
            );
        }
    }
}

/// The taps that pixels of residue (a, b) meet, and where their `dy` lies from position (h/stride, v/stride).
fn phase_taps(conv: &Conv, (a, b): (usize, usize)) -> Vec<Tap> {
    let offset = |start: usize, padding: usize, tap: usize, dilation: usize, stride: usize| {
        let distance = (start + padding) as isize - (tap * dilation) as isize;
        (distance.rem_euclid(stride as isize) == 0).then(|| distance.div_euclid(stride as isize))
    };
    let mut taps = Vec::new();
    for p in 0..conv.kernel.0 {
        for q in 0..conv.kernel.1 {
            let y = offset(a, conv.padding.0, p, conv.dilation.0, conv.stride.0);
            let x = offset(b, conv.padding.1, q, conv.dilation.1, conv.stride.1);
            if let (Some(y), Some(x)) = (y, x) {
                taps.push(Tap { index: p * conv.kernel.1 + q, y, x });
            }
        }
    }
    taps
}

/// `dw[o, c/groups, p, q]`: [`reference::weight_gradient`].
///
/// # Panics
/// When a slice does not have the geometry's size.
pub fn weight_gradient(cpu: &Cpu, conv: &Conv, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    conv.check(x.len(), dw.len(), dy.len());
    weight::gradient(cpu, conv, x, dy, dw);
}

/// `db[o] = Σ dy[n, o, i, j]` in f64, by the leaves of the batch, rounded once.
///
/// # Panics
/// When `dy` or `db` is of another size.
pub fn bias_gradient(cpu: &Cpu, images: Images, dy: &[f32], db: &mut [f32]) {
    for (d, sum) in db.iter_mut().zip(sums::channel_sums(cpu, images, dy)) {
        *d = sum as f32;
    }
}

/// A tap: its index in the filter, and where its pixel lies from a position's origin.
#[derive(Clone, Copy, Debug)]
struct Tap {
    index: usize,
    y: isize,
    x: isize,
}

/// The product behind the forward pass and the input gradient.
struct Direct<'a, W> {
    rows: usize,
    patches: Gather<'a>,
    /// The weight of (row, channel, index of the tap).
    weight: W,
    taps: &'a [Tap],
    target: Target<'a>,
}

impl<W: Fn(usize, usize, usize) -> f32 + Sync> Product for Direct<'_, W> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn columns(&self) -> usize {
        self.patches.positions()
    }
    fn terms(&self) -> usize {
        self.patches.terms()
    }
    fn pack_rows(&self, row: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        for (out, term) in out.chunks_exact_mut(width).zip(terms) {
            let (channel, tap) = (term / self.taps.len(), self.taps[term % self.taps.len()].index);
            for (i, value) in out.iter_mut().enumerate() {
                *value = if row + i < self.rows { (self.weight)(row + i, channel, tap) } else { 0.0 };
            }
        }
    }
    fn pack_columns(&self, column: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        self.patches.pack_positions(column, terms, width, out);
    }
    fn store(&self, row: usize, column: usize, width: usize, tile: &[f32]) {
        let rows = self.rows.min(row + tile.len() / width) - row;
        self.target.store(row, rows, column, width, tile);
    }
}

/// Where the outputs of a product go: pixels `origin + step·(i, j)` of images `[n, channels, size]`.
struct Target<'a> {
    out: SharedMut<'a, f32>,
    channels: usize,
    first: usize,
    size: (usize, usize),
    origin: (usize, usize),
    step: (usize, usize),
    grid: Grid,
}

impl Target<'_> {
    fn store(&self, row: usize, rows: usize, column: usize, width: usize, tile: &[f32]) {
        let plane = self.size.0 * self.size.1;
        for run in self.grid.runs(column, width) {
            let pixel =
                (self.origin.0 + run.i * self.step.0) * self.size.1 + self.origin.1 + run.j * self.step.1;
            for i in 0..rows {
                let from = &tile[i * width + run.at..][..run.len];
                let start = (run.n * self.channels + self.first + row + i) * plane + pixel;
                // SAFETY: tiles of one product do not overlap, and products of one call write other channels
                // or other residues of the stride.
                unsafe { self.out.write(start, self.step.1, from) };
            }
        }
    }
}
