//! The left operand of a tile as its loop reads it.

use super::LINE;
use super::lanes::prefetch_far;
use super::tile::{Raw, Step};

/// One value of the left operand a row, term by term.
pub(super) trait Values<const ROWS: usize>: Sized {
    /// Whether both terms of a turn ask for what comes next, or one of them: where few tiles share the right operand,
    /// one asks for too little of it.
    const BOTH: bool;
    /// Of the rows from `first` on. Of the right operand to come it asks for what lies `soon` bytes away.
    unsafe fn of(raw: &Raw, first: usize, soon: isize) -> Self;
    /// How far that is for the `index`-th tile of a stack, `wide` registers of so many lanes across: a tile asks for one
    /// register of some terms, those of one of two where one of two terms asks.
    #[inline(always)]
    fn soon(raw: &Raw, index: usize, wide: usize, lanes: usize) -> isize {
        let term = if Self::BOTH { 0 } else { index / wide % 2 };
        raw.next.wrapping_add(bytes(index % wide * lanes + term * raw.b_step))
    }
    /// The value of row `i` for this term.
    unsafe fn value(&self, i: usize) -> f32;
    /// Asks for some of the operand to come.
    fn ask(&mut self) {}
    /// Asks for some of the right operand to come.
    #[inline(always)]
    fn ask_right(&mut self, soon: isize) {
        prefetch_far(self.right().wrapping_byte_offset(soon));
    }
    /// Where the row of the right operand lies that this term meets.
    fn right(&self) -> *const f32;
    /// To the next term; the right operand has `across` columns.
    unsafe fn advance(&mut self, raw: &Raw, across: usize);
}

/// So many values in bytes.
fn bytes(values: usize) -> isize {
    (values * size_of::<f32>()) as isize
}

/// Tiles ask for one stretch after another of the right operand to come, line by line: a processor fetches the lines that
/// follow by itself then, and more of them are on their way. It takes two more registers than to ask for what lies behind
/// the row at hand.
pub(super) struct Packed {
    at: *const f32,
    right: *const f32,
    soon: *const f32,
    by: usize,
}

impl<const ROWS: usize> Values<ROWS> for Packed {
    const BOTH: bool = false;
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize, soon: isize) -> Self {
        let by = if raw.next == 0 { 0 } else { LINE };
        let soon = raw.b.wrapping_byte_offset(soon);
        Packed { at: raw.a.wrapping_add(first * raw.terms), right: raw.b, soon, by }
    }
    #[inline(always)]
    fn soon(raw: &Raw, index: usize, wide: usize, lanes: usize) -> isize {
        let (asks, lines) = (raw.terms.div_ceil(2), (raw.terms * wide * lanes).div_ceil(LINE).max(1));
        raw.next.wrapping_add(if raw.next == 0 { 0 } else { bytes(index * asks % lines * LINE) })
    }
    #[inline(always)]
    fn ask_right(&mut self, _: isize) {
        prefetch_far(self.soon);
        self.soon = self.soon.wrapping_add(self.by);
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
    unsafe fn advance(&mut self, raw: &Raw, _: usize) {
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
    const BOTH: bool = false;
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize, _: isize) -> Self {
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
    unsafe fn advance(&mut self, raw: &Raw, _: usize) {
        // SAFETY: as above.
        let rows = if GAPS { unsafe { (*self.step).right } } else { 1 };
        self.right = self.right.wrapping_add(rows * raw.b_step);
        self.step = self.step.wrapping_add(1);
    }
}

/// The terms of a row lie side by side, and so do the rows of the right operand.
pub(super) struct Along<const ROWS: usize> {
    rows: [*const f32; ROWS],
    at: usize,
    /// Goes through the rows to come from end to end, half a cache line a term: little lies between them, unless only
    /// some of their terms are taken.
    soon: *const f32,
    right: *const f32,
}

impl<const ROWS: usize> Values<ROWS> for Along<ROWS> {
    const BOTH: bool = true;
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize, _: isize) -> Self {
        let row = |i: usize| raw.a.wrapping_add((first + i) * raw.row);
        let soon = row(0).wrapping_byte_offset(raw.left_next);
        Along { rows: std::array::from_fn(row), at: 0, soon, right: raw.b }
    }
    #[inline(always)]
    unsafe fn value(&self, i: usize) -> f32 {
        // SAFETY: the last value was measured where `raw` was made.
        unsafe { *self.rows[i].add(self.at) }
    }
    #[inline(always)]
    fn ask(&mut self) {
        prefetch_far(self.soon);
        self.soon = self.soon.wrapping_add(8);
    }
    #[inline(always)]
    fn right(&self) -> *const f32 {
        self.right
    }
    #[inline(always)]
    unsafe fn advance(&mut self, _: &Raw, across: usize) {
        self.right = self.right.wrapping_add(across);
        self.at += 1;
    }
}

/// The rows of a term lie side by side, and so do those of the right operand.
pub(super) struct Down {
    at: *const f32,
    /// From there to what is asked for, in bytes.
    soon: isize,
    right: *const f32,
}

impl<const ROWS: usize> Values<ROWS> for Down {
    const BOTH: bool = true;
    #[inline(always)]
    unsafe fn of(raw: &Raw, first: usize, _: isize) -> Self {
        Down { at: raw.a.wrapping_add(first), soon: raw.left_next, right: raw.b }
    }
    #[inline(always)]
    unsafe fn value(&self, i: usize) -> f32 {
        // SAFETY: the last value was measured where `raw` was made.
        unsafe { *self.at.add(i) }
    }
    #[inline(always)]
    fn ask(&mut self) {
        prefetch_far(self.at.wrapping_byte_offset(self.soon));
    }
    #[inline(always)]
    fn right(&self) -> *const f32 {
        self.right
    }
    #[inline(always)]
    unsafe fn advance(&mut self, raw: &Raw, across: usize) {
        self.right = self.right.wrapping_add(across);
        self.at = self.at.wrapping_add(raw.term);
    }
}
