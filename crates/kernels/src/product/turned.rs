//! Products turned round: rows and columns change places, and panels are rows of the product. A product has the same
//! bits whichever factor comes first.
//!
//! ```text
//!                        left operand: [k][width]  a panel of rows of the product
//!                          │
//! columns: value (i, k) ───┼──▶ tile [height][width] ──turned──▶ [width][height]
//! ```
//!
//! A tile reads its columns one value at a time, so they may lie anywhere: the pixels of a filter of several taps serve
//! from the planes where they are staged, and no panel is packed that holds each of them once for every tap.
//!
//! Columns that must be packed are turned where they are few and the left operand is kept. Few columns fill panels badly
//! (49 take 64 lanes), and all threads would pack them. Turned they cost what they are, are packed once, by all threads
//! together, and the kept operand comes as panels whose lanes are all of use.

use super::gaps::{Part, Present, Sorted, repair};
use super::kernel::Kernel;
use super::sparse::Bits;
use super::tile::{Left, Tile};
use super::{Ahead, LINE, Panel, Product, STACK, Strewn, after, cut, even, pack_left};
use crate::cpu::SharedMut;
use crate::memory::{Buffer, Form, Kept};
use crate::{Cpu, processor};
use std::ops::Range;
use std::sync::OnceLock;

/// Products of at most so many columns that must be packed are turned,
const COLUMNS: usize = 196;
/// with a left operand of at least so many values: a column is then packed for enough rows.
const KEPT: usize = 1 << 16;
/// Panels that meet packed columns together, at most.
const PANELS: usize = 8;
/// Columns that are worth staging by themselves.
const STAGED: usize = 384;
/// Threads share columns even where they are few, at least so many for each, if the left operand has at most so many
/// values: to read all of it costs a thread less than pixels that lie in the caches of another core.
const LEAST: usize = 16;
const ALONE: usize = 1 << 20;
/// Shares into which work is cut for each thread, so that none waits long for another.
const SHARES: usize = 2;
/// Stacks of tiles whose sums are turned back together: they stay near the first-level cache.
const BACK: usize = 4;

/// Computes every output of `product`, if it is one that had better be turned. Says whether it did.
pub(super) fn multiply(cpu: &Cpu, product: &impl Product, kernel: Kernel, keep: Option<&Kept>) -> bool {
    let (rows, columns, terms) = (product.rows(), product.columns(), product.terms());
    let strewn = product.is_strewn();
    let packed = keep.is_some() && columns <= COLUMNS && rows * terms >= KEPT;
    if terms == 0 || !(strewn || packed) || !rows.is_multiple_of(kernel.lanes) {
        return false;
    }
    let sparse = strewn && product.is_sparse();
    let kernel = if sparse { kernel.of_sparse() } else { kernel };
    let panels = Panel::cut_for(cpu.threads(), rows, &kernel);
    let form = Form {
        what: "panels of the left operand",
        extents: [rows, terms, product.block(), kernel.lanes, panels.len(), 0],
    };
    let part = |panel: usize| (panels[panel].columns.clone(), panels[panel].width);
    let pack = || pack_left(cpu, product, panels.len(), part);
    let kept = keep.and_then(|kept| kept.get(form, pack));
    if strewn {
        let now = kept.is_none().then(pack);
        let right = kept.or(now.as_deref()).unwrap_or_default();
        // The last value says whether all are finite.
        let finite = right.last() == Some(&0.0);
        let present = if finite && !sparse { product.present() } else { None };
        Turned { cpu, product, kernel, panels: &panels, right, present, sparse, finite }.share_strewn();
    } else if let Some(right) = kept {
        Turned { cpu, product, kernel, panels: &panels, right, present: None, sparse, finite: false }
            .share_packed();
    }
    strewn || kept.is_some()
}

/// Sums of the columns that a thread stages together, about: half of the second-level cache. Sparse columns meet a
/// panel 64 terms at a time, and their sums as often: fewer stay nearer.
fn sums(sparse: bool) -> usize {
    let half = processor::second_level() / size_of::<f32>() / 2;
    if sparse { half.min(1 << 17) } else { half }
}

/// What so many rows cost in tiles of this height. To begin and end a tile takes about a fifth of what a row of it does.
fn cost_of(rows: usize, height: usize) -> usize {
    let (whole, rest) = (rows / height, rows % height);
    let rest = if rest > 0 { 5 * rest.max(height.div_ceil(2)) + 1 } else { 0 };
    whole * (5 * height + 1) + rest
}

