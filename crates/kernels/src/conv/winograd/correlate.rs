//! The schedule of the forward pass and the input gradient: squares are transformed, multiplied by the filters
//! element by element, and transformed back.
//!
//! For each of the N² elements of a square the products are one of matrices: rows are tiles, columns are filters,
//! terms are channels. Where the transformed filters fit the caches all threads share them, and each takes some
//! tiles through all three steps. Where they do not, the squares are shared, and each thread takes some columns: it
//! transforms their filters, a panel at a time, and uses them at once for all tiles.

use super::filters::Filters;
use super::line::{Input, Line, Minimal};
use super::squares::{Destination, Planes, Products, Target, outputs, transform};
use crate::Cpu;
use crate::conv::Finish;
use crate::cpu::SharedMut;
use crate::memory::Buffer;
use crate::product::{Panel, Rows, Sums, Tiles};
use std::ops::Range;

/// Transformed filters of at most so many values are shared.
const SHARED: usize = 5 << 19;
/// About how many tiles a thread takes through all steps at once.
const TILES: usize = 28;
/// About how many tiles' products of a panel a thread keeps before it transforms them back.
const PANEL_TILES: usize = 56;
/// Transformed squares of at most about so many values are shared.
const SQUARES: usize = 6 << 20;

/// A correlation with 3×3 filters.
pub(super) struct Correlation<'a> {
    pub(super) n: usize,
    pub(super) from: Planes,
    pub(super) to: Planes,
    pub(super) x: &'a [f32],
    pub(super) filters: Filters<'a>,
    /// What becomes of the outputs.
    pub(super) finish: Option<Finish<'a>>,
    pub(super) y: SharedMut<'a, f32>,
}

/// The distance from one tile's channels to the next tile's: not a power of two, which would put the rows of a
/// product on few lines of the cache.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(16) + 16
}

/// The distance from one element of squares or filters to the next, for so many values each: that of a page and a line, so
/// that the elements of one square lie on different lines of the cache.
pub(super) fn apart(values: usize) -> usize {
    values.next_multiple_of(1024) + 16
}

/// Where the channels of tiles lie.
pub(super) fn squares_panel(channels: usize) -> Panel {
    Panel { columns: 0..channels, width: padded(channels) }
}

impl Correlation<'_> {
    fn destination(&self) -> Destination<'_> {
        Destination { planes: &self.to, y: self.y, finish: self.finish }
    }

    pub(super) fn run<A: Minimal<M, N>, const M: usize, const N: usize>(&self, cpu: &Cpu)
    where
        (Input, A): Line<N, N>,
    {
        let rows = self.n * self.to.tiles.0;
        if rows == 0 || self.to.tiles.1 == 0 || self.to.channels == 0 {
            return;
        }
        if self.from.channels * self.to.channels * N * N <= SHARED {
            self.by_tiles::<A, M, N>(cpu, rows);
        } else {
            self.by_columns::<A, M, N>(cpu, rows);
        }
    }

    /// All threads share the filters.
    fn by_tiles<A: Minimal<M, N>, const M: usize, const N: usize>(&self, cpu: &Cpu, rows: usize)
    where
        (Input, A): Line<N, N>,
    {
        let (tiles, channels, across) = (Tiles::of(cpu), self.from.channels, self.to.tiles.1);
        let panels = tiles.panels(self.to.channels, 1, 0);
        let width: usize = panels.iter().map(|panel| panel.width).sum();
        let element = apart(channels * width);
        let mut filters = Buffer::take(N * N * element);
        let shared = SharedMut::new(&mut filters);
        cpu.for_ranges(channels, 16, |terms| {
            for panel in &panels {
                let out = (shared, channels * panel.columns.start, element);
                self.filters.transform::<A, M, N>(cpu, panel, terms.clone(), out);
            }
        });
        let step = (TILES / across).clamp(1, rows.div_ceil(cpu.threads()));
        cpu.for_ranges(rows.div_ceil(step), 1, |range| {
            let mut block = Block::new(N * N, step * across, channels, width);
            for index in range {
                let rows = index * step..((index + 1) * step).min(rows);
                let count = rows.len() * across;
                block.squares::<A, M, N>(cpu, self, rows.clone());
                for e in 0..N * N {
                    for panel in &panels {
                        let start = e * element + channels * panel.columns.start;
                        let right = &filters[start..start + channels * panel.width];
                        block.multiply(&tiles, e, 0..count, right, panel.columns.start, panel.width);
                    }
                }
                block.outputs::<A, M, N>(cpu, self, rows, 0..self.to.channels);
            }
        });
    }

    /// All threads share the squares.
    fn by_columns<A: Minimal<M, N>, const M: usize, const N: usize>(&self, cpu: &Cpu, rows: usize)
    where
        (Input, A): Line<N, N>,
    {
        let (tiles, channels, across) = (Tiles::of(cpu), self.from.channels, self.to.tiles.1);
        let stride = padded(channels);
        let step = (SQUARES / (N * N * stride * across)).clamp(1, rows);
        let parts = cpu.threads().min(tiles.registers(self.to.channels));
        let few = (PANEL_TILES / across).clamp(1, step);
        for start in (0..rows).step_by(step) {
            let all = start..(start + step).min(rows);
            let element = apart(all.len() * across * stride);
            let mut squares = Buffer::take(N * N * element);
            let panel = [squares_panel(channels)];
            let target = Target {
                memory: SharedMut::new(&mut squares),
                element,
                panels: &panel,
                first: start,
                tiles: all.len() * across,
            };
            cpu.for_ranges(all.len(), 1, |range| {
                let rows = start + range.start..start + range.end;
                transform::<(Input, A), N, N>(cpu, (&self.from, self.x), rows, &target);
            });
            cpu.for_ranges(parts, 1, |range| {
                for part in range {
                    let panels = tiles.panels(self.to.channels, parts, part);
                    let widest = panels.iter().map(|panel| panel.width).max().unwrap_or(0);
                    let mut filters = Buffer::take(N * N * apart(channels * widest));
                    let mut products = Buffer::take(N * N * apart(few * across * widest));
                    for panel in &panels {
                        let size = apart(channels * panel.width);
                        let out = (SharedMut::new(&mut filters), 0, size);
                        self.filters.transform::<A, M, N>(cpu, panel, 0..channels, out);
                        for first in (all.start..all.end).step_by(few) {
                            let rows = first..(first + few).min(all.end);
                            let count = rows.len() * across;
                            let each = apart(count * panel.width);
                            let (bases, steps) = offsets(first - start, count, across, stride, channels);
                            for e in 0..N * N {
                                let data = &squares[e * element..(e + 1) * element];
                                let left = Rows { data, bases: &bases, steps: &steps };
                                let to = &mut products[e * each..(e + 1) * each];
                                let sums = Sums { to: to.as_mut_ptr(), stride: panel.width, earlier: &[] };
                                // SAFETY: `to` has a row of the panel's width for each tile.
                                unsafe {
                                    tiles.multiply(
                                        left,
                                        &filters[e * size..(e + 1) * size],
                                        panel.width,
                                        sums,
                                    );
                                }
                            }
                            let products =
                                Products { data: &products, element: each, stride: panel.width, first };
                            let some = (rows, panel.columns.clone());
                            outputs::<A, M, N>(cpu, &products, some, &self.destination());
                        }
                    }
                }
            });
        }
    }
}

