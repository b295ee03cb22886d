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

mod batched;
mod fma;
mod gaps;
mod kernel;
pub(crate) mod lanes;
mod leaves;
mod outside;
mod sparse;
mod tile;
mod transpose;
mod turned;
mod values;

pub(crate) use batched::{Rows, Soon, Sums, Tiles};
pub(crate) use gaps::Present;
pub(crate) use lanes::{ask_for_part, prefetch, prefetch_far};
pub(crate) use leaves::{Add, LeafProduct, Strewn, multiply_leaves};
pub(crate) use outside::Outside;
pub(crate) use sparse::is_sparse;
pub(crate) use transpose::{transpose, transpose_to};

use crate::cpu::SharedMut;
use crate::memory::{Buffer, Form, Kept, Stream};
use crate::{Cpu, Task};
use kernel::Kernel;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
pub(crate) use tile::{Finish, Step};
use tile::{Left, Tile};

/// Columns whose panels a thread packs together for each block of k: at least, and at most. They stay in the
/// second-level cache while all rows meet them, and each in the first-level cache while some rows do.
pub(crate) const GROUP: (usize, usize) = (64, 192);
/// Rows that all panels of a group meet before the next rows do, about: packed, they stay in the second-level cache
/// beside the panels.
const ROWS: usize = 96;
/// Tiles that one call computes.
const STACK: usize = 8;
/// About how many terms a block of k has.
pub(crate) fn block() -> usize {
    crate::perturb::block(256)
}
/// Values of a cache line.
pub(crate) const LINE: usize = 16;
/// Values behind a panel in its slot, so that packing may write whole registers: most terms, where it writes more.
pub(crate) const SLACK: usize = 16;

/// A product of two operands that are packed on demand.
pub(crate) trait Product: Sync {
    /// What is known about neighbouring panels before their terms are packed.
    type Group: Sync;
    /// Rows of the output.
    fn rows(&self) -> usize;
    /// Columns of the output.
    fn columns(&self) -> usize;
    /// Terms of each output.
    fn terms(&self) -> usize;
    /// Terms of a block of k.
    fn block(&self) -> usize;
    /// Writes `out[tile][k][rows of the tile]`, the left operand, for tiles of `height` rows, the last of fewer.
    fn pack_rows(&self, cpu: &Cpu, rows: Range<usize>, height: usize, terms: Range<usize>, out: &mut [f32]);
    /// Columns that are packed together at most.
    fn together(&self) -> usize {
        GROUP.1
    }
    /// Gets ready for some panels, of which so many terms are staged at once at most.
    fn group(&self, panels: &[Panel], terms: usize) -> Self::Group;
    /// Gets some terms ready for all panels of the group. Threads share the work, unless they are at work already.
    fn stage(&self, cpu: &Cpu, group: &mut Self::Group, terms: Range<usize>);
    /// Writes the right operand for the terms last staged: `out[index·slot + k·width + column]` for the group's panel
    /// `index` of its `width`, and anything elsewhere in the panel's slot. That holds the panel, and the last one ends
    /// with `out`; [`SLACK`] more values make packing faster.
    fn pack_columns(&self, cpu: &Cpu, group: &Self::Group, slot: usize, out: &mut [f32]);
    /// The right operand of a panel where it lies, if it need not be packed: value (k, column) at `[k·step + column]`.
    fn right_as_it_is(&self, _panel: &Panel, _terms: Range<usize>) -> Option<(&[f32], usize)> {
        None
    }
    /// Whether columns had better be read where they are staged, a value at a time, than packed.
    fn is_strewn(&self) -> bool {
        false
    }
    /// If so, the right operand of some columns of the group where it lies, for some terms of those last staged: its
    /// columns are the rows here.
    fn strewn<'g>(&'g self, _: &'g Self::Group, _columns: Range<usize>, _terms: Range<usize>) -> Strewn<'g> {
        Strewn::default()
    }
    /// Whether strewn columns have so many zeros that their terms had better be left out.
    fn is_sparse(&self) -> bool {
        false
    }
    /// Which terms of strewn columns are +0 times something, where there are any.
    fn present(&self) -> Option<Present> {
        None
    }
    /// One sum, as it is defined; of a product that is not whole by [`Product::present`] or [`Product::is_sparse`].
    fn sum(&self, _row: usize, _column: usize) -> f32 {
        unreachable!("a product whose terms are all present")
    }
    /// What getting `columns` ready will read, where that lies far, and in too many places for the processor to foresee.
    fn ahead(&self, _columns: Range<usize>) -> Option<Ahead> {
        None
    }
    /// The output.
    fn output(&self) -> Output<'_>;
    /// Where column `panel.start` of row 0 lies in the output, if all columns of the panel follow it there.
    fn place(&self, panel: &Panel) -> Option<usize>;
    /// What becomes of the sums of some rows of a panel that has this place.
    fn finish(&self, _rows: Range<usize>, _place: usize) -> Option<Finish<'_>> {
        None
    }
    /// Whether operands and outputs are too large to lie in a near cache.
    fn is_far(&self) -> bool {
        false
    }
    /// What writes outputs past the caches, if that is better.
    fn past(&self) -> Option<Stream> {
        None
    }
    /// The cache lines in which some outputs will be stored soon, and what will be added to them.
    fn touched(&self, _columns: Range<usize>, _rows: Range<usize>, _lines: &mut Vec<*const f32>) {}
    /// Takes a tile `[rows.len()][panel.width]` of sums of a panel that has no place. Tiles of one product never overlap.
    fn store(&self, cpu: &Cpu, panel: &Panel, rows: Range<usize>, tile: &[f32]);
    /// The same of sums turned round, `[columns.len()][rows.len()]`; of a product with strewn columns, or that keeps its
    /// left operand.
    fn store_turned(&self, _: &Cpu, _columns: Range<usize>, _rows: Range<usize>, _sums: &[f32]) {
        unreachable!("a product that is never turned")
    }
}

