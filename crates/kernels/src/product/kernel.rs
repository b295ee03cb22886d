//! The loops of every instruction set: a table of tile shapes, and the choice among them.

use super::LINE;
use super::lanes::{Lanes, Plain};
use super::sparse::{self, Beside};
use super::tile::{Left, Raw, Tile, stack};
use super::values::{Along, Down, Packed, Strewn};
use crate::{Cpu, Isa, perturb};
use std::ops::Range;

/// Computes so many tiles of as many rows as the loop is for, from a row on; of a sparse operand so many rows.
type Loop = unsafe fn(&Raw, first: usize, tiles: usize);

/// Finds the bits of rows of values, as [`sparse::across`].
type Find = unsafe fn(&[f32], &[usize], &[Vec<Beside>], &mut [u64]);

/// The loops of an instruction set, by rows and width in registers; those of sparse operands by width.
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
    /// Of strewn operands some of whose terms meet rows of the right operand that are not neighbours.
    gaps: &'static [Loop],
    along: &'static [Loop],
    down: &'static [Loop],
    sparse: &'static [Loop],
    find: Find,
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

    /// The same for sparse operands alone.
    pub(super) fn of_sparse(self) -> Kernel {
        Kernel { wide: perturb::tile(1, self.sparse.len()).1, ..self }
    }

    /// Finds the bits of neighbouring terms, as [`sparse::across`].
    pub(super) fn find(&self, data: &[f32], bases: &[usize], runs: &[Vec<Beside>], words: &mut [u64]) {
        // SAFETY: a `Cpu` with this `Isa` exists only where the processor has it.
        unsafe { (self.find)(data, bases, runs, words) }
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
    /// The rows of the output, and those of `from`, of `earlier` and of a residual, can be written and read for `width`
    /// values each, and no one else touches them meanwhile. Every base and step of a strewn operand lead inside its data.
    #[inline]
    pub(super) unsafe fn run(&self, rows: usize, width: usize, tile: &Tile) {
        let wide = width / self.lanes;
        assert!((1..=self.wide).contains(&wide) && wide * self.lanes == width, "no such tile");
        let (mut bases, mut steps, mut words) = ([].as_slice(), [].as_slice(), [].as_slice());
        let mut apart = (0, 0, 0);
        let mut last = tile.terms.saturating_sub(1);
        let (a, loops) = match tile.left {
            Left::Packed(a) => {
                assert!(a.len() >= tile.terms * rows, "a short left operand");
                (a, self.packed)
            }
            Left::Strewn { data, bases: of_rows, steps: of_terms, reach } => {
                assert!(of_rows.len() >= rows && of_terms.len() == tile.terms, "another left operand");
                (bases, steps, last) = (of_rows, of_terms, reach);
                // Each step is one at least.
                (data, if reach == tile.terms.saturating_sub(1) { self.strewn } else { self.gaps })
            }
            Left::Sparse { data, bases: of_rows, steps: of_terms, bits, first } => {
                assert!(of_rows.len() >= rows && of_terms.len() == tile.terms, "another left operand");
                (bases, steps, words) = (of_rows, of_terms, bits.words(first, rows, tile.terms));
                (data, self.sparse)
            }
            Left::Even { data, row, term, next } => {
                let end = rows.saturating_sub(1) * row + tile.terms.saturating_sub(1) * term;
                assert!(end < data.len() || tile.terms == 0, "a short left operand");
                assert!(row == 1 || term == 1, "neither rows nor terms lie side by side");
                assert!(tile.right_step == width, "a right operand with gaps");
                apart = (row, term, distance(data, next));
                (data, if term == 1 { self.along } else { self.down })
            }
        };
        let last = last * tile.right_step + width;
        assert!(tile.terms == 0 || tile.right.len() >= last, "a short right operand");
        let lines = tile.to.align_offset(4 * LINE) == 0 && (tile.stride | width).is_multiple_of(LINE);
        let none = (std::ptr::null(), std::ptr::null(), std::ptr::null(), false);
        let (scale, shift, residual, relu) = tile.finish.map_or(none, |finish| {
            assert!(finish.scale.len() >= rows && finish.shift.len() >= rows, "too few constants");
            (finish.scale.as_ptr(), finish.shift.as_ptr(), finish.residual, finish.relu)
        });
        let (tiles, rest) = (rows / self.rows, rows % self.rows);
        let sparse = matches!(tile.left, Left::Sparse { .. });
        assert!(wide <= if sparse { self.sparse.len() } else { self.widest }, "no such tile");
        assert!(!sparse || tile.right_step == width && tile.finish.is_none(), "no such sparse product");
        let share = tile.asked.len().div_ceil(if sparse { rows.max(1) } else { tiles + rest.min(1) });
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
            words: words.as_ptr(),
            c: tile.to,
            stride: tile.stride,
            past: tile.past && lines,
            from: tile.from.unwrap_or(std::ptr::null()),
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
            if sparse {
                return loops[wide - 1](&raw, 0, rows);
            }
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

/// The loops of one instruction set: functions for every number of rows and registers, and their table.
macro_rules! loops {
    ($name:ident, $(#[$feature:meta])? $register:ty, [$($rows:literal)*] x $wide:tt, sparse $row:tt) => {
        $(#[$feature])?
        unsafe fn packed<const ROWS: usize, const WIDE: usize>(raw: &Raw, first: usize, tiles: usize) {
            // SAFETY: the caller's promise, and this function has the instruction set.
            unsafe { stack::<$register, Packed, ROWS, WIDE>(raw, first, tiles) }
        }
        $(#[$feature])?
        unsafe fn strewn<const ROWS: usize, const WIDE: usize>(raw: &Raw, first: usize, tiles: usize) {
            // SAFETY: as above.
            unsafe { stack::<$register, Strewn<ROWS, false>, ROWS, WIDE>(raw, first, tiles) }
        }
        $(#[$feature])?
        unsafe fn gaps<const ROWS: usize, const WIDE: usize>(raw: &Raw, first: usize, tiles: usize) {
            // SAFETY: as above.
            unsafe { stack::<$register, Strewn<ROWS, true>, ROWS, WIDE>(raw, first, tiles) }
        }
        $(#[$feature])?
        unsafe fn along<const ROWS: usize, const WIDE: usize>(raw: &Raw, first: usize, tiles: usize) {
            // SAFETY: as above.
            unsafe { stack::<$register, Along<ROWS>, ROWS, WIDE>(raw, first, tiles) }
        }
        $(#[$feature])?
        unsafe fn down<const ROWS: usize, const WIDE: usize>(raw: &Raw, first: usize, tiles: usize) {
            // SAFETY: as above.
            unsafe { stack::<$register, Down, ROWS, WIDE>(raw, first, tiles) }
        }
        $(#[$feature])?
        unsafe fn sparse<const WIDE: usize>(raw: &Raw, first: usize, rows: usize) {
            // SAFETY: as above.
            unsafe { sparse::rows::<$register, WIDE>(raw, first, rows) }
        }
        $(#[$feature])?
        unsafe fn find(data: &[f32], bases: &[usize], runs: &[Vec<Beside>], words: &mut [u64]) {
            // SAFETY: as above.
            unsafe { sparse::across::<$register>(data, bases, runs, words) }
        }
        const WIDEST: usize = $wide.len();
        const PACKED: &[[Loop; WIDEST]] = &[$(loops!(@row packed $rows $wide)),*];
        const STREWN: &[[Loop; WIDEST]] = &[$(loops!(@row strewn $rows $wide)),*];
        const GAPS: &[[Loop; WIDEST]] = &[$(loops!(@row gaps $rows $wide)),*];
        const ALONG: &[[Loop; WIDEST]] = &[$(loops!(@row along $rows $wide)),*];
        const DOWN: &[[Loop; WIDEST]] = &[$(loops!(@row down $rows $wide)),*];
        pub(super) const $name: Kernel = Kernel {
            rows: PACKED.len(),
            wide: WIDEST,
            lanes: <$register as Lanes>::COUNT,
            widest: WIDEST,
            packed: PACKED.as_flattened(),
            strewn: STREWN.as_flattened(),
            gaps: GAPS.as_flattened(),
            along: ALONG.as_flattened(),
            down: DOWN.as_flattened(),
            sparse: &loops!(@wide sparse $row),
            find,
        };
    };
    (@wide $loop:ident [$($wide:literal),*]) => { [$($loop::<$wide>),*] };
    (@row $loop:ident $rows:literal [$($wide:literal),*]) => { [$($loop::<$rows, $wide>),*] };
}

mod plain {
    use super::{Along, Beside, Down, Kernel, Lanes, Loop, Packed, Plain, Raw, Strewn, sparse, stack};
    loops!(PLAIN, Plain, [1 2 3 4] x [1], sparse [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Along, Beside, Down, Kernel, Lanes, Loop, Packed, Raw, Strewn, sparse, stack};
    use std::arch::x86_64::__m256;
    loops!(
        AVX2,
        #[target_feature(enable = "avx2,fma")]
        __m256,
        [1 2 3 4 5 6] x [1, 2],
        sparse [1, 2, 3, 4, 5, 6, 7, 8]
    );
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Along, Beside, Down, Kernel, Lanes, Loop, Packed, Raw, Strewn, sparse, stack};
    use std::arch::x86_64::__m512;
    loops!(
        AVX512,
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        __m512,
        [1 2 3 4 5 6] x [1, 2, 3, 4],
        sparse [1, 2, 3, 4, 5, 6, 7, 8]
    );
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{Along, Beside, Down, Kernel, Lanes, Loop, Packed, Raw, Strewn, sparse, stack};
    use std::arch::aarch64::float32x4_t;
    loops!(
        NEON,
        #[target_feature(enable = "neon")]
        float32x4_t,
        [1 2 3 4 5 6 7 8] x [1, 2, 3],
        sparse [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    );
}
