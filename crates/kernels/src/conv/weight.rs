//! The weight gradient: rows are (channel, tap), columns are filters, terms are positions in leaves.
//!
//! Filters lie in the lanes, so only `dy` is packed; a row reads its pixels where they lie.

use super::Conv;
use super::planes::{Grid, Patches, Planes};
use crate::Cpu;
use crate::cpu::SharedMut;
use crate::leaves::{BatchLeaf, batch_leaves};
use crate::product::{LeafProduct, Panel, Strewn, multiply_leaves, transpose, transpose_to};
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
    let (channels, filters) = (conv.group_channels(), conv.group_filters());
    let grid = Grid { n: conv.n, size: conv.output(), step: conv.stride };
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
        let first = group * filters;
        multiply_leaves(
            cpu,
            &WeightGradient { patches, dy, filters: (conv.o, first), chosen: filters, leaves: &leaves, dw },
        );
    });
}

struct WeightGradient<'a> {
    patches: Patches<'a>,
    dy: &'a [f32],
    /// All filters, and the first of the group.
    filters: (usize, usize),
    /// Filters of the group.
    chosen: usize,
    /// Leaves, as ranges of positions.
    leaves: &'a [Range<usize>],
    dw: SharedMut<'a, f32>,
}

impl LeafProduct for WeightGradient<'_> {
    fn rows(&self) -> usize {
        self.patches.chosen * self.patches.taps.len()
    }
    fn columns(&self) -> usize {
        self.chosen
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
        let planes = Planes::new(&self.patches, terms.clone(), 0);
        let taps = self.patches.taps.len();
        let channels = rows.start / taps..rows.end.div_ceil(taps);
        let first = channels.start;
        scratch.clear();
        scratch.resize(planes.scratch(channels.len()), 0.0);
        planes.stage(cpu, &self.patches, channels, scratch);
        let (data, base) = planes.staged(self.patches.images, first, scratch);
        let at = |row: usize| base + (row / taps - first) * planes.channel() + planes.taps()[row % taps];
        let bases = rows.map(at).collect();
        let mut steps = Vec::with_capacity(terms.len());
        for run in self.patches.grid.runs(terms) {
            let at = planes.at(&run);
            steps.extend(at..at + run.len);
        }
        Strewn::new(data, bases, steps)
    }

    fn pack_columns(&self, cpu: &Cpu, panel: &Panel, terms: Range<usize>, out: &mut [f32]) {
        let plane = self.patches.grid.size.0 * self.patches.grid.size.1;
        let mut next = terms.start;
        // Whole stretches of one image at a time.
        while next < terms.end {
            let len = (plane - next % plane).min(terms.end - next);
            let filter = self.filters.1 + panel.columns.start;
            let from = &self.dy[(next / plane * self.filters.0 + filter) * plane + next % plane..];
            let to = &mut out[(next - terms.start) * panel.width..];
            transpose(cpu, (panel.columns.len(), len), (from, plane), (to, panel.width));
            next += len;
        }
    }

    fn store(&self, cpu: &Cpu, rows: Range<usize>, panel: &Panel, tile: &[f32]) {
        let (all, filters) = (self.rows(), panel.columns.len());
        let start = (self.filters.1 + panel.columns.start) * all + rows.start;
        let to = self.dw.pointer(start..start + (filters - 1) * all + rows.len());
        assert!(tile.len() >= (rows.len() - 1) * panel.width + filters, "a short tile");
        // SAFETY: both sides were measured; tiles of one product do not overlap, and groups write other filters.
        unsafe { transpose_to(cpu, (rows.len(), filters), (tile.as_ptr(), panel.width), (to, all)) };
    }
}
