//! The functions of one argument: nearest to the oracle, the same on every instruction set, pinned.

mod common;
mod math_oracle;

use common::{Odd, cpus};
use kinone_kernels::math::{canonical_bits, cos, erf, exp, log, sigmoid, sin, softplus, tanh};
use math_oracle::{CASES, Hash, MARGIN, Verdict, judge, ulps};

/// Every sign and exponent, each with the first, last and middle mantissas and some that are spread evenly.
fn sample() -> Vec<f32> {
    let spread = (0..123u32).map(|i| i.wrapping_mul(0x9e37_79b9) >> 9);
    let mantissas: Vec<u32> = [0, 1, 2, 0x3f_ffff, 0x40_0000, 0x7f_ffff].into_iter().chain(spread).collect();
    (0..512u32).flat_map(|high| mantissas.iter().map(move |low| f32::from_bits(high << 23 | low))).collect()
}

#[test]
fn results_are_the_nearest_f32() {
    for case in &CASES {
        let (mut undecided, mut worst) = (0, 0.0);
        for x in sample() {
            let (y, oracle) = ((case.scalar)(x), (case.oracle)(f64::from(x)));
            match judge(y, oracle, MARGIN) {
                Verdict::Right => {}
                Verdict::Undecided => undecided += 1,
                Verdict::Wrong => panic!("{}({x:e}) = {y:e}, oracle {oracle:e}", case.name),
            }
            let distance = ulps(y, oracle);
            worst = if distance > worst { distance } else { worst };
        }
        println!("{}: worst {worst:.6} ulp, {undecided} undecided", case.name);
        assert!(worst <= 1.0, "{}: {worst} ulp", case.name);
    }
}

#[test]
fn loops_give_the_bits_of_the_call_on_every_instruction_set() {
    let sample = sample();
    for case in &CASES {
        let expected: Vec<u32> = sample.iter().map(|x| canonical_bits((case.scalar)(*x))).collect();
        for cpu in cpus().iter().filter(|cpu| cpu.threads() == 1) {
            // A length that leaves a rest in vectors of 16.
            let len = sample.len() - 5;
            let mut y = Odd::poisoned(len);
            (case.vector)(cpu, &sample[..len], y.get_mut());
            for ((x, y), expected) in sample.iter().zip(y.get_mut()).zip(&expected) {
                assert_eq!(canonical_bits(*y), *expected, "{}({x:e}) on {}", case.name, cpu.isa());
            }
        }
    }
}

#[test]
fn results_on_the_sample_are_pinned() {
    let hashes = CASES.map(|case| {
        let results: Vec<f32> = sample().into_iter().map(case.scalar).collect();
        (case.name, format!("{:#018x}", Hash::of(&results).0))
    });
    assert_eq!(hashes, CASES.map(|case| (case.name, format!("{:#018x}", case.sample_hash))));
}

#[test]
fn neighbours_are_in_order_where_the_function_grows() {
    for case in CASES.iter().filter(|case| case.monotone) {
        for start in sample().into_iter().filter(|x| x.is_finite()) {
            let (y, next) = ((case.scalar)(start), (case.scalar)(start.next_up()));
            assert!(y <= next || y.is_nan(), "{}({start:e}) = {y:e}, then {next:e}", case.name);
        }
    }
}

/// A function by name, with arguments and their results.
type Pinned<T> = (&'static str, fn(f32) -> f32, &'static [(T, T)]);

