//! The tile of outputs in registers, and the loop over k that computes it.

use super::even;
use super::lanes::{Lanes, prefetch, prefetch_to_write};
use super::sparse::Bits;
use super::values::Values;

/// What one call reads and writes: tiles stacked one below the other, which share the right operand. To call for each
/// would cost a tenth of what a short one takes.
pub(super) struct Tile<'a> {
    /// The left operand, one value a row and term: packed `[tile][k][rows of the tile]`, or anywhere.
    pub(super) left: Left<'a>,
    /// The right operand: value (k, j) at `right[k·right_step + j]`.
    pub(super) right: &'a [f32],
    pub(super) right_step: usize,
    /// The right operand of the tiles to come, if it lies as this one does: it arrives while the sums are computed.
    pub(super) next: Option<&'a [f32]>,
    /// Other addresses whose cache lines arrive meanwhile, as those of the outputs do.
    pub(super) asked: &'a [*const f32],
    /// The number of terms.
    pub(super) terms: usize,
    /// Where the outputs go: row i at `to + i·stride`.
    pub(super) to: *mut f32,
    /// From one row of outputs to the next.
    pub(super) stride: usize,
    /// Whether they go there past the caches where each row of them is whole cache lines. A fence has to follow.
    pub(super) past: bool,
    /// What the sums begin with instead of +0, laid out as the outputs: it may be what lies there.
    pub(super) from: Option<*const f32>,
    /// Sums of earlier leaves, laid out as the outputs, each added on the left of what is there, in this order.
    pub(super) earlier: &'a [*const f32],
    /// What becomes of the sums.
    pub(super) finish: Option<Finish<'a>>,
}

/// `fma(sum, scale, shift)` with constants of the row, plus what lies at `residual`, then relu: the last two if
/// wanted.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// A value a row.
    pub(crate) scale: &'a [f32],
    /// A value a row.
    pub(crate) shift: &'a [f32],
    /// Laid out as the outputs; null for none.
    pub(crate) residual: *const f32,
    pub(crate) relu: bool,
}

/// A term of a left operand that lies anywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// How far it lies from the row's base.
    pub(super) at: usize,
    /// From the row of the right operand that it meets to the one that the next term meets.
    pub(super) right: usize,
}

impl Step {
    /// Of a term that the next one follows in the right operand.
    pub(crate) fn to(at: usize) -> Step {
        Step { at, right: 1 }
    }
}

