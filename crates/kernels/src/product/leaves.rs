//! Products whose terms are cut into leaves: each leaf a chain from +0, leaves added by the tree of their
//! index (rule 5 of the contract). Weight gradients are of this kind.
//!
//! A tile's leaves are added in the registers that the later one was computed in, so a tree costs a load and an
//! addition for each of its nodes.

use super::gaps::repair;
use super::kernel::Kernel;
use super::outside::{Arranged, Outside};
use super::sparse::Bits;
use super::tile::{Left, Step, Tile};
use super::{Finite, Panel, SLACK, STACK, cut, even};
use crate::cpu::SharedMut;
use crate::leaves::{subtree, tree};
use crate::memory::Buffer;
use crate::{Cpu, Task, perturb};
use std::borrow::Cow;
use std::ops::Range;

/// Terms of a block of k at most.
fn most_terms() -> usize {
    perturb::block(400)
}
/// Rows and columns that a thread takes together, at most: enough of them that packing a column is little work, and few
/// enough that the packed columns of a block stay in the second-level cache, or near it, while all rows meet them.
const ROWS: usize = 1024;
const COLUMNS: usize = 384;
/// Threads share subtrees where these have at most so many sums, for to keep and to add more costs more than it saves;
/// more subtrees than threads as long as those of all are not more than `KEPT`.
const SUMS: usize = 1 << 18;
const KEPT: usize = 1 << 20;

/// A product whose terms come in leaves.
pub(crate) trait LeafProduct: Sync {
    /// Rows of the output.
    fn rows(&self) -> usize;
    /// Columns of the output.
    fn columns(&self) -> usize;
    /// The leaves: neighbouring ranges of terms, from term 0 on.
    fn leaves(&self) -> Vec<Range<usize>>;
    /// Says where the left operand lies, copying it to `scratch` if need be.
    fn stage<'s>(
        &'s self,
        cpu: &Cpu,
        rows: Range<usize>,
        terms: Range<usize>,
        scratch: &'s mut Vec<f32>,
    ) -> Strewn<'s>;
    /// Writes `out[k][panel.width]`, the right operand, anything beyond the last column. `out` has [`SLACK`]
    /// values more, for anything.
    fn pack_columns(&self, cpu: &Cpu, panel: &Panel, terms: Range<usize>, out: &mut [f32]);
    /// Which terms of a row are +0 times something, where there are many.
    fn outside(&self) -> Option<Outside> {
        None
    }
    /// Whether the left operand has so many zeros that their terms had better be left out.
    fn is_sparse(&self) -> bool {
        false
    }
    /// One sum, as it is defined; of a product that is not whole by [`LeafProduct::outside`] or
    /// [`LeafProduct::is_sparse`].
    fn sum(&self, _row: usize, _column: usize) -> f32 {
        unreachable!("a product whose terms are all inside")
    }
    /// Takes some finished rows of a panel, `[rows.len()][panel.width]`. None comes twice.
    fn store(&self, cpu: &Cpu, rows: Range<usize>, panel: &Panel, tile: &[f32]);
}

/// A left operand that lies anywhere: value (i, k) is `data[bases[i] + steps[k].at]`.
#[derive(Default)]
pub(crate) struct Strewn<'a> {
    data: &'a [f32],
    bases: Cow<'a, [usize]>,
    steps: Cow<'a, [Step]>,
}

impl<'a> Strewn<'a> {
    /// # Panics
    /// When a value lies outside `data`.
    pub(crate) fn new(data: &'a [f32], bases: Cow<'a, [usize]>, steps: Cow<'a, [Step]>) -> Strewn<'a> {
        let strewn = Strewn { data, bases, steps };
        strewn.left();
        strewn
    }

    /// The steps of some terms, in ascending order.
    pub(super) fn some_steps(&self, terms: &[usize]) -> Vec<Step> {
        let next = terms.iter().skip(1).chain(terms.last());
        let step = |(term, next): (&usize, &usize)| Step { at: self.steps[*term].at, right: next - term };
        terms.iter().zip(next).map(step).collect()
    }

    pub(super) fn bases(&self) -> &[usize] {
        &self.bases
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// For a tile of all rows and terms.
    pub(super) fn left(&self) -> Left<'_> {
        self.left_of(&self.bases, &self.steps)
    }

    /// For a tile of other rows and terms.
    ///
    /// # Panics
    /// When a value lies outside the data.
    pub(super) fn left_of<'s>(&'s self, bases: &'s [usize], steps: &'s [Step]) -> Left<'s> {
        if let (Some(base), Some(step)) = (bases.iter().max(), steps.iter().map(|step| step.at).max()) {
            assert!(base + step < self.data.len(), "a left operand outside its data");
        }
        let reach = steps.split_last().map_or(0, |(_, but)| but.iter().map(|step| step.right).sum());
        Left::Strewn { data: self.data, bases, steps, reach }
    }
}