/// The memory of a product's outputs, and the distance from one row to the next.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    pub(crate) memory: SharedMut<'a, f32>,
    pub(crate) stride: usize,
}

/// Cache lines that will be wanted soon, for some terms.
pub(crate) struct Ahead {
    /// Where the lines of the first terms lie.
    lines: Vec<*const f32>,
    /// So many terms have the same lines, and how far they lie from those of the terms before.
    terms: usize,
    step: usize,
    /// The next line: of which terms, and which one; and after which terms they end.
    next: (usize, usize),
    end: usize,
}

impl Ahead {
    pub(crate) fn new(lines: Vec<*const f32>, terms: usize, step: usize) -> Ahead {
        Ahead { lines, terms, step, next: (0, 0), end: 0 }
    }

    /// Begins with the lines of some terms. Says how many they are.
    fn begin(&mut self, terms: Range<usize>) -> usize {
        self.next = (terms.start / self.terms, 0);
        self.end = terms.end.div_ceil(self.terms);
        (self.end - self.next.0) * self.lines.len()
    }

    /// The next `count` lines.
    fn take(&mut self, mut count: usize, lines: &mut Vec<*const f32>) {
        while count > 0 && self.next.0 < self.end {
            let (terms, first) = self.next;
            let some = &self.lines[first..self.lines.len().min(first + count)];
            lines.extend(some.iter().map(|line| line.wrapping_add(terms * self.step)));
            count -= some.len();
            let end = first + some.len();
            self.next = if end < self.lines.len() { (terms, end) } else { (terms + 1, 0) };
        }
    }
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
    /// Columns that need not fill registers.
    fn narrow(columns: Range<usize>) -> Panel {
        Panel { width: columns.len(), columns }
    }

    /// The columns of neighbouring panels.
    pub(crate) fn all(panels: &[Panel]) -> Range<usize> {
        panels[0].columns.start..panels[panels.len() - 1].columns.end
    }

    /// Where columns are positions: the plane, and the place in it of the first, of a panel that is full and lies in one.
    pub(crate) fn within(&self, plane: usize) -> Option<(usize, usize)> {
        let Range { start, end } = self.columns;
        let whole = plane > 0 && end - start == self.width && start / plane == (end - 1) / plane;
        whole.then(|| (start / plane, start % plane))
    }

