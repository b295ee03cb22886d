//! Pooling of images: the greatest or the mean value of windows, `x [n, c, h, w] -> y [n, c, oh, ow]`.
//!
//! The window of output (i, j) has the taps (p, q) at row `i·stride + p·dilation - padding`, and so for
//! columns. Taps outside the image are no candidates for the greatest value and add nothing to a mean.
//! Definitions: [`mod@reference`].

mod adaptive;
mod average;
mod max;
pub mod reference;
mod spread;

pub use adaptive::{adaptive_average, adaptive_average_backward, window};
pub use average::{average, average_backward};
pub(crate) use max::Windows;
pub use max::max;
pub(crate) use spread::Spread;
pub use spread::max_backward;

use crate::memory::size;
use std::ops::Range;

/// The output values a thread takes at least.
const GRAIN: usize = 8192;

/// The geometry of windows; pairs are (rows, columns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Images times channels.
    pub planes: usize,
    /// Rows and columns of an input plane.
    pub input: [usize; 2],
    /// Rows and columns of an output plane.
    pub output: [usize; 2],
    /// Taps of a window, at least 1.
    pub kernel: [usize; 2],
    /// From one window to the next, at least 1.
    pub stride: [usize; 2],
    /// Where the first window begins before the image.
    pub padding: [usize; 2],
    /// From one tap to the next, at least 1; means have 1.
    pub dilation: [usize; 2],
}

impl Pool {
    /// Along one axis (0 rows, 1 columns) where tap `tap` of output `at` lies, `None` outside the image.
    #[inline(always)]
    pub fn position(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let padded = at * self.stride[axis] + tap * self.dilation[axis];
        padded.checked_sub(self.padding[axis]).filter(|position| *position < self.input[axis])
    }

    /// The outputs along an axis whose tap `tap` lies inside the image.
    #[inline(always)]
    fn inside(&self, axis: usize, tap: usize) -> Range<usize> {
        let (stride, before) = (self.stride[axis], tap * self.dilation[axis]);
        let first = self.padding[axis].saturating_sub(before).div_ceil(stride);
        let end = (self.input[axis] + self.padding[axis]).saturating_sub(before).div_ceil(stride);
        let end = end.min(self.output[axis]);
        first.min(end)..end
    }

    /// The number of taps of output `at` along an axis that a mean divides by: those inside the image, or with
    /// `include_padding` inside the image and its padding on both sides.
    pub fn taps(&self, axis: usize, at: usize, include_padding: bool) -> usize {
        let (size, padding) = (self.input[axis], self.padding[axis]);
        let start = at * self.stride[axis];
        let end = (start + self.kernel[axis]).min(size + 2 * padding);
        if include_padding {
            end.saturating_sub(start)
        } else {
            end.min(size + padding).saturating_sub(start.max(padding))
        }
    }

    pub(crate) fn check(&self, input: usize, output: usize) {
        let of_planes = |[h, w]: [usize; 2]| size(&[self.planes, h, w]);
        assert_eq!(Some(input), of_planes(self.input), "the input is not {self:?}");
        assert_eq!(Some(output), of_planes(self.output), "the output is not {self:?}");
    }
}

/// How many windows fit along an axis of `size` pixels; `None` when not one does.
///
/// `⌊(size + 2·padding - dilation·(kernel - 1) - 1) / stride⌋ + 1`, with `ceil` rounded up, but no window
/// begins beyond the image and the padding before it.
pub fn windows(
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    ceil: bool,
) -> Option<usize> {
    let room = (size + 2 * padding).checked_sub(dilation * kernel.checked_sub(1)? + 1)?;
    if stride == 0 {
        return None;
    }
    let mut count = room / stride + 1;
    if ceil && room % stride != 0 && count * stride < size + padding {
        count += 1;
    }
    Some(count)
}

/// Columns computed together. Rows are padded to a multiple of it, so that no loop has a rest.
const WIDTH: usize = 16;

