//! Products of two operands: the engine behind matrix products and convolutions.
//!
//! An output is `c = +0; for k ascending { c = fma(a_k, b_k, c) }`. A tile of outputs stays in registers while
//! k runs; vector lanes are columns, so every lane is another output and width cannot change a bit. Long k is
//! cut into blocks: a tile is stored as f32, which loses nothing, and taken up again.
//!
//! ```text
//!             b: [k][width]  packed, a panel of columns
//!               │
//! a: [k][rows] ─┼──▶ tile [rows][width]
//! ```
//!
//! Threads share panels of columns, and rows where columns are few; never terms. What the operands are, and
//! where a finished tile goes, is said by a [`Product`].

mod fma;
mod lanes;
mod leaves;
mod tile;
mod transpose;

pub(crate) use leaves::{LeafProduct, Strewn, multiply_leaves};
pub(crate) use transpose::{transpose, transpose_to};

use crate::Cpu;
use crate::cpu::SharedMut;
use crate::memory::Buffer;
use std::ops::Range;
use tile::{Kernel, Left, Tile};

/// Columns that are packed together, so that each packed row of the left operand serves several panels. They
/// stay in the second-level cache for a block of k.
const GROUP: usize = 192;
/// Values a packing may write past the end of a panel.
pub(crate) const SLACK: usize = 16;

/// A product of two operands that are packed on demand.
pub(crate) trait Product: Sync {
    /// What is known about neighbouring panels before their terms are packed.
    type Group;
    /// Rows of the output.
    fn rows(&self) -> usize;
    /// Columns of the output.
    fn columns(&self) -> usize;
    /// Terms of each output.
    fn terms(&self) -> usize;
    /// Terms of a block of k.
    fn block(&self) -> usize;
    /// Writes `out[k][rows.len()]`, the left operand.
    fn pack_rows(&self, cpu: &Cpu, rows: Range<usize>, terms: Range<usize>, out: &mut [f32]);
    /// Gets ready for some panels.
    fn group(&self, panels: &[Panel]) -> Self::Group;
    /// Writes `out[panel][k][panel.width]`, the right operand, anything beyond the last column. `out` has
    /// [`SLACK`] values more, for anything.
    fn pack_columns(&self, cpu: &Cpu, group: &mut Self::Group, terms: Range<usize>, out: &mut [f32]);
    /// The output.
    fn output(&self) -> Output<'_>;
    /// Where column `panel.start` of row 0 lies in the output, if all columns of the panel follow it there.
    fn place(&self, panel: &Panel) -> Option<usize>;
    /// Takes a finished tile `[rows.len()][width]` of the group's panel `index` that has no place. Tiles of one
    /// product never overlap.
    fn store(&self, group: &Self::Group, index: usize, rows: Range<usize>, tile: &[f32]);
}

/// The memory of a product's outputs, and the distance from one row to the next.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    pub(crate) memory: SharedMut<'a, f32>,
    pub(crate) stride: usize,
}

/// Columns that share a tile.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// The columns.
    pub(crate) columns: Range<usize>,
    /// Their number, rounded up to whole registers.
    pub(crate) width: usize,
}

impl Panel {
    /// Cuts columns into panels of at most `wide` registers, as even as they can be.
    fn cut(columns: usize, kernel: &Kernel) -> Vec<Panel> {
        let registers = columns.div_ceil(kernel.lanes);
        let count = registers.div_ceil(kernel.wide);
        let start = |panel: usize| panel * registers / count * kernel.lanes;
        (0..count)
            .map(|panel| {
                let (start, end) = (start(panel), start(panel + 1));
                Panel { columns: start..end.min(columns), width: end - start }
            })
            .collect()
    }
}

/// Cuts `count` things into ranges of at most `most`, as even as they can be.
fn even(count: usize, parts: usize, part: usize) -> Range<usize> {
    part * count / parts..(part + 1) * count / parts
}

/// Computes every output of `product`.
pub(crate) fn multiply(cpu: &Cpu, product: &impl Product) {
    if product.rows() == 0 || product.columns() == 0 {
        return;
    }
    let kernel = Kernel::of(cpu);
    let panels = Panel::cut(product.columns(), &kernel);
    let group = GROUP / kernel.width();
    let groups = panels.len().div_ceil(group);
    // Threads share the groups of panels. Where these are few they share the rows, and each packs all columns.
    let tiles = product.rows().div_ceil(kernel.rows);
    let parts = if groups >= 8 * cpu.threads() { 1 } else { cpu.threads().min(tiles) };
    // Rows are packed once for all where several groups need them.
    let packed = (groups > 1).then(|| pack_left(cpu, product, kernel, tiles));
    cpu.for_ranges(parts * groups, 1, |range| {
        let mut work = Work::new(cpu, product, kernel, packed.as_deref(), tiles.div_ceil(parts));
        for index in range {
            let panels = &panels[even(panels.len(), groups, index % groups)];
            work.run(even(tiles, parts, index / groups), panels);
        }
    });
}

