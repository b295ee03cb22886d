//! The scalar of a textbook loop. One loop, several meanings:
//!
//! | `F` | the loop becomes |
//! |---|---|
//! | `f32` | the specification of the bits |
//! | `f64` | the oracle |
//! | [`Dual`](crate::dual::Dual) | the exact forward-mode derivative |
//! | [`Rounded`](crate::rounded::Rounded) | a computed bound on the rounding error |

use kinone_kernels::math;
use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A real number as a definition needs it: exactly rounded arithmetic, comparison, and the transcendentals.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Send
    + Sync
    + 'static
{
    /// What sums to few outputs are accumulated in: `f64` where the scalar is `f32`.
    type Wide: Real<Wide = Self::Wide>;

    /// The constant `x`, rounded once.
    fn of(x: f64) -> Self;
    /// The value without whatever else is carried along.
    fn value(self) -> f64;
    /// The same value as an accumulator; exact.
    fn wide(self) -> Self::Wide;
    /// An accumulator's value, rounded once.
    fn narrow(wide: Self::Wide) -> Self;
    /// `self·b + c` with one rounding.
    fn fma(self, b: Self, c: Self) -> Self;
    /// √x
    fn sqrt(self) -> Self;
    /// eˣ
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn log(self) -> Self;
    /// tanh x
    fn tanh(self) -> Self;
    /// 1 / (1 + e⁻ˣ)
    fn sigmoid(self) -> Self;
    /// log(1 + eˣ)
    fn softplus(self) -> Self;
    /// (2/√π) ∫₀ˣ e^(−t²) dt
    fn erf(self) -> Self;
    /// xᵖ for a constant p.
    fn pow(self, p: f32) -> Self;

    /// +0
    #[inline(always)]
    fn zero() -> Self {
        Self::of(0.0)
    }
    /// 1
    #[inline(always)]
    fn one() -> Self {
        Self::of(1.0)
    }
    /// Whether this is not a number.
    #[inline(always)]
    #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
    fn is_nan(self) -> bool {
        self != self
    }
}

impl Real for f32 {
    type Wide = f64;
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn value(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn narrow(wide: f64) -> f32 {
        wide as f32
    }
    #[inline(always)]
    fn fma(self, b: f32, c: f32) -> f32 {
        self.mul_add(b, c)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> f32 {
        math::exp(self)
    }
    #[inline(always)]
    fn log(self) -> f32 {
        math::log(self)
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        math::tanh(self)
    }
    #[inline(always)]
    fn sigmoid(self) -> f32 {
        math::sigmoid(self)
    }
    #[inline(always)]
    fn softplus(self) -> f32 {
        math::softplus(self)
    }
    #[inline(always)]
    fn erf(self) -> f32 {
        math::erf(self)
    }
    #[inline(always)]
    fn pow(self, p: f32) -> f32 {
        math::pow(self, p)
    }
}

/// The oracle. Its transcendentals are those of the crate `libm`, the same on every machine.
impl Real for f64 {
    type Wide = f64;
    fn of(x: f64) -> f64 {
        x
    }
    fn value(self) -> f64 {
        self
    }
    fn wide(self) -> f64 {
        self
    }
    fn narrow(wide: f64) -> f64 {
        wide
    }
    fn fma(self, b: f64, c: f64) -> f64 {
        self.mul_add(b, c)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn exp(self) -> f64 {
        libm::exp(self)
    }
    fn log(self) -> f64 {
        libm::log(self)
    }
    fn tanh(self) -> f64 {
        libm::tanh(self)
    }
    fn sigmoid(self) -> f64 {
        if self >= 0.0 {
            1.0 / (1.0 + libm::exp(-self))
        } else {
            let e = libm::exp(self);
            e / (1.0 + e)
        }
    }
    fn softplus(self) -> f64 {
        let above = if self > 0.0 { self } else { 0.0 };
        above + libm::log1p(libm::exp(-self.abs()))
    }
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    fn pow(self, p: f32) -> f64 {
        libm::pow(self, f64::from(p))
    }
}
