//! The vector registers of every instruction set.

use super::LINE;

/// A register of f32, each lane another output.
pub(crate) trait Lanes: Copy {
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
    /// [`Lanes::store`] past the caches where there is such a store. A fence has to follow.
    /// # Safety
    /// As above, and `to` lies on a boundary of registers. Nobody looks there before the fence.
    unsafe fn store_past(self, to: *mut f32);
    /// `self·b + c`, rounded once.
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// `self + b`
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn add(self, b: Self) -> Self;
    /// `if 0 > self { 0 } else { self }`
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn relu(self) -> Self;
    /// A bit for each lane that is neither +0 nor −0, that of lane 0 the lowest.
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn other_than_zero(self) -> u64;
}

/// Hints to the caches. Any address will do: nothing is read or written here.
macro_rules! hints {
    ($($(#[$doc:meta])* $name:ident: $hint:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(at: *const f32) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint; it cannot fault.
            unsafe {
                use std::arch::x86_64::{$hint, _mm_prefetch};
                _mm_prefetch::<$hint>(at.cast());
            }
            let _ = at;
        }
    )*};
}

hints! {
    /// Asks for the cache line at `at`, which will be read.
    prefetch: _MM_HINT_T0;
    /// Asks for the cache line at `at`, which will be read later: the second-level cache will do.
    prefetch_far: _MM_HINT_T1;
    /// Asks for the cache line at `at`, which will be written.
    prefetch_to_write: _MM_HINT_ET0;
}

/// Asks for one of so many equal parts of what will be read later.
#[inline(always)]
pub(crate) fn ask_for_part(values: &[f32], part: usize, parts: usize) {
    let size = values.len().div_ceil(parts);
    let values = values.get(part * size..).unwrap_or_default();
    values[..size.min(values.len())].iter().step_by(LINE).for_each(|at| prefetch_far(at));
}

/// No vector instructions assumed.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 8]);

impl Lanes for Plain {
    const COUNT: usize = 8;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Plain([x; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Plain(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_past(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Plain(super::fma::fma(self.0, b.0, c.0))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Plain(std::array::from_fn(|l| self.0[l] + b.0[l]))
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Plain(self.0.map(|x| if 0.0 > x { 0.0 } else { x }))
    }
    #[inline(always)]
    unsafe fn other_than_zero(self) -> u64 {
        (0..Self::COUNT).fold(0, |bits, l| bits | u64::from(self.0[l] != 0.0) << l)
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! lanes {
    ($register:ty, $count:literal, $splat:ident, $load:ident, $store:ident, $past:ident, $add:ident, |$x:ident| $relu:expr,
     |$y:ident| $other:expr, |$a:ident, $b:ident, $c:ident| $fma:expr) => {
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
            unsafe fn store_past(self, to: *mut f32) {
                // SAFETY: the caller's promise.
                unsafe { $past(to, self) }
            }
            #[inline(always)]
            unsafe fn fma(self, b: Self, c: Self) -> Self {
                let ($a, $b, $c) = (self, b, c);
                // SAFETY: the caller's promise.
                unsafe { $fma }
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $add(self, b) }
            }
            #[inline(always)]
            unsafe fn relu(self) -> Self {
                let $x = self;
                // SAFETY: the caller's promise.
                unsafe { $relu }
            }
            #[inline(always)]
            unsafe fn other_than_zero(self) -> u64 {
                let $y = self;
                // SAFETY: the caller's promise.
                unsafe { $other }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::{
        __m256, __m512, _CMP_NEQ_UQ, _mm256_add_ps, _mm256_cmp_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_max_ps, _mm256_movemask_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
        _mm256_stream_ps, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_stream_ps,
    };
    // The greater of two is here the second where neither is: the first argument must be the zero.
    lanes!(
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_stream_ps,
        _mm512_add_ps,
        |x| _mm512_max_ps(_mm512_setzero_ps(), x),
        |x| _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(x, _mm512_setzero_ps()).into(),
        |a, b, c| _mm512_fmadd_ps(a, b, c)
    );
    lanes!(
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_stream_ps,
        _mm256_add_ps,
        |x| _mm256_max_ps(_mm256_setzero_ps(), x),
        |x| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(x, _mm256_setzero_ps())) as u64,
        |a, b, c| _mm256_fmadd_ps(a, b, c)
    );
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Lanes;
    use std::arch::aarch64::{
        float32x4_t, vaddq_f32, vbslq_f32, vceqzq_f32, vcgtq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32,
        vst1q_f32, vst1q_u32,
    };
    lanes!(
        float32x4_t,
        4,
        vdupq_n_f32,
        vld1q_f32,
        vst1q_f32,
        vst1q_f32,
        vaddq_f32,
        |x| vbslq_f32(vcgtq_f32(vdupq_n_f32(0.0), x), vdupq_n_f32(0.0), x),
        |x| {
            let mut zero = [0; 4];
            vst1q_u32(zero.as_mut_ptr(), vceqzq_f32(x));
            (0..4).fold(0, |bits, l| bits | u64::from(zero[l] == 0) << l)
        },
        |a, b, c| vfmaq_f32(c, a, b)
    );
}
