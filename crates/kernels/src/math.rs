//! The transcendental functions of Kinone (contract, rule 7): f32 in, f32 out, f64 inside.
//!
//! Each is a fixed sequence of `+ - * /`, fused multiply-adds and integer operations without branches, so a
//! plain loop over one of them inside [`crate::Task::run`] becomes vector code with the bits of the scalar call.

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