    /// Cuts columns into panels of at most `wide` registers, as even as they can be.
    fn cut(columns: usize, kernel: &Kernel) -> Vec<Panel> {
        Panel::cut_for(1, columns, kernel)
    }

    /// The same for threads that share the panels one by one, each as many where there are several for each.
    fn cut_for(threads: usize, columns: usize, kernel: &Kernel) -> Vec<Panel> {
        let registers = columns.div_ceil(kernel.lanes);
        let least = registers.div_ceil(kernel.wide);
        let count = if least >= 4 * threads { least.next_multiple_of(threads).min(registers) } else { least };
        let start = |panel: usize| panel * registers / count * kernel.lanes;
        (0..count)
            .map(|panel| {
                let (start, end) = (start(panel), start(panel + 1));
                Panel { columns: start..end.min(columns), width: end - start }
            })
            .collect()
    }
}

/// The range `part` of `parts` into which `count` things are cut, as even as they can be.
pub(crate) fn even(count: usize, parts: usize, part: usize) -> Range<usize> {
    part * count / parts..(part + 1) * count / parts
}

/// A range in pieces of `by`, the last of what is left.
fn cut(all: Range<usize>, by: usize) -> impl Iterator<Item = Range<usize>> {
    all.clone().step_by(by).map(move |first| first..(first + by).min(all.end))
}

/// Panels and stacks of tiles in the order in which they meet: a few tiles meet each panel, then the next few.
fn order(tiles: Range<usize>, few: usize, panels: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    cut(tiles, few).flat_map(move |some| {
        (0..panels).flat_map(move |panel| cut(some.clone(), STACK).map(move |stack| (panel, stack)))
    })
}

/// Computes every output of `product`. Its left operand, packed, is kept where there is room for it.
pub(crate) fn multiply(cpu: &Cpu, product: &impl Product, keep: Option<&Kept>) {
    if product.rows() == 0 || product.columns() == 0 {
        return;
    }
    let kernel = Kernel::of(cpu);
    if turned::multiply(cpu, product, kernel, keep) {
        return;
    }
    let all = Panel::cut_for(cpu.threads(), product.columns(), &kernel);
    // Threads share the groups of panels. Where these are few they share the rows, and each packs all columns.
    let enough = 8 * cpu.threads();
    let group = ((product.columns() / enough).clamp(GROUP.0, product.together()) / kernel.width()).max(1);
    let groups = all.len().div_ceil(group);
    // No thread waits for the last group of another.
    let groups =
        if groups > cpu.threads() { groups.next_multiple_of(cpu.threads()).min(all.len()) } else { groups };
    let tiles = product.rows().div_ceil(kernel.rows);
    let parts = if groups >= cpu.threads() { 1 } else { cpu.threads().min(tiles) };
    // Rows are packed once for all where several groups need them.
    let form = Form {
        what: "left operand",
        extents: [product.rows(), product.terms(), product.block(), kernel.rows, 0, 0],
    };
    let pack = || {
        let parts = cpu.threads().min(tiles);
        let rows = |part| kernel.rows_of(even(tiles, parts, part), product.rows());
        pack_left(cpu, product, parts, |part| (rows(part), kernel.rows))
    };
    let kept = keep.and_then(|kept| kept.get(form, pack));
    let packed = (kept.is_none() && groups > 1).then(pack);
    let left = kept.or(packed.as_deref());
    cpu.for_ranges(parts * groups, 1, |range| {
        let mut work = Work::new(cpu, product, kernel, left, tiles.div_ceil(parts), group);
        let panels = |index: usize| &all[even(all.len(), groups, index % groups)];
        let ahead = |index| product.ahead(Panel::all(panels(index)));
        // Of use to those alone that have a second block.
        let mut own = if product.terms() > product.block() { ahead(range.start) } else { None };
        for index in range {
            let mut next = ahead(index + 1);
            work.run(even(tiles, parts, index / groups), panels(index), &mut own, &mut next);
            own = next;
        }
    });
}

