//! The schedule of the weight gradient: for each element of the square a product of matrices whose rows are
//! channels, whose columns are filters, and whose terms are tiles, in leaves of the batch.
//!
//! Threads share subtrees of the leaves, or, where these are too few, transform the squares of inputs and of cotangents
//! together and then share the products; a few leaves at a time.

use super::correlate::{apart, padded, squares_panel};
use super::filters::taps;
use super::line::{Cotangent, Input, Line, Minimal};
use super::squares::{Planes, Target, transform};
use crate::Cpu;
use crate::cpu::SharedMut;
use crate::leaves::{BatchLeaf, subtree, tile_leaves, tree};
use crate::memory::Buffer;
use crate::processor;
use crate::product::{Add, Panel, Rows, Soon, Sums, Tiles, even};
use std::mem::take;
use std::ops::Range;
use std::sync::OnceLock;

/// Transformed squares of at most about so many values are kept at once.
const SQUARES: usize = 2 << 20;
/// Channels whose filters are transformed back together.
const ROWS: usize = 16;

pub(super) struct WeightGradient<'a> {
    pub(super) n: usize,
    pub(super) images: Planes,
    pub(super) outputs: Planes,
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) dw: SharedMut<'a, f32>,
}

/// A leaf or a part of one, the sum it becomes, and the sums of earlier leaves added to it, each on the left of what is
/// there. Sums lie on a stack: the last one left is the lowest.
struct Leaf {
    /// Rows of tiles, counted through all images.
    rows: Range<usize>,
    sum: usize,
    /// The sum of the parts before.
    from: Option<usize>,
    earlier: Vec<usize>,
}

impl Leaf {
    /// In parts of at most so many rows, as even as they can be: the sum of all but the last is `part_sum`.
    fn cut(self, rows: usize, part_sum: usize) -> impl Iterator<Item = Leaf> {
        let Leaf { rows: all, sum, mut earlier, .. } = self;
        let parts = all.len().div_ceil(rows).max(1);
        (0..parts).map(move |part| {
            let Range { start, end } = even(all.len(), parts, part);
            let from = (part > 0).then_some(part_sum);
            let (sum, earlier) =
                if part + 1 == parts { (sum, take(&mut earlier)) } else { (part_sum, Vec::new()) };
            Leaf { rows: all.start + start..all.start + end, sum, from, earlier }
        })
    }
}

/// A whole tree of leaves, or a subtree of it.
struct Tree {
    leaves: Vec<Leaf>,
    /// Sums kept of each output.
    slots: usize,
}

impl Tree {
    /// Of some leaves of images of so many rows of tiles: a binary counter.
    fn of(parts: &[BatchLeaf], down: usize) -> Tree {
        let mut waiting: Vec<usize> = Vec::new();
        let mut leaves = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let (mut count, mut earlier) = (1, Vec::new());
            while let Some(size) = waiting.pop_if(|size| *size == count || index + 1 == parts.len()) {
                count += size;
                earlier.push(waiting.len());
            }
            let first = part.samples.start * down + part.rows.start;
            let rows = first..first + part.samples.len() * part.rows.len();
            leaves.push(Leaf { rows, sum: waiting.len(), from: None, earlier });
            waiting.push(count);
        }
        let slots = leaves.iter().map(|leaf| leaf.sum + 1).max().unwrap_or(1);
        Tree { leaves, slots }
    }
}

/// Transformed squares of some leaves.
struct Squares<'a> {
    leaves: &'a [Leaf],
    /// Their first row of tiles, and their tiles.
    first: usize,
    count: usize,
    /// Of inputs, `[element][tile][stride]`.
    v: Buffer,
    stride: usize,
    /// Of cotangents, for each element, for each panel, `[tile][panel.width]`.
    u: Buffer,
    width: usize,
}

/// One of the products: an element of the square, some channels, and a panel of filters.
struct Part<'a> {
    element: usize,
    rows: Range<usize>,
    panel: &'a Panel,
}

