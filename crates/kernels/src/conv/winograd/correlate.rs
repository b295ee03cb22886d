//! The schedule of the forward pass and the input gradient: squares are transformed, multiplied by the filters
//! element by element, and transformed back.
//!
//! For each of the N² elements of a square the products are one of matrices: rows are tiles, columns are filters,
//! terms are channels. Where the transformed filters fit the caches all threads share them, and each takes some
//! tiles through all three steps. Where they do not, the squares are shared, and each thread takes some columns: it
//! transforms their filters and uses them at once for all tiles.
//!
//! Filters that come with room for it keep what is made of them: what they become where that fits the caches, else what
//! they become it from, for to read four times as much from memory takes longer than to transform again.

use super::filters::Filters;
use super::line::{Input, Line, Minimal};
use super::squares::{Destination, Planes, Products, Target, outputs, transform};
use crate::Cpu;
use crate::conv::Finish;
use crate::cpu::SharedMut;
use crate::memory::{Buffer, Form, Kept};
use crate::processor;
use crate::product::{Panel, Rows, Soon, Sums, Tiles};
use std::ops::Range;

/// Transformed filters of at most so many values are shared.
const SHARED: usize = 1 << 20;
/// Tiles that a thread takes through all steps at once, at most.
const TILES: usize = 28;
/// Tiles whose products of some columns a thread keeps before it transforms them back, at most.
const COLUMN_TILES: usize = 96;
/// Columns whose filters a thread transforms before it multiplies by them, about.
const COLUMNS: usize = 64;
/// Transformed squares of at most about so many values are shared.
const SQUARES: usize = 6 << 20;

/// A correlation with 3×3 filters.
pub(super) struct Correlation<'a> {
    pub(super) n: usize,
    pub(super) from: Planes,
    pub(super) to: Planes,
    pub(super) x: &'a [f32],
    pub(super) filters: Filters<'a>,
    /// Room for the transformed filters.
    pub(super) keep: Option<&'a Kept>,
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

