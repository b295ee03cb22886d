//! The weight gradient: rows are filters, columns are (channel, tap), terms are positions in leaves.

use super::gather::{Gather, Grid};
use super::{Conv, Tap};
use crate::Cpu;
use crate::cpu::SharedMut;
use crate::leaves::{BatchLeaf, batch_leaves};
use crate::product::{LeafProduct, multiply_leaves};
use std::ops::Range;

pub(super) fn gradient(cpu: &Cpu, conv: &Conv, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let size = conv.output();
    let taps: Vec<Tap> = (0..conv.taps())
        .map(|index| {
            let (p, q) = (index / conv.kernel.1, index % conv.kernel.1);
            let y = (p * conv.dilation.0) as isize - conv.padding.0 as isize;
            let x = (q * conv.dilation.1) as isize - conv.padding.1 as isize;
            Tap { index, y, x }
        })
        .collect();
    let leaves = batch_leaves(conv.n, size.0, size.1);
    let channels = conv.group_channels();
    let grid = Grid { n: conv.n, size, step: conv.stride };
    let dw = SharedMut::new(dw);
    for group in 0..conv.groups {
        let first = group * channels;
        let patches = Gather::new(x, conv.c, first..first + channels, conv.input, grid, &taps);
        multiply_leaves(cpu, &WeightGradient { conv, group, patches, dy, leaves: &leaves, dw });
    }
}

struct WeightGradient<'a> {
    conv: &'a Conv,
    group: usize,
    patches: Gather<'a>,
    dy: &'a [f32],
    leaves: &'a [BatchLeaf],
    dw: SharedMut<'a, f32>,
}

impl WeightGradient<'_> {
    /// The positions (n, i, j) of some terms of a leaf.
    fn positions(&self, leaf: usize, terms: Range<usize>) -> impl Iterator<Item = (usize, usize, usize)> {
        let BatchLeaf { samples, rows } = &self.leaves[leaf];
        let columns = self.conv.output().1;
        let plane = rows.len() * columns;
        let (first, row) = (samples.start, rows.start);
        terms.map(move |term| (first + term / plane, row + term % plane / columns, term % columns))
    }
}

impl LeafProduct for WeightGradient<'_> {
    fn rows(&self) -> usize {
        self.conv.group_filters()
    }
    fn columns(&self) -> usize {
        self.patches.terms()
    }
    fn leaves(&self) -> usize {
        self.leaves.len()
    }
    fn terms(&self, leaf: usize) -> usize {
        let BatchLeaf { samples, rows } = &self.leaves[leaf];
        samples.len() * rows.len() * self.conv.output().1
    }

    fn pack_rows(&self, leaf: usize, row: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        let (oh, ow) = self.conv.output();
        let BatchLeaf { samples, rows } = &self.leaves[leaf];
        let plane = rows.len() * ow;
        let used = width.min(self.rows() - row);
        let mut done = 0;
        // Whole stretches of one image at a time.
        while done < terms.len() {
            let term = terms.start + done;
            let (n, at) = (samples.start + term / plane, rows.start * ow + term % plane);
            let len = (plane - term % plane).min(terms.len() - done);
            let out = &mut out[done * width..(done + len) * width];
            for i in 0..width {
                if i < used {
                    let filter = self.group * self.rows() + row + i;
                    let from = (n * self.conv.o + filter) * oh * ow + at;
                    let line = &self.dy[from..from + len];
                    for (position, value) in out.chunks_exact_mut(width).zip(line) {
                        position[i] = *value;
                    }
                } else {
                    for position in out.chunks_exact_mut(width) {
                        position[i] = 0.0;
                    }
                }
            }
            done += len;
        }
    }

    fn pack_columns(&self, leaf: usize, column: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        self.patches.pack_terms(column, self.positions(leaf, terms), width, out);
    }

    fn store(&self, row: usize, column: usize, width: usize, tile: &[f32]) {
        let columns = self.columns();
        let used = width.min(columns - column);
        for (i, line) in tile.chunks_exact(width).take(self.rows() - row).enumerate() {
            let start = (self.group * self.rows() + row + i) * columns + column;
            // SAFETY: tiles of one product do not overlap, and groups write other filters.
            unsafe { self.dw.write(start, 1, &line[..used]) };
        }
    }
}
