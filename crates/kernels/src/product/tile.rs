//! The tile of outputs in registers, and the loop over k that computes it.

use super::even;
use super::lanes::{Lanes, Plain, prefetch, prefetch_far, prefetch_to_write};
use super::values::{Even, Packed, Strewn, Values};
use crate::{Cpu, Isa, perturb};
use std::ops::Range;

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
    /// Whether the sums begin with what lies at `to` instead of +0.
    pub(super) resume: bool,
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
    /// Value (i, k) at `data[i·row + k·term]`; and the left operand to come, if it lies as this one does.
    Even { data: &'a [f32], row: usize, term: usize, next: Option<&'a [f32]> },
}

impl<'a> Left<'a> {
    /// The number of terms, of an operand that lies anywhere.
    pub(super) fn terms(&self) -> usize {
        if let Left::Strewn { steps, .. } = self { steps.len() } else { 0 }
    }

    /// Without the rows before `first`, whole tiles of them, of so many terms.
    pub(super) fn after_rows(self, first: usize, terms: usize) -> Left<'a> {
        match self {
            Left::Packed(values) => Left::Packed(&values[first * terms..]),
            Left::Strewn { data, bases, steps, reach } => {
                Left::Strewn { data, bases: &bases[first..], steps, reach }
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
    left_next: isize,
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    /// From the right operand to the one to come, in bytes; 0 where there is none, to ask for what is there.
    next: isize,
    asked: *const *const f32,
    asked_len: usize,
    /// So many are asked for with each tile.
    share: usize,
    pub(super) terms: usize,
    c: *mut f32,
    stride: usize,
    resume: bool,
    earlier: *const *const f32,
    earlier_len: usize,
    /// Null for none.
    scale: *const f32,
    shift: *const f32,
    residual: *const f32,
    relu: bool,
}

/// Computes so many tiles of as many rows as the loop is for, from a row on.
type Loop = unsafe fn(&Raw, first: usize, tiles: usize);

/// The loops of an instruction set, by rows and width in registers.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// Rows of a tile at most.
    pub(super) rows: usize,
    /// Registers across a tile at most.
    pub(super) wide: usize,
    /// Lanes of a register.
    pub(super) lanes: usize,
    /// As many as there are loops for.
    widest: usize,
    packed: &'static [Loop],
    strewn: &'static [Loop],
    even: &'static [Loop],
}

impl Kernel {
    /// The tiles of this processor: as many sums as there are registers, less a row of b and one value of a.
    pub(super) fn of(cpu: &Cpu) -> Kernel {
        let kernel = match cpu.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::AVX512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::AVX2,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::NEON,
            _ => plain::PLAIN,
        };
        let (rows, wide) = perturb::tile(kernel.rows, kernel.wide);
        Kernel { rows, wide, ..kernel }
    }

    /// The same with tiles of fewer rows.
    pub(super) fn of_height(self, rows: usize) -> Kernel {
        Kernel { rows: rows.min(self.rows), ..self }
    }

    /// The rows of some tiles, of `all` rows in tiles of [`Kernel::rows`], the last of fewer.
    pub(super) fn rows_of(&self, tiles: Range<usize>, all: usize) -> Range<usize> {
        tiles.start * self.rows..(tiles.end * self.rows).min(all)
    }

    /// Columns of a tile at most.
    pub(super) fn width(&self) -> usize {
        self.wide * self.lanes
    }

