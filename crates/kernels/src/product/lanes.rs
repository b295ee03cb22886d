//! The tile of outputs in registers, once for each instruction set.

use crate::{Cpu, Isa};

/// A register of f32, each lane another output.
trait Lanes: Copy {
    /// The number of lanes.
    const COUNT: usize;
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn splat(x: f32) -> Self;
    /// # Safety
    /// As above, and `COUNT` values can be read at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// As above, and `COUNT` values can be written at `to`.
    unsafe fn store(self, to: *mut f32);
    /// `self·b + c`, rounded once.
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
}

/// A tile of `rows`×`columns` outputs, and the loop over k that computes it.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    tile: unsafe fn(terms: usize, a: *const f32, b: *const f32, c: *mut f32, resume: bool),
}

impl Kernel {
    /// The tile of this processor. As many accumulators as there are registers, less one row of b and one a.
    pub(crate) fn of(cpu: &Cpu) -> Kernel {
        match cpu.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Kernel { rows: 8, columns: 48, tile: x86::avx512 },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Kernel { rows: 4, columns: 24, tile: x86::avx2 },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Kernel { rows: 8, columns: 12, tile: arm::neon },
            _ => Kernel { rows: 4, columns: 8, tile: plain },
        }
    }

    /// Outputs of a tile.
    pub(crate) fn size(self) -> usize {
        self.rows * self.columns
    }

    /// `c = +0` unless `resume`, then `c[i][j] = fma(a[k][i], b[k][j], c[i][j])` for k ascending.
    #[inline]
    pub(crate) fn run(self, a: &[f32], b: &[f32], c: &mut [f32], resume: bool) {
        let terms = a.len() / self.rows;
        assert!(b.len() >= terms * self.columns && c.len() >= self.size(), "operands of another size");
        // SAFETY: a `Cpu` with this `Isa` exists only where the processor has it, and the lengths were checked.
        unsafe { (self.tile)(terms, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), resume) }
    }
}

/// The loop, the same for all.
///
/// # Safety
/// The processor has `V`'s instruction set; `a` holds `terms·ROWS` values, `b` `terms·WIDE·COUNT`, `c`
/// `ROWS·WIDE·COUNT`.
#[inline(always)]
unsafe fn tile<V: Lanes, const ROWS: usize, const WIDE: usize>(
    terms: usize,
    mut a: *const f32,
    mut b: *const f32,
    c: *mut f32,
    resume: bool,
) {
    // SAFETY: every address stays inside what the caller promised: a advances ROWS, b WIDE·COUNT a term.
    unsafe {
        let mut sums = [[V::splat(0.0); WIDE]; ROWS];
        if resume {
            for i in 0..ROWS {
                for j in 0..WIDE {
                    sums[i][j] = V::load(c.add((i * WIDE + j) * V::COUNT));
                }
            }
        }
        for _ in 0..terms {
            let mut columns = [V::splat(0.0); WIDE];
            for j in 0..WIDE {
                columns[j] = V::load(b.add(j * V::COUNT));
            }
            for i in 0..ROWS {
                let row = V::splat(*a.add(i));
                for j in 0..WIDE {
                    sums[i][j] = row.fma(columns[j], sums[i][j]);
                }
            }
            a = a.add(ROWS);
            b = b.add(WIDE * V::COUNT);
        }
        for i in 0..ROWS {
            for j in 0..WIDE {
                sums[i][j].store(c.add((i * WIDE + j) * V::COUNT));
            }
        }
    }
}

impl Lanes for f32 {
    const COUNT: usize = 1;
    #[inline(always)]
    unsafe fn splat(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { *to = self }
    }
    #[inline(always)]
    unsafe fn fma(self, b: f32, c: f32) -> f32 {
        self.mul_add(b, c)
    }
}

unsafe fn plain(terms: usize, a: *const f32, b: *const f32, c: *mut f32, resume: bool) {
    // SAFETY: the caller's promise; no instruction set is assumed.
    unsafe { tile::<f32, 4, 8>(terms, a, b, c, resume) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, tile};
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    macro_rules! lanes {
        ($register:ty, $count:literal, $splat:ident, $load:ident, $store:ident, $fma:ident) => {
            impl Lanes for $register {
                const COUNT: usize = $count;
                #[inline(always)]
                unsafe fn splat(x: f32) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller's promise.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn fma(self, b: Self, c: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $fma(self, b, c) }
                }
            }
        };
    }
    lanes!(__m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);
    lanes!(__m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn avx512(terms: usize, a: *const f32, b: *const f32, c: *mut f32, resume: bool) {
        // SAFETY: the caller's promise, and this function has the instruction set.
        unsafe { tile::<__m512, 8, 3>(terms, a, b, c, resume) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(terms: usize, a: *const f32, b: *const f32, c: *mut f32, resume: bool) {
        // SAFETY: as above.
        unsafe { tile::<__m256, 4, 3>(terms, a, b, c, resume) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Lanes, tile};
    use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vfmaq_f32, vld1q_f32, vst1q_f32};

    impl Lanes for float32x4_t {
        const COUNT: usize = 4;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { vst1q_f32(to, self) }
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: the caller's promise.
            unsafe { vfmaq_f32(c, self, b) }
        }
    }

    #[target_feature(enable = "neon")]
    pub(super) unsafe fn neon(terms: usize, a: *const f32, b: *const f32, c: *mut f32, resume: bool) {
        // SAFETY: the caller's promise, and this function has the instruction set.
        unsafe { tile::<float32x4_t, 8, 3>(terms, a, b, c, resume) }
    }
}
