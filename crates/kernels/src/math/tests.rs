//! The f64 values before they are rounded to f32, where an error of a constant shows that an f32 hides.

use super::exponential::{
    ATANH, ERFC_RATE, EXPM1, wide_erf, wide_exp, wide_log, wide_sigmoid, wide_softplus, wide_tanh,
};
use super::power::positive_pow;
use super::trigonometric::{COSINE, SINE, TWO_OVER_PI, wide_sin};

/// Units in the last place of f64: 4 for Kinone, 3 for the oracle (made of at most three functions of `libm`, each
/// good to 1).
const ULPS: u64 = 7;

/// Adds the bits of a value to a hash, FNV-1a.
fn add(hash: &mut u64, value: f64) {
    for byte in value.to_bits().to_le_bytes() {
        *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// Compares on a grid and adds the bits of the values to a hash.
fn compare(hash: &mut u64, name: &str, of: fn(f64) -> f64, oracle: fn(f64) -> f64, [low, high]: [f64; 2]) {
    let steps = 30_000;
    for step in 0..=steps {
        // Taken to f32 and back: the only arguments there are.
        let x = f64::from((low + (high - low) * (f64::from(step) / f64::from(steps))) as f32);
        let (y, expected) = (of(x), oracle(x));
        assert!(
            y.to_bits().abs_diff(expected.to_bits()) <= ULPS,
            "{name}({x:e}) = {y:e}, oracle {expected:e}"
        );
        add(hash, y);
    }
}

#[test]
fn tables_are_those_that_derive_py_prints() {
    let turns = TWO_OVER_PI.map(|row| row.map(f64::from_bits));
    let tables: [(&str, &[f64], u64); 6] = [
        ("EXPM1", &EXPM1, 0x5f3b_1bff_bb32_9021),
        ("ATANH", &ATANH, 0x3a3a_9188_d0d1_446b),
        ("ERFC_RATE", &ERFC_RATE, 0xde0c_ba42_93ee_c955),
        ("SINE", &SINE, 0x9b57_3364_4ba9_1553),
        ("COSINE", &COSINE, 0x85b9_17a1_ff8a_ac71),
        ("TWO_OVER_PI", turns.as_flattened(), 0xfdac_1e63_dfd0_9fb6),
    ];
    for (name, table, expected) in tables {
        let mut hash = EMPTY;
        for value in table {
            add(&mut hash, *value);
        }
        assert_eq!(hash, expected, "{name}");
    }
}

#[test]
fn wide_values_are_good_to_a_few_units_of_f64() {
    let hash = &mut { EMPTY };
    compare(hash, "exp", wide_exp, libm::exp, [-104.0, 89.0]);
    compare(hash, "exp", wide_exp, libm::exp, [-0.4, 0.4]);
    compare(hash, "log", wide_log, libm::log, [1.0e-3, 2.0]);
    compare(hash, "log", wide_log, libm::log, [2.0, 1.0e4]);
    compare(hash, "tanh", wide_tanh, libm::tanh, [-20.0, 20.0]);
    compare(hash, "tanh", wide_tanh, libm::tanh, [-0.5, 0.5]);
    let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    compare(hash, "sigmoid", wide_sigmoid, sigmoid, [-104.0, 20.0]);
    compare(hash, "sigmoid", wide_sigmoid, sigmoid, [-1.0, 1.0]);
    let softplus = |x: f64| if x > 0.0 { x } else { 0.0 } + libm::log1p(libm::exp(-x.abs()));
    compare(hash, "softplus", wide_softplus, softplus, [-104.0, 20.0]);
    compare(hash, "softplus", wide_softplus, softplus, [-2.0, 2.0]);
    compare(hash, "erf", wide_erf, libm::erf, [-3.92, 3.92]);
    compare(hash, "erf", wide_erf, libm::erf, [-1.0e-3, 1.0e-3]);
    compare(hash, "sin", |x| wide_sin(x as f32, 0), libm::sin, [-1.5, 1.5]);
    compare(hash, "cos", |x| wide_sin(x as f32, 1), libm::cos, [-1.5, 1.5]);
    // What moves no value by more than a unit shows here.
    assert_eq!(*hash, 0xe5b3_ff3d_f923_de6a);
}

/// Near a multiple of π/2 the error of the reduction stays while the value vanishes; here it is judged against 1.
#[test]
fn the_reduction_by_two_over_pi_is_good_for_every_power_of_two() {
    for exponent in -20i32..128 {
        for mantissa in 0..200u32 {
            let bits = ((exponent + 127) as u32) << 23 | mantissa.wrapping_mul(0x9e37_79b9) >> 9;
            let x = f32::from_bits(bits);
            for (quarters, oracle) in [(0, libm::sin as fn(f64) -> f64), (1, libm::cos)] {
                let error = wide_sin(x, quarters) - oracle(f64::from(x));
                assert!(error.abs() <= ULPS as f64 * 0.5 * f64::EPSILON, "{x:e}, {quarters}: {error:e}");
            }
        }
    }
}

/// The log is good to 2^-55 of itself and `|p·log x| < 104`, which makes 2^-48.3; the oracle and the exponential add
/// less than 2^-51.
#[test]
fn powers_are_good_to_47_bits() {
    for p in [-7.25, -1.0, -0.3, 1.0e-3, 0.25, 0.5, 1.5, 2.0, 3.0, 13.7, 60.5] {
        for step in 1..5000 {
            let x = f64::from((f64::from(step) * 7.3e-4) as f32);
            let (y, expected) = (positive_pow(x, p), libm::pow(x, p));
            if (1.0e-45..3.5e38).contains(&expected) {
                let error = (y - expected).abs() / expected;
                assert!(error <= 1.0 / (1u64 << 48) as f64, "{x:e}^{p} = {y:e}, oracle {expected:e}");
            }
        }
    }
}