/// Rows of a tile: few tiles, and no small rest, which would keep the multipliers waiting.
pub(super) fn height(rows: usize, most: usize) -> usize {
    (most.div_ceil(2).max(1)..=most).rev().min_by_key(|height| cost_of(rows, *height)).unwrap_or(most)
}

/// What so many rows cost in tiles of the best height.
pub(super) fn cost(rows: usize, most: usize) -> usize {
    cost_of(rows, height(rows, most))
}

/// A product whose left operand is packed in panels.
struct Turned<'a, P> {
    cpu: &'a Cpu,
    product: &'a P,
    kernel: Kernel,
    /// Of rows of the product.
    panels: &'a [Panel],
    right: &'a [f32],
    /// Which terms columns have, where some are left out.
    present: Option<Present>,
    /// Whether columns have many zeros, whose terms are left out if the right operand is finite.
    sparse: bool,
    finite: bool,
}

impl<P: Product> Turned<'_, P> {
    /// A panel for one block of k.
    fn right(&self, panel: usize, block: &Range<usize>) -> &[f32] {
        let rows = &self.panels[panel].columns;
        &self.right[block.start * self.product.rows() + rows.start * block.len()..]
            [..rows.len() * block.len()]
    }

    /// The blocks of k.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<P> {
        let (terms, block) = (self.product.terms(), self.product.block());
        (0..terms).step_by(block).map(move |start| start..(start + block).min(terms))
    }

    /// Room for the sums of so many columns: for each panel `[columns][width of the panel]`.
    fn room(&self, columns: usize, panels: &Range<usize>) -> Buffer {
        Buffer::take(columns * Panel::all(&self.panels[panels.clone()]).len())
    }

    /// Columns that are packed, by all threads together, which then share the panels.
    fn share_packed(&self) {
        let columns = self.product.columns();
        let left = self.pack_columns();
        self.cpu.for_ranges(self.panels.len(), 1, |range| {
            for start in range.clone().step_by(PANELS) {
                let panels = start..(start + PANELS).min(range.end);
                let mut sums = self.room(columns, &panels);
                for block in self.blocks() {
                    let left = &left[block.start * columns..][..columns * block.len()];
                    let left = Left::Packed(left);
                    let parts = [Part { places: 0..columns, left, first: 0, terms: block.len() }];
                    self.multiply(0..columns, &panels, block, (&parts, None), None, &mut sums);
                }
            }
        });
    }

    /// Columns that serve as they are staged. Threads share them, and each stages its own; where they are few all are
    /// staged first, by all threads together, which then share the panels too.
    fn share_strewn(&self) {
        let Turned { cpu, product, .. } = *self;
        let (columns, panels) = (product.columns(), self.panels.len());
        let shares = SHARES * cpu.threads();
        let groups = columns.div_ceil((sums(self.sparse) / product.rows()).max(1));
        let alone = product.rows() * product.terms() <= ALONE && columns >= LEAST * cpu.threads();
        if groups >= cpu.threads() || alone {
            let groups =
                groups.max(shares.min(columns / STAGED)).next_multiple_of(cpu.threads()).min(columns);
            return cpu.for_ranges(groups, 1, |range| {
                let ahead = |group| product.ahead(even(columns, groups, group));
                // Of use to those alone that have a second block.
                let mut own = if product.terms() > product.block() { ahead(range.start) } else { None };
                for group in range {
                    let mut next = if group + 1 < groups { ahead(group + 1) } else { None };
                    self.run_staging(even(columns, groups, group), &mut own, &mut next);
                    own = next;
                }
            });
        }
        let mut all = product.group(&[Panel::narrow(0..columns)], product.terms());
        product.stage(cpu, &mut all, 0..product.terms());
        let groups = shares.div_ceil(panels).min(columns);
        let ready = |group| {
            let columns = even(columns, groups, group);
            let block = product.block().min(product.terms());
            let mut sorted = self.sorted(&columns);
            sorted.ready(&product.strewn(&all, columns, 0..block), block);
            sorted
        };
        let sorted: Vec<Sorted> = (0..groups).map(ready).collect();
        // Threads that met the same columns at once would wait for each other.
        let blocks: Vec<Range<usize>> = self.blocks().collect();
        let bits: Vec<OnceLock<Bits>> = (0..groups * blocks.len()).map(|_| OnceLock::new()).collect();
        if self.sparse {
            cpu.for_ranges(bits.len(), 1, |range| {
                for index in range {
                    let (group, block) = (index / blocks.len(), blocks[index % blocks.len()].clone());
                    let strewn = product.strewn(&all, even(columns, groups, group), block);
                    bits[index].get_or_init(|| self.bits(&strewn));
                }
            });
        }
        cpu.for_ranges(groups * panels, 1, |range| {
            let mut next = range.start;
            while next < range.end {
                // Neighbouring panels meet the same columns.
                let (group, first) = (next / panels, next % panels);
                let count = (range.end - next).min(panels - first);
                let panels = first..first + count;
                let bits = &bits[group * blocks.len()..][..blocks.len()];
                self.run_staged(even(columns, groups, group), panels, (&all, &sorted[group], bits));
                next += count;
            }
        });
    }

    /// Some columns, staged with all others, and some panels.
    fn run_staged(
        &self,
        columns: Range<usize>,
        panels: Range<usize>,
        (all, sorted, bits): (&P::Group, &Sorted, &[OnceLock<Bits>]),
    ) {
        let mut sums = self.room(columns.len(), &panels);
        for (block, bits) in self.blocks().zip(bits) {
            let strewn = self.product.strewn(all, columns.clone(), block.clone());
            let parts = sorted.parts(&strewn, block.len(), bits.get());
            self.multiply(columns.clone(), &panels, block, (&parts, sorted.place()), None, &mut sums);
        }
    }

    /// Some columns, yet to be staged, and all panels. Their own pixels arrive block by block, then the first of those
    /// that are staged next.
    fn run_staging(&self, columns: Range<usize>, own: &mut Option<Ahead>, next: &mut Option<Ahead>) {
        let Turned { cpu, product, panels, .. } = *self;
        let all = 0..panels.len();
        let mut sums = self.room(columns.len(), &all);
        let mut group = product.group(&[Panel::narrow(columns.clone())], product.block());
        let mut sorted = self.sorted(&columns);
        for block in self.blocks() {
            product.stage(cpu, &mut group, block.clone());
            let later = after(product, &block);
            let (ahead, soon) = match later.is_empty() {
                true => (&mut *next, 0..product.block().min(product.terms())),
                false => (&mut *own, later),
            };
            let ahead = ahead.as_mut().map(|ahead| (ahead.begin(soon), ahead));
            let strewn = product.strewn(&group, columns.clone(), block.clone());
            if block.start == 0 {
                sorted.ready(&strewn, block.len());
            }
            let bits = self.sparse.then(|| self.bits(&strewn));
            let parts = sorted.parts(&strewn, block.len(), bits.as_ref());
            self.multiply(columns.clone(), &all, block, (&parts, sorted.place()), ahead, &mut sums);
        }
    }

    /// Some columns, those with the same terms together.
    fn sorted(&self, columns: &Range<usize>) -> Sorted {
        Sorted::new(self.present.as_ref(), columns.clone(), self.kernel.rows)
    }

    /// The terms of columns with many zeros that are not left out.
    fn bits(&self, strewn: &Strewn) -> Bits {
        Bits::of(self.cpu, &strewn.left(), self.finite)
    }

    /// Takes one block of k into the sums, and stores those of the last one.
    fn multiply(
        &self,
        columns: Range<usize>,
        panels: &Range<usize>,
        block: Range<usize>,
        (parts, place): (&[Part], Option<&[usize]>),
        mut ahead: Option<(usize, &mut Ahead)>,
        sums: &mut [f32],
    ) {
        let (product, count) = (self.product, columns.len());
        let last = block.end == product.terms();
        // Of each part, the tiles and the columns that are computed with one call.
        let each: Vec<(Kernel, usize)> = parts
            .iter()
            .map(|part| {
                let kernel = self.kernel.of_height(height(part.places.len(), self.kernel.rows));
                // What is asked for differs from stack to stack.
                let stacks = if product.is_far() { 1 } else { BACK };
                (kernel, stacks * STACK * kernel.rows)
            })
            .collect();
        let calls: usize =
            parts.iter().zip(&each).map(|(part, (_, some))| part.places.len().div_ceil(*some)).sum();
        let share = ahead.as_ref().map_or(0, |(lines, _)| lines.div_ceil(calls * panels.len()));
        let back = BACK * STACK * self.kernel.rows;
        let room = if last { back.min(count) * self.kernel.width() } else { 0 };
        let mut ordered = Buffer::take(if place.is_some() { room } else { 0 });
        let of_product = |some: &Range<usize>| columns.start + some.start..columns.start + some.end;
        // What is asked for with one call, about: of columns that lie in one plane, a line more.
        let lines = each.iter().map(|(_, some)| some.min(&count).div_ceil(LINE) + 2).max().unwrap_or(0);
        let lines = if last && product.is_far() { lines * self.kernel.width() } else { 0 };
        let (mut left_over, mut asked) = (sums, Vec::with_capacity(lines + share));
        for panel in panels.clone() {
            let Panel { columns: rows, width } = &self.panels[panel];
            assert!(rows.len() == *width, "rows that do not fill registers");
            let (sums, rest) = left_over.split_at_mut(count * width);
            left_over = rest;
            let next = match panel + 1 < panels.end {
                true => self.right(panel + 1, &block),
                false => self.right(panels.start, &after(product, &block)),
            };
            let mut stored = 0;
            for (part, (kernel, some)) in parts.iter().zip(&each) {
                for some in cut(part.places.clone(), *some) {
                    asked.clear();
                    if last && product.is_far() {
                        // Sorted columns lie elsewhere, but all parts together are all of them.
                        product.touched(of_product(&some), rows.clone(), &mut asked);
                    }
                    if let Some((_, ahead)) = &mut ahead {
                        ahead.take(share, &mut asked);
                    }
                    let to = sums[some.start * width..some.end * width].as_mut_ptr();
                    let tile = Tile {
                        left: part.left.after_rows(some.start - part.places.start, part.terms),
                        right: self.right(panel, &block).get(part.first * width..).unwrap_or_default(),
                        right_step: *width,
                        next: Some(next),
                        asked: &asked,
                        terms: part.terms,
                        to,
                        stride: *width,
                        past: false,
                        from: (block.start > 0).then_some(to.cast_const()),
                        earlier: &[],
                        finish: None,
                    };
                    // SAFETY: the slice holds the sums of these columns and of the panel; `Strewn` measured a left
                    // operand that lies anywhere.
                    unsafe { kernel.run(some.len(), *width, &tile) };
                    // While they are near, if they lie in order.
                    if last && place.is_none() && (some.end - stored >= back || some.end == count) {
                        for back in cut(stored..some.end, back) {
                            let from = &mut sums[back.start * width..back.end * width];
                            if self.sparse {
                                self.repair(columns.start + back.start, (rows, *width), from);
                            }
                            product.store_turned(self.cpu, of_product(&back), rows.clone(), from);
                        }
                        stored = some.end;
                    }
                }
            }
            if let Some(place) = place.filter(|_| last) {
                for back in cut(0..count, back) {
                    self.order(columns.start, &back, (rows, *width), (place, sums), &mut ordered);
                    product.store_turned(self.cpu, of_product(&back), rows.clone(), &ordered);
                }
            }
        }
    }

    /// Puts the sums of some columns in order, and computes those once more that have to be.
    fn order(
        &self,
        first: usize,
        some: &Range<usize>,
        (rows, width): (&Range<usize>, usize),
        (place, sums): (&[usize], &[f32]),
        ordered: &mut [f32],
    ) {
        let ordered = &mut ordered[..some.len() * width];
        for (place, to) in place[some.clone()].iter().zip(ordered.chunks_exact_mut(width)) {
            to.copy_from_slice(&sums[place * width..][..width]);
        }
        self.repair(first + some.start, (rows, width), ordered);
    }

    /// Computes those of the sums once more of columns from `first` on that have to be.
    fn repair(&self, first: usize, (rows, width): (&Range<usize>, usize), sums: &mut [f32]) {
        let sum = |column: usize, row: usize| self.product.sum(rows.start + row, first + column);
        repair(self.cpu, (width, rows.len()), sums, sum);
    }

    /// All columns of all terms: for each block of k, for each tile, `[k][rows]`.
    fn pack_columns(&self) -> Buffer {
        let Turned { cpu, product, kernel, .. } = *self;
        let columns = product.columns();
        let kernel = kernel.of_height(height(columns, kernel.rows));
        let tiles = columns.div_ceil(kernel.rows);
        let mut packed = Buffer::take(columns * product.terms());
        let shared = SharedMut::new(&mut packed);
        cpu.for_ranges(tiles, tiles.div_ceil(cpu.threads()), |tiles| {
            let panel = |tile: usize| Panel::narrow(kernel.rows_of(tile..tile + 1, columns));
            let panels: Vec<_> = tiles.map(panel).collect();
            let all = Panel::all(&panels);
            let mut group = product.group(&panels, product.block());
            for block in self.blocks() {
                product.stage(cpu, &mut group, block.clone());
                let to = block.start * columns + all.start * block.len();
                // SAFETY: every part is other columns.
                let out = unsafe { shared.slice(to..to + all.len() * block.len()) };
                product.pack_columns(cpu, &group, block.len() * kernel.rows, out);
            }
        });
        packed
    }
}
