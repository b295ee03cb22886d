//! sin and cos of any finite f32.

use super::{ROUND, horner, round_to_odd};

/// `sin x`; NaN for ±∞.
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    wide_sin(x, 0) as f32
}

/// `cos x`; NaN for ±∞.
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    wide_sin(x, 1) as f32
}

/// `sin(x + quarters·π/2)`
#[inline(always)]
pub(super) fn wide_sin(x: f32, quarters: u64) -> f64 {
    let (k, f) = reduce(x);
    let k = k.wrapping_add(quarters);
    let z = f * f;
    let sine = f * horner(z, &SINE);
    let below = z * horner(z, &COSINE);
    let cosine = 1.0 + below;
    let cosine = round_to_odd(cosine, below - (cosine - 1.0));
    let y = if k & 1 == 0 { sine } else { cosine };
    f64::from_bits(y.to_bits() ^ (k & 2) << 62)
}

/// `x·2/π = k + f` with `k` modulo 4 in the low bits and `|f| <= ½`.
///
/// The bits of 2/π whose product with the last place of `x` is a multiple of 4 are left out; the following 58
/// bits are two numbers of 29, whose products with the 24 bits of `x` are exact, and the rest is one f64.
#[inline(always)]
fn reduce(x: f32) -> (u64, f64) {
    let exponent = x.to_bits() >> 23 & 0xff;
    let row = (exponent.saturating_sub(127 + 24) >> 3).min(12) as usize;
    let [c0, c1, c2] = TWO_OVER_PI[row].map(f64::from_bits);
    let x = f64::from(x);
    let head = x * c0;
    let first = head + ROUND;
    let rest = (head - (first - ROUND)) + x * c1;
    let second = rest + ROUND;
    let f = (rest - (second - ROUND)) + x * c2;
    (first.to_bits().wrapping_add(second.to_bits()), f)
}

/// Row 0 serves `|x| < 2^32`, row `i` the next 8 powers of two each.
pub(super) const TWO_OVER_PI: [[u64; 3]; 13] = [
    [0x3fe45f306c000000, 0x3e2c9c882a000000, 0x3c44fe13abe8fa9a],
    [0x3f6f306dc8000000, 0x3dac882a50000000, 0x3bffc2757d1f534e],
    [0x3ef836e4e4000000, 0x3d1054a7f0000000, 0x3b43abe8fa9a6ee0],
    [0x3e76e4e440000000, 0x3cb529fc26000000, 0x3af57d1f534ddc0e],
    [0x3dd3910548000000, 0x3c23f84eac000000, 0x3a7d1f534ddc0db6],
    [0x3d51054a78000000, 0x3bbc2757d0000000, 0x39ff534ddc0db629],
    [0x3cb529fc20000000, 0x3b1d5f47d0000000, 0x39734ddc0db6295a],
    [0x3c729fc274000000, 0x3ab7d1f534000000, 0x38ebb81b6c52b328],
    [0x3bffc2757c000000, 0x3a31f534dc000000, 0x387c0db6295993c4],
    [0x3b43abe8f0000000, 0x39b534ddc0000000, 0x37eb6c52b3278872],
    [0x3af57d1f52000000, 0x3934ddc0da000000, 0x3776295993c43904],
    [0x3a7d1f534c000000, 0x38bdc0db62000000, 0x36e2b32788720840],
    [0x39ff534ddc000000, 0x37eb6c5280000000, 0x367993c439041fe5],
];

/// `sin(π/2·f) / f` in `z = f²`, `|f| <= ½`; error below 2^-53.8, of which the rounding of π/2 is most.
pub(super) const SINE: [f64; 7] = [
    core::f64::consts::FRAC_PI_2,
    -0.6459640975062443,
    0.07969262624604283,
    -0.0046817541323375105,
    0.00016044115071135503,
    -3.5986432287939577e-06,
    5.633915286253588e-08,
];

/// `(cos(π/2·f) - 1) / z`; error of the cosine below 2^-55.7.
pub(super) const COSINE: [f64; 7] = [
    -1.2337005501361697,
    0.2536695079010469,
    -0.02086348076331537,
    0.0009192602742240575,
    -2.5202036985125798e-05,
    4.7106154520403195e-07,
    -6.321866805520519e-09,
];