/// The extents that all steps share.
struct Layout {
    tiles: Tiles,
    across: usize,
    channels: usize,
    panels: Vec<Panel>,
    /// Of all panels together.
    width: usize,
}

impl WeightGradient<'_> {
    pub(super) fn run<A: Minimal<M, N>, const M: usize, const N: usize>(&self, cpu: &Cpu)
    where
        (Input, A): Line<N, N>,
        (Cotangent, A): Line<M, N>,
    {
        let (tiles, down) = (Tiles::of(cpu), self.outputs.tiles.0);
        let panels = tiles.panels(self.outputs.channels, 1, 0);
        let layout = Layout {
            tiles,
            across: self.outputs.tiles.1,
            channels: self.images.channels,
            width: panels.iter().map(|panel| panel.width).sum(),
            panels,
        };
        let parts = tile_leaves(self.n, self.outputs.tiles, M);
        let whole = Tree::of(&parts, down);
        let each = padded(layout.channels) + layout.width;
        let (all, size) = (self.n * down * layout.across * each, layout.channels * layout.width);
        // What takes less memory.
        if all <= whole.slots * size || all * N * N <= SQUARES {
            return self.by_pieces::<A, M, N>(cpu, &layout, &whole);
        }
        let subtree = subtree(parts.len(), cpu.threads(), N * N * size, SQUARES);
        let mut trees: Vec<Tree> = parts.chunks(subtree).map(|parts| Tree::of(parts, down)).collect();
        let sums: Vec<OnceLock<Buffer>> = trees.iter().map(|_| OnceLock::new()).collect();
        let mut tiles = SQUARES / (each * N * N * trees.len().min(cpu.threads()));
        // Where the sums leave room beside them, squares stay in the second-level cache from the transform to the product.
        let near = processor::second_level() / size_of::<f32>() / 3;
        if N * N * size <= near {
            tiles = tiles.min(near / (each * N * N));
            for tree in &mut trees {
                let slot = tree.slots;
                tree.slots += 1;
                let cut = |leaf: Leaf| leaf.cut((tiles / layout.across).max(1), slot);
                tree.leaves = take(&mut tree.leaves).into_iter().flat_map(cut).collect();
            }
        }
        // The largest is the first.
        let slots = trees[0].slots;
        cpu.for_ranges(trees.len(), 1, |range| {
            for index in range {
                let blocks = blocks(&trees[index].leaves, layout.across, tiles);
                sums[index].get_or_init(|| self.by_elements::<A, M, N>(cpu, &layout, &blocks, slots));
            }
        });
        let element = apart(slots * size);
        let mut sums = sums.into_iter();
        let next = |_| sums.next().and_then(OnceLock::into_inner).unwrap_or_else(|| Buffer::take(0));
        let add = |a, b| self.add(cpu, &layout, (element, slots), a, b);
        if let Some(sums) = tree(trees.len(), next, add) {
            self.filters::<A, M, N>(cpu, &layout, &sums, (element, slots));
        }
    }

    fn squares<'a, A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        layout: &Layout,
        leaves: &'a [Leaf],
    ) -> Squares<'a>
    where
        (Input, A): Line<N, N>,
        (Cotangent, A): Line<M, N>,
    {
        let (first, last) = (leaves[0].rows.start, leaves[leaves.len() - 1].rows.end);
        let (count, stride, width) = ((last - first) * layout.across, padded(layout.channels), layout.width);
        let (mut v, mut u) =
            (Buffer::take(N * N * apart(count * stride)), Buffer::take(N * N * apart(count * width)));
        let target = |memory, panels, width: usize| Target {
            memory,
            element: apart(count * width),
            panels,
            first,
            tiles: count,
        };
        let channels = [squares_panel(layout.channels)];
        let inputs = target(SharedMut::new(&mut v), &channels[..], stride);
        let cotangents = target(SharedMut::new(&mut u), &layout.panels[..], width);
        cpu.for_ranges(last - first, 1, |range| {
            let rows = first + range.start..first + range.end;
            transform::<(Input, A), N, N>(cpu, (&self.images, self.x), rows.clone(), &inputs);
            transform::<(Cotangent, A), M, N>(cpu, (&self.outputs, self.dy), rows, &cotangents);
        });
        Squares { leaves, first, count, v, stride, u, width }
    }

    /// Few filters and many tiles: the sums of all elements are kept from block to block. Threads take subtrees, so that
    /// each transforms the squares that it multiplies; those that share one tree take some elements each, and so meet each
    /// square once.
    fn by_elements<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        layout: &Layout,
        blocks: &[&[Leaf]],
        slots: usize,
    ) -> Buffer
    where
        (Input, A): Line<N, N>,
        (Cotangent, A): Line<M, N>,
    {
        let Layout { channels, ref panels, width, .. } = *layout;
        let element = apart(slots * channels * width);
        let mut kept = Buffer::take(N * N * element);
        for leaves in blocks {
            let squares = self.squares::<A, M, N>(cpu, layout, leaves);
            let kept = SharedMut::new(&mut kept);
            cpu.for_ranges(N * N * panels.len(), 1, |range| {
                let part = |index: usize| Part {
                    element: index / panels.len(),
                    rows: 0..channels,
                    panel: &panels[index % panels.len()],
                };
                for index in range {
                    let Part { element: e, panel, .. } = part(index);
                    let start = e * element + slots * channels * panel.columns.start;
                    // SAFETY: every element and panel has sums of its own.
                    let sums = unsafe { kept.slice(start..start + slots * channels * panel.width) };
                    let sums = sums.split_at_mut(channels * panel.width);
                    squares.multiply(layout, &part(index), sums, &part(index + 1));
                }
            });
        }
        kept
    }

    /// The sums of two neighbouring subtrees, in the place of the first.
    fn add(
        &self,
        cpu: &Cpu,
        layout: &Layout,
        (element, slots): (usize, usize),
        mut a: Buffer,
        b: Buffer,
    ) -> Buffer {
        let Layout { channels, ref panels, .. } = *layout;
        let sums = SharedMut::new(&mut a);
        cpu.for_ranges(b.len() / element * panels.len(), 1, |range| {
            for index in range {
                let panel = &panels[index % panels.len()];
                let start = index / panels.len() * element + slots * channels * panel.columns.start;
                let lowest = start..start + channels * panel.width;
                // SAFETY: every element and panel has sums of its own.
                cpu.vectorize(Add(unsafe { sums.slice(lowest.clone()) }, &b[lowest]));
            }
        });
        a
    }

    /// The filters' gradients, of the lowest sums.
    fn filters<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        layout: &Layout,
        kept: &[f32],
        (element, slots): (usize, usize),
    ) where
        (Input, A): Line<N, N>,
        (Cotangent, A): Line<M, N>,
    {
        let Layout { channels, ref panels, .. } = *layout;
        let down = channels.div_ceil(ROWS);
        cpu.for_ranges(down * panels.len(), 1, |range| {
            for index in range {
                let panel = &panels[index % panels.len()];
                let first = index / panels.len() * ROWS;
                let rows = first..(first + ROWS).min(channels);
                let sums = &kept[slots * channels * panel.columns.start + first * panel.width..];
                taps::<A, M, N>(cpu, (sums, element), (rows, channels), panel, self.dw);
            }
        });
    }

    /// Many filters and few tiles: each thread takes some channels and a panel through all elements, and keeps its sums
    /// no longer.
    fn by_pieces<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        layout: &Layout,
        Tree { leaves, slots }: &Tree,
    ) where
        (Input, A): Line<N, N>,
        (Cotangent, A): Line<M, N>,
    {
        let Layout { channels, ref panels, .. } = *layout;
        let squares = self.squares::<A, M, N>(cpu, layout, leaves);
        let least = layout.tiles.height();
        let mut height = 8 * least;
        while height > least && channels.div_ceil(height) * panels.len() < 4 * cpu.threads() {
            height = (height / 2).max(least);
        }
        let widest = panels.iter().map(|panel| panel.width).max().unwrap_or(0);
        cpu.for_ranges(channels.div_ceil(height) * panels.len(), 1, |range| {
            let mut lowest = Buffer::take(N * N * apart(height * widest));
            let mut others = Buffer::take((slots - 1) * height * widest);
            let part = |index: usize, element: usize| {
                let first = index / panels.len() * height;
                let rows = first..(first + height).min(channels);
                Part { element, rows, panel: &panels[index % panels.len()] }
            };
            for index in range {
                let Part { rows, panel, .. } = part(index, 0);
                let size = rows.len() * panel.width;
                let element = apart(size);
                for e in 0..N * N {
                    let sums = (&mut lowest[e * element..][..size], &mut others[..]);
                    let next = if e + 1 < N * N { part(index, e + 1) } else { part(index + 1, 0) };
                    squares.multiply(layout, &part(index, e), sums, &next);
                }
                taps::<A, M, N>(cpu, (&lowest, element), (rows, channels), panel, self.dw);
            }
        });
    }
}