/// How many rows of `across` tiles are taken together: `most` tiles at most, or one row, so that as few as possible of
/// the product's rows of `height` are left idle.
fn together(across: usize, most: usize, height: usize) -> usize {
    let used = |rows: usize| rows * across * 1000 / (rows * across).next_multiple_of(height);
    (1..=(most / across).max(1)).max_by_key(|rows| (used(*rows), *rows)).unwrap_or(1)
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

    /// All transformed filters, kept or made now, and from one element of them to the next.
    fn filters<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        (tiles, panels): (&Tiles, &[Panel]),
    ) -> (Made<'_>, usize) {
        let channels = self.from.channels;
        let element = apart(channels * width(panels));
        let transform = || {
            let mut filters = Buffer::take(N * N * element);
            let shared = SharedMut::new(&mut filters);
            cpu.for_ranges(channels, 16, |terms| {
                for panel in panels {
                    let first = channels * panel.columns.start + terms.start * panel.width;
                    self.filters.transform::<A, M, N>(cpu, panel, terms.clone(), (shared, first, element));
                }
            });
            filters
        };
        let kept = self.keep.and_then(|kept| kept.get(self.form("transformed filters", tiles, N), transform));
        (kept.map_or_else(|| Made::Now(transform()), Made::Kept), element)
    }

    /// The staged filters of all parts, if they are kept.
    fn staged(&self, cpu: &Cpu, tiles: &Tiles, parts: &[Vec<Panel>]) -> Option<&[f32]> {
        let form = self.form("staged filters", tiles, parts.len());
        self.keep?.get(form, || {
            let terms = 0..self.filters.terms;
            let end = |panel| self.filters.place(panel, terms.clone()).end;
            let mut all = Buffer::take(parts.iter().flatten().map(end).max().unwrap_or(0));
            let shared = SharedMut::new(&mut all);
            cpu.for_ranges(parts.len(), 1, |range| {
                for panel in parts[range].iter().flatten() {
                    // SAFETY: each panel has its own place.
                    let to = unsafe { shared.slice(self.filters.place(panel, terms.clone())) };
                    self.filters.stage(cpu, panel, terms.clone(), to);
                }
            });
            all
        })
    }

    fn form(&self, what: &'static str, tiles: &Tiles, of: usize) -> Form {
        let (wide, lanes) = tiles.extent();
        Form { what, extents: [self.from.channels, self.to.channels, of, wide, lanes, 0] }
    }

    /// All threads share the filters.
    fn by_tiles<A: Minimal<M, N>, const M: usize, const N: usize>(&self, cpu: &Cpu, rows: usize)
    where
        (Input, A): Line<N, N>,
    {
        let (tiles, channels, across) = (Tiles::of(cpu), self.from.channels, self.to.tiles.1);
        let panels = tiles.panels(self.to.channels, 1, 0);
        let (filters, element) = self.filters::<A, M, N>(cpu, (&tiles, &panels));
        let filters = filters.values();
        let step = together(across, TILES, tiles.height()).min(rows.div_ceil(cpu.threads()));
        // As many for each thread, though the last tiles of some are then of fewer rows. The first is a largest one: its
        // thread begins first.
        let blocks = rows.div_ceil(step).next_multiple_of(cpu.threads()).min(rows);
        cpu.for_ranges(blocks, 1, |range| {
            let mut block = Block::new(N * N, step * across, channels, width(&panels));
            for index in range {
                let rows = (index * rows).div_ceil(blocks)..((index + 1) * rows).div_ceil(blocks);
                let count = rows.len() * across;
                block.squares::<A, M, N>(cpu, self, rows.clone());
                for e in 0..N * N {
                    for (i, panel) in panels.iter().enumerate() {
                        let at = |e: usize, panel: &Panel| e * element + channels * panel.columns.start;
                        let right = &filters[at(e, panel)..][..channels * panel.width];
                        let soon = match panels.get(i + 1) {
                            Some(panel) => at(e, panel),
                            None => at((e + 1) % (N * N), &panels[0]),
                        };
                        let soon = Soon { left: None, right: Some(&filters[soon..]) };
                        block.multiply(&tiles, e, 0..count, (right, soon), panel.columns.start, panel.width);
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
        let parts =
            self.to.channels.div_ceil(COLUMNS).max(cpu.threads()).min(tiles.registers(self.to.channels));
        let parts: Vec<_> = (0..parts).map(|part| tiles.panels(self.to.channels, parts, part)).collect();
        let staged = self.staged(cpu, &tiles, &parts);
        let stride = padded(channels);
        let step = (SQUARES / (N * N * stride * across)).clamp(1, rows);
        let few = together(across, COLUMN_TILES, tiles.height()).min(step);
        for start in (0..rows).step_by(step) {
            let all = start..(start + step).min(rows);
            let between = apart(all.len() * across * stride);
            let mut squares = Buffer::take(N * N * between);
            let panel = [squares_panel(channels)];
            let target = Target {
                memory: SharedMut::new(&mut squares),
                element: between,
                panels: &panel,
                first: start,
                tiles: all.len() * across,
            };
            cpu.for_ranges(all.len(), 1, |range| {
                let rows = start + range.start..start + range.end;
                transform::<(Input, A), N, N>(cpu, (&self.from, self.x), rows, &target);
            });
            let squares = Squares { data: &squares, element: between, stride, rows: all, few };
            cpu.for_ranges(parts.len(), 1, |range| {
                for panels in &parts[range] {
                    self.columns::<A, M, N>(cpu, &squares, panels, staged);
                }
            });
        }
    }

    /// The outputs of some panels for all `squares`. Few tiles take some channels at a time, so that their filters stay
    /// in the second-level cache from the transform to the product.
    fn columns<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        squares: &Squares,
        panels: &[Panel],
        staged: Option<&[f32]>,
    ) where
        (Input, A): Line<N, N>,
    {
        let (channels, across) = (self.from.channels, self.to.tiles.1);
        let Squares { rows, few, .. } = squares;
        let columns = Panel::all(panels);
        let padded = padded(width(panels));
        let mut products = Buffer::take(N * N * apart(few * across * padded));
        let quarter = processor::second_level() / size_of::<f32>() / 4;
        let near = (quarter / (N * N * width(panels))).max(1);
        let most = if rows.len() <= *few { near.min(channels) } else { channels };
        let element = apart(most * width(panels));
        let mut filters = Buffer::take(N * N * element);
        for terms in (0..channels).step_by(most).map(|start| start..(start + most).min(channels)) {
            self.transformed::<A, M, N>(cpu, (panels, staged), terms.clone(), (&mut filters, element));
            for first in rows.clone().step_by(*few) {
                let some = first..(first + few).min(rows.end);
                let each = apart(some.len() * across * padded);
                let to = (&mut products[..], each, padded);
                let filters = (&filters[..], element, panels);
                self.products::<N>(cpu, squares, filters, (some.clone(), terms.clone()), to);
                if terms.end == channels {
                    let products = Products { data: &products, element: each, stride: padded, first };
                    outputs::<A, M, N>(cpu, &products, (some, columns.clone()), &self.destination());
                }
            }
        }
    }

    /// Transforms the filters of some panels for some terms, elements `element` apart: staged ones if there are.
    fn transformed<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        (panels, staged): (&[Panel], Option<&[f32]>),
        terms: Range<usize>,
        (to, element): (&mut [f32], usize),
    ) {
        let to = SharedMut::new(to);
        for panel in panels {
            let out = (to, terms.len() * (panel.columns.start - panels[0].columns.start), element);
            match staged {
                Some(staged) => {
                    let staged = &staged[self.filters.place(panel, terms.clone())];
                    self.filters.transform_staged::<A, M, N>(cpu, panel, staged, out);
                }
                None => self.filters.transform::<A, M, N>(cpu, panel, terms.clone(), out),
            }
        }
    }

    /// Adds the products of some terms to what some rows of tiles have.
    fn products<const N: usize>(
        &self,
        cpu: &Cpu,
        squares: &Squares,
        (filters, element, panels): (&[f32], usize, &[Panel]),
        (some, terms): (Range<usize>, Range<usize>),
        (to, each, padded): (&mut [f32], usize, usize),
    ) {
        let (tiles, across) = (Tiles::of(cpu), self.to.tiles.1);
        let Squares { data, element: of_squares, stride, rows, .. } = squares;
        let count = some.len() * across;
        let start = (some.start - rows.start) * across * stride + terms.start;
        let begin = panels[0].columns.start;
        let right =
            |e: usize, panel: &Panel| &filters[e * element + terms.len() * (panel.columns.start - begin)..];
        for e in 0..N * N {
            let square = &data[e * of_squares + start..];
            let left = Rows { data: square, row: *stride, term: 1, extent: (count, terms.len()) };
            // The next element, or the first one of the next terms or tiles.
            let (next, later) = if e + 1 < N * N {
                (e + 1, (e + 1) * of_squares + start)
            } else if terms.end < self.from.channels {
                (0, start + terms.len())
            } else {
                (0, start + count * stride)
            };
            for (index, panel) in panels.iter().enumerate() {
                let column = panel.columns.start - begin;
                let to = &mut to[e * each + column..][..(count - 1) * padded + panel.width];
                let to = to.as_mut_ptr();
                let from = (terms.start > 0).then_some(to.cast_const());
                let sums = Sums { to, stride: padded, from, earlier: &[] };
                let after =
                    panels.get(index + 1).map_or_else(|| right(next, &panels[0]), |panel| right(e, panel));
                let soon = Soon { left: data.get(later..), right: Some(after) };
                // SAFETY: `to` has a row of the panel's width for each tile.
                unsafe { tiles.multiply(left, (right(e, panel), panel.width), sums, soon) };
            }
        }
    }
}

/// The registers' lanes across some panels.
fn width(panels: &[Panel]) -> usize {
    panels.iter().map(|panel| panel.width).sum()
}

/// The transformed filters of all columns.
enum Made<'a> {
    Kept(&'a [f32]),
    Now(Buffer),
}

impl Made<'_> {
    fn values(&self) -> &[f32] {
        match self {
            Made::Kept(values) => values,
            Made::Now(values) => values,
        }
    }
}

/// The squares of some rows of tiles, `few` of which are taken together.
struct Squares<'a> {
    data: &'a [f32],
    element: usize,
    stride: usize,
    rows: Range<usize>,
    few: usize,
}

