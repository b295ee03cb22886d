//! The schedule of the weight gradient: for each element of the square a product of matrices whose rows are
//! channels, whose columns are filters, and whose terms are tiles, in leaves of the batch.
//!
//! Some leaves at a time, all threads transform the squares of inputs and of cotangents; then each takes some channels
//! and filters through all elements.

use super::correlate::squares_panel;
use super::filters::taps;
use super::line::{Cotangent, Input, Line, Minimal};
use super::squares::{Planes, Target, transform};
use crate::Cpu;
use crate::cpu::SharedMut;
use crate::leaves::tile_leaves;
use crate::memory::Buffer;
use crate::product::{Panel, Rows, Sums, Tiles};
use std::ops::Range;

/// Transformed squares of at most about so many values are kept at once.
const SQUARES: usize = 2 << 20;

pub(super) struct WeightGradient<'a> {
    pub(super) n: usize,
    pub(super) images: Planes,
    pub(super) outputs: Planes,
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) dw: SharedMut<'a, f32>,
}

/// A leaf, the sum it becomes, and the sums of earlier leaves added to it, each on the left of what is there. Sums lie
/// on a stack: the last one left is the lowest.
struct Leaf {
    /// Rows of tiles, counted through all images.
    rows: Range<usize>,
    sum: usize,
    earlier: Vec<usize>,
}

/// The tree as a binary counter.
fn leaves(n: usize, tiles: (usize, usize), side: usize) -> Vec<Leaf> {
    let parts = tile_leaves(n, tiles, side);
    let mut waiting: Vec<usize> = Vec::new();
    let mut leaves = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let (mut count, mut earlier) = (1, Vec::new());
        while let Some(size) = waiting.pop_if(|size| *size == count || index + 1 == parts.len()) {
            count += size;
            earlier.push(waiting.len());
        }
        let first = part.samples.start * tiles.0 + part.rows.start;
        let rows = first..first + part.samples.len() * part.rows.len();
        leaves.push(Leaf { rows, sum: waiting.len(), earlier });
        waiting.push(count);
    }
    leaves
}

impl WeightGradient<'_> {
    pub(super) fn run<A: Minimal<M, N>, const M: usize, const N: usize>(&self, cpu: &Cpu)
    where
        (Input, A): Line<N, N>,
        (Cotangent, A): Line<M, N>,
    {
        let (channels, filters) = (self.images.channels, self.outputs.channels);
        let (tiles, across) = (Tiles::of(cpu), self.outputs.tiles.1);
        let panels = tiles.panels(filters, 1, 0);
        let leaves = leaves(self.n, self.outputs.tiles, M);
        let slots = leaves.iter().map(|leaf| leaf.sum + 1).max().unwrap_or(1);
        let squares = [squares_panel(channels)];
        let width: usize = panels.iter().map(|panel| panel.width).sum();
        let each = (squares[0].width + width) * N * N;
        let blocks = blocks(&leaves, across, SQUARES / each);
        // Pieces of some channels and the filters of a panel.
        let mut height = 4 * tiles.height();
        while height > tiles.height() && channels.div_ceil(height) * panels.len() < 4 * cpu.threads() {
            height = (height / 2).max(tiles.height());
        }
        let down = channels.div_ceil(height);
        let size = |panel: &Panel| N * N * slots * height * panel.width;
        let start = |index: usize| {
            N * N
                * slots
                * height
                * (panels[index % panels.len()].columns.start + index / panels.len() * width)
        };
        let several = blocks.len() > 1;
        let mut kept = Buffer::take(if several { start(down * panels.len()) } else { 0 });
        let kept = SharedMut::new(&mut kept);
        for (number, block) in blocks.iter().enumerate() {
            let (first, last) = (block[0].rows.start, block[block.len() - 1].rows.end);
            let count = (last - first) * across;
            let (mut v, mut u) =
                (Buffer::take(N * N * count * squares[0].width), Buffer::take(N * N * count * width));
            let target = |memory, panels, width: usize| Target {
                memory,
                element: count * width,
                panels,
                first,
                tiles: count,
            };
            let inputs = target(SharedMut::new(&mut v), &squares, squares[0].width);
            let cotangents = target(SharedMut::new(&mut u), &panels, width);
            cpu.for_ranges(last - first, 1, |range| {
                let rows = first + range.start..first + range.end;
                transform::<(Input, A), N, N>(cpu, (&self.images, self.x), rows.clone(), &inputs);
                transform::<(Cotangent, A), M, N>(cpu, (&self.outputs, self.dy), rows, &cotangents);
            });
            let (images_element, outputs_element) = (count * squares[0].width, count * width);
            let steps: Vec<usize> = (0..count).map(|tile| tile * squares[0].width).collect();
            cpu.for_ranges(down * panels.len(), 1, |range| {
                let mut own =
                    Buffer::take(if several { 0 } else { panels.iter().map(size).max().unwrap_or(0) });
                for index in range {
                    let panel = &panels[index % panels.len()];
                    let rows =
                        index / panels.len() * height..((index / panels.len() + 1) * height).min(channels);
                    let bases: Vec<usize> = rows.clone().collect();
                    let sums = if several {
                        // SAFETY: every piece has sums of its own.
                        unsafe { kept.slice(start(index)..start(index) + size(panel)) }
                    } else {
                        &mut own[..size(panel)]
                    };
                    let slot = height * panel.width;
                    for e in 0..N * N {
                        let sums = &mut sums[e * slots * slot..(e + 1) * slots * slot];
                        let data = &v[e * images_element..(e + 1) * images_element];
                        let right = &u[e * outputs_element + count * panel.columns.start..];
                        for leaf in *block {
                            let tile = (leaf.rows.start - first) * across..(leaf.rows.end - first) * across;
                            let to = sums.as_mut_ptr();
                            let earlier: Vec<*const f32> = leaf
                                .earlier
                                .iter()
                                .map(|sum| to.wrapping_add(sum * slot).cast_const())
                                .collect();
                            let left = Rows { data, bases: &bases, steps: &steps[tile.clone()] };
                            let to = Sums {
                                to: to.wrapping_add(leaf.sum * slot),
                                stride: panel.width,
                                earlier: &earlier,
                            };
                            // SAFETY: there are `slots` sums of this piece, and they belong to this thread.
                            unsafe {
                                tiles.multiply(left, &right[tile.start * panel.width..], panel.width, to)
                            };
                        }
                    }
                    if number + 1 == blocks.len() {
                        taps::<A, M, N>(cpu, (sums, slots * slot), (rows, channels), panel, self.dw);
                    }
                }
            });
        }
    }
}

/// Cuts leaves into blocks of at most about `most` tiles, one leaf at least.
fn blocks(leaves: &[Leaf], across: usize, most: usize) -> Vec<&[Leaf]> {
    let mut blocks = Vec::new();
    let mut start = 0;
    for end in 1..=leaves.len() {
        let next = leaves.get(end);
        if next.is_none_or(|next| (next.rows.end - leaves[start].rows.start) * across > most) {
            blocks.push(&leaves[start..end]);
            start = end;
        }
    }
    blocks
}
