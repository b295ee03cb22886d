//! A register of f64 of every instruction set as a number of the transforms: each lane is another filter.

use super::line::Number;
use crate::product::lanes::{Lanes, Plain};

/// Registers of f32 beside which there are some of f64.
pub(super) trait Vector: Lanes {
    type Double: Doubles;
}

/// A register of f64.
pub(super) trait Doubles: Copy {
    /// The number of lanes: those of the f32 are a multiple.
    const COUNT: usize;
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn splat(x: f64) -> Self;
    /// The f32 at `from`, each exactly.
    /// # Safety
    /// As above, and `COUNT` values can be read there.
    unsafe fn widen(from: *const f32) -> Self;
    /// Writes the nearest f32 of each lane, of two the even one.
    /// # Safety
    /// As above, and `COUNT` values can be written at `to`.
    unsafe fn narrow(self, to: *mut f32);
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn add(self, b: Self) -> Self;
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn sub(self, b: Self) -> Self;
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn mul(self, b: Self) -> Self;
    /// `self·b + c`, rounded once.
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
}

/// A register. One exists only where the processor has its instructions.
#[derive(Clone, Copy)]
pub(super) struct Double<D>(D);

impl<D: Doubles> Double<D> {
    /// # Safety
    /// The processor has D's instructions.
    #[inline(always)]
    pub(super) unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        Double(unsafe { D::splat(0.0) })
    }

    /// # Safety
    /// The processor has D's instructions, and `D::COUNT` values can be read at `from`.
    #[inline(always)]
    pub(super) unsafe fn widen(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Double(unsafe { D::widen(from) })
    }

    /// # Safety
    /// `D::COUNT` values can be written at `to`.
    #[inline(always)]
    pub(super) unsafe fn narrow(self, to: *mut f32) {
        // SAFETY: the caller's promise; a register exists.
        unsafe { self.0.narrow(to) }
    }
}

impl<D: Doubles> Number for Double<D> {
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: a register exists.
        Double(unsafe { self.0.add(b.0) })
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: a register exists.
        Double(unsafe { self.0.sub(b.0) })
    }
    #[inline(always)]
    fn times(self, k: f64) -> Self {
        // SAFETY: a register exists.
        Double(unsafe { D::splat(k).mul(self.0) })
    }
}

/// The same of values whose products with the constants of the transforms are exact: those that were f32, and the
/// constants have few bits. Then to round a product changes nothing, and one instruction multiplies and adds.
#[derive(Clone, Copy)]
pub(super) struct Narrow<D>(pub(super) Double<D>);

impl<D: Doubles> Number for Narrow<D> {
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Narrow(self.0.add(b.0))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Narrow(self.0.sub(b.0))
    }
    #[inline(always)]
    fn times(self, k: f64) -> Self {
        Narrow(self.0.times(k))
    }
    #[inline(always)]
    fn add_times(self, k: f64, x: Self) -> Self {
        // SAFETY: a register exists.
        Narrow(Double(unsafe { D::splat(k).fma(x.0.0, self.0.0) }))
    }
    #[inline(always)]
    fn add_both(self, k: f64, x: Self) -> [Self; 2] {
        [self.add_times(k, x), self.add_times(-k, x)]
    }
}

impl Vector for Plain {
    type Double = [f64; 4];
}

impl Doubles for [f64; 4] {
    const COUNT: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: f64) -> Self {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn widen(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }.map(f64::from)
    }
    #[inline(always)]
    unsafe fn narrow(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.map(|x| x as f32)) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        std::array::from_fn(|l| self[l] + b[l])
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        std::array::from_fn(|l| self[l] - b[l])
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        std::array::from_fn(|l| self[l] * b[l])
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        std::array::from_fn(|l| self[l].mul_add(b[l], c[l]))
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! doubles {
    ($register:ty: $double:ty, $count:literal, $splat:ident, $add:ident, $sub:ident, $mul:ident,
     |$a:ident, $b:ident, $c:ident| $fma:expr,
     |$from:ident| $widen:expr, |$lanes:ident, $to:ident| $narrow:expr) => {
        impl Vector for $register {
            type Double = $double;
        }
        impl Doubles for $double {
            const COUNT: usize = $count;
            #[inline(always)]
            unsafe fn splat(x: f64) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn widen($from: *const f32) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $widen }
            }
            #[inline(always)]
            unsafe fn narrow(self, $to: *mut f32) {
                let $lanes = self;
                // SAFETY: the caller's promise.
                unsafe { $narrow }
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $add(self, b) }
            }
            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $sub(self, b) }
            }
            #[inline(always)]
            unsafe fn mul(self, b: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $mul(self, b) }
            }
            #[inline(always)]
            unsafe fn fma(self, $b: Self, $c: Self) -> Self {
                let $a = self;
                // SAFETY: the caller's promise.
                unsafe { $fma }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Doubles, Vector};
    use std::arch::x86_64::{
        __m256, __m256d, __m512, __m512d, _mm_loadu_ps, _mm_storeu_ps, _mm256_add_pd, _mm256_cvtpd_ps,
        _mm256_cvtps_pd, _mm256_fmadd_pd, _mm256_loadu_ps, _mm256_mul_pd, _mm256_set1_pd, _mm256_storeu_ps,
        _mm256_sub_pd, _mm512_add_pd, _mm512_cvtpd_ps, _mm512_cvtps_pd, _mm512_fmadd_pd, _mm512_mul_pd,
        _mm512_set1_pd, _mm512_sub_pd,
    };
    doubles!(
        __m512: __m512d,
        8,
        _mm512_set1_pd,
        _mm512_add_pd,
        _mm512_sub_pd,
        _mm512_mul_pd,
        |a, b, c| _mm512_fmadd_pd(a, b, c),
        |from| _mm512_cvtps_pd(_mm256_loadu_ps(from)),
        |lanes, to| _mm256_storeu_ps(to, _mm512_cvtpd_ps(lanes))
    );
    doubles!(
        __m256: __m256d,
        4,
        _mm256_set1_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        |a, b, c| _mm256_fmadd_pd(a, b, c),
        |from| _mm256_cvtps_pd(_mm_loadu_ps(from)),
        |lanes, to| _mm_storeu_ps(to, _mm256_cvtpd_ps(lanes))
    );
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Doubles, Vector};
    use std::arch::aarch64::{
        float32x4_t, float64x2_t, vaddq_f64, vcvt_f32_f64, vcvt_f64_f32, vdupq_n_f64, vfmaq_f64, vld1_f32,
        vmulq_f64, vst1_f32, vsubq_f64,
    };
    doubles!(
        float32x4_t: float64x2_t,
        2,
        vdupq_n_f64,
        vaddq_f64,
        vsubq_f64,
        vmulq_f64,
        |a, b, c| vfmaq_f64(c, a, b),
        |from| vcvt_f64_f32(vld1_f32(from)),
        |lanes, to| vst1_f32(to, vcvt_f32_f64(lanes))
    );
}
