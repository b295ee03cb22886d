//! exp, log and what is made of them: sigmoid, tanh, softplus, erf.

use super::{ROUND, horner, power_of_two, round_to_odd, two_sum};

/// `e^x`
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    wide_exp(f64::from(x)) as f32
}

/// `ln x`: -∞ at ±0, NaN below.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    wide_log(f64::from(x)) as f32
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    wide_sigmoid(f64::from(x)) as f32
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    wide_tanh(f64::from(x)) as f32
}

/// `ln(1 + e^x)`
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    wide_softplus(f64::from(x)) as f32
}

/// `erf x = 2/√π ∫₀ˣ e^(-t²) dt`
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    wide_erf(f64::from(x)) as f32
}

/// `1/ln 2`
pub(super) const LOG2_E: f64 = core::f64::consts::LOG2_E;
/// `ln 2` cut to multiples of 2^-40, so that its product with an integer of 12 bits is exact, and the rest.
pub(super) const LN_2_HIGH: f64 = 0.693_147_180_559_208_2;
pub(super) const LN_2_LOW: f64 = 7.371_002_565_167_799e-13;

/// `(e^r - 1 - r) / r²` on `|r| <= ln(2)/2`; error of e^r below 2^-56.3 relative.
pub(super) const EXPM1: [f64; 10] = [
    0.500000000000001,
    0.16666666666666413,
    0.041666666666531474,
    0.008333333333494109,
    0.0013888888943328834,
    0.00019841269506641246,
    2.480149337866227e-05,
    2.755758676647307e-06,
    2.763015732534592e-07,
    2.4999830855428113e-08,
];

/// `(2 atanh(s)/s - 2) / z` with `z = s²`, `|s| <= (√2 - 1)/(√2 + 1)`; error of the log below 2^-60 relative to s.
pub(super) const ATANH: [f64; 8] = [
    0.6666666666666666,
    0.40000000000006286,
    0.28571428569073726,
    0.2222222264865684,
    0.18181775514869797,
    0.15387097410101755,
    0.1324996682573931,
    0.13252715686228583,
];

/// From here on erf rounds to 1.
const ERF_ONE: f64 = 3.93;

/// `-ln(erfc(x)) / x` on 0..=3.93; error of erf below 2^-55.8 relative.
pub(super) const ERFC_RATE: [f64; 24] = [
    core::f64::consts::FRAC_2_SQRT_PI,
    0.6366197723675832,
    0.10277260330181227,
    -0.019128447005573024,
    -0.00020919468943736403,
    0.0016962063534660208,
    -0.0005901254489393276,
    2.5878510465467353e-05,
    6.449117302764144e-05,
    -2.9720340079670513e-05,
    3.397104558627349e-06,
    2.854027572643111e-06,
    -1.767391987063795e-06,
    3.6338369222475814e-07,
    1.1517151390011544e-07,
    -1.2764380382134577e-07,
    5.857369766991213e-08,
    -1.809512312877467e-08,
    4.096549017576388e-09,
    -6.888258110285551e-10,
    8.43370344730802e-11,
    -7.135443804328457e-12,
    3.737591871230491e-13,
    -9.141157643739717e-15,
];

/// `x` moved into ±400, beyond which every result of this module has settled. NaN stays.
#[inline(always)]
pub(super) fn settle(x: f64) -> f64 {
    let x = if x > 400.0 { 400.0 } else { x };
    if x < -400.0 { -400.0 } else { x }
}

/// `x = n·ln 2 + r` with `|r| <= ln(2)/2`: returns `e^r - 1` and `2^n`. For `|x| <= 400`.
#[inline(always)]
fn reduce(x: f64) -> (f64, f64) {
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
    let (m, scale) = reduce(settle(x));
    scale.mul_add(m, scale)
}

/// `e^x - 1`, at ±400 from there on.
#[inline(always)]
fn wide_expm1(x: f64) -> f64 {
    let (m, scale) = reduce(settle(x));
    scale.mul_add(m, scale - 1.0)
}

