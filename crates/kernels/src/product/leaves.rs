//! Products whose terms are cut into leaves: each leaf a chain from +0, leaves added by the tree of their
//! index (rule 5 of the contract). Weight gradients are of this kind.

use super::tile::{Kernel, Left, Tile};
use super::{Panel, SLACK, even};
use crate::Cpu;
use crate::memory::Buffer;
use std::ops::Range;

/// Terms of a block of k at most.
const BLOCK: usize = 512;
/// Rows and columns that a thread takes together: their sums stay in the second-level cache.
const ROWS: usize = 512;
const COLUMNS: usize = 144;

/// A product whose terms come in leaves.
pub(crate) trait LeafProduct: Sync {
    /// Rows of the output.
    fn rows(&self) -> usize;
    /// Columns of the output.
    fn columns(&self) -> usize;
    /// The number of leaves.
    fn leaves(&self) -> usize;
    /// Terms of a leaf.
    fn terms(&self, leaf: usize) -> usize;
    /// Says where the left operand lies, copying it to `scratch` if need be.
    fn stage<'s>(
        &'s self,
        cpu: &Cpu,
        rows: Range<usize>,
        leaf: usize,
        terms: Range<usize>,
        scratch: &'s mut Vec<f32>,
    ) -> Strewn<'s>;
    /// Writes `out[k][panel.width]`, the right operand, anything beyond the last column. `out` has [`SLACK`]
    /// values more, for anything.
    fn pack_columns(&self, cpu: &Cpu, panel: &Panel, leaf: usize, terms: Range<usize>, out: &mut [f32]);
    /// Takes a finished tile `[rows.len()][panel.width]`. Tiles of one product never overlap.
    fn store(&self, cpu: &Cpu, rows: Range<usize>, panel: &Panel, tile: &[f32]);
}

/// A left operand that lies anywhere: value (i, k) is `data[bases[i] + steps[k]]`.
pub(crate) struct Strewn<'a> {
    data: &'a [f32],
    bases: Vec<usize>,
    steps: Vec<usize>,
}

impl<'a> Strewn<'a> {
    /// # Panics
    /// When a value lies outside `data`.
    pub(crate) fn new(data: &'a [f32], bases: Vec<usize>, steps: Vec<usize>) -> Strewn<'a> {
        if let (Some(base), Some(step)) = (bases.iter().max(), steps.iter().max()) {
            assert!(base + step < data.len(), "a left operand outside its data");
        }
        Strewn { data, bases, steps }
    }
}

/// Computes every output of `product`.
pub(crate) fn multiply_leaves(cpu: &Cpu, product: &impl LeafProduct) {
    if product.rows() == 0 || product.columns() == 0 {
        return;
    }
    let kernel = Kernel::of(cpu);
    let panels = Panel::cut(product.columns(), &kernel);
    let tiles = product.rows().div_ceil(kernel.rows);
    let across = panels.len().div_ceil(COLUMNS / kernel.width());
    // As many pieces as all threads can share evenly.
    let mut down = product.rows().div_ceil(ROWS);
    while !(down * across).is_multiple_of(cpu.threads()) && down < tiles {
        down += 1;
    }
    cpu.for_ranges(down * across, 1, |range| {
        let columns = Buffer::take(COLUMNS * BLOCK + SLACK);
        let mut piece =
            Piece { cpu, product, kernel, tiles: 0..0, panels: &[], columns, scratch: Vec::new() };
        for index in range {
            piece.tiles = even(tiles, down, index / across);
            piece.panels = &panels[even(panels.len(), across, index % across)];
            piece.run();
        }
    });
}

/// Some tiles of some panels, over all leaves.
struct Piece<'a, P> {
    cpu: &'a Cpu,
    product: &'a P,
    kernel: Kernel,
    tiles: Range<usize>,
    panels: &'a [Panel],
    columns: Buffer,
    scratch: Vec<f32>,
}

impl<P: LeafProduct> Piece<'_, P> {
    fn rows(&self, tile: usize) -> Range<usize> {
        tile * self.kernel.rows..((tile + 1) * self.kernel.rows).min(self.product.rows())
    }

    fn run(&mut self) {
        let leaves = self.product.leaves();
        let width: usize = self.panels.iter().map(|panel| panel.width).sum();
        let size = (self.rows(self.tiles.end - 1).end - self.rows(self.tiles.start).start) * width;
        // The tree as a binary counter: sums of 2^k leaves wait for the next of their size. Those that a leaf
        // completes are added in the registers it was computed in.
        let mut waiting: Vec<(usize, Buffer)> = Vec::new();
        let mut result = Buffer::take(size);
        if leaves == 0 {
            result.fill(0.0);
        }
        for leaf in 0..leaves {
            let mut done = waiting.len();
            let mut count = 1;
            while done > 0 && (waiting[done - 1].0 == count || leaf + 1 == leaves) {
                count += waiting[done - 1].0;
                done -= 1;
            }
            let earlier: Vec<Buffer> = waiting.drain(done..).rev().map(|(_, sums)| sums).collect();
            self.leaf(leaf, &earlier, &mut result);
            if leaf + 1 < leaves {
                let next = earlier.into_iter().next().unwrap_or_else(|| Buffer::take(size));
                waiting.push((count, std::mem::replace(&mut result, next)));
            }
        }
        let mut tiles = &result[..];
        for tile in self.tiles.clone() {
            let rows = self.rows(tile);
            for panel in self.panels {
                let (one, rest) = tiles.split_at(rows.len() * panel.width);
                self.product.store(self.cpu, rows.clone(), panel, one);
                tiles = rest;
            }
        }
    }

    /// The chains of one leaf, and `earlier` sums added to them.
    fn leaf(&mut self, leaf: usize, earlier: &[Buffer], sums: &mut [f32]) {
        let (cpu, product, kernel, terms) = (self.cpu, self.product, self.kernel, self.product.terms(leaf));
        let first = self.rows(self.tiles.start).start;
        let all = first..self.rows(self.tiles.end - 1).end;
        let mut added: Vec<*const f32> = Vec::with_capacity(earlier.len());
        for start in (0..terms.max(1)).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(terms);
            let mut scratch = std::mem::take(&mut self.scratch);
            let left = product.stage(cpu, all.clone(), leaf, block.clone(), &mut scratch);
            let mut at = 0;
            for panel in self.panels {
                let size = block.len() * panel.width;
                product.pack_columns(
                    cpu,
                    panel,
                    leaf,
                    block.clone(),
                    &mut self.columns[at..at + size + SLACK],
                );
                at += size;
            }
            let mut slot = 0;
            for tile in self.tiles.clone() {
                let rows = self.rows(tile);
                let bases = &left.bases[rows.start - first..rows.end - first];
                let mut right = &self.columns[..];
                for panel in self.panels {
                    let size = rows.len() * panel.width;
                    added.clear();
                    if block.end == terms {
                        added.extend(earlier.iter().map(|sums| sums[slot..slot + size].as_ptr()));
                    }
                    let tile = Tile {
                        left: Left::Strewn { data: left.data, bases, steps: &left.steps },
                        right,
                        terms: block.len(),
                        to: sums[slot..slot + size].as_mut_ptr(),
                        stride: panel.width,
                        resume: start > 0,
                        earlier: &added,
                    };
                    // SAFETY: the slices above have the size of the tile and belong to this thread.
                    unsafe { kernel.run(rows.len(), panel.width, &tile) };
                    slot += size;
                    right = &right[block.len() * panel.width..];
                }
            }
            drop(left);
            self.scratch = scratch;
        }
    }
}