impl Squares<'_> {
    /// Inputs and cotangents of a part, from its first on.
    fn operands(&self, part: &Part) -> Option<(&[f32], &[f32])> {
        let (v, u) = (apart(self.count * self.stride), apart(self.count * self.width));
        let inputs = self.v.get(part.element * v + part.rows.start..)?;
        Some((inputs, self.u.get(part.element * u + self.count * part.panel.columns.start..)?))
    }

    /// Adds a part of the leaves to the lowest sum `[row][panel.width]` and the others `[slot - 1][row][panel.width]`. The
    /// operands of the next one arrive meanwhile.
    fn multiply(
        &self,
        layout: &Layout,
        part: &Part,
        (lowest, others): (&mut [f32], &mut [f32]),
        next: &Part,
    ) {
        let Part { rows, panel, .. } = part;
        let size = rows.len() * panel.width;
        let used =
            self.leaves.iter().flat_map(|leaf| leaf.earlier.iter().chain([&leaf.sum]).chain(&leaf.from));
        let most = used.max().unwrap_or(&0);
        assert!(size <= lowest.len() && most * size <= others.len(), "too few sums");
        let (now, next) = (self.operands(part), self.operands(next));
        let (inputs, cotangents) = now.unwrap_or_default();
        let (lowest, others) = (lowest.as_mut_ptr(), others.as_mut_ptr());
        let slot = |sum: usize| if sum == 0 { lowest } else { others.wrapping_add((sum - 1) * size) };
        let mut earlier: Vec<*const f32> = Vec::new();
        for leaf in self.leaves {
            let start = (leaf.rows.start - self.first) * layout.across;
            let terms = leaf.rows.len() * layout.across;
            earlier.clear();
            earlier.extend(leaf.earlier.iter().map(|sum| slot(*sum).cast_const()));
            let data = &inputs[start * self.stride..];
            let left = Rows { data, row: 1, term: self.stride, extent: (rows.len(), terms) };
            let right = (&cotangents[start * panel.width..], panel.width);
            let to = slot(leaf.sum);
            let from = leaf.from.map(|sum| slot(sum).cast_const());
            let to = Sums { to, stride: panel.width, from, earlier: &earlier };
            let soon = Soon {
                left: next.and_then(|(inputs, _)| inputs.get(start * self.stride..)),
                right: next.and_then(|(_, cotangents)| cotangents.get(start * panel.width..)),
            };
            // SAFETY: all sums that leaves are added to or taken from are there, measured above, and they belong to
            // this thread.
            unsafe { layout.tiles.multiply(left, right, to, soon) };
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