/// The block of k after this one, empty after the last.
fn after(product: &impl Product, block: &Range<usize>) -> Range<usize> {
    block.end..(block.end + product.block()).min(product.terms())
}

/// The whole left operand: for each block of k, for each tile, `[k][rows of the tile]`. A part is some rows, and the
/// height of their tiles. One more value says whether all these are finite: +0 if so, else NaN; of use where terms
/// are left out.
fn pack_left(
    cpu: &Cpu,
    product: &impl Product,
    parts: usize,
    part: impl Fn(usize) -> (Range<usize>, usize) + Sync,
) -> Buffer {
    let (rows, terms) = (product.rows(), product.terms());
    let mut left = Buffer::take(rows * terms + 1);
    let (values, probe) = left.split_at_mut(rows * terms);
    let (shared, finite) = (SharedMut::new(values), AtomicBool::new(true));
    let blocks = terms.div_ceil(product.block());
    cpu.for_ranges(blocks * parts, 1, |range| {
        for index in range {
            let start = index / parts * product.block();
            let block = start..(start + product.block()).min(terms);
            let (part, height) = part(index % parts);
            let at = |row: usize| block.start * rows + row * block.len();
            // SAFETY: every part is other rows of other terms.
            let out = unsafe { shared.slice(at(part.start)..at(part.end)) };
            product.pack_rows(cpu, part, height, block, out);
            if !cpu.vectorize(Finite(out)) {
                finite.store(false, Relaxed);
            }
        }
    });
    probe[0] = if finite.into_inner() { 0.0 } else { f32::NAN };
    left
}

/// Whether values are finite.
struct Finite<'a>(&'a [f32]);

impl Task for Finite<'_> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        // All bits of the exponent are set in infinities and NaN.
        self.0.iter().fold(0, |found, value| found | u32::from(value.to_bits() << 1 >= 0xff << 24)) == 0
    }
}

/// One thread's work.
struct Work<'a, P: Product> {
    cpu: &'a Cpu,
    product: &'a P,
    kernel: Kernel,
    left: Option<&'a [f32]>,
    /// The rows of one block, where they are not packed yet.
    rows: Buffer,
    /// The panels of one block, in slots.
    columns: Buffer,
    /// The values of a slot.
    slot: usize,
    /// Tiles that have no place in the output.
    tiles: Buffer,
    /// What some tiles ask for.
    asked: Vec<*const f32>,
    /// If outputs go past the caches: of a product that has one block.
    past: Option<Stream>,
}

impl<'a, P: Product> Work<'a, P> {
    fn new(
        cpu: &'a Cpu,
        product: &'a P,
        kernel: Kernel,
        left: Option<&'a [f32]>,
        tiles: usize,
        group: usize,
    ) -> Self {
        let block = product.block().min(product.terms());
        let rows = Buffer::take(if left.is_none() { block * tiles * kernel.rows } else { 0 });
        let slot = block * kernel.width() + SLACK;
        let columns = Buffer::take(group * slot);
        let kept = if product.terms() > block { tiles * group } else { STACK } * kernel.width();
        let tiles = Buffer::take(kept * kernel.rows);
        let past = if product.terms() <= block { product.past() } else { None };
        Work { cpu, product, kernel, left, rows, columns, slot, tiles, asked: Vec::new(), past }
    }