/// `1 / (2 + m)` with `m = e^-x - 1`.
///
/// Around 0 the result is `½ + x/4 - x³/48`, and `½ + x/4` may lie exactly between two f32: only the rounding
/// error of the quotient tells on which side of it the result is.
#[inline(always)]
pub(super) fn wide_sigmoid(x: f64) -> f64 {
    let (high, low) = two_sum(2.0, wide_expm1(-x));
    let y = 1.0 / high;
    let rest = y.mul_add(-low, y.mul_add(-high, 1.0));
    round_to_odd(y, rest)
}

/// `m / (m + 2)` with `m = e^2|x| - 1`, and the sign of `x`.
#[inline(always)]
pub(super) fn wide_tanh(x: f64) -> f64 {
    let m = wide_expm1(2.0 * x.abs());
    (m / (m + 2.0)).copysign(x)
}

/// `max(x, 0) + ln(1 + e^-|x|)`
#[inline(always)]
pub(super) fn wide_softplus(x: f64) -> f64 {
    let t = wide_exp(-x.abs());
    // 1 + t in [1, 2] is (1 + f)/c with c = ½ or 1 and f in [-0.3, 0.42]. One choice only: of several the
    // compiler makes two loop bodies.
    let c = if t > core::f64::consts::SQRT_2 - 1.0 { 0.5 } else { 1.0 };
    let (log, rest) = scaled_log(2.0 - 2.0 * c, c.mul_add(t, c - 1.0));
    let positive = if x > 0.0 { x } else { 0.0 };
    let (high, low) = two_sum(positive, log);
    let sum = round_to_odd(high, low + rest);
    // At infinity `low` is NaN, whose sign no machine promises.
    if x == f64::INFINITY { x } else { sum }
}

/// `1 - e^(-h(|x|))` with `h = -ln erfc`, and the sign of `x`.
#[inline(always)]
pub(super) fn wide_erf(x: f64) -> f64 {
    let a = x.abs();
    let a = if a > ERF_ONE { ERF_ONE } else { a };
    (-wide_expm1(-a * horner(a, &ERFC_RATE))).copysign(x)
}

/// `ln x`
#[inline(always)]
pub(super) fn wide_log(x: f64) -> f64 {
    let (high, low) = positive_log(x);
    // At 1 both are +0, which becomes the least denormal f64, and that +0 in f32.
    let log = round_to_odd(high, low);
    let log = if x == f64::INFINITY { x } else { log };
    let log = if x == 0.0 { f64::NEG_INFINITY } else { log };
    if x >= 0.0 { log } else { f64::NAN }
}

/// `ln x` for positive finite x, and its rounding error.
#[inline(always)]
pub(super) fn positive_log(x: f64) -> (f64, f64) {
    // x = 2^e m with m in [√½, √2); e is made from its own bits, since no vector unit before AVX-512
    // converts 64-bit integers.
    let offset = x.to_bits().wrapping_sub(SQRT_HALF);
    let e = f64::from_bits((offset >> 52).wrapping_add(2048) & 0xfff | ROUND.to_bits()) - (ROUND + 2048.0);
    let m = f64::from_bits((offset & 0x000f_ffff_ffff_ffff).wrapping_add(SQRT_HALF));
    scaled_log(e, m - 1.0)
}

/// `e·ln 2 + ln(1 + f)` for an integer e and f from √½ - 1 to √2 - 1, and its rounding error.
///
/// `ln(1 + f) = f - f²/2 + s·(f²/2 + R)` with `s = f/(2 + f)` and `R = 2 atanh(s)/s - 2`.
#[inline(always)]
fn scaled_log(e: f64, f: f64) -> (f64, f64) {
    let s = f / (2.0 + f);
    let z = s * s;
    let half = 0.5 * f * f;
    let tail = s.mul_add(z.mul_add(horner(z, &ATANH), half), -half);
    // e·LN_2_HIGH is exact, and 0 or greater than |f|.
    let big = e * LN_2_HIGH;
    let head = big + f;
    let tail = f - (head - big) + e.mul_add(LN_2_LOW, tail);
    let sum = head + tail;
    (sum, tail - (sum - head))
}

/// The bits of √½.
const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
