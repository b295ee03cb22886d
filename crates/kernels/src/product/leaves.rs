//! Products whose terms are cut into leaves: each leaf a chain from +0, leaves added by the tree of their
//! index (rule 5 of the contract). Weight gradients are of this kind.

use super::BLOCK;
use super::lanes::Kernel;
use crate::leaves::tree;
use crate::memory::Buffer;
use crate::{Cpu, Task};
use std::ops::Range;

/// Row tiles and column panels that a thread takes together: their partial sums stay in the cache.
const TILES: usize = 32;
const PANELS: usize = 4;

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
    /// As [`super::Product::pack_rows`], of some terms of a leaf.
    fn pack_rows(&self, leaf: usize, row: usize, terms: Range<usize>, width: usize, out: &mut [f32]);
    /// As [`super::Product::pack_columns`], of some terms of a leaf.
    fn pack_columns(&self, leaf: usize, column: usize, terms: Range<usize>, width: usize, out: &mut [f32]);
    /// As [`super::Product::store`].
    fn store(&self, row: usize, column: usize, width: usize, tile: &[f32]);
}

/// Computes every output of `product`.
pub(crate) fn multiply_leaves(cpu: &Cpu, product: &impl LeafProduct) {
    if product.rows() == 0 || product.columns() == 0 {
        return;
    }
    let kernel = Kernel::of(cpu);
    let (tiles, panels) = (product.rows().div_ceil(kernel.rows), product.columns().div_ceil(kernel.columns));
    // Smaller pieces where there would be too few for all threads.
    let mut size = (TILES.min(tiles), PANELS.min(panels));
    while tiles.div_ceil(size.0) * panels.div_ceil(size.1) < 2 * cpu.threads() && size != (1, 1) {
        if size.1 > 1 { size.1 = size.1.div_ceil(2) } else { size.0 = size.0.div_ceil(2) }
    }
    let across = panels.div_ceil(size.1);
    cpu.for_ranges(tiles.div_ceil(size.0) * across, 1, |range| {
        let a = Buffer::take(size.0 * BLOCK * kernel.rows);
        let b = Buffer::take(size.1 * BLOCK * kernel.columns);
        let mut piece = Piece { cpu, product, kernel, tiles: 0..0, panels: 0..0, a, b };
        for index in range {
            let (first_tile, first_panel) = (index / across * size.0, index % across * size.1);
            piece.tiles = first_tile..(first_tile + size.0).min(tiles);
            piece.panels = first_panel..(first_panel + size.1).min(panels);
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
    panels: Range<usize>,
    a: Buffer,
    b: Buffer,
}

impl<P: LeafProduct> Piece<'_, P> {
    fn run(&mut self) {
        let (cpu, product) = (self.cpu, self.product);
        let add = |mut left: Buffer, right: Buffer| {
            cpu.vectorize(Add { left: &mut left, right: &right });
            left
        };
        let count = self.tiles.len() * self.panels.len() * self.kernel.size();
        let sums =
            tree(product.leaves(), |leaf| self.leaf(leaf), add).unwrap_or_else(|| Buffer::zeros(count));
        let Kernel { rows, columns, .. } = self.kernel;
        for (slot, tile) in sums.chunks_exact(self.kernel.size()).enumerate() {
            let row = (self.tiles.start + slot / self.panels.len()) * rows;
            let column = (self.panels.start + slot % self.panels.len()) * columns;
            product.store(row, column, columns, tile);
        }
    }

    /// The chains of one leaf.
    fn leaf(&mut self, leaf: usize) -> Buffer {
        let (product, kernel, terms) = (self.product, self.kernel, self.product.terms(leaf));
        let mut sums = Buffer::take(self.tiles.len() * self.panels.len() * kernel.size());
        for start in (0..terms.max(1)).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(terms);
            let (tile_size, panel_size) = (block.len() * kernel.rows, block.len() * kernel.columns);
            for (index, tile) in self.tiles.clone().enumerate() {
                let out = &mut self.a[index * tile_size..(index + 1) * tile_size];
                product.pack_rows(leaf, tile * kernel.rows, block.clone(), kernel.rows, out);
            }
            for (index, panel) in self.panels.clone().enumerate() {
                let out = &mut self.b[index * panel_size..(index + 1) * panel_size];
                product.pack_columns(leaf, panel * kernel.columns, block.clone(), kernel.columns, out);
            }
            for (slot, c) in sums.chunks_exact_mut(kernel.size()).enumerate() {
                let (tile, panel) = (slot / self.panels.len(), slot % self.panels.len());
                let a = &self.a[tile * tile_size..(tile + 1) * tile_size];
                kernel.run(a, &self.b[panel * panel_size..(panel + 1) * panel_size], c, start > 0);
            }
        }
        sums
    }
}

struct Add<'a> {
    left: &'a mut [f32],
    right: &'a [f32],
}

impl Task for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (l, r) in self.left.iter_mut().zip(self.right) {
            *l += r;
        }
    }
}
