//! The left operand of a tile as its loop reads it.

use super::lanes::prefetch_far;
use super::tile::Raw;

/// One value of the left operand a row, term by term.
pub(super) trait Values<const ROWS: usize>: Sized {
    /// Of the rows from `first` on.
    unsafe fn of(raw: &Raw, first: usize) -> Self;
    /// The value of row `i` for this term.
    unsafe fn value(&self, i: usize) -> f32;
    /// Asks for some of what lies so far away, where the operand to come lies.
    fn ask(&self, _bytes: isize) {}
    unsafe fn advance(&mut self);
}

pub(super) struct Packed(*const f32);

impl<const ROWS: usize> Values<ROWS> for Packed {
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize) -> Self {
        Packed(raw.a.wrapping_add(first * raw.terms))
    }
    #[inline(always)]
    unsafe fn value(&self, i: usize) -> f32 {
        // SAFETY: the caller of the loop promised ROWS values a term.
        unsafe { *self.0.add(i) }
    }
    #[inline(always)]
    unsafe fn advance(&mut self) {
        self.0 = self.0.wrapping_add(ROWS);
    }
}

pub(super) struct Strewn<const ROWS: usize> {
    rows: [*const f32; ROWS],
    steps: *const usize,
}

impl<const ROWS: usize> Values<ROWS> for Strewn<ROWS> {
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize) -> Self {
        // SAFETY: the caller of the loop promised a base a row.
        let rows = std::array::from_fn(|i| unsafe { raw.a.wrapping_add(*raw.bases.add(first + i)) });
        Strewn { rows, steps: raw.steps }
    }
    #[inline(always)]
    unsafe fn value(&self, i: usize) -> f32 {
        // SAFETY: the caller of the loop promised a step a term, and that base + step is inside.
        unsafe { *self.rows[i].add(*self.steps) }
    }
    #[inline(always)]
    unsafe fn advance(&mut self) {
        self.steps = self.steps.wrapping_add(1);
    }
}

pub(super) struct Even<const ROWS: usize> {
    rows: [*const f32; ROWS],
    at: usize,
    term: usize,
    /// The row that asks, and how far it lies from the first.
    down: usize,
    row: usize,
}

impl<const ROWS: usize> Values<ROWS> for Even<ROWS> {
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize) -> Self {
        let row = |i: usize| raw.a.wrapping_add((first + i) * raw.row);
        Even { rows: std::array::from_fn(row), at: 0, term: raw.term, down: 0, row: raw.row }
    }
    #[inline(always)]
    unsafe fn value(&self, i: usize) -> f32 {
        // SAFETY: the last value was measured where `raw` was made.
        unsafe { *self.rows[i].add(self.at) }
    }
    #[inline(always)]
    fn ask(&self, bytes: isize) {
        prefetch_far(self.rows[0].wrapping_add(self.at + self.down).wrapping_byte_offset(bytes));
    }
    #[inline(always)]
    unsafe fn advance(&mut self) {
        self.at += self.term;
        self.down = if self.down == (ROWS - 1) * self.row { 0 } else { self.down + self.row };
    }
}
