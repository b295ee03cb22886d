//! `x^p`.

use super::exponential::{LN_2_HIGH, LN_2_LOW, LOG2_E, expm1_reduced, positive_log, settle};
use super::{ROUND, power_of_two};

/// `x^p` with the special cases of IEEE 754 `pow`: 1 for `p = 0` or `x = 1`, NaN for `x < 0` unless `p` is an
/// integer.
#[inline(always)]
pub fn pow(x: f32, p: f32) -> f32 {
    let wide = f64::from(x);
    let a = wide.abs();
    let power = f64::from(p);
    let y = positive_pow(a, power) as f32;
    let y = if a == 1.0 || power == 0.0 { 1.0 } else { y };
    let y = if (x.is_nan() && power != 0.0) || (p.is_nan() && wide != 1.0) { f32::NAN } else { y };
    // An integer is odd when its half is none; every f32 from 2^24 on is even.
    let q = power.abs();
    let q = if q < 16_777_216.0 { q } else { 0.0 };
    let whole = q + ROUND - ROUND == q;
    let odd = whole && 0.5 * q + ROUND - ROUND != 0.5 * q;
    let y = if wide < 0.0 && a < f64::INFINITY && !whole { f32::NAN } else { y };
    if x.is_sign_negative() && odd { -y } else { y }
}

/// `a^p` for `a >= 0`, except where `a` or `p` is NaN, `a = 1` or `p = 0`.
#[inline(always)]
pub(super) fn positive_pow(a: f64, p: f64) -> f64 {
    let (high, low) = positive_log(a);
    // The product of the power and the log as a sum of two; beyond ±400 its rest does not matter.
    let product = p * high;
    let rest = high.mul_add(p, -product);
    let rest = low.mul_add(p, rest);
    let zero_or_infinite = a == 0.0 || a == f64::INFINITY;
    let toward = if a == 0.0 { -p } else { p };
    let product = if zero_or_infinite { toward * f64::INFINITY } else { product };
    let settled = settle(product);
    let rest = if settled == product { rest } else { 0.0 };
    let shifted = settled.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_HIGH, settled);
    let r = r + n.mul_add(-LN_2_LOW, rest);
    let scale = power_of_two(shifted);
    scale.mul_add(expm1_reduced(r), scale)
}