/// The whole left operand: for each tile `[k][rows]`.
fn pack_left(cpu: &Cpu, product: &impl Product, kernel: Kernel, tiles: usize) -> Buffer {
    let mut left = Buffer::take(product.rows() * product.terms());
    let shared = SharedMut::new(&mut left);
    cpu.for_ranges(tiles, 1, |range| {
        for tile in range {
            let rows = tile * kernel.rows..((tile + 1) * kernel.rows).min(product.rows());
            // SAFETY: every tile has other rows.
            let out = unsafe { shared.slice(rows.start * product.terms()..rows.end * product.terms()) };
            product.pack_rows(cpu, rows, 0..product.terms(), out);
        }
    });
    left
}

/// One thread's work.
struct Work<'a, P: Product> {
    cpu: &'a Cpu,
    product: &'a P,
    kernel: Kernel,
    left: Option<&'a [f32]>,
    /// A tile's rows for one block, where they are not packed yet.
    rows: Buffer,
    /// A group's columns for one block.
    columns: Buffer,
    /// Tiles that have no place in the output.
    tiles: Buffer,
}

impl<'a, P: Product> Work<'a, P> {
    fn new(cpu: &'a Cpu, product: &'a P, kernel: Kernel, left: Option<&'a [f32]>, tiles: usize) -> Self {
        let block = product.block().min(product.terms());
        let rows = Buffer::take(if left.is_none() { block * kernel.rows } else { 0 });
        let columns = Buffer::take(block * GROUP + SLACK);
        let kept = if product.terms() > block { tiles } else { 1 };
        Work { cpu, product, kernel, left, rows, columns, tiles: Buffer::take(kept * kernel.rows * GROUP) }
    }

    /// Some rows of some panels.
    fn run(&mut self, tiles: Range<usize>, panels: &[Panel]) {
        let (product, kernel, terms) = (self.product, self.kernel, self.product.terms());
        let mut group = product.group(panels);
        let places: Vec<Option<usize>> = panels.iter().map(|panel| product.place(panel)).collect();
        let several = terms > product.block();
        for start in (0..terms.max(1)).step_by(product.block()) {
            let block = start..(start + product.block()).min(terms);
            let packed = panels.iter().map(|panel| panel.width).sum::<usize>() * block.len();
            product.pack_columns(self.cpu, &mut group, block.clone(), &mut self.columns[..packed + SLACK]);
            for tile in tiles.clone() {
                let rows = tile * kernel.rows..((tile + 1) * kernel.rows).min(product.rows());
                let left = match self.left {
                    Some(left) => {
                        &left[rows.start * terms..][block.start * rows.len()..block.end * rows.len()]
                    }
                    None => {
                        let out = &mut self.rows[..block.len() * rows.len()];
                        product.pack_rows(self.cpu, rows.clone(), block.clone(), out);
                        out
                    }
                };
                let mut right = &self.columns[..];
                let mut kept = if several { (tile - tiles.start) * kernel.rows * GROUP } else { 0 };
                for (index, panel) in panels.iter().enumerate() {
                    let slot = kept..kept + rows.len() * panel.width;
                    kept = slot.end;
                    let (to, stride) = match places[index] {
                        Some(place) => {
                            let Output { memory, stride } = product.output();
                            let first = rows.start * stride + place;
                            let len = (rows.len() - 1) * stride + panel.width;
                            (memory.pointer(first..first + len), stride)
                        }
                        None => {
                            (self.tiles[slot.clone()].as_mut_ptr(), panel.width)
                        }
                    };
                    let tile = Tile {
                        left: Left::Packed(left),
                        right,
                        terms: block.len(),
                        to,
                        stride,
                        resume: start > 0,
                        earlier: &[],
                    };
                    // SAFETY: the output was measured where `to` was made; tiles of one product do not overlap.
                    unsafe { kernel.run(rows.len(), panel.width, &tile) };
                    if places[index].is_none() && block.end == terms {
                        product.store(&group, index, rows.clone(), &self.tiles[slot]);
                    }
                    right = &right[block.len() * panel.width..];
                }
            }
        }
    }
}
