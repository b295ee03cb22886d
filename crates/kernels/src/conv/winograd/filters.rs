//! Filters to transformed filters and back, in f64 and rounded once. Columns of the product lie in the lanes: the loop
//! over them is the inner one, which the compiler makes registers of.

use super::line::Minimal;
use crate::cpu::SharedMut;
use crate::memory::Buffer;
use crate::product::{Panel, prefetch, transpose, transpose_to};
use crate::{Cpu, Task};
use std::marker::PhantomData;
use std::ops::Range;

const TAPS: usize = 9;
/// Terms staged together.
const TERMS: usize = 16;
/// Filters transformed together.
const LANES: usize = 8;

/// The filters of a correlation: a column a filter, a term a channel of it.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a> {
    pub(super) w: &'a [f32],
    pub(super) terms: usize,
    pub(super) columns: usize,
    /// Whether `w` is `[term][column][9]`, and each filter is to be turned by half a turn, instead of
    /// `[column][term][9]`.
    pub(super) turned: bool,
}

impl Filters<'_> {
    /// Writes, for each element of the square, `[term][panel.width]` for some terms: element 0 of term 0 at `base`, the
    /// next element `element` further.
    pub(super) fn transform<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        panel: &Panel,
        terms: Range<usize>,
        (out, base, element): (SharedMut<f32>, usize, usize),
    ) {
        let width = panel.width.next_multiple_of(LANES);
        let columns = panel.columns.clone();
        let mut staged = Buffer::zeros(TERMS * TAPS * width);
        for start in terms.clone().step_by(TERMS) {
            let some = start..(start + TERMS).min(terms.end);
            if self.turned {
                for (index, term) in some.clone().enumerate() {
                    let from = &self.w[(term * self.columns + columns.start) * TAPS..];
                    let to = &mut staged[index * TAPS * width..];
                    transpose(cpu, (columns.len(), TAPS), (from, TAPS), (to, width));
                }
            } else {
                let all = self.terms * TAPS;
                let from = &self.w[columns.start * all + some.start * TAPS..];
                transpose(cpu, (columns.len(), some.len() * TAPS), (from, all), (&mut staged, width));
            }
            let first = base + some.start * panel.width;
            let len = (N * N - 1) * element + some.len() * panel.width;
            cpu.vectorize(Forth::<A, M, N> {
                staged: &staged,
                terms: some.len(),
                turned: self.turned,
                to: out.pointer(first..first + len),
                element,
                width: panel.width,
                algorithm: PhantomData,
            });
        }
    }
}

/// The transform of staged filters `[term][tap][width]`.
struct Forth<'a, A, const M: usize, const N: usize> {
    staged: &'a [f32],
    terms: usize,
    turned: bool,
    /// Room for `(N² − 1)·element + terms·width` values.
    to: *mut f32,
    element: usize,
    width: usize,
    algorithm: PhantomData<A>,
}