/// Computes every output of `product`.
pub(crate) fn multiply_leaves(cpu: &Cpu, product: &impl LeafProduct) {
    if product.rows() == 0 || product.columns() == 0 {
        return;
    }
    let sparse = product.is_sparse();
    let kernel = if sparse { Kernel::of(cpu).of_sparse() } else { Kernel::of(cpu) };
    let panels = Panel::cut(product.columns(), &kernel);
    // Threads share subtrees of the leaves where they can, so that what one packs serves all rows and no other packs it.
    let (rows, leaves) = (product.rows(), product.leaves());
    let size = rows * panels.iter().map(|panel| panel.width).sum::<usize>();
    let subtree = match size <= SUMS {
        true => subtree(leaves.len(), cpu.threads(), size, KEPT).max(1),
        false => leaves.len().max(1),
    };
    let plans: Vec<Plan> = match leaves.is_empty() {
        true => vec![Plan::new(&[])],
        false => leaves.chunks(subtree).map(Plan::new).collect(),
    };
    let sharers = if plans.len() > 1 { 1 } else { cpu.threads() };
    // Rows that are shared out together: a tile, or one of each tap if there are enough of these for all threads.
    let of_taps = |outside: &Outside| kernel.rows * outside.taps();
    let outside = if sparse { None } else { product.outside() };
    let outside = outside.filter(|outside| rows >= sharers * of_taps(outside));
    let unit = outside.as_ref().map_or(kernel.rows, of_taps);
    let units = rows.div_ceil(unit);
    let across = panels.len().div_ceil(COLUMNS / kernel.width());
    // As many pieces as all threads can share evenly.
    let mut down = rows.div_ceil(ROWS).min(units);
    while !(down * across).is_multiple_of(sharers) && down < units {
        down += 1;
    }
    let mut kept = Buffer::take(if plans.len() > 1 { plans.len() * size } else { 0 });
    let kept = (plans.len() > 1).then(|| SharedMut::new(&mut kept));
    let finish = Finish { cpu, product, leaves_out: sparse || outside.is_some() };
    cpu.for_ranges(plans.len() * down * across, 1, |range| {
        let terms = plans.iter().map(Plan::most_terms).max().unwrap_or(0);
        let slot = terms * kernel.width() + SLACK;
        let columns = Buffer::take(slot * panels.len().div_ceil(across));
        let mut piece = Piece {
            cpu,
            product,
            kernel,
            sparse,
            rows: Arranged::new(0..0, &kernel, None),
            panels: &[],
            columns,
            slot,
            scratch: Vec::new(),
        };
        for index in range {
            let (subtree, part) = (index / (down * across), index % (down * across));
            let units = even(units, down, part / across);
            piece.rows =
                Arranged::new(units.start * unit..(units.end * unit).min(rows), &kernel, outside.as_ref());
            piece.panels = &panels[even(panels.len(), across, part % across)];
            piece.run(&plans[subtree], |some, panel, sums| match kept {
                Some(kept) => {
                    let start = subtree * size + rows * panel.columns.start + some.start * panel.width;
                    // SAFETY: every row and panel of every subtree has a place of its own.
                    unsafe { kept.write(start, 1, sums) };
                }
                None => finish.store(some, panel, sums),
            });
        }
    });
    let Some(kept) = kept else { return };
    let most = STACK * kernel.rows;
    let stacks = rows.div_ceil(most);
    cpu.for_ranges(stacks * panels.len(), 1, |range| {
        for index in range {
            let (panel, first) = (&panels[index % panels.len()], index / panels.len() * most);
            let some = first..(first + most).min(rows);
            let start = rows * panel.columns.start + some.start * panel.width;
            // SAFETY: as above, and all subtrees are done.
            let of = |at: usize| unsafe {
                kept.slice(at * size + start..at * size + start + some.len() * panel.width)
            };
            let add = |a, b| {
                cpu.vectorize(Add(of(a), of(b)));
                a
            };
            if let Some(sum) = tree(plans.len(), |at| at, add) {
                finish.store(some.clone(), panel, of(sum));
            }
        }
    });
}

/// `a = a + b`
pub(crate) struct Add<'a>(pub(crate) &'a mut [f32], pub(crate) &'a [f32]);

impl Task for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (a, b) in self.0.iter_mut().zip(self.1) {
            *a += *b;
        }
    }
}

/// What becomes of sums with all their terms.
struct Finish<'a, P> {
    cpu: &'a Cpu,
    product: &'a P,
    /// Whether rows may lack terms.
    leaves_out: bool,
}

