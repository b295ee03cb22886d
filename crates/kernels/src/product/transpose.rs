//! Exchanging rows and columns while copying: what packing mostly is.

use crate::Cpu;

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
    for i in done..rows {
        for k in 0..len {
            // SAFETY: the caller's promise.
            unsafe { *to.add(k * to_stride + i) = *from.add(i * from_stride + k) };
        }
    }
}

/// [`transpose_to`] for as many rows as there is a faster way for; how many these are.
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
    for i in (0..rows / 8 * 8).step_by(8) {
        // SAFETY: the caller's promise; a `Cpu` with this `Isa` exists only where the processor has it.
        unsafe { x86::eight_rows(len, (from.add(i * from_stride), from_stride), (to.add(i), to_stride)) };
    }
    rows / 8 * 8
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn whole_squares(_: &Cpu, _: (usize, usize), _: (*const f32, usize), _: (*mut f32, usize)) -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps,
        _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };

    /// Eight rows, eight terms at a time.
    ///
    /// # Safety
    /// The processor has AVX2; the elements named by [`super::transpose_to`] are there.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn eight_rows(
        len: usize,
        (from, from_stride): (*const f32, usize),
        (to, to_stride): (*mut f32, usize),
    ) {
        let mut k = 0;
        while k + 8 <= len {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                // SAFETY: 8 terms of row i, below `len`.
                *row = unsafe { _mm256_loadu_ps(from.add(i * from_stride + k)) };
            }
            for (i, column) in square(rows).into_iter().enumerate() {
                // SAFETY: 8 rows of term k + i, below `len`.
                unsafe { _mm256_storeu_ps(to.add((k + i) * to_stride), column) };
            }
            k += 8;
        }
        while k < len {
            for i in 0..8 {
                // SAFETY: one element, by the caller's promise.
                unsafe { *to.add(k * to_stride + i) = *from.add(i * from_stride + k) };
            }
            k += 1;
        }
    }

    /// The 8×8 square, rows for columns: by pairs, by fours, by halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn square(r: [__m256; 8]) -> [__m256; 8] {
        let mut pairs = r;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut fours = r;
        for h in 0..2 {
            let p = &pairs[4 * h..4 * h + 4];
            fours[4 * h] = _mm256_shuffle_ps::<0x44>(p[0], p[2]);
            fours[4 * h + 1] = _mm256_shuffle_ps::<0xee>(p[0], p[2]);
            fours[4 * h + 2] = _mm256_shuffle_ps::<0x44>(p[1], p[3]);
            fours[4 * h + 3] = _mm256_shuffle_ps::<0xee>(p[1], p[3]);
        }
        let mut columns = r;
        for i in 0..4 {
            columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
            columns[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
        }
        columns
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
            for rows in 1..20 {
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
