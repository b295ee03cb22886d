//! The transcendental functions of Kinone (contract, rule 7): f32 in, f32 out, f64 inside.
//!
//! Each is a fixed sequence of `+ - * /`, fused multiply-adds and integer operations without branches, so a
//! plain loop over one of them inside [`crate::Task::run`] becomes vector code with the bits of the scalar call.
//!
//! | function | from | greatest relative error before the one rounding to f32 |
//! |---|---|---|
//! | [`exp`] | `x = n·ln 2 + r`; `e^r` by a polynomial of degree 11; times `2^n` in the exponent | 2^-51.5 |
//! | [`log`] | `x = 2^e·m`, m around 1; `2 atanh(s)` by a polynomial in `s²`; sum as two f64 | 2^-52 |
//! | [`sigmoid`] | `1/(2 + m)`, `m = e^-x - 1`, with the rest of the quotient | 2^-52 |
//! | [`tanh`] | `m/(m + 2)`, `m = e^2x - 1` | 2^-51 |
//! | [`softplus`] | `max(x, 0) + log(1 + e^-\|x\|)`, sum as two f64 | 2^-51 |
//! | [`erf`] | `1 - e^-h`, `h = -ln(1 - erf)` by a polynomial of degree 24 | 2^-51 |
//! | [`sin`], [`cos`] | `x·2/π = k + f` by as many bits of 2/π as x needs; polynomials in `f²` | 2^-50, or 2^-77 absolute where that is more |
//! | [`pow`] | `e^(p·log x)`, log and product as two f64 | 2^-48, for `\|p·log x\| < 1` 2^-51 |
//!
//! The errors are sums of the greatest error of the polynomial, which stands beside its table, and of half a unit
//! of every rounding on the way. A result is not the nearest f32 only where the true value is that near to the
//! middle between two. For every function but `pow`, all 2^32 results are the nearest f32: the f64 oracle of
//! `examples/exhaustive_math.rs` decides all but 616 of them, `math/derive.py check` those with 300 bits. `pow` is
//! right wherever `x^p` lies exactly in the middle, elsewhere off by less than 0.5000001 units in the last place.
//!
//! The tables are minimax polynomials, made by `math/derive.py`.
//!
//! NaN gives NaN; its bits are not promised ([`canonical_bits`]).

mod exponential;
mod power;
mod trigonometric;

pub use exponential::{erf, exp, log, sigmoid, softplus, tanh};
pub use power::pow;
pub use trigonometric::{cos, sin};

/// The bits of `x`, with every NaN as 0x7fc00000 (contract, rule 8). For hashes.
#[inline(always)]
pub fn canonical_bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

/// `c[0] + c[1]·x + c[2]·x² + …` by Horner's rule, each step one fused multiply-add.
#[inline(always)]
fn horner<const N: usize>(x: f64, c: &[f64; N]) -> f64 {
    let mut y = c[N - 1];
    for k in (0..N - 1).rev() {
        y = y.mul_add(x, c[k]);
    }
    y
}

/// `1.5·2^52`: for `|x| < 2^51`, `x + ROUND` has the nearest integer to `x` (ties to even) in its low bits, in
/// two's complement, and `x + ROUND - ROUND` is that integer.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// `2^n` for the integer `n` in the low bits of `shifted = n + ROUND`, `-1022 <= n <= 1023`.
#[inline(always)]
fn power_of_two(shifted: f64) -> f64 {
    f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0f64.to_bits()))
}

/// `a + b` and its rounding error, exactly (Knuth, TAOCP volume 2, theorem 4.2.2B).
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `high + low` rounded to odd, for a `high` other than 0 and a `low` below half its last place: rounding that to
/// f32 is rounding the sum (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
///
/// The sum is taken to be inexact, as values of transcendental functions are; where `low` is 0 nevertheless,
/// `high` moves by one place at most, which matters only to a `high` exactly between two f32.
#[inline(always)]
fn round_to_odd(high: f64, low: f64) -> f64 {
    let toward_zero = (high.to_bits() ^ low.to_bits()) >> 63;
    f64::from_bits(high.to_bits().wrapping_sub(toward_zero) | 1)
}

#[cfg(test)]
mod tests;
