//! A register of every instruction set as a number of the transforms: each lane is another channel.

use super::doubles::Vector;
use super::line::{Fused, Number};
use crate::product::lanes::{Lanes, Plain};
use crate::{Cpu, Isa};

/// A register. One exists only where the processor has its instructions.
#[derive(Clone, Copy)]
pub(super) struct Register<V>(V);

impl<V: Lanes> Register<V> {
    /// # Safety
    /// The processor has V's instructions.
    #[inline(always)]
    pub(super) unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        Register(unsafe { V::splat(0.0) })
    }

    /// # Safety
    /// The processor has V's instructions, and `V::COUNT` values can be read at `from`.
    #[inline(always)]
    pub(super) unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Register(unsafe { V::load(from) })
    }

    /// `scale·self + shift`, rounded once, then a ReLU if wanted.
    ///
    /// # Safety
    /// `V::COUNT` values can be read at `scale` and `shift`.
    #[inline(always)]
    pub(super) unsafe fn finish(self, scale: *const f32, shift: *const f32, relu: bool) -> Self {
        // SAFETY: the caller's promise; a register exists.
        let sum = unsafe { self.0.fma(V::load(scale), V::load(shift)) };
        // SAFETY: a register exists.
        Register(if relu { unsafe { sum.relu() } } else { sum })
    }

    /// # Safety
    /// `V::COUNT` values can be written at `to`.
    #[inline(always)]
    pub(super) unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise; a register exists.
        unsafe { self.0.store(to) }
    }
}

impl<V: Lanes> Number for Register<V> {
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: a register exists.
        Register(unsafe { self.0.add(b.0) })
    }
    /// `−1·b + self`: exact before its one rounding, so the difference.
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: a register exists.
        Register(unsafe { b.0.fma(V::splat(-1.0), self.0) })
    }
    /// `k·self − 0`: the product, its zeros of its own sign.
    #[inline(always)]
    fn times(self, k: f64) -> Self {
        // SAFETY: a register exists.
        Register(unsafe { self.0.fma(V::splat(k as f32), V::splat(-0.0)) })
    }
}

impl<V: Lanes> Fused for Register<V> {
    #[inline(always)]
    fn fma(self, k: f64, c: Self) -> Self {
        // SAFETY: a register exists.
        Register(unsafe { self.0.fma(V::splat(k as f32), c.0) })
    }
}

/// A loop over registers, to be compiled once for each instruction set. Mark `run` as `#[inline(always)]`.
pub(super) trait Body {
    /// # Safety
    /// The processor has V's instructions, and what the body points to is there.
    unsafe fn run<V: Vector>(self);
}

/// Runs `body` compiled for this processor.
///
/// # Safety
/// What the body points to is there.
pub(super) unsafe fn dispatch(cpu: &Cpu, body: impl Body) {
    match cpu.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Cpu` with this `Isa` exists only where the processor has it; the rest is the caller's promise.
        Isa::Avx512 => unsafe { x86::avx512(body) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::avx2(body) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon => unsafe { arm::neon(body) },
        // SAFETY: as above.
        _ => unsafe { body.run::<Plain>() },
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Body;
    use std::arch::x86_64::{__m256, __m512};

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn avx512<B: Body>(body: B) {
        // SAFETY: the caller's promise, and this function has the instruction set.
        unsafe { body.run::<__m512>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<B: Body>(body: B) {
        // SAFETY: as above.
        unsafe { body.run::<__m256>() }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Body;
    use std::arch::aarch64::float32x4_t;

    #[target_feature(enable = "neon")]
    pub(super) unsafe fn neon<B: Body>(body: B) {
        // SAFETY: the caller's promise, and this function has the instruction set.
        unsafe { body.run::<float32x4_t>() }
    }
}