    /// Computes `rows` rows and `width` columns, a multiple of the lanes: tiles of [`Kernel::rows`], and one of what is
    /// left.
    ///
    /// # Safety
    /// The rows of the output, and those of `earlier` and of a residual, can be written and read for `width` values
    /// each, and no one else touches them meanwhile. Every base and step of a strewn operand lead inside its data.
    #[inline]
    pub(super) unsafe fn run(&self, rows: usize, width: usize, tile: &Tile) {
        let wide = width / self.lanes;
        assert!((1..=self.wide).contains(&wide) && wide * self.lanes == width, "no such tile");
        let (mut bases, mut steps, mut apart) = ([].as_slice(), [].as_slice(), (0, 0, 0));
        let mut last = tile.terms.saturating_sub(1);
        let (a, loops) = match tile.left {
            Left::Packed(a) => {
                assert!(a.len() >= tile.terms * rows, "a short left operand");
                (a, self.packed)
            }
            Left::Strewn { data, bases: of_rows, steps: of_terms, reach } => {
                assert!(of_rows.len() >= rows && of_terms.len() == tile.terms, "another left operand");
                (bases, steps, last) = (of_rows, of_terms, reach);
                (data, self.strewn)
            }
            Left::Even { data, row, term, next } => {
                let end = rows.saturating_sub(1) * row + tile.terms.saturating_sub(1) * term;
                assert!(end < data.len() || tile.terms == 0, "a short left operand");
                apart = (row, term, distance(data, next));
                (data, self.even)
            }
        };
        let last = last * tile.right_step + width;
        assert!(tile.terms == 0 || tile.right.len() >= last, "a short right operand");
        let none = (std::ptr::null(), std::ptr::null(), std::ptr::null(), false);
        let (scale, shift, residual, relu) = tile.finish.map_or(none, |finish| {
            assert!(finish.scale.len() >= rows && finish.shift.len() >= rows, "too few constants");
            (finish.scale.as_ptr(), finish.shift.as_ptr(), finish.residual, finish.relu)
        });
        let (tiles, rest) = (rows / self.rows, rows % self.rows);
        let share = tile.asked.len().div_ceil(tiles + rest.min(1));
        let mut raw = Raw {
            a: a.as_ptr(),
            bases: bases.as_ptr(),
            steps: steps.as_ptr(),
            row: apart.0,
            term: apart.1,
            left_next: apart.2,
            b: tile.right.as_ptr(),
            b_step: tile.right_step,
            next: distance(tile.right, tile.next),
            asked: tile.asked.as_ptr(),
            asked_len: tile.asked.len(),
            share,
            terms: tile.terms,
            c: tile.to,
            stride: tile.stride,
            resume: tile.resume,
            earlier: tile.earlier.as_ptr(),
            earlier_len: tile.earlier.len(),
            scale,
            shift,
            residual,
            relu,
        };
        let of_rows = |rows: usize| loops[(rows - 1) * self.widest + wide - 1];
        // SAFETY: a `Cpu` with this `Isa` exists only where the processor has it; packed operands were measured
        // above; strewn ones and the outputs are the caller's promise.
        unsafe {
            if tiles > 0 {
                of_rows(self.rows)(&raw, 0, tiles);
            }
            if rest > 0 {
                let asked = &tile.asked[(tiles * share).min(tile.asked.len())..];
                (raw.asked, raw.asked_len) = (asked.as_ptr(), asked.len());
                of_rows(rest)(&raw, rows - rest, 1);
            }
        }
    }
}

/// From some values to those to come, in bytes; 0 where there are none.
fn distance(from: &[f32], to: Option<&[f32]>) -> isize {
    to.map_or(0, |to| (to.as_ptr() as isize).wrapping_sub(from.as_ptr() as isize))
}

/// Parts of a tile's terms, before each of which it asks for some of the cache lines.
const PARTS: usize = 4;