impl<A: Minimal<M, N>, const M: usize, const N: usize> Task for Forth<'_, A, M, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let padded = self.width.next_multiple_of(LANES);
        for (term, taps) in self.staged.chunks_exact(TAPS * padded).take(self.terms).enumerate() {
            for lane in (0..self.width).step_by(LANES) {
                let mut filters = [[[0.0f32; LANES]; 3]; 3];
                for i in 0..3 {
                    for j in 0..3 {
                        let tap = if self.turned { TAPS - 1 - (i * 3 + j) } else { i * 3 + j };
                        if let Some(from) = taps[tap * padded + lane..].first_chunk() {
                            filters[i][j] = *from;
                        }
                    }
                }
                let mut squares = [[[0.0f32; LANES]; N]; N];
                for l in 0..LANES {
                    let mut columns = [[0.0; N]; 3];
                    for j in 0..3 {
                        let mut g = [0.0; 3];
                        for i in 0..3 {
                            g[i] = f64::from(filters[i][j][l]);
                        }
                        columns[j] = A::filter(g);
                    }
                    for i in 0..N {
                        let row = A::filter([columns[0][i], columns[1][i], columns[2][i]]);
                        for j in 0..N {
                            squares[i][j][l] = row[j] as f32;
                        }
                    }
                }
                let len = LANES.min(self.width - lane);
                for i in 0..N {
                    for j in 0..N {
                        let at = (i * N + j) * self.element + term * self.width + lane;
                        // SAFETY: below the room that `to` has.
                        unsafe {
                            let to = self.to.add(at);
                            if len == LANES {
                                to.cast::<[f32; LANES]>().write_unaligned(squares[i][j]);
                            } else {
                                write_some(std::slice::from_raw_parts_mut(to, len), &squares[i][j]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// For the last columns of a narrow panel; apart, or each whole write becomes such a call.
#[cold]
fn write_some(to: &mut [f32], values: &[f32; LANES]) {
    to.copy_from_slice(&values[..to.len()]);
}

/// Writes `dw[filter][channel][tap]` from the sums of some channels and the filters of a panel, `[row][panel.width]`
/// for each element of the square, `element` values apart. There are `all` channels.
pub(super) fn taps<A: Minimal<M, N>, const M: usize, const N: usize>(
    cpu: &Cpu,
    (sums, element): (&[f32], usize),
    (rows, all): (Range<usize>, usize),
    panel: &Panel,
    dw: SharedMut<f32>,
) {
    let mut staged = Buffer::take(rows.len() * TAPS * panel.width);
    assert!((N * N - 1) * element + rows.len() * panel.width <= sums.len(), "short sums");
    cpu.vectorize(Back::<A, M, N> {
        sums,
        element,
        rows: rows.len(),
        width: panel.width,
        staged: &mut staged,
        algorithm: PhantomData,
    });
    let (start, stride, filters) =
        ((panel.columns.start * all + rows.start) * TAPS, all * TAPS, panel.columns.len());
    let to = dw.pointer(start..start + (filters - 1) * stride + rows.len() * TAPS);
    // SAFETY: both sides were measured; other calls write other filters or channels.
    unsafe {
        transpose_to(cpu, (rows.len() * TAPS, filters), (staged.as_ptr(), panel.width), (to, stride));
    }
}

/// The transform of sums to `[row][tap][width]`.
struct Back<'a, A, const M: usize, const N: usize> {
    sums: &'a [f32],
    element: usize,
    rows: usize,
    width: usize,
    staged: &'a mut [f32],
    algorithm: PhantomData<A>,
}

impl<A: Minimal<M, N>, const M: usize, const N: usize> Task for Back<'_, A, M, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for row in 0..self.rows {
            for lane in (0..self.width).step_by(LANES) {
                let len = LANES.min(self.width - lane);
                let mut squares = [[[0.0f32; LANES]; N]; N];
                for i in 0..N {
                    for j in 0..N {
                        let from = &self.sums[(i * N + j) * self.element + row * self.width + lane..];
                        prefetch(from.as_ptr().wrapping_add(self.width));
                        match from.first_chunk() {
                            Some(from) if len == LANES => squares[i][j] = *from,
                            _ => squares[i][j][..len].copy_from_slice(&from[..len]),
                        }
                    }
                }
                let mut filters = [[[0.0f32; LANES]; 3]; 3];
                for l in 0..LANES {
                    let mut columns = [[0.0; 3]; N];
                    for j in 0..N {
                        let mut s = [0.0; N];
                        for i in 0..N {
                            s[i] = f64::from(squares[i][j][l]);
                        }
                        columns[j] = A::taps(s);
                    }
                    for i in 0..3 {
                        let mut s = [0.0; N];
                        for j in 0..N {
                            s[j] = columns[j][i];
                        }
                        let taps = A::taps(s);
                        for j in 0..3 {
                            filters[i][j][l] = taps[j] as f32;
                        }
                    }
                }
                for i in 0..3 {
                    for j in 0..3 {
                        let to = &mut self.staged[(row * TAPS + i * 3 + j) * self.width + lane..];
                        match to.first_chunk_mut() {
                            Some(to) if len == LANES => *to = filters[i][j],
                            _ => write_some(&mut to[..len], &filters[i][j]),
                        }
                    }
                }
            }
        }
    }
}