impl<P: LeafProduct> Finish<'_, P> {
    /// Some rows of a panel, `[rows.len()][panel.width]`.
    fn store(&self, rows: Range<usize>, panel: &Panel, sums: &mut [f32]) {
        if self.leaves_out {
            let sum =
                |row: usize, column: usize| self.product.sum(rows.start + row, panel.columns.start + column);
            repair(self.cpu, (panel.width, panel.columns.len()), sums, sum);
        }
        self.product.store(self.cpu, rows, panel, sums);
    }
}

/// In which order the leaves are computed and added, the same for every tile.
struct Plan {
    blocks: Vec<Block>,
    /// How many sums of a tile are kept at once.
    sums: usize,
    /// Which of them is the result, if there are any leaves.
    result: Option<usize>,
}

/// Terms that are packed together: some whole leaves, or a part of one.
struct Block {
    terms: Range<usize>,
    chains: Vec<Chain>,
}

/// A leaf, or a part of one.
struct Chain {
    terms: Range<usize>,
    /// The sum it is.
    sum: usize,
    /// Whether the sum has begun in an earlier block.
    resume: bool,
    /// The sums of earlier leaves added to it, each on the left of what is there.
    earlier: Vec<usize>,
}

impl Plan {
    /// The tree as a binary counter: a sum of 2^k leaves waits for the next of its size, and after the last leaf
    /// all are added.
    fn new(leaves: &[Range<usize>]) -> Plan {
        let most = most_terms();
        let mut plan = Plan { blocks: Vec::new(), sums: 1, result: None };
        let mut waiting: Vec<(usize, usize)> = Vec::new();
        let mut free: Vec<usize> = vec![0];
        for (index, leaf) in leaves.iter().enumerate() {
            let sum = free.pop().unwrap_or_else(|| {
                plan.sums += 1;
                plan.sums - 1
            });
            let (mut count, mut earlier) = (1, Vec::new());
            while let Some((size, other)) =
                waiting.pop_if(|(size, _)| *size == count || index + 1 == leaves.len())
            {
                count += size;
                earlier.push(other);
            }
            free.extend(&earlier);
            waiting.push((count, sum));
            let cuts = leaf.len().div_ceil(most).max(1);
            for cut in 0..cuts {
                let Range { start, end } = even(leaf.len(), cuts, cut);
                let earlier = if end == leaf.len() { std::mem::take(&mut earlier) } else { Vec::new() };
                let terms = leaf.start + start..leaf.start + end;
                plan.push(most, Chain { terms, sum, resume: start > 0, earlier });
            }
        }
        plan.result = waiting.pop().map(|(_, sum)| sum);
        plan
    }

    /// Terms of the longest block.
    fn most_terms(&self) -> usize {
        self.blocks.iter().map(|block| block.terms.len()).max().unwrap_or(0)
    }

    fn push(&mut self, most: usize, chain: Chain) {
        match self.blocks.last_mut() {
            Some(block) if chain.terms.end - block.terms.start <= most => {
                block.terms.end = chain.terms.end;
                block.chains.push(chain);
            }
            _ => self.blocks.push(Block { terms: chain.terms.clone(), chains: vec![chain] }),
        }
    }
}

/// Some rows and some panels.
struct Piece<'a, P> {
    cpu: &'a Cpu,
    product: &'a P,
    kernel: Kernel,
    sparse: bool,
    rows: Arranged<'a>,
    panels: &'a [Panel],
    /// The panels of one block, in slots of so many values.
    columns: Buffer,
    slot: usize,
    scratch: Vec<f32>,
}

