//! Filters to transformed filters and back, in f64 and rounded once. Columns of the product lie in the lanes.

use super::doubles::{Double, Doubles, Narrow, Vector};
use super::line::Minimal;
use super::vectors::{Body, dispatch};
use crate::Cpu;
use crate::cpu::SharedMut;
use crate::memory::Buffer;
use crate::product::{Panel, prefetch, transpose, transpose_to};
use std::marker::PhantomData;
use std::ops::Range;

const TAPS: usize = 9;
/// Terms staged together.
const TERMS: usize = 16;
/// So many terms ahead staged filters are asked for.
const AHEAD: usize = 2;

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
    /// Where the staged filters of a panel lie, for some terms, behind those of the panels before it: these are whole.
    pub(super) fn place(&self, panel: &Panel, terms: Range<usize>) -> Range<usize> {
        let (first, each) = (self.terms * TAPS * panel.columns.start, TAPS * panel.width);
        first + terms.start * each..first + terms.end * each
    }

    /// Writes the filters of a panel as their transform reads them, `[term][tap][width]`, for some terms; 0 beyond the
    /// last filter.
    pub(super) fn stage(&self, cpu: &Cpu, panel: &Panel, terms: Range<usize>, to: &mut [f32]) {
        let (columns, width) = (panel.columns.clone(), panel.width);
        if columns.len() < width {
            to[..terms.len() * TAPS * width].fill(0.0);
        }
        if self.turned {
            for (index, term) in terms.enumerate() {
                let from = &self.w[(term * self.columns + columns.start) * TAPS..];
                let to = &mut to[index * TAPS * width..];
                transpose(cpu, (columns.len(), TAPS), (from, TAPS), (to, width));
            }
        } else {
            let all = self.terms * TAPS;
            let from = &self.w[columns.start * all + terms.start * TAPS..];
            transpose(cpu, (columns.len(), terms.len() * TAPS), (from, all), (to, width));
        }
    }

    /// Writes, for each element of the square, `[term][panel.width]` for some terms: element 0 of the first of them at
    /// `base`, the next element `element` further.
    pub(super) fn transform<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        panel: &Panel,
        terms: Range<usize>,
        out: (SharedMut<f32>, usize, usize),
    ) {
        let each = TAPS * panel.width;
        let mut to = Buffer::take(TERMS * each);
        for start in terms.clone().step_by(TERMS) {
            let some = start..(start + TERMS).min(terms.end);
            self.stage(cpu, panel, some.clone(), &mut to);
            let out = (out.0, out.1 + (start - terms.start) * panel.width, out.2);
            self.transform_staged::<A, M, N>(cpu, panel, &to[..some.len() * each], out);
        }
    }

    /// The same of staged filters.
    pub(super) fn transform_staged<A: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        cpu: &Cpu,
        panel: &Panel,
        filters: &[f32],
        (out, base, element): (SharedMut<f32>, usize, usize),
    ) {
        let terms = filters.len() / (TAPS * panel.width);
        let len = (N * N - 1) * element + terms * panel.width;
        let body = Forth::<A, M, N> {
            staged: filters,
            terms,
            turned: self.turned,
            to: out.pointer(base..base + len),
            element,
            width: panel.width,
            algorithm: PhantomData,
        };
        // SAFETY: `to` was measured, `run` measures the filters, and other calls write elsewhere.
        unsafe { dispatch(cpu, body) };
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
    /// A multiple of the lanes.
    width: usize,
    algorithm: PhantomData<A>,
}

impl<A: Minimal<M, N>, const M: usize, const N: usize> Body for Forth<'_, A, M, N> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Forth { staged, terms, turned, to, element, width, .. } = self;
        assert!(terms * TAPS * width <= staged.len() && width % V::COUNT == 0, "other filters");
        for term in 0..terms {
            for lane in (0..width).step_by(V::Double::COUNT) {
                let from = staged.as_ptr().wrapping_add(term * TAPS * width + lane);
                let mut to = to.wrapping_add(term * width + lane);
                // SAFETY: the processor has the instructions; the filters were measured, the rest is the caller's
                // promise.
                unsafe {
                    let zero = Double::<V::Double>::zero();
                    let mut columns = [[Narrow(zero); N]; 3];
                    for j in 0..3 {
                        let mut g = [Narrow(zero); 3];
                        for i in 0..3 {
                            let tap = if turned { TAPS - 1 - (i * 3 + j) } else { i * 3 + j };
                            let from = from.wrapping_add(tap * width);
                            prefetch(from.wrapping_add(AHEAD * TAPS * width));
                            g[i] = Narrow(Double::widen(from));
                        }
                        columns[j] = A::filter(g);
                    }
                    for i in 0..N {
                        let line = [columns[0][i], columns[1][i], columns[2][i]];
                        let mut row = [zero; N];
                        if i + 1 < N {
                            row = A::filter([line[0].0, line[1].0, line[2].0]);
                        } else {
                            // The last ones of the columns are taps, as they were read.
                            let last = A::filter(line);
                            for j in 0..N {
                                row[j] = last[j].0;
                            }
                        }
                        for j in 0..N {
                            row[j].narrow(to);
                            to = to.wrapping_add(element);
                        }
                    }
                }
            }
        }
    }
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
    let body = Back::<A, M, N> {
        sums,
        element,
        rows: rows.len(),
        width: panel.width,
        staged: &mut staged,
        algorithm: PhantomData,
    };
    // SAFETY: `run` measures both sides.
    unsafe { dispatch(cpu, body) };
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
    /// A multiple of the lanes.
    width: usize,
    staged: &'a mut [f32],
    algorithm: PhantomData<A>,
}

impl<A: Minimal<M, N>, const M: usize, const N: usize> Body for Back<'_, A, M, N> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Back { sums, element, rows, width, staged, .. } = self;
        assert!((N * N - 1) * element + rows * width <= sums.len(), "short sums");
        assert!(rows * TAPS * width <= staged.len() && width % V::COUNT == 0, "other filters");
        for row in 0..rows {
            for lane in (0..width).step_by(V::Double::COUNT) {
                let from = sums.as_ptr().wrapping_add(row * width + lane);
                let mut to = staged.as_mut_ptr().wrapping_add(row * TAPS * width + lane);
                // SAFETY: the processor has the instructions; both sides were measured.
                unsafe {
                    let zero = Double::<V::Double>::zero();
                    let mut columns = [[zero; 3]; N];
                    for j in 0..N {
                        let mut s = [zero; N];
                        for i in 0..N {
                            let from = from.wrapping_add((i * N + j) * element);
                            prefetch(from.wrapping_add(width));
                            s[i] = Double::widen(from);
                        }
                        columns[j] = A::taps(s);
                    }
                    for i in 0..3 {
                        let mut s = [zero; N];
                        for j in 0..N {
                            s[j] = columns[j][i];
                        }
                        let taps = A::taps(s);
                        for j in 0..3 {
                            taps[j].narrow(to);
                            to = to.wrapping_add(width);
                        }
                    }
                }
            }
        }
    }
}
