//! Exchanging rows and columns while copying: what packing mostly is.

use crate::Cpu;
use std::ops::Range;

/// `to[k·to_stride + i] = from[i·from_stride + k]` for `i < rows`, `k < len`. Nothing else of `to` is touched.
///
/// # Panics
/// When either side is too short.
pub(crate) fn transpose(
    cpu: &Cpu,
    (rows, len): (usize, usize),
    (from, from_stride): (&[f32], usize),
    (to, to_stride): (&mut [f32], usize),
) {
    if rows == 0 || len == 0 {
        return;
    }
    assert!((rows - 1) * from_stride + len <= from.len(), "reading outside the slice");
    assert!((len - 1) * to_stride + rows <= to.len(), "writing outside the slice");
    // SAFETY: both sides were measured.
    unsafe { transpose_to(cpu, (rows, len), (from.as_ptr(), from_stride), (to.as_mut_ptr(), to_stride)) }
}

/// [`transpose`] to memory that other threads write elsewhere.
///
/// # Safety
/// Every element named can be read and written, and no one else touches those of `to` meanwhile.
pub(crate) unsafe fn transpose_to(
    cpu: &Cpu,
    (rows, len): (usize, usize),
    (from, from_stride): (*const f32, usize),
    (to, to_stride): (*mut f32, usize),
) {
    // SAFETY: the caller's promise.
    let done = unsafe { whole_squares(cpu, (rows, len), (from, from_stride), (to, to_stride)) };
    // SAFETY: the caller's promise.
    unsafe { one_by_one(done..rows, 0..len, (from, from_stride), (to, to_stride)) };
}

/// Some rows and terms of [`transpose_to`], number by number.
///
/// # Safety
/// As [`transpose_to`].
#[inline(always)]
unsafe fn one_by_one(
    rows: Range<usize>,
    terms: Range<usize>,
    (from, from_stride): (*const f32, usize),
    (to, to_stride): (*mut f32, usize),
) {
    for k in terms {
        for i in rows.clone() {
            // SAFETY: the caller's promise.
            unsafe { *to.add(k * to_stride + i) = *from.add(i * from_stride + k) };
        }
    }
}