impl<P: LeafProduct> Piece<'_, P> {
    /// Hands over the sums of some rows of a panel after another, `[rows.len()][panel.width]`.
    fn run(&mut self, plan: &Plan, take: impl Fn(Range<usize>, &Panel, &mut [f32])) {
        let width: usize = self.panels.iter().map(|panel| panel.width).sum();
        // For each stack, for each panel, for each sum: [rows][width].
        let mut sums = Buffer::take(self.rows.all.len() * width * plan.sums);
        for block in &plan.blocks {
            self.block(block, plan.sums, &mut sums);
        }
        let kernel = self.kernel;
        let most = STACK * kernel.rows;
        // Where the result of some rows from a place on lies, for the panel that has so many columns before it.
        let result = |places: &Range<usize>, result: usize, before: usize, width_of: usize| {
            let stack = self.rows.stack(places.start);
            let size = stack.places.len() * width_of;
            let slots = plan.sums * (stack.places.start * width + stack.places.len() * before);
            let start = slots + result * size + (places.start - stack.places.start) * width_of;
            start..start + places.len() * width_of
        };
        let mut ordered = Buffer::take(most * kernel.width());
        let mut before = 0;
        for panel in self.panels {
            for rows in cut(self.rows.all.clone(), most) {
                let places = rows.start - self.rows.all.start..rows.end - self.rows.all.start;
                let ordered = &mut ordered[..rows.len() * panel.width];
                match (plan.result, self.rows.place()) {
                    (None, _) => ordered.fill(0.0),
                    (Some(sum), None) => {
                        let sums = &mut sums[result(&places, sum, before, panel.width)];
                        take(rows, panel, sums);
                        continue;
                    }
                    (Some(sum), Some(place)) => {
                        for (row, to) in places.zip(ordered.chunks_exact_mut(panel.width)) {
                            let place = place[row]..place[row] + 1;
                            to.copy_from_slice(&sums[result(&place, sum, before, panel.width)]);
                        }
                    }
                }
                take(rows, panel, ordered);
            }
            before += panel.width;
        }
    }

    /// Whether rows may lack terms.
    fn leaves_out(&self) -> bool {
        self.sparse || self.rows.place().is_some()
    }

    /// The chains of one block.
    fn block(&mut self, block: &Block, kept: usize, mut sums: &mut [f32]) {
        let (cpu, product) = (self.cpu, self.product);
        let mut scratch = std::mem::take(&mut self.scratch);
        let left = product.stage(cpu, self.rows.all.clone(), block.terms.clone(), &mut scratch);
        let most = block.chains.iter().map(|chain| chain.earlier.len()).max().unwrap_or(0);
        let mut earlier: Vec<*const f32> = Vec::with_capacity(most);
        let (leaves_out, mut finite) = (self.leaves_out(), true);
        for (panel, slot) in self.panels.iter().zip(self.columns.chunks_mut(self.slot)) {
            let packed = block.terms.len() * panel.width;
            product.pack_columns(cpu, panel, block.terms.clone(), &mut slot[..packed + SLACK]);
            // Beyond the last column lies anything.
            let (width, columns) = (panel.width, panel.columns.len());
            if finite && leaves_out {
                finite = match columns == width {
                    true => cpu.vectorize(Finite(&slot[..packed])),
                    false => {
                        slot[..packed].chunks_exact(width).all(|row| cpu.vectorize(Finite(&row[..columns])))
                    }
                };
            }
        }
        let chains: Vec<Range<usize>> = block
            .chains
            .iter()
            .map(|chain| chain.terms.start - block.terms.start..chain.terms.end - block.terms.start)
            .collect();
        let chains = self.rows.chains(&left, block.terms.start, chains, finite);
        let classes = self.rows.classes(&left);
        let lefts: Vec<Vec<(usize, Left)>> = classes
            .iter()
            .zip(chains.iter())
            .map(|(class, chains)| {
                chains.iter().map(|(first, steps)| (*first, left.left_of(&class.bases, steps))).collect()
            })
            .collect();
        // Sparse rows are one class.
        let bits: Vec<Bits> = match self.sparse {
            true => lefts[0].iter().map(|(_, left)| Bits::of(cpu, left, finite)).collect(),
            false => Vec::new(),
        };
        for stack in &self.rows.stacks {
            let (kernel, class, lefts) = (stack.kernel, &classes[stack.class], &lefts[stack.class]);
            let rows = stack.places.start - class.places.start..stack.places.end - class.places.start;
            for (panel, columns) in self.panels.iter().zip(self.columns.chunks(self.slot)) {
                let size = rows.len() * panel.width;
                let (slots, rest) = sums.split_at_mut(kept * size);
                sums = rest;
                let slots = slots.as_mut_ptr();
                for (index, (chain, (first, left))) in block.chains.iter().zip(lefts).enumerate() {
                    let left = bits.get(index).map_or(*left, |bits| left.sparse(bits));
                    earlier.clear();
                    earlier
                        .extend(chain.earlier.iter().map(|sum| slots.wrapping_add(sum * size).cast_const()));
                    let tile = Tile {
                        left: left.after_rows(rows.start, left.terms()),
                        right: columns.get(first * panel.width..).unwrap_or_default(),
                        right_step: panel.width,
                        next: None,
                        asked: &[],
                        terms: left.terms(),
                        to: slots.wrapping_add(chain.sum * size),
                        stride: panel.width,
                        past: false,
                        from: chain.resume.then(|| slots.wrapping_add(chain.sum * size).cast_const()),
                        earlier: &earlier,
                        finish: None,
                    };
                    // SAFETY: there are `kept` slots of the stack's size, and they belong to this thread;
                    // `Strewn` measured the left operand.
                    unsafe { kernel.run(rows.len(), panel.width, &tile) };
                }
            }
        }
        drop(lefts);
        drop(left);
        self.scratch = scratch;
    }
}
