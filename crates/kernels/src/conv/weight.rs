//! The weight gradient: rows are (channel, tap), columns are filters, terms are positions in leaves.
//!
//! Filters lie in the lanes, so only `dy` is packed; a row reads its pixels where they lie. Where a filter is one
//! pixel, images and `dy` are alike: then the fewer of channels and filters lie in the lanes, since what is packed
//! serves each row; but for images with many zeros, whose terms a row can leave out. A product has the same bits
//! whichever factor comes first. Pixels that a stride skips are left out before, once for all filters.

use super::planes::{Grid, Patches, Planes};
use super::{Conv, Tap};
use crate::Cpu;
use crate::cpu::SharedMut;
use crate::leaves::{BatchLeaf, batch_leaves, tree};
use crate::memory::Buffer;
use crate::product::{LeafProduct, Outside, Panel, Step, Strewn, multiply_leaves, transpose, transpose_to};
use std::ops::Range;

pub(super) fn gradient(cpu: &Cpu, conv: &Conv, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    if dy.is_empty() {
        dw.fill(0.0);
        return;
    }
    let size = conv.output();
    // Leaves are those of the shape as it was given.
    let leaves: Vec<Range<usize>> = batch_leaves(conv.n, size.0, size.1)
        .into_iter()
        .map(|BatchLeaf { samples, rows }| {
            let start = (samples.start * size.0 + rows.start) * size.1;
            start..start + samples.len() * rows.len() * size.1
        })
        .collect();
    let conv = conv.flattened();
    let taps = conv.forward_taps();
    let own = [Tap { index: 0, y: 0, x: 0 }];
    let (channels, filters) = (conv.group_channels(), conv.group_filters());
    let grid = Grid { n: conv.n, size: conv.output(), step: conv.stride };
    let terms = leaves.iter().map(Range::len).max().unwrap_or(0);
    // Here 40 rows stand for packing `dy`, and the sums of a leaf cost as much as 80 of its terms.
    let sparse = conv.is_sparse(cpu, x, 80.0 / terms as f64);
    let dw = SharedMut::new(dw);
    super::for_groups(cpu, conv.groups, |group| {
        let patches = Patches {
            images: x,
            channels: (conv.c, group * channels),
            chosen: channels,
            size: conv.input,
            grid,
            taps: &taps,
        };
        let chosen;
        let patches = if taps.len() == 1 && !patches.are_pixels() {
            chosen = pixels(cpu, &patches);
            let (size, grid) = (grid.size, Grid { step: (1, 1), ..grid });
            Patches { images: &chosen, channels: (channels, 0), size, grid, taps: &own, ..patches }
        } else {
            patches
        };
        let dy = Planar { values: dy, channels: (conv.o, group * filters), chosen: filters };
        let start = group * filters * channels * taps.len();
        let product =
            WeightGradient { patches, lanes: dy, leaves: &leaves, dw, start, turned: false, sparse };
        if patches.are_pixels() && channels < filters && !sparse {
            let lanes = Planar { values: patches.images, channels: patches.channels, chosen: channels };
            let patches = Patches { images: dy.values, channels: dy.channels, chosen: filters, ..patches };
            multiply_leaves(cpu, &WeightGradient { patches, lanes, turned: true, ..product });
        } else {
            multiply_leaves(cpu, &product);
        }
    });
}

/// The pixel of each position, where that is one: `[n, channels, positions]`.
fn pixels(cpu: &Cpu, patches: &Patches) -> Buffer {
    let plane = patches.grid.size.0 * patches.grid.size.1;
    let mut chosen = Buffer::take(patches.chosen * patches.grid.positions());
    for (n, image) in chosen.chunks_exact_mut((patches.chosen * plane).max(1)).enumerate() {
        Planes::new(patches, n * plane..(n + 1) * plane).stage(cpu, patches, 0..patches.chosen, image, true);
    }
    chosen
}

/// Some channels of `[n, channels, positions]`.
#[derive(Clone, Copy)]
struct Planar<'a> {
    values: &'a [f32],
    /// All channels, and the first chosen.
    channels: (usize, usize),
    chosen: usize,
}

struct WeightGradient<'a> {
    /// What the rows read: the images, or `dy` if the product is turned round.
    patches: Patches<'a>,
    /// What lies in the lanes: the other.
    lanes: Planar<'a>,
    /// Leaves, as ranges of positions.
    leaves: &'a [Range<usize>],
    dw: SharedMut<'a, f32>,
    /// Where the group's gradient begins.
    start: usize,
    /// Whether filters are rows, and channels lie in the lanes.
    turned: bool,
    /// Whether many pixels are zero.
    sparse: bool,
}