/// Arguments so near the middle between two results that f64 cannot tell; the results were rounded from 300 bits
/// (`math/derive.py check`).
#[test]
fn hard_cases_are_rounded_correctly() {
    let cases: [Pinned<u32>; 8] = [
        (
            "exp",
            exp,
            &[
                (0xc169_12cd, 0x34fd_331b),
                (0xbbf0_edf1, 0x3f7e_1fe9),
                (0x377e_ff81, 0x3f80_0080),
                (0xbae0_e25c, 0x3f7f_8fa7),
            ],
        ),
        (
            "log",
            log,
            &[
                (0x65d8_90d3, 0x4254_d1f9),
                (0x4c5d_65a5, 0x418f_034b),
                (0x4d60_4ebe, 0x419a_352c),
                (0x4117_8feb, 0x400f_e5e7),
            ],
        ),
        ("tanh", tanh, &[(0x3ac3_7de2, 0x3ac3_7dd9)]),
        (
            "sigmoid",
            sigmoid,
            &[
                (0xb380_0000, 0x3f00_0000),
                (0x3400_0000, 0x3f00_0000),
                (0xb6f6_0000, 0x3eff_ffc3),
                (0xb6fa_0000, 0x3eff_ffc2),
            ],
        ),
        (
            "softplus",
            softplus,
            &[
                (0x39ea_41d0, 0x3f31_80bd),
                (0x40a3_f888, 0x40a4_2924),
                (0x3ad6_8ba7, 0x3f31_a7c1),
                (0x398b_9622, 0x3f31_7ad1),
            ],
        ),
        (
            "erf",
            erf,
            &[
                (0x3940_ead6, 0x3959_af14),
                (0x39c0_057d, 0x39d8_ac49),
                (0x358e_9d2d, 0x35a0_ec32),
                (0x36ae_a466, 0x36c5_1007),
            ],
        ),
        (
            "sin",
            sin,
            &[
                (0x7324_3f06, 0x3e94_3a84),
                (0x4619_9998, 0xbeb1_fa5d),
                (0x55ca_fb2a, 0xbf7e_7a17),
                (0x67a9_242b, 0xbf7f_ab81),
            ],
        ),
        (
            "cos",
            cos,
            &[
                (0x6115_cb11, 0x3f78_142f),
                (0x5944_3c0a, 0x3f42_5f62),
                (0x5f18_b878, 0x3f7f_14bb),
                (0x7a4b_1a27, 0x3f7c_54da),
            ],
        ),
    ];
    for (name, of, pairs) in cases {
        for (x, y) in pairs {
            assert_eq!(of(f32::from_bits(*x)).to_bits(), *y, "{name}({x:#010x})");
        }
    }
}

#[test]
fn special_values() {
    const INF: f32 = f32::INFINITY;
    const TINY: f32 = f32::from_bits(1);
    let cases: [Pinned<f32>; 8] = [
        (
            "exp",
            exp,
            &[(0.0, 1.0), (-0.0, 1.0), (-INF, 0.0), (INF, INF), (89.0, INF), (-104.0, 0.0), (-103.0, TINY)],
        ),
        ("log", log, &[(1.0, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (TINY, -103.278_93)]),
        (
            "tanh",
            tanh,
            &[(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (-TINY, -TINY), (1.0e-20, 1.0e-20)],
        ),
        (
            "sigmoid",
            sigmoid,
            &[(0.0, 0.5), (INF, 1.0), (-INF, 0.0), (3.0e38, 1.0), (-3.0e38, 0.0), (-103.0, TINY)],
        ),
        ("softplus", softplus, &[(INF, INF), (-INF, 0.0), (3.0e38, 3.0e38), (50.0, 50.0), (-103.0, TINY)]),
        (
            "erf",
            erf,
            &[(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (4.0, 1.0), (-4.0, -1.0), (TINY, TINY)],
        ),
        ("sin", sin, &[(0.0, 0.0), (-0.0, -0.0), (TINY, TINY), (-TINY, -TINY)]),
        ("cos", cos, &[(0.0, 1.0), (-0.0, 1.0), (TINY, 1.0)]),
    ];
    for (name, of, pairs) in cases {
        for (x, y) in pairs {
            assert_eq!(of(*x).to_bits(), y.to_bits(), "{name}({x:e}) = {:e}", of(*x));
        }
        assert!(of(f32::NAN).is_nan(), "{name}(NaN)");
    }
    assert!([-1.0, -TINY, -INF].iter().all(|x| log(*x).is_nan()));
    assert!([INF, -INF].iter().all(|x| sin(*x).is_nan() && cos(*x).is_nan()));
}

#[test]
fn hashes_see_one_nan() {
    for bits in [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffff_ffff] {
        assert_eq!(canonical_bits(f32::from_bits(bits)), 0x7fc0_0000);
    }
    for x in [0.0, -0.0, 1.5, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(canonical_bits(x), x.to_bits());
    }
}
