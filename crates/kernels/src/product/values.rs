//! The left operand of a tile as its loop reads it.

use super::lanes::prefetch_far;
use super::tile::{Raw, Step};

/// One value of the left operand a row, term by term.
pub(super) trait Values<const ROWS: usize>: Sized {
    /// Whether the loop takes two terms a turn: on some processors what counts and steps takes the places of
    /// multiply-adds.
    /// Not where the addresses of two terms find no room in registers.
    const TWO: bool;
    /// Of the rows from `first` on.
    unsafe fn of(raw: &Raw, first: usize) -> Self;
    /// The value of row `i` for this term.
    unsafe fn value(&self, i: usize) -> f32;
    /// Asks for some of what lies so far away, where the operand to come lies.
    fn ask(&self, _bytes: isize) {}
    /// Where the row of the right operand lies that this term meets.
    fn right(&self) -> *const f32;
    unsafe fn advance(&mut self, raw: &Raw);
}

pub(super) struct Packed {
    at: *const f32,
    right: *const f32,
}

impl<const ROWS: usize> Values<ROWS> for Packed {
    const TWO: bool = true;
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize) -> Self {
        Packed { at: raw.a.wrapping_add(first * raw.terms), right: raw.b }
    }
    #[inline(always)]
    unsafe fn value(&self, i: usize) -> f32 {
        // SAFETY: the caller of the loop promised ROWS values a term.
        unsafe { *self.at.add(i) }
    }
    #[inline(always)]
    fn right(&self) -> *const f32 {
        self.right
    }
    #[inline(always)]
    unsafe fn advance(&mut self, raw: &Raw) {
        self.at = self.at.wrapping_add(ROWS);
        self.right = self.right.wrapping_add(raw.b_step);
    }
}

/// Each term meets the row of the right operand behind the last one's if there are no `GAPS`, else what its step says.
pub(super) struct Strewn<const ROWS: usize, const GAPS: bool> {
    rows: [*const f32; ROWS],
    step: *const Step,
    right: *const f32,
}

impl<const ROWS: usize, const GAPS: bool> Values<ROWS> for Strewn<ROWS, GAPS> {
    const TWO: bool = true;
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize) -> Self {
        // SAFETY: the caller of the loop promised a base a row.
        let rows = std::array::from_fn(|i| unsafe { raw.a.wrapping_add(*raw.bases.add(first + i)) });
        Strewn { rows, step: raw.steps, right: raw.b }
    }
    #[inline(always)]
    unsafe fn value(&self, i: usize) -> f32 {
        // SAFETY: the caller of the loop promised a step a term, and that base + step is inside.
        unsafe { *self.rows[i].add((*self.step).at) }
    }
    #[inline(always)]
    fn right(&self) -> *const f32 {
        self.right
    }
    #[inline(always)]
    unsafe fn advance(&mut self, raw: &Raw) {
        // SAFETY: as above.
        let rows = if GAPS { unsafe { (*self.step).right } } else { 1 };
        self.right = self.right.wrapping_add(rows * raw.b_step);
        self.step = self.step.wrapping_add(1);
    }
}

pub(super) struct Even<const ROWS: usize> {
    rows: [*const f32; ROWS],
    at: usize,
    term: usize,
    /// The row that asks, and how far it lies from the first.
    down: usize,
    row: usize,
    right: *const f32,
}

impl<const ROWS: usize> Values<ROWS> for Even<ROWS> {
    const TWO: bool = false;
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize) -> Self {
        let row = |i: usize| raw.a.wrapping_add((first + i) * raw.row);
        Even { rows: std::array::from_fn(row), at: 0, term: raw.term, down: 0, row: raw.row, right: raw.b }
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
    fn right(&self) -> *const f32 {
        self.right
    }
    #[inline(always)]
    unsafe fn advance(&mut self, raw: &Raw) {
        self.right = self.right.wrapping_add(raw.b_step);
        self.at += self.term;
        self.down = if self.down == (ROWS - 1) * self.row { 0 } else { self.down + self.row };
    }
}
