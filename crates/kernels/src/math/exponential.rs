//! exp, log and what is made of them: sigmoid, tanh, softplus, erf.

use super::{ROUND, horner, power_of_two};

/// `e^x`
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    wide_exp(f64::from(x)) as f32
}

/// `ln x`: -∞ at ±0, NaN below.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    let wide = f64::from(x);
    let (log, _) = wide_log(wide);
    let log = if wide > f64::from(f32::MAX) { wide } else { log };
    let log = if wide == 0.0 { f64::NEG_INFINITY } else { log };
    let log = if wide >= 0.0 { log } else { f64::NAN };
    log as f32
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + wide_exp(-f64::from(x)))) as f32
}

/// `tanh x = m / (m + 2)` with `m = e^2x - 1`, computed on `|x|`.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let m = wide_expm1(2.0 * f64::from(x.abs()));
    ((m / (m + 2.0)) as f32).copysign(x)
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)`
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let wide = f64::from(x);
    let t = wide_exp(-wide.abs());
    // 1 + t in [1, 2] becomes 2^k (1 + f) with f in [-0.29, 0.42].
    let upper = t > core::f64::consts::SQRT_2 - 1.0;
    let f = if upper { 0.5 * t - 0.5 } else { t };
    let shift = if upper { core::f64::consts::LN_2 } else { 0.0 };
    let (head, tail) = wide_log1p(f);
    let positive = if wide > 0.0 { wide } else { 0.0 };
    (positive + (shift + (head + tail))) as f32
}

/// `erf x = 2/√π ∫₀ˣ e^(-t²) dt = 1 - e^(-h(|x|))` with the sign of `x`.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = f64::from(x.abs());
    let a = if a > ERF_ONE { ERF_ONE } else { a };
    let h = a * horner(a, &ERFC_RATE);
    (-wide_expm1(-h) as f32).copysign(x)
}

/// `1/ln 2`
pub(super) const LOG2_E: f64 = core::f64::consts::LOG2_E;
/// `ln 2` cut to multiples of 2^-40, so that its product with an integer of 12 bits is exact, and the rest.
pub(super) const LN_2_HIGH: f64 = 0.693_147_180_559_208_2;
pub(super) const LN_2_LOW: f64 = 7.371_002_565_167_799e-13;

/// `(e^r - 1 - r) / r²` on `|r| <= ln(2)/2`; error of e^r below 2^-57.9 relative.
const EXPM1: [f64; 10] = [
    0.500000000000001,
    0.16666666666666413,
    0.04166666666653148,
    0.008333333333494094,
    0.0013888888943326323,
    0.00019841269506663098,
    2.4801493381039517e-05,
    2.7557586756427723e-06,
    2.7630156565861875e-07,
    2.4999831733242e-08,
];

/// `(2 atanh(s)/s - 2) / z` with `z = s²`, `|s| <= (√2 - 1)/(√2 + 1)`; error of the log below 2^-65 absolute.
const ATANH: [f64; 8] = [
    0.6666666666666666,
    0.40000000000006286,
    0.2857142856907371,
    0.2222222264866129,
    0.18181775514392284,
    0.1538709743497452,
    0.1324996619485357,
    0.13252721920204016,
];

/// From here on erf rounds to 1.
const ERF_ONE: f64 = 3.93;

/// `-ln(erfc(x)) / x` on 0..=3.93; error of erf below 2^-55 relative.
const ERFC_RATE: [f64; 23] = [
    1.1283791670955126,
    0.6366197723675908,
    0.1027726033013057,
    -0.019128446992533778,
    -0.00020919486504234673,
    0.0016962077877598577,
    -0.0005901332094125324,
    2.5907987255485236e-05,
    6.440933759112747e-05,
    -2.954938614016986e-05,
    3.1226331132854257e-06,
    3.1979694131794e-06,
    -2.107448710909595e-06,
    6.305212877314357e-07,
    -5.215194608803328e-08,
    -4.407619888848305e-08,
    2.541648460747142e-08,
    -7.728146287221668e-09,
    1.5775683086984903e-09,
    -2.2361245509539827e-10,
    2.131111899837087e-11,
    -1.2351177573748442e-12,
    3.299957860495564e-14,
];

/// `x` moved into ±400, beyond which every result of this module has settled. NaN stays.
#[inline(always)]
fn settle(x: f64) -> f64 {
    let x = if x > 400.0 { 400.0 } else { x };
    if x < -400.0 { -400.0 } else { x }
}

/// `x = n·ln 2 + r` with `|r| <= ln(2)/2`: returns `e^r - 1` and `2^n`. For `|x| <= 400`.
#[inline(always)]
fn reduce_exp(x: f64) -> (f64, f64) {
    let shifted = x.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    (expm1_reduced(r), power_of_two(shifted))
}

/// `e^r - 1` for `|r| <= ln(2)/2`.
#[inline(always)]
pub(super) fn expm1_reduced(r: f64) -> f64 {
    (r * r).mul_add(horner(r, &EXPM1), r)
}

/// `e^x`, at ±400 from there on.
#[inline(always)]
pub(super) fn wide_exp(x: f64) -> f64 {
    let (m, scale) = reduce_exp(settle(x));
    scale.mul_add(m, scale)
}

/// `e^x - 1`, at ±400 from there on.
#[inline(always)]
fn wide_expm1(x: f64) -> f64 {
    let (m, scale) = reduce_exp(settle(x));
    scale.mul_add(m, scale - 1.0)
}

/// `ln(1 + f)` for f in √½-1..=√2-1 as a sum of two: `f - f²/2 + s·(f²/2 + R)`, `s = f/(2 + f)`.
#[inline(always)]
fn wide_log1p(f: f64) -> (f64, f64) {
    let s = f / (2.0 + f);
    let z = s * s;
    let half = 0.5 * f * f;
    let r = z * horner(z, &ATANH);
    (f, s.mul_add(half + r, -half))
}

/// `ln x` for positive finite x, and its rounding error.
#[inline(always)]
pub(super) fn wide_log(x: f64) -> (f64, f64) {
    // x = 2^e m with m in [√½, √2); e is made from its own bits, since no vector unit before AVX-512
    // converts 64-bit integers.
    let offset = x.to_bits().wrapping_sub(SQRT_HALF);
    let e = f64::from_bits((offset >> 52).wrapping_add(2048) & 0xfff | ROUND.to_bits()) - (ROUND + 2048.0);
    let m = f64::from_bits((offset & 0x000f_ffff_ffff_ffff).wrapping_add(SQRT_HALF));
    let (head, tail) = wide_log1p(m - 1.0);
    // |e|·LN_2_HIGH is 0 or above |f|, so the error of the sum is this one.
    let big = e * LN_2_HIGH;
    let high = big + head;
    let low = head - (high - big) + e.mul_add(LN_2_LOW, tail);
    let sum = high + low;
    (sum, low - (sum - high))
}

/// The bits of √½.
const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