/// Some tiles that one thread takes through all steps.
struct Block {
    tiles: usize,
    channels: usize,
    stride: usize,
    width: usize,
    squares: Buffer,
    products: Buffer,
}

impl Block {
    fn new(elements: usize, tiles: usize, channels: usize, width: usize) -> Block {
        let stride = padded(channels);
        let squares = Buffer::take(elements * apart(tiles * stride));
        let products = Buffer::take(elements * apart(tiles * padded(width)));
        Block { tiles, channels, stride, width, squares, products }
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
        (right, soon): (&[f32], Soon),
        column: usize,
        width: usize,
    ) {
        let size = apart(self.tiles * self.stride);
        let data = &self.squares[e * size..(e + 1) * size];
        let data = &data[some.start * self.stride..];
        let left = Rows { data, row: self.stride, term: 1, extent: (some.len(), self.channels) };
        let stride = padded(self.width);
        let start = e * apart(self.tiles * stride) + some.start * stride + column;
        let to = &mut self.products[start..][..(some.len() - 1) * stride + width];
        let sums = Sums { to: to.as_mut_ptr(), stride, from: None, earlier: &[] };
        // SAFETY: `to` has a row of the panel's width for each tile.
        unsafe { tiles.multiply(left, (right, width), sums, soon) };
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
