//! The weights of a direct convolution, packed as the left operand of its product.

use super::Tap;
use crate::product::transpose;
use crate::{Cpu, Task};
use std::ops::Range;

/// Tiles whose weights of one tap are packed together.
const TOGETHER: usize = 8;

/// The weights of a group, `w[filter][channel][tap]`.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    /// A filter a row, so many terms (channel, tap).
    Filters { w: &'a [f32], terms: usize },
    /// A channel a row, terms (filter, some of the `taps`).
    Channels { w: &'a [f32], taps: usize },
}

impl Weights<'_> {
    /// The weight of one of `all` rows, a channel with so many taps, and a tap.
    pub(super) fn value(&self, all: usize, row: usize, (channel, taps): (usize, usize), tap: &Tap) -> f32 {
        match *self {
            Weights::Filters { w, terms } => w[row * terms + channel * taps + tap.index],
            Weights::Channels { w, taps } => w[(channel * all + row) * taps + tap.index],
        }
    }

    /// Writes `out[tile][term][rows of the tile]` for some of `all` rows, `height` of them a tile.
    pub(super) fn pack(
        &self,
        cpu: &Cpu,
        taps: &[Tap],
        all: usize,
        (rows, height): (Range<usize>, usize),
        terms: Range<usize>,
        out: &mut [f32],
    ) {
        let tiles = || rows.clone().step_by(height).map(|start| start..(start + height).min(rows.end));
        let at = |tile: &Range<usize>| (tile.start - rows.start) * terms.len();
        match *self {
            Weights::Filters { w, terms: of_filter } => {
                for tile in tiles() {
                    let from = &w[tile.start * of_filter + terms.start..];
                    let out = &mut out[at(&tile)..];
                    transpose(cpu, (tile.len(), terms.len()), (from, of_filter), (out, tile.len()));
                }
            }
            Weights::Channels { w, taps: 1 } => {
                let pack = Singles { w, all, rows, height, filters: terms, out };
                match height {
                    6 => cpu.vectorize(OfHeight::<6>(pack)),
                    8 => cpu.vectorize(OfHeight::<8>(pack)),
                    _ => cpu.vectorize(pack),
                }
            }
            // Filter by filter, so that memory is read in order.
            Weights::Channels { w, taps: of_filter } => {
                for (index, filter) in (terms.start / taps.len()..terms.end / taps.len()).enumerate() {
                    for tile in tiles() {
                        let from = &w[(filter * all + tile.start) * of_filter..][..tile.len() * of_filter];
                        let len = taps.len() * tile.len();
                        let out = &mut out[at(&tile) + index * len..][..len];
                        pack_taps(cpu, taps, of_filter, from, out);
                    }
                }
            }
        }
    }
}

/// Packs the weights `w[filter][row]` of single taps: `out[tile][filter][rows of the tile]`.
struct Singles<'a> {
    w: &'a [f32],
    /// Rows of a filter.
    all: usize,
    rows: Range<usize>,
    /// Rows of a tile, but for the last.
    height: usize,
    filters: Range<usize>,
    out: &'a mut [f32],
}

impl Task for Singles<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Singles { w, all, rows, height, filters, out } = self;
        let terms = filters.len();
        for (tile, out) in rows.clone().step_by(height).zip(out.chunks_mut((height * terms).max(1))) {
            let len = height.min(rows.end - tile);
            for (filter, out) in filters.clone().zip(out.chunks_exact_mut(len)) {
                out.copy_from_slice(&w[filter * all + tile..][..len]);
            }
        }
    }
}

/// The same for tiles of so many rows, a few tiles at a time: memory is read in order, and values come so fast that the
/// places written matter.
struct OfHeight<'a, const HEIGHT: usize>(Singles<'a>);

impl<const HEIGHT: usize> Task for OfHeight<'_, HEIGHT> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Singles { w, all, rows, filters, out, .. } = self.0;
        let (terms, whole) = (filters.len(), rows.len() / HEIGHT);
        let (tiles, rest) = out.split_at_mut(whole * HEIGHT * terms);
        for first in (0..whole).step_by(TOGETHER) {
            let count = TOGETHER.min(whole - first);
            let (out, _) =
                tiles[first * HEIGHT * terms..][..count * HEIGHT * terms].as_chunks_mut::<HEIGHT>();
            for (k, filter) in filters.clone().enumerate() {
                let from = &w[filter * all + rows.start + first * HEIGHT..][..count * HEIGHT];
                for (tile, values) in from.as_chunks::<HEIGHT>().0.iter().enumerate() {
                    out[tile * terms + k] = *values;
                }
            }
        }
        let rows = rows.start + whole * HEIGHT..rows.end;
        Singles { w, all, rows, height: HEIGHT, filters, out: rest }.run();
    }
}

/// The weights `from[row][all taps]` of one filter: `out[tap][row]` for these taps.
fn pack_taps(cpu: &Cpu, taps: &[Tap], all: usize, from: &[f32], out: &mut [f32]) {
    let rows = from.len() / all;
    if taps.len() == all {
        transpose(cpu, (rows, all), (from, all), (out, rows));
    } else {
        for (tap, out) in taps.iter().zip(out.chunks_exact_mut(rows)) {
            for (i, value) in out.iter_mut().enumerate() {
                *value = from[i * all + tap.index];
            }
        }
    }
}
