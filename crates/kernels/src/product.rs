//! Products of two packed operands: the engine behind matrix products and convolutions.
//!
//! An output is `c = +0; for k ascending { c = fma(a_k, b_k, c) }`. A tile of outputs, `MR` rows by `NR`
//! columns, stays in registers while k runs; vector lanes are columns, so every lane is another output and
//! width cannot change a bit. Long k is cut into blocks: a tile is stored as f32, which loses nothing, and
//! taken up again.
//!
//! ```text
//!            b: [k][NR]  packed, one panel of columns
//!              │
//! a: [k][MR] ──┼──▶ tile [MR][NR]
//! ```
//!
//! What the operands are is said by a [`Product`]: how to pack rows and columns, and where a finished tile
//! goes.

mod lanes;
mod leaves;

pub(crate) use leaves::{LeafProduct, multiply_leaves};

use crate::Cpu;
use crate::cpu::SharedMut;
use crate::memory::Buffer;
use lanes::Kernel;
use std::ops::Range;

/// Terms a block of k has at most: a block of `NR` columns then stays in the second-level cache.
const BLOCK: usize = 512;
/// Panels a thread packs at a time, so that each packed row of the left operand serves several.
const GROUP: usize = 4;

/// A product of two operands that are packed on demand.
pub(crate) trait Product: Sync {
    /// Rows of the output.
    fn rows(&self) -> usize;
    /// Columns of the output.
    fn columns(&self) -> usize;
    /// Terms of each output.
    fn terms(&self) -> usize;
    /// Writes `out[k][width]`: the left operand of rows `row..row + width`, +0 beyond the last row.
    fn pack_rows(&self, row: usize, terms: Range<usize>, width: usize, out: &mut [f32]);
    /// Writes `out[k][width]`: the right operand of columns `column..column + width`, +0 beyond the last.
    fn pack_columns(&self, column: usize, terms: Range<usize>, width: usize, out: &mut [f32]);
    /// Takes a finished tile `[rows][width]` whose first output is `(row, column)`; what lies beyond the last
    /// row or column is rubbish. Tiles of one product never overlap.
    fn store(&self, row: usize, column: usize, width: usize, tile: &[f32]);
}

/// Computes every output of `product`.
pub(crate) fn multiply(cpu: &Cpu, product: &impl Product) {
    if product.rows() == 0 || product.columns() == 0 {
        return;
    }
    let kernel = Kernel::of(cpu);
    let (tiles, panels) = (product.rows().div_ceil(kernel.rows), product.columns().div_ceil(kernel.columns));
    let left = pack_left(cpu, product, kernel, tiles);
    // Where columns are few, every thread would pack all of them: then they are packed once for all.
    if cpu.threads() == 1 || panels >= 4 * cpu.threads() {
        cpu.for_ranges(panels, 1, |range| {
            let mut work = Columns::new(product, kernel, &left, tiles);
            for first in range.clone().step_by(GROUP) {
                work.run(first..(first + GROUP).min(range.end));
            }
        });
    } else {
        shared_columns(cpu, product, kernel, &left, tiles, panels);
    }
}

/// The whole left operand, `[tile][k][MR]`.
fn pack_left(cpu: &Cpu, product: &impl Product, kernel: Kernel, tiles: usize) -> Buffer {
    let stride = product.terms() * kernel.rows;
    let mut left = Buffer::take(tiles * stride);
    if stride > 0 {
        cpu.for_slices(tiles * stride, stride, &mut [Some(&mut *left)], |offset, parts| {
            for part in parts.iter_mut().flatten() {
                for (index, tile) in part.chunks_exact_mut(stride).enumerate() {
                    let row = (offset / stride + index) * kernel.rows;
                    product.pack_rows(row, 0..product.terms(), kernel.rows, tile);
                }
            }
        });
    }
    left
}

/// One thread's work on columns of its own.
struct Columns<'a, P> {
    product: &'a P,
    kernel: Kernel,
    left: &'a [f32],
    tiles: usize,
    packed: Buffer,
    unfinished: Buffer,
}

impl<'a, P: Product> Columns<'a, P> {
    fn new(product: &'a P, kernel: Kernel, left: &'a [f32], tiles: usize) -> Self {
        let terms = product.terms();
        let kept = if terms > BLOCK { tiles * GROUP } else { 1 };
        let packed = Buffer::take(GROUP * terms.min(BLOCK) * kernel.columns);
        let unfinished = Buffer::take(kept * kernel.size());
        Columns { product, kernel, left, tiles, packed, unfinished }
    }

    /// All rows of a group of panels.
    fn run(&mut self, panels: Range<usize>) {
        let (kernel, terms) = (self.kernel, self.product.terms());
        for start in (0..terms.max(1)).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(terms);
            let panel_size = block.len() * kernel.columns;
            for (index, panel) in panels.clone().enumerate() {
                let packed = &mut self.packed[index * panel_size..(index + 1) * panel_size];
                self.product.pack_columns(panel * kernel.columns, block.clone(), kernel.columns, packed);
            }
            let last = block.end == terms;
            for tile in 0..self.tiles {
                let from = (tile * terms + block.start) * kernel.rows;
                let a = &self.left[from..from + block.len() * kernel.rows];
                for (index, panel) in panels.clone().enumerate() {
                    let b = &self.packed[index * panel_size..(index + 1) * panel_size];
                    let slot = if terms > BLOCK { tile * GROUP + index } else { 0 };
                    let c = &mut self.unfinished[slot * kernel.size()..(slot + 1) * kernel.size()];
                    kernel.run(a, b, c, start > 0);
                    if last {
                        self.product.store(tile * kernel.rows, panel * kernel.columns, kernel.columns, c);
                    }
                }
            }
        }
    }
}

/// Packs all columns once, then lets the threads share the tiles.
fn shared_columns(
    cpu: &Cpu,
    product: &impl Product,
    kernel: Kernel,
    left: &[f32],
    tiles: usize,
    panels: usize,
) {
    let terms = product.terms();
    let stride = terms * kernel.columns;
    let mut packed = Buffer::take(panels * stride);
    let blocks = terms.div_ceil(BLOCK);
    let shared = SharedMut::new(&mut packed);
    cpu.for_ranges(panels * blocks, 1, |range| {
        for part in range {
            let (panel, start) = (part / blocks, part % blocks * BLOCK);
            let block = start..(start + BLOCK).min(terms);
            let from = panel * stride + start * kernel.columns;
            // SAFETY: every part is another block of another panel.
            let out = unsafe { shared.slice(from..from + block.len() * kernel.columns) };
            product.pack_columns(panel * kernel.columns, block, kernel.columns, out);
        }
    });
    cpu.for_ranges(tiles * panels, 1, |range| {
        let mut c = Buffer::take(kernel.size());
        for part in range {
            let (tile, panel) = (part / panels, part % panels);
            let a = &left[tile * terms * kernel.rows..(tile + 1) * terms * kernel.rows];
            kernel.run(a, &packed[panel * stride..(panel + 1) * stride], &mut c, false);
            product.store(tile * kernel.rows, panel * kernel.columns, kernel.columns, &c);
        }
    });
}