impl LeafProduct for WeightGradient<'_> {
    fn rows(&self) -> usize {
        self.patches.chosen * self.patches.taps.len()
    }
    fn columns(&self) -> usize {
        self.lanes.chosen
    }
    fn leaves(&self) -> Vec<Range<usize>> {
        self.leaves.to_vec()
    }

    fn stage<'s>(
        &'s self,
        cpu: &Cpu,
        rows: Range<usize>,
        terms: Range<usize>,
        scratch: &'s mut Vec<f32>,
    ) -> Strewn<'s> {
        let planes = Planes::new(&self.patches, terms.clone());
        let taps = self.patches.taps.len();
        let channels = rows.start / taps..rows.end.div_ceil(taps);
        let first = channels.start;
        let size = planes.scratch(channels.len());
        if scratch.capacity() < size {
            *scratch = Vec::with_capacity(size);
        }
        scratch.resize(size, 0.0);
        planes.stage(cpu, &self.patches, channels, scratch, true);
        let (data, base) = planes.staged(self.patches.images, first, scratch);
        let at = |row: usize| base + (row / taps - first) * planes.channel() + planes.taps()[row % taps];
        let bases: Vec<usize> = rows.map(at).collect();
        let mut steps = Vec::with_capacity(terms.len());
        for run in self.patches.grid.runs(terms) {
            let at = planes.at(&run);
            steps.extend((at..at + run.len).map(Step::to));
        }
        Strewn::new(data, bases.into(), steps.into())
    }

    fn pack_columns(&self, cpu: &Cpu, panel: &Panel, terms: Range<usize>, out: &mut [f32]) {
        let plane = self.patches.grid.size.0 * self.patches.grid.size.1;
        let mut next = terms.start;
        // Whole stretches of one image at a time.
        while next < terms.end {
            let len = (plane - next % plane).min(terms.end - next);
            let Planar { values, channels, .. } = self.lanes;
            let channel = channels.1 + panel.columns.start;
            let from = &values[(next / plane * channels.0 + channel) * plane + next % plane..];
            let to = &mut out[(next - terms.start) * panel.width..];
            transpose(cpu, (panel.columns.len(), len), (from, plane), (to, panel.width));
            next += len;
        }
    }

    fn outside(&self) -> Option<Outside> {
        let patches = &self.patches;
        let (row, column) = (|i, tap| patches.has_row(i, tap), |j, tap| patches.has_column(j, tap));
        Outside::new(patches.grid.size, patches.taps.len(), row, column)
    }

    fn is_sparse(&self) -> bool {
        self.sparse
    }

    fn sum(&self, row: usize, column: usize) -> f32 {
        let (taps, size) = (self.patches.taps, self.patches.grid.size);
        let (tap, plane) = (&taps[row % taps.len()], size.0 * size.1);
        let Planar { values, channels, .. } = self.lanes;
        let leaf = |index: usize| {
            let mut sum = 0.0_f32;
            for position in self.leaves[index].clone() {
                let (n, at) = (position / plane, position % plane);
                let value = self.patches.value((n, at / size.1, at % size.1), row / taps.len(), tap);
                sum = values[(n * channels.0 + channels.1 + column) * plane + at].mul_add(value, sum);
            }
            sum
        };
        tree(self.leaves.len(), leaf, |a, b| a + b).unwrap_or(0.0)
    }

    fn store(&self, cpu: &Cpu, rows: Range<usize>, panel: &Panel, tile: &[f32]) {
        let (all, lanes) = (self.rows(), panel.columns.len());
        if self.turned {
            for (row, line) in rows.zip(tile.chunks_exact(panel.width)) {
                let start = self.start + row * self.lanes.chosen + panel.columns.start;
                // SAFETY: tiles of one product do not overlap, and groups write other filters.
                unsafe { self.dw.write(start, 1, &line[..lanes]) };
            }
            return;
        }
        let start = self.start + panel.columns.start * all + rows.start;
        let to = self.dw.pointer(start..start + (lanes - 1) * all + rows.len());
        assert!(tile.len() >= (rows.len() - 1) * panel.width + lanes, "a short tile");
        // SAFETY: both sides were measured; tiles of one product do not overlap, and groups write other filters.
        unsafe { transpose_to(cpu, (rows.len(), lanes), (tile.as_ptr(), panel.width), (to, all)) };
    }
}
