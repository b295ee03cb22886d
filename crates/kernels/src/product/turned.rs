//! Products of few columns whose left operand is kept: turned round, so that rows and columns change places.
//!
//! Few columns fill panels badly (49 take 56 lanes), and all threads would pack them. Turned, they are the rows of tiles
//! and cost what they are; they are packed once, by all threads together; and the kept operand comes as panels whose
//! lanes are all of use. A product has the same bits whichever factor comes first.
//!
//! ```text
//!                    kept: [k][width]  a panel of rows of the product
//!                      │
//! columns: [k][height]─┼──▶ tile [height][width] ──turned──▶ [width][height]
//! ```

use super::tile::{Kernel, Left, Tile};
use super::{Panel, Product, even, pack_left, transpose};
use crate::Cpu;
use crate::cpu::SharedMut;
use crate::memory::{Buffer, Form, Kept};
use std::ops::Range;

/// Products of at most so many columns are turned,
const COLUMNS: usize = 196;
/// with a left operand of at least so many values: a column is then packed for enough rows.
const KEPT: usize = 1 << 16;
/// Panels that meet the columns together, at most.
const PANELS: usize = 8;

/// Computes every output of `product`, if it is one that had better be turned: rows that fill registers, and room for
/// them. Says whether it did.
pub(super) fn multiply(cpu: &Cpu, product: &impl Product, kernel: Kernel, kept: &Kept) -> bool {
    let (rows, columns, terms) = (product.rows(), product.columns(), product.terms());
    if columns > COLUMNS || rows * terms < KEPT || !rows.is_multiple_of(kernel.lanes) {
        return false;
    }
    let form = Form {
        what: "panels of the left operand",
        extents: [rows, terms, product.block(), kernel.width(), kernel.lanes, 0],
    };
    let panels = rows.div_ceil(kernel.width());
    let Some(right) = kept.get(form, || pack_left(cpu, product, kernel.width(), panels)) else {
        return false;
    };
    let height = height(columns, kernel.rows);
    let left = pack_columns(cpu, product, height);
    let groups = (4 * cpu.threads()).max(panels.div_ceil(PANELS)).min(panels);
    let turned = Turned { cpu, product, kernel: kernel.of_height(height), left: &left, right };
    cpu.for_ranges(groups, 1, |range| range.for_each(|group| turned.run(even(panels, groups, group))));
    true
}

/// Rows of a tile: those that leave no small rest, which would keep the multipliers waiting.
fn height(rows: usize, most: usize) -> usize {
    let cost = |height: &usize| {
        let rest = rows % height;
        rows - rest + if rest > 0 { rest.max(height.div_ceil(2)) } else { 0 }
    };
    (most.div_ceil(2).max(1)..=most).rev().min_by_key(cost).unwrap_or(most)
}

/// All columns of all terms: for each block of k, for each tile, `[k][rows]`.
fn pack_columns(cpu: &Cpu, product: &impl Product, height: usize) -> Buffer {
    let (columns, terms) = (product.columns(), product.terms());
    let tiles = columns.div_ceil(height);
    let mut packed = Buffer::take(columns * terms);
    let shared = SharedMut::new(&mut packed);
    cpu.for_ranges(tiles, tiles.div_ceil(cpu.threads()), |tiles| {
        let panel = |tile: usize| {
            let columns = tile * height..((tile + 1) * height).min(columns);
            Panel { width: columns.len(), columns }
        };
        let panels: Vec<_> = tiles.map(panel).collect();
        let all = Panel::all(&panels);
        let mut group = product.group(&panels);
        for start in (0..terms).step_by(product.block()) {
            let block = start..(start + product.block()).min(terms);
            product.stage(cpu, &mut group, block.clone());
            let to = start * columns + all.start * block.len();
            // SAFETY: every part is other columns.
            let out = unsafe { shared.slice(to..to + all.len() * block.len()) };
            product.pack_columns(cpu, &group, block.len() * height, out);
        }
    });
    packed
}

/// A product whose operands are packed.
struct Turned<'a, P> {
    cpu: &'a Cpu,
    product: &'a P,
    kernel: Kernel,
    left: &'a [f32],
    right: &'a [f32],
}

impl<P: Product> Turned<'_, P> {
    /// All columns and some panels.
    fn run(&self, panels: Range<usize>) {
        let Turned { cpu, product, kernel, left, right } = *self;
        let (rows, columns, terms) = (product.rows(), product.columns(), product.terms());
        let of_panel = |panel: usize| panel * kernel.width()..((panel + 1) * kernel.width()).min(rows);
        let mut sums = Buffer::take(columns * kernel.width() * panels.len());
        for start in (0..terms).step_by(product.block()) {
            let len = product.block().min(terms - start);
            let left = &left[start * columns..][..columns * len];
            for (panel, sums) in panels.clone().zip(sums.chunks_mut(columns * kernel.width())) {
                let of_panel = of_panel(panel);
                let tile = Tile {
                    left: Left::Packed(left),
                    right: &right[start * rows + of_panel.start * len..][..of_panel.len() * len],
                    right_step: of_panel.len(),
                    terms: len,
                    to: sums.as_mut_ptr(),
                    stride: of_panel.len(),
                    resume: start > 0,
                    earlier: &[],
                    finish: None,
                };
                // SAFETY: the slice holds the sums of all columns and of the panel.
                unsafe { kernel.run(columns, of_panel.len(), &tile) };
            }
        }
        let all = Panel { columns: 0..columns, width: columns };
        let mut turned = Buffer::take(columns * kernel.width());
        for (panel, sums) in panels.zip(sums.chunks(columns * kernel.width())) {
            let rows = of_panel(panel);
            transpose(cpu, (columns, rows.len()), (sums, rows.len()), (&mut turned, columns));
            product.store(cpu, &all, rows.clone(), &turned[..columns * rows.len()]);
        }
    }
}