/// Where the channels of `count` tiles lie from row `row` of tiles on.
fn offsets(
    row: usize,
    count: usize,
    across: usize,
    stride: usize,
    channels: usize,
) -> (Vec<usize>, Vec<usize>) {
    let first = row * across;
    ((first..first + count).map(|tile| tile * stride).collect(), (0..channels).collect())
}

/// Some tiles that one thread takes through all steps.
struct Block {
    tiles: usize,
    channels: usize,
    stride: usize,
    width: usize,
    squares: Buffer,
    products: Buffer,
    bases: Vec<usize>,
    steps: Vec<usize>,
}

impl Block {
    fn new(elements: usize, tiles: usize, channels: usize, width: usize) -> Block {
        let stride = padded(channels);
        let (bases, steps) = offsets(0, tiles, 1, stride, channels);
        let squares = Buffer::take(elements * apart(tiles * stride));
        let products = Buffer::take(elements * apart(tiles * padded(width)));
        Block { tiles, channels, stride, width, squares, products, bases, steps }
    }

    fn squares<A: Minimal<M, N>, const M: usize, const N: usize>(
        &mut self,
        cpu: &Cpu,
        of: &Correlation,
        rows: Range<usize>,
    ) where
        (Input, A): Line<N, N>,
    {
        let panel = [squares_panel(self.channels)];
        let target = Target {
            memory: SharedMut::new(&mut self.squares),
            element: apart(self.tiles * self.stride),
            panels: &panel,
            first: rows.start,
            tiles: self.tiles,
        };
        transform::<(Input, A), N, N>(cpu, (&of.from, of.x), rows, &target);
    }

    /// Element `e` of the products of some tiles and a panel.
    fn multiply(
        &mut self,
        tiles: &Tiles,
        e: usize,
        some: Range<usize>,
        right: &[f32],
        column: usize,
        width: usize,
    ) {
        let size = apart(self.tiles * self.stride);
        let data = &self.squares[e * size..(e + 1) * size];
        let left = Rows { data, bases: &self.bases[some.clone()], steps: &self.steps };
        let stride = padded(self.width);
        let start = e * apart(self.tiles * stride) + some.start * stride + column;
        let to = &mut self.products[start..][..(some.len() - 1) * stride + width];
        // SAFETY: `to` has a row of the panel's width for each tile.
        unsafe { tiles.multiply(left, right, width, Sums { to: to.as_mut_ptr(), stride, earlier: &[] }) };
    }

    fn outputs<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        of: &Correlation,
        rows: Range<usize>,
        channels: Range<usize>,
    ) {
        let stride = padded(self.width);
        let products =
            Products { data: &self.products, element: apart(self.tiles * stride), stride, first: rows.start };
        outputs::<A, M, N>(cpu, &products, (rows, channels), &of.destination());
    }
}