/// [`transpose_to`] for as many rows as there is a faster way for: all but a rest of three. How many these are.
///
/// # Safety
/// As [`transpose_to`].
#[cfg(target_arch = "x86_64")]
unsafe fn whole_squares(
    cpu: &Cpu,
    (rows, len): (usize, usize),
    (from, from_stride): (*const f32, usize),
    (to, to_stride): (*mut f32, usize),
) -> usize {
    if !matches!(cpu.isa(), crate::Isa::Avx2 | crate::Isa::Avx512) {
        return 0;
    }
    let place = |i: usize| (from.wrapping_add(i * from_stride), to.wrapping_add(i));
    let mut done = 0;
    while done < rows {
        let (from, to) = place(done);
        let (from, to) = ((from, from_stride), (to, to_stride));
        // SAFETY: the caller's promise; a `Cpu` with this `Isa` exists only where the processor has it.
        unsafe {
            if rows - done >= 16 && cpu.isa() == crate::Isa::Avx512 {
                x86::sixteen_rows(len, from, to);
                done += 16;
                continue;
            }
            match rows - done {
                0..=3 => break,
                4 => x86::some_rows::<4>(len, from, to),
                5 => x86::some_rows::<5>(len, from, to),
                6 => x86::some_rows::<6>(len, from, to),
                7 => x86::some_rows::<7>(len, from, to),
                _ => x86::some_rows::<8>(len, from, to),
            }
        }
        done = (done + 8).min(rows);
    }
    done
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn whole_squares(_: &Cpu, _: (usize, usize), _: (*const f32, usize), _: (*mut f32, usize)) -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::one_by_one;
    use std::arch::x86_64::{
        __m256, _mm_castps_si128, _mm_cvtss_f32, _mm_loadu_ps, _mm_movehl_ps, _mm_storel_epi64,
        _mm_storeu_ps, _mm256_castps128_ps256, _mm256_castps256_ps128, _mm256_extractf128_ps,
        _mm256_insertf128_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps, _mm512_castps128_ps512, _mm512_insertf32x4, _mm512_setzero_ps, _mm512_shuffle_ps,
        _mm512_storeu_ps, _mm512_unpackhi_ps, _mm512_unpacklo_ps,
    };

    /// Four to eight rows, four terms at a time.
    ///
    /// # Safety
    /// The processor has AVX2; the elements named by [`super::transpose_to`] are there.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn some_rows<const ROWS: usize>(
        len: usize,
        (from, from_stride): (*const f32, usize),
        (to, to_stride): (*mut f32, usize),
    ) {
        let mut k = 0;
        while k + 4 <= len {
            // Row i, and in the upper half row i + 4.
            let mut rows = [_mm256_setzero_ps(); 4];
            for (i, row) in rows.iter_mut().enumerate() {
                // SAFETY: 4 terms of a row, below `len`.
                unsafe {
                    let from = from.add(i * from_stride + k);
                    *row = _mm256_castps128_ps256(_mm_loadu_ps(from));
                    if i + 4 < ROWS {
                        *row = _mm256_insertf128_ps::<1>(*row, _mm_loadu_ps(from.add(4 * from_stride)));
                    }
                }
            }
            for (i, column) in squares(rows).into_iter().enumerate() {
                // SAFETY: the rows of term k + i, below `len`.
                unsafe { store::<ROWS>(column, to.add((k + i) * to_stride)) };
            }
            k += 4;
        }
        // SAFETY: the caller's promise.
        unsafe { one_by_one(0..ROWS, k..len, (from, from_stride), (to, to_stride)) };
    }

    /// Sixteen rows, four terms at a time: the columns fill cache lines.
    ///
    /// # Safety
    /// The processor has AVX-512; the elements named by [`super::transpose_to`] are there.
    #[target_feature(enable = "avx512f,avx2")]
    pub(super) unsafe fn sixteen_rows(
        len: usize,
        (from, from_stride): (*const f32, usize),
        (to, to_stride): (*mut f32, usize),
    ) {
        let mut k = 0;
        while k + 4 <= len {
            // Row i, and in the higher quarters rows i + 4, i + 8 and i + 12.
            let mut r = [_mm512_setzero_ps(); 4];
            for (i, row) in r.iter_mut().enumerate() {
                // SAFETY: 4 terms of a row, below `len`.
                unsafe {
                    let from = |quarter: usize| _mm_loadu_ps(from.add((i + 4 * quarter) * from_stride + k));
                    let all = _mm512_castps128_ps512(from(0));
                    let all = _mm512_insertf32x4::<1>(all, from(1));
                    let all = _mm512_insertf32x4::<2>(all, from(2));
                    *row = _mm512_insertf32x4::<3>(all, from(3));
                }
            }
            let (a, b) = (_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]));
            let (c, d) = (_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3]));
            let columns = [
                _mm512_shuffle_ps::<0x44>(a, c),
                _mm512_shuffle_ps::<0xee>(a, c),
                _mm512_shuffle_ps::<0x44>(b, d),
                _mm512_shuffle_ps::<0xee>(b, d),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                // SAFETY: the rows of term k + i, below `len`.
                unsafe { _mm512_storeu_ps(to.add((k + i) * to_stride), column) };
            }
            k += 4;
        }
        // SAFETY: the caller's promise.
        unsafe { one_by_one(0..16, k..len, (from, from_stride), (to, to_stride)) };
    }

    /// The first values of a register, four to eight of them.
    ///
    /// # Safety
    /// The processor has AVX2, and so many values can be written.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store<const COUNT: usize>(values: __m256, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            if COUNT == 8 {
                return _mm256_storeu_ps(to, values);
            }
            _mm_storeu_ps(to, _mm256_castps256_ps128(values));
            let high = _mm256_extractf128_ps::<1>(values);
            match COUNT {
                5 => *to.add(4) = _mm_cvtss_f32(high),
                6 => _mm_storel_epi64(to.add(4).cast(), _mm_castps_si128(high)),
                7 => {
                    _mm_storel_epi64(to.add(4).cast(), _mm_castps_si128(high));
                    *to.add(6) = _mm_cvtss_f32(_mm_movehl_ps(high, high));
                }
                _ => {}
            }
        }
    }

    /// The 4×4 square of each half, rows for columns: by pairs, by fours.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn squares(r: [__m256; 4]) -> [__m256; 4] {
        let (a, b) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
        let (c, d) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
        [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xee>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xee>(b, d),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::transpose;
    use crate::{Cpu, Isa};

    #[test]
    fn every_element_goes_to_its_place_and_nothing_else_is_touched() {
        for isa in Isa::present() {
            let cpu = Cpu::new(isa, 1).unwrap();
            for rows in (1..20).chain(31..=50) {
                for len in 1..20 {
                    let (from_stride, to_stride) = (len + rows % 3, rows + len % 4);
                    let from: Vec<f32> = (0..rows * from_stride).map(|k| k as f32).collect();
                    let mut to = vec![-1.0; len * to_stride];
                    transpose(&cpu, (rows, len), (&from, from_stride), (&mut to, to_stride));
                    for (at, value) in to.iter().enumerate() {
                        let (k, i) = (at / to_stride, at % to_stride);
                        let wanted = if i < rows { from[i * from_stride + k] } else { -1.0 };
                        assert_eq!(*value, wanted, "{isa}: row {i}, term {k} of {rows} by {len}");
                    }
                }
            }
        }
    }
}