    /// Some rows of some panels. Their own pixels arrive block by block, then the first of those that come next.
    fn run(
        &mut self,
        tiles: Range<usize>,
        panels: &[Panel],
        own: &mut Option<Ahead>,
        next: &mut Option<Ahead>,
    ) {
        let (cpu, product, kernel, terms) = (self.cpu, self.product, self.kernel, self.product.terms());
        let mut group = product.group(panels, product.block());
        let places: Vec<Option<usize>> = panels.iter().map(|panel| product.place(panel)).collect();
        let all = kernel.rows_of(tiles.clone(), product.rows());
        let several = terms > product.block();
        for start in (0..terms.max(1)).step_by(product.block()) {
            let block = start..(start + product.block()).min(terms);
            let left = match self.left {
                Some(left) => &left[block.start * product.rows() + all.start * block.len()..],
                None => {
                    let out = &mut self.rows[..block.len() * all.len()];
                    product.pack_rows(cpu, all.clone(), kernel.rows, block.clone(), out);
                    out
                }
            };
            product.stage(cpu, &mut group, block.clone());
            let as_it_is: Option<Vec<_>> =
                panels.iter().map(|panel| product.right_as_it_is(panel, block.clone())).collect();
            if as_it_is.is_none() {
                product.pack_columns(cpu, &group, self.slot, &mut self.columns);
            }
            let later = after(product, &block);
            let (ahead, soon) = match later.is_empty() {
                true => (&mut *next, 0..product.block().min(terms)),
                false => (&mut *own, later),
            };
            let lines = ahead.as_mut().map_or(0, |ahead| ahead.begin(soon));
            let share = lines.div_ceil(tiles.len() * panels.len());
            let mut kept = 0;
            for (index, stack) in order(tiles.clone(), (ROWS / kernel.rows).max(1), panels.len()) {
                self.asked.clear();
                if let Some(ahead) = ahead {
                    ahead.take(share * stack.len(), &mut self.asked);
                }
                let (panel, place) = (&panels[index], places[index]);
                let rows = kernel.rows_of(stack.clone(), product.rows());
                let packed = (rows.start - all.start) * block.len()..(rows.end - all.start) * block.len();
                let unplaced = kept..kept + rows.len() * panel.width;
                let (to, stride) = match place {
                    Some(place) => {
                        let Output { memory, stride } = product.output();
                        let first = rows.start * stride + place;
                        let len = (rows.len() - 1) * stride + panel.width;
                        (memory.pointer(first..first + len), stride)
                    }
                    None => (self.tiles[unplaced.clone()].as_mut_ptr(), panel.width),
                };
                let last = block.end == terms;
                let finish = place.filter(|_| last).and_then(|place| product.finish(rows.clone(), place));
                let (right, right_step) = match &as_it_is {
                    Some(panels) => panels[index],
                    None => (&self.columns[index * self.slot..], panel.width),
                };
                let tile = Tile {
                    left: Left::Packed(&left[packed]),
                    right,
                    right_step,
                    next: None,
                    asked: &self.asked,
                    terms: block.len(),
                    to,
                    stride,
                    past: self.past.is_some() && place.is_some(),
                    from: (start > 0).then_some(to.cast_const()),
                    earlier: &[],
                    finish,
                };
                // SAFETY: the output was measured where `to` was made, a residual where the product was; tiles of
                // one product do not overlap.
                unsafe { kernel.run(rows.len(), panel.width, &tile) };
                if place.is_none() && last {
                    product.store(cpu, panel, rows, &self.tiles[unplaced.clone()]);
                }
                kept = if several { unplaced.end } else { 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Panel};
    use crate::{Cpu, Isa};

    #[test]
    fn panels_hold_every_column_once_and_differ_by_a_register_at_most() {
        for isa in Isa::present() {
            let kernel = Kernel::of(&Cpu::new(isa, 1).unwrap());
            for (registers, threads) in (1..=40).flat_map(|registers| [1, 2, 3].map(|t| (registers, t))) {
                let columns = registers * kernel.lanes;
                let cut = Panel::cut_for(threads, columns, &kernel);
                let several = cut.len() >= 4 * threads && cut.len() < registers;
                assert!(!several || cut.len().is_multiple_of(threads), "{threads} threads: {cut:?}");
                let ends = cut.iter().map(|panel| panel.columns.end);
                let starts = cut.iter().map(|panel| panel.columns.start);
                assert!(std::iter::once(0).chain(ends).eq(starts.chain([columns])));
                let (least, most) = cut.iter().fold((columns, 0), |(least, most), panel| {
                    (panel.width.min(least), panel.width.max(most))
                });
                assert!(most <= kernel.width() && most - least <= kernel.lanes, "{columns} columns: {cut:?}");
            }
        }
    }
}