/// The input rows of one row of windows, with `filler` for the taps outside the image, and cut by column modulo
/// the stride: so the taps (p, q) of neighbouring outputs lie side by side.
struct Rows {
    stride: usize,
    padding: usize,
    outputs: usize,
    /// The length of each of the `stride` parts of a row.
    part: usize,
    /// Where tap q of output 0 lies in a row.
    taps: Vec<usize>,
    /// Which rows are here: row r is kept in slot `r % held.len()`; a power of two.
    held: Vec<Option<usize>>,
    rows: Vec<f32>,
}

impl Rows {
    fn new(pool: &Pool, filler: f32) -> Rows {
        let [stride, kernel, dilation] = [pool.stride[1], pool.kernel[1], pool.dilation[1]];
        let outputs = pool.output[1].next_multiple_of(WIDTH);
        let part = outputs + (kernel - 1) * dilation / stride;
        let taps = (0..kernel).map(|q| q * dilation % stride * part + q * dilation / stride).collect();
        let slots = ((pool.kernel[0] - 1) * pool.dilation[0] + 1).next_power_of_two();
        Rows {
            stride,
            padding: pool.padding[1],
            outputs,
            part,
            taps,
            held: vec![None; slots],
            rows: vec![filler; slots * stride * part],
        }
    }

    /// Lets go of all rows: another plane's come.
    #[inline(always)]
    fn forget(&mut self) {
        self.held.fill(None);
    }

    /// The outputs of a row, padded.
    #[inline(always)]
    fn outputs(&self) -> usize {
        self.outputs
    }

    /// Takes a function of `x` as row `row` of all planes. Every call writes the same columns: the filler stays.
    #[inline(always)]
    fn set(&mut self, row: usize, x: &[f32], of: &impl Fn(f32) -> f32) {
        let Rows { stride, padding, part, .. } = *self;
        let slot = row & (self.held.len() - 1);
        if self.held[slot] == Some(row) {
            return;
        }
        self.held[slot] = Some(row);
        let to = &mut self.rows[slot * stride * part..][..stride * part];
        match stride {
            1 => {
                let to = to.get_mut(padding..).unwrap_or_default();
                for (to, x) in to.iter_mut().zip(x) {
                    *to = of(*x);
                }
            }
            2 => {
                let (even, odd) = to.split_at_mut(part);
                set_halves(x, of, padding, even, odd);
            }
            _ => {
                for (phase, to) in to.chunks_exact_mut(part).enumerate() {
                    let first = padding.saturating_sub(phase).div_ceil(stride);
                    let from = x.iter().skip(first * stride + phase - padding).step_by(stride);
                    for (to, x) in to.iter_mut().skip(first).zip(from) {
                        *to = of(*x);
                    }
                }
            }
        }
    }

    /// Where row `row` of all planes begins; `taps` lie from there.
    #[inline(always)]
    fn place(&self, row: usize) -> usize {
        (row & (self.held.len() - 1)) * self.stride * self.part
    }

    /// The taps at a place, for all outputs of a row, padded.
    #[inline(always)]
    fn at(&self, place: usize) -> &[f32] {
        &self.rows[place..][..self.outputs]
    }
}

/// `of(x[k])` to `even` or `odd` at `(k + padding) / 2`, as far as they reach; both have one length.
#[inline(always)]
fn set_halves(x: &[f32], of: &impl Fn(f32) -> f32, padding: usize, even: &mut [f32], odd: &mut [f32]) {
    let mut first = padding / 2;
    let mut x = x;
    if padding % 2 == 1
        && first < odd.len()
        && let Some((head, rest)) = x.split_first()
    {
        odd[first] = of(*head);
        (first, x) = (first + 1, rest);
    }
    let (pairs, last) = x.as_chunks::<2>();
    let even = even.get_mut(first..).unwrap_or_default();
    let odd = odd.get_mut(first..).unwrap_or_default();
    for ((even, odd), [left, right]) in even.iter_mut().zip(odd).zip(pairs) {
        *even = of(*left);
        *odd = of(*right);
    }
    if let (Some(even), Some(last)) = (even.get_mut(pairs.len()), last.first()) {
        *even = of(*last);
    }
}