/// The left operand of a tile.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// `[tile][k][rows of the tile]`
    Packed(&'a [f32]),
    /// Value (i, k) at `data[bases[i] + steps[k].at]`. From the row of the right operand that the first term meets to the
    /// last one's there are `reach` rows.
    Strewn { data: &'a [f32], bases: &'a [usize], steps: &'a [Step], reach: usize },
    /// The same, each step followed by the next, without the terms of a row that have no bit: row 0 is that of `first`.
    Sparse { data: &'a [f32], bases: &'a [usize], steps: &'a [Step], bits: &'a Bits, first: usize },
    /// Value (i, k) at `data[i·row + k·term]`, with `row` or `term` 1; and the left operand to come, if it lies as this
    /// one does. The rows of the right operand follow each other.
    Even { data: &'a [f32], row: usize, term: usize, next: Option<&'a [f32]> },
}

impl<'a> Left<'a> {
    /// The number of terms, of an operand that lies anywhere.
    pub(super) fn terms(&self) -> usize {
        if let Left::Strewn { steps, .. } | Left::Sparse { steps, .. } = self { steps.len() } else { 0 }
    }

    /// An operand that lies anywhere, without the terms that have no bit.
    pub(super) fn sparse(self, bits: &'a Bits) -> Left<'a> {
        match self {
            Left::Strewn { data, bases, steps, reach } => {
                assert!(reach == steps.len().saturating_sub(1), "steps over rows of the right operand");
                Left::Sparse { data, bases, steps, bits, first: 0 }
            }
            other => other,
        }
    }

    /// Without the rows before `first`, whole tiles of them, of so many terms.
    pub(super) fn after_rows(self, first: usize, terms: usize) -> Left<'a> {
        match self {
            Left::Packed(values) => Left::Packed(&values[first * terms..]),
            Left::Strewn { data, bases, steps, reach } => {
                Left::Strewn { data, bases: &bases[first..], steps, reach }
            }
            Left::Sparse { data, bases, steps, bits, first: before } => {
                Left::Sparse { data, bases: &bases[first..], steps, bits, first: before + first }
            }
            Left::Even { data, row, term, next } => {
                let next = next.and_then(|next| next.get(first * row..));
                Left::Even { data: &data[first * row..], row, term, next }
            }
        }
    }
}

/// The same for the loop.
pub(super) struct Raw {
    pub(super) a: *const f32,
    pub(super) bases: *const usize,
    pub(super) steps: *const Step,
    pub(super) row: usize,
    pub(super) term: usize,
    /// From the left operand to the one to come, as `next`.
    pub(super) left_next: isize,
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    /// From the right operand to the one to come, in bytes; 0 where there is none, then what is asked for is there.
    pub(super) next: isize,
    pub(super) asked: *const *const f32,
    pub(super) asked_len: usize,
    /// So many are asked for with each tile.
    pub(super) share: usize,
    pub(super) terms: usize,
    /// Which terms a row has, of a sparse operand: a word for each part.
    pub(super) words: *const u64,
    pub(super) c: *mut f32,
    pub(super) stride: usize,
    pub(super) past: bool,
    /// Null for +0.
    pub(super) from: *const f32,
    pub(super) earlier: *const *const f32,
    pub(super) earlier_len: usize,
    /// Null for none.
    pub(super) scale: *const f32,
    pub(super) shift: *const f32,
    pub(super) residual: *const f32,
    pub(super) relu: bool,
}

impl Raw {
    /// What is asked for with tile `index` of those that are left.
    ///
    /// # Safety
    /// It points to what [`Tile`] says.
    #[inline(always)]
    pub(super) unsafe fn asked(&self, index: usize) -> &[*const f32] {
        // SAFETY: the caller's promise.
        let asked = unsafe { std::slice::from_raw_parts(self.asked, self.asked_len) };
        let some = (index * self.share).min(asked.len())..((index + 1) * self.share).min(asked.len());
        &asked[some]
    }
}

/// Parts of a tile's terms, before each of which it asks for some of the cache lines.
const PARTS: usize = 4;

/// The loop, the same for all.
///
/// # Safety
/// The processor has `V`'s instruction set, and `raw` points to what [`Tile`] says, for `tiles·ROWS` rows from `first`
/// on and `WIDE·COUNT` columns.
#[inline(always)]
pub(super) unsafe fn stack<V: Lanes, L: Values<ROWS>, const ROWS: usize, const WIDE: usize>(
    raw: &Raw,
    first: usize,
    tiles: usize,
) {
    for tile in 0..tiles {
        // SAFETY: the caller's promise.
        unsafe {
            let (first, now) = (first + tile * ROWS, raw.asked(tile));
            let soon = L::soon(raw, tile, WIDE, V::COUNT);
            match now {
                [] => one::<V, L, ROWS, WIDE, false>(raw, first, soon, now),
                _ => one::<V, L, ROWS, WIDE, true>(raw, first, soon, now),
            }
        }
    }
}

/// Repeats the body for every row, unrolled here, since the compiler keeps sums in registers only where it unrolls early.
macro_rules! each_row {
    ($i:ident < $rows:ident, $body:block) => { each_row!(@ $i $rows $body 0 1 2 3 4 5 6 7) };
    (@ $i:ident $rows:ident $body:block $($n:literal)*) => {
        $(if $n < $rows {
            let $i = $n;
            $body
        })*
    };
}

/// It asks for cache lines bit by bit where these lie far: a processor waits that has asked for more than a few dozen.
///
/// # Safety
/// As [`stack`], for `ROWS` rows.
#[inline(always)]
unsafe fn one<V: Lanes, L: Values<ROWS>, const ROWS: usize, const WIDE: usize, const ASKS: bool>(
    raw: &Raw,
    first: usize,
    soon: isize,
    asked: &[*const f32],
) {
    const { assert!(ROWS <= 8, "more rows than `each_row` repeats") };
    // SAFETY: every address stays inside what the caller promised.
    unsafe {
        let mut sums = [[V::splat(0.0); WIDE]; ROWS];
        let c = raw.c.wrapping_add(first * raw.stride);
        let residual = raw.residual.wrapping_add(first * raw.stride);
        let at = |i: usize, j: usize| i * raw.stride + j * V::COUNT;
        if !raw.from.is_null() {
            let from = raw.from.wrapping_add(first * raw.stride);
            each_row!(i < ROWS, {
                for j in 0..WIDE {
                    sums[i][j] = V::load(from.add(at(i, j)));
                }
            });
        }
        let ask = |i: usize| {
            for j in 0..WIDE {
                if raw.from.is_null() && !raw.past {
                    prefetch_to_write(c.wrapping_add(at(i, j)));
                }
                if !raw.residual.is_null() {
                    prefetch(residual.wrapping_add(at(i, j)));
                }
            }
        };
        if !ASKS {
            each_row!(i < ROWS, {
                ask(i);
            });
        }
        let mut left = L::of(raw, first, soon);
        macro_rules! term {
            ($asks:expr) => {
                let b = left.right();
                if $asks {
                    left.ask_right(soon);
                    left.ask();
                }
                let mut columns = [V::splat(0.0); WIDE];
                for j in 0..WIDE {
                    columns[j] = V::load(b.add(j * V::COUNT));
                }
                each_row!(i < ROWS, {
                    let row = V::splat(left.value(i));
                    for j in 0..WIDE {
                        sums[i][j] = row.fma(columns[j], sums[i][j]);
                    }
                });
                left.advance(raw, WIDE * V::COUNT);
            };
        }
        macro_rules! terms {
            ($count:expr) => {
                let mut count = $count;
                // Two a turn: on some processors what counts and steps takes the places of multiply-adds.
                while count >= 2 {
                    term!(true);
                    term!(L::BOTH);
                    count -= 2;
                }
                if count > 0 {
                    term!(true);
                }
            };
        }
        let mut terms = raw.terms;
        if ASKS {
            let (most, share) = (terms.div_ceil(PARTS), asked.len().div_ceil(PARTS));
            let mut asked = asked.chunks(share);
            for part in 0..PARTS {
                even(ROWS, PARTS, part).for_each(ask);
                asked.next().into_iter().flatten().for_each(|line| prefetch(*line));
                let some = most.min(terms);
                terms -= some;
                terms!(some);
            }
        }
        terms!(terms);
        for index in 0..raw.earlier_len {
            let earlier = (*raw.earlier.add(index)).wrapping_add(first * raw.stride);
            each_row!(i < ROWS, {
                for j in 0..WIDE {
                    sums[i][j] = V::load(earlier.add(at(i, j))).add(sums[i][j]);
                }
            });
        }
        if !raw.scale.is_null() {
            each_row!(i < ROWS, {
                let of_row = |constants: *const f32| V::splat(*constants.add(first + i));
                let (scale, shift) = (of_row(raw.scale), of_row(raw.shift));
                for j in 0..WIDE {
                    let mut sum = sums[i][j].fma(scale, shift);
                    if !raw.residual.is_null() {
                        sum = sum.add(V::load(residual.add(at(i, j))));
                    }
                    sums[i][j] = if raw.relu { sum.relu() } else { sum };
                }
            });
        }
        if raw.past {
            each_row!(i < ROWS, {
                for j in 0..WIDE {
                    sums[i][j].store_past(c.add(at(i, j)));
                }
            });
            return;
        }
        each_row!(i < ROWS, {
            for j in 0..WIDE {
                sums[i][j].store(c.add(at(i, j)));
            }
        });
    }
}