/// The loop, the same for all.
///
/// # Safety
/// The processor has `V`'s instruction set, and `raw` points to what [`Tile`] says, for `tiles·ROWS` rows from `first`
/// on and `WIDE·COUNT` columns.
#[inline(always)]
unsafe fn stack<V: Lanes, L: Values<ROWS>, const ROWS: usize, const WIDE: usize>(
    raw: &Raw,
    first: usize,
    tiles: usize,
) {
    // SAFETY: the caller's promise.
    let mut asked = unsafe { std::slice::from_raw_parts(raw.asked, raw.asked_len) };
    for tile in 0..tiles {
        let (now, later) = asked.split_at(raw.share.min(asked.len()));
        asked = later;
        // SAFETY: the caller's promise.
        unsafe {
            let first = first + tile * ROWS;
            match now {
                [] => one::<V, L, ROWS, WIDE, false>(raw, first, tile % WIDE, now),
                _ => one::<V, L, ROWS, WIDE, true>(raw, first, tile % WIDE, now),
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
/// As [`stack`], for `ROWS` rows. Of the right operand to come it asks for register `turn`.
#[inline(always)]
unsafe fn one<V: Lanes, L: Values<ROWS>, const ROWS: usize, const WIDE: usize, const ASKS: bool>(
    raw: &Raw,
    first: usize,
    turn: usize,
    asked: &[*const f32],
) {
    const { assert!(ROWS <= 8, "more rows than `each_row` repeats") };
    // SAFETY: every address stays inside what the caller promised.
    unsafe {
        let mut sums = [[V::splat(0.0); WIDE]; ROWS];
        let c = raw.c.wrapping_add(first * raw.stride);
        let residual = raw.residual.wrapping_add(first * raw.stride);
        let at = |i: usize, j: usize| i * raw.stride + j * V::COUNT;
        if raw.resume {
            each_row!(i < ROWS, {
                for j in 0..WIDE {
                    sums[i][j] = V::load(c.add(at(i, j)));
                }
            });
        }
        let ask = |i: usize| {
            for j in 0..WIDE {
                if !raw.resume {
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
        let mut left = L::of(raw, first);
        let next = raw.next.wrapping_add((turn * size_of::<V>()) as isize);
        macro_rules! term {
            () => {
                let b = left.right();
                prefetch_far(b.wrapping_byte_offset(next));
                left.ask(raw.left_next);
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
                left.advance(raw);
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
                for _ in 0..some {
                    term!();
                }
            }
        }
        for _ in 0..terms {
            term!();
        }
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
        each_row!(i < ROWS, {
            for j in 0..WIDE {
                sums[i][j].store(c.add(at(i, j)));
            }
        });
    }
}

/// The loops of one instruction set: functions for every number of rows and registers, and their table.
macro_rules! loops {
    ($name:ident, $(#[$feature:meta])? $register:ty, [$($rows:literal)*] x $wide:tt) => {
        $(#[$feature])?
        unsafe fn packed<const ROWS: usize, const WIDE: usize>(raw: &Raw, first: usize, tiles: usize) {
            // SAFETY: the caller's promise, and this function has the instruction set.
            unsafe { stack::<$register, Packed, ROWS, WIDE>(raw, first, tiles) }
        }
        $(#[$feature])?
        unsafe fn strewn<const ROWS: usize, const WIDE: usize>(raw: &Raw, first: usize, tiles: usize) {
            // SAFETY: as above.
            unsafe { stack::<$register, Strewn<ROWS>, ROWS, WIDE>(raw, first, tiles) }
        }
        $(#[$feature])?
        unsafe fn even<const ROWS: usize, const WIDE: usize>(raw: &Raw, first: usize, tiles: usize) {
            // SAFETY: as above.
            unsafe { stack::<$register, Even<ROWS>, ROWS, WIDE>(raw, first, tiles) }
        }
        const WIDEST: usize = $wide.len();
        const PACKED: &[[Loop; WIDEST]] = &[$(loops!(@row packed $rows $wide)),*];
        const STREWN: &[[Loop; WIDEST]] = &[$(loops!(@row strewn $rows $wide)),*];
        const EVEN: &[[Loop; WIDEST]] = &[$(loops!(@row even $rows $wide)),*];
        pub(super) const $name: Kernel = Kernel {
            rows: PACKED.len(),
            wide: WIDEST,
            lanes: <$register as Lanes>::COUNT,
            widest: WIDEST,
            packed: PACKED.as_flattened(),
            strewn: STREWN.as_flattened(),
            even: EVEN.as_flattened(),
        };
    };
    (@row $loop:ident $rows:literal [$($wide:literal),*]) => { [$($loop::<$rows, $wide>),*] };
}

mod plain {
    use super::{Even, Kernel, Lanes, Loop, Packed, Plain, Raw, Strewn, stack};
    loops!(PLAIN, Plain, [1 2 3 4] x [1]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Even, Kernel, Lanes, Loop, Packed, Raw, Strewn, stack};
    use std::arch::x86_64::__m256;
    loops!(AVX2, #[target_feature(enable = "avx2,fma")] __m256, [1 2 3 4 5 6] x [1, 2]);
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Even, Kernel, Lanes, Loop, Packed, Raw, Strewn, stack};
    use std::arch::x86_64::__m512;
    loops!(
        AVX512,
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        __m512,
        [1 2 3 4 5 6 7 8] x [1, 2, 3]
    );
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{Even, Kernel, Lanes, Loop, Packed, Raw, Strewn, stack};
    use std::arch::aarch64::float32x4_t;
    loops!(NEON, #[target_feature(enable = "neon")] float32x4_t, [1 2 3 4 5 6 7 8] x [1, 2, 3]);
}
