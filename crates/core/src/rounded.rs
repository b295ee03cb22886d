//! Running error analysis (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., §3.3): a
//! definition that computes, beside each value, a bound on what rounding can have done to it.
//!
//! This is why no tolerance in this project is picked by hand: the loop says itself how far the f32 result
//! may lie from the f64 one.

use crate::real::Real;
use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A value and a bound: arithmetic of `P` significant bits (24 for f32, 53 for f64) gives a result within
/// `bound` of `value`.
#[derive(Clone, Copy, Debug)]
pub struct Rounded<const P: u32> {
    /// The value, computed in f64.
    pub value: f64,
    /// The largest possible distance of the rounded result from it.
    pub bound: f64,
}

impl<const P: u32> Rounded<P> {
    /// A number that is represented without error.
    pub fn exact(value: f64) -> Self {
        Rounded { value, bound: 0.0 }
    }

    /// Half a unit in the last place, relative: 2^-P.
    fn unit() -> f64 {
        1.0 / (1_u64 << P) as f64
    }

    /// Half the smallest positive number: 2^-150 for f32.
    fn half_smallest() -> f64 {
        if P == 24 { f64::from_bits(((1023 - 150) as u64) << 52) } else { f64::from_bits(1) }
    }

    /// The result of an operation with `ulps` half-units of its own rounding after inputs that are off.
    ///
    /// The 2^-51 covers the rounding of `value` itself, which is computed in f64 and not exactly.
    fn after(value: f64, bound: f64, half_ulps: f64) -> Self {
        let own = half_ulps * Self::unit() + 1.0 / (1_u64 << 51) as f64;
        let total = bound + own * (value.abs() + bound) + half_ulps * Self::half_smallest();
        Rounded { value, bound: total }
    }

    /// A monotone function of at most one ulp error, from its values at the ends of the interval.
    fn monotone(self, f: impl Fn(f64) -> f64) -> Self {
        let value = f(self.value);
        let above = (f(self.value + self.bound) - value).abs();
        let below = (f(self.value - self.bound) - value).abs();
        let bound = if above > below { above } else { below };
        Self::after(value, bound, 2.0)
    }
}

/// Comparison is that of the values: a definition takes the same branch as over f64.
impl<const P: u32> PartialEq for Rounded<P> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<const P: u32> PartialOrd for Rounded<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<const P: u32> Add for Rounded<P> {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        Self::after(self.value + b.value, self.bound + b.bound, 1.0)
    }
}

impl<const P: u32> Sub for Rounded<P> {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        Self::after(self.value - b.value, self.bound + b.bound, 1.0)
    }
}

fn product_bound<const P: u32>(a: Rounded<P>, b: Rounded<P>) -> f64 {
    a.value.abs() * b.bound + b.value.abs() * a.bound + a.bound * b.bound
}

impl<const P: u32> Mul for Rounded<P> {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        Self::after(self.value * b.value, product_bound(self, b), 1.0)
    }
}

impl<const P: u32> Div for Rounded<P> {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        let value = self.value / b.value;
        let nearest = b.value.abs() - b.bound;
        let bound =
            if nearest > 0.0 { (self.bound + value.abs() * b.bound) / nearest } else { f64::INFINITY };
        Self::after(value, bound, 1.0)
    }
}

impl<const P: u32> Neg for Rounded<P> {
    type Output = Self;
    fn neg(self) -> Self {
        Rounded { value: -self.value, bound: self.bound }
    }
}

macro_rules! real {
    ($bits:literal, $narrow:expr) => {
        impl Real for Rounded<$bits> {
            type Wide = Rounded<53>;
            fn of(x: f64) -> Self {
                let rounded = if $bits == 24 { f64::from(x as f32) } else { x };
                Rounded { value: x, bound: (rounded - x).abs() }
            }
            fn value(self) -> f64 {
                self.value
            }
            fn wide(self) -> Rounded<53> {
                Rounded { value: self.value, bound: self.bound }
            }
            fn narrow(wide: Rounded<53>) -> Self {
                Self::after(wide.value, wide.bound, $narrow)
            }
            fn fma(self, b: Self, c: Self) -> Self {
                Self::after(self.value.mul_add(b.value, c.value), product_bound(self, b) + c.bound, 1.0)
            }
            fn sqrt(self) -> Self {
                let clipped = |x: f64| if x > 0.0 { x.sqrt() } else { 0.0 };
                self.monotone(clipped)
            }
            fn exp(self) -> Self {
                self.monotone(Real::exp)
            }
            fn log(self) -> Self {
                self.monotone(|x| if x > 0.0 { Real::log(x) } else { f64::NEG_INFINITY })
            }
            fn tanh(self) -> Self {
                self.monotone(Real::tanh)
            }
            fn sigmoid(self) -> Self {
                self.monotone(Real::sigmoid)
            }
            fn softplus(self) -> Self {
                self.monotone(Real::softplus)
            }
            fn erf(self) -> Self {
                self.monotone(Real::erf)
            }
            /// Monotone on either side of zero, where the cases of this project stay.
            fn pow(self, p: f32) -> Self {
                self.monotone(|x| x.pow(p))
            }
        }
    };
}

real!(24, 1.0);
real!(53, 0.0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// A loop of every operation; the f32 result must lie within the bound the loop computes for itself.
    #[test]
    fn the_bound_holds_and_is_not_absurd() {
        fn work<F: Real>(x: &[F]) -> F {
            let mut sum = F::Wide::zero();
            for pair in x.windows(2) {
                let t = pair[0].fma(pair[1], F::of(0.3)) / (pair[1] + F::of(3.0));
                let u = t.tanh() * t.exp() - t.sigmoid() + t.softplus().sqrt() - (t * t + F::one()).log();
                sum = sum + (u * t.erf()).wide();
            }
            F::narrow(sum)
        }
        for sample in 0..200 {
            let stream = Stream::new(5, "rounded").at(0, sample);
            let x: Vec<f32> = (0..40).map(|k| stream.uniform(k) * 4.0 - 2.0).collect();
            let single = f64::from(work(&x));
            let bounded = work(&x.iter().map(|v| Rounded::<24>::exact(f64::from(*v))).collect::<Vec<_>>());
            let exact = work(&x.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
            assert_eq!(bounded.value, exact);
            assert!((single - exact).abs() <= bounded.bound, "{single} {exact} {}", bounded.bound);
            assert!(bounded.bound < 1e-3, "a bound that says nothing: {}", bounded.bound);
        }
    }
}
