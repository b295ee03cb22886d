//! `pow`: exact where f32 arithmetic is, near the oracle elsewhere, the special cases of IEEE 754, pinned.

mod common;
mod math_oracle;

use common::{Odd, cpus};
use kinone_kernels::math::{canonical_bits, pow};
use kinone_kernels::{Cpu, Task};
use math_oracle::{Hash, Verdict, judge};

/// Pow and the oracle together are wrong by less than 2^-48 (see the unit test of `pow`): so many units.
const MARGIN: u64 = 32;

/// Every sign and exponent, with even and uneven mantissas.
fn sample() -> Vec<f32> {
    let spread = (0..28u32).map(|i| i.wrapping_mul(0x9e37_79b9) >> 9);
    let mantissas: Vec<u32> = [0, 1, 0x40_0000, 0x7f_ffff].into_iter().chain(spread).collect();
    (0..512u32).flat_map(|high| mantissas.iter().map(move |low| f32::from_bits(high << 23 | low))).collect()
}

const POWERS: [f32; 18] = [
    0.0,
    1.0,
    2.0,
    3.0,
    -1.0,
    -2.0,
    0.5,
    -0.5,
    0.25,
    1.5,
    0.1,
    -7.0,
    17.25,
    1.0e-3,
    300.0,
    -1.0e10,
    f32::INFINITY,
    f32::NEG_INFINITY,
];

#[test]
fn results_are_the_nearest_f32() {
    for p in POWERS {
        let mut undecided = 0;
        for x in sample() {
            let (y, oracle) = (pow(x, p), libm::pow(f64::from(x), f64::from(p)));
            match judge(y, oracle, MARGIN) {
                Verdict::Right => {}
                Verdict::Undecided => undecided += 1,
                Verdict::Wrong => panic!("{x:e}^{p} = {y:e}, oracle {oracle:e}"),
            }
        }
        println!("x^{p}: {undecided} undecided");
    }
}

#[test]
fn powers_that_f32_arithmetic_rounds_correctly_are_equal_to_it() {
    for x in sample() {
        let same = |y: f32, expected: f32, what: &str| {
            assert_eq!(canonical_bits(y), canonical_bits(expected), "{x:e} {what}: {y:e}, {expected:e}");
        };
        same(pow(x, 1.0), x, "to the first");
        same(pow(x, 2.0), x * x, "squared");
        same(pow(x, -1.0), 1.0 / x, "inverted");
        same(pow(x, 0.0), 1.0, "to the zeroth");
        if x > 0.0 {
            same(pow(x, 0.5), x.sqrt(), "rooted");
        }
    }
    // The root nearest to the middle between two f32, on either side.
    for x in [1.0 - f32::EPSILON / 2.0, 1.0 + f32::EPSILON] {
        assert_eq!(pow(x, 0.5).to_bits(), x.sqrt().to_bits());
    }
}

/// `x^p` lies exactly between two f32 only as `n^a·2^e`, n odd, with `x = n^b·2^(e·b/a)` and `p = a/b`, b a power of
/// two: where `n^a` has 25 bits, or ends at 2^-150. Then it must go to the even one. These are all
/// there are but for n = 1 (see the special cases).
#[test]
fn exact_middles_go_to_even() {
    let mut middles = 0;
    for b in [1u32, 2, 4, 8] {
        for n in (3u64..1 << 13).step_by(2) {
            let Some(x) = n.checked_pow(b).filter(|x| *x < 1 << 24) else { continue };
            for a in 1..16 {
                let Some(y) = n.checked_pow(a).filter(|y| *y < 1 << 25) else { break };
                let even = (if y & 2 == 0 { y - 1 } else { y + 1 }) as f64;
                // x·2^(b·k), a power of two that leaves x an f32, gives n^a·2^(a·k).
                for k in (-149..128).filter(|k| (-149..104).contains(&(k * b as i32))) {
                    let e = k * a as i32;
                    if e == -150 || y >= 1 << 24 && (-149..103).contains(&e) {
                        let of = (x as f64 * two_to(k * b as i32)) as f32;
                        let p = a as f32 / b as f32;
                        assert_eq!(pow(of, p), (even * two_to(e)) as f32, "{of:e}^{p}");
                        middles += 1;
                    }
                }
            }
        }
    }
    assert_eq!(middles, 116_978);
}

fn two_to(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

#[test]
fn special_cases() {
    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    let cases = [
        (NAN, 0.0, 1.0),
        (NAN, -0.0, 1.0),
        (1.0, NAN, 1.0),
        (1.0, INF, 1.0),
        (-1.0, INF, 1.0),
        (-1.0, -INF, 1.0),
        (-1.0, NAN, NAN),
        (NAN, 1.0, NAN),
        (2.0, NAN, NAN),
        (0.0, NAN, NAN),
        (INF, NAN, NAN),
        (-2.0, 0.5, NAN),
        (-2.0, 3.0, -8.0),
        (-2.0, -3.0, -0.125),
        (-2.0, 4.0, 16.0),
        (-1.0, 16_777_215.0, -1.0),
        (-1.0, 16_777_216.0, 1.0),
        (-1.0, 8_388_607.5, NAN),
        (0.0, 2.5, 0.0),
        (-0.0, 2.5, 0.0),
        (-0.0, 2.0, 0.0),
        (-0.0, 3.0, -0.0),
        (0.0, -2.5, INF),
        (-0.0, -2.5, INF),
        (-0.0, -3.0, -INF),
        (0.0, INF, 0.0),
        (-0.0, -INF, INF),
        (0.5, INF, 0.0),
        (0.5, -INF, INF),
        (-2.0, INF, INF),
        (-2.0, -INF, 0.0),
        (INF, 1.0e-3, INF),
        (INF, -1.0e-3, 0.0),
        (-INF, 3.0, -INF),
        (-INF, 2.0, INF),
        (-INF, 0.5, INF),
        (-INF, -3.0, -0.0),
        (-INF, -2.0, 0.0),
        (-INF, INF, INF),
        (INF, 0.0, 1.0),
        (0.0, 0.0, 1.0),
        // 2^-150 is the middle between 0 and the least denormal.
        (0.5, 150.0, 0.0),
        (2.0, -150.0, 0.0),
        (two_to(-75) as f32, 2.0, 0.0),
        (two_to(-100) as f32, 1.5, 0.0),
        (two_to(100) as f32, -1.5, 0.0),
        (3.0e38, 3.0e38, INF),
        (3.0e38, -3.0e38, 0.0),
        (-3.0e38, 3.0, -INF),
    ];
    for (x, p, expected) in cases {
        let y = pow(x, p);
        assert_eq!(canonical_bits(y), canonical_bits(expected), "{x:e}^{p:e} = {y:e}, not {expected:e}");
    }
}

struct Map<'a>(&'a [f32], f32, &'a mut [f32]);

impl Task for Map<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (y, x) in self.2.iter_mut().zip(self.0) {
            *y = pow(*x, self.1);
        }
    }
}

#[test]
fn loops_give_the_bits_of_the_call_on_every_instruction_set() {
    let sample = sample();
    let len = sample.len() - 5;
    let cpus: Vec<Cpu> = cpus().into_iter().filter(|cpu| cpu.threads() == 1).collect();
    for p in POWERS {
        let expected: Vec<u32> = sample[..len].iter().map(|x| canonical_bits(pow(*x, p))).collect();
        for cpu in &cpus {
            let mut y = Odd::poisoned(len);
            cpu.vectorize(Map(&sample[..len], p, y.get_mut()));
            for ((x, y), expected) in sample.iter().zip(y.get_mut()).zip(&expected) {
                assert_eq!(canonical_bits(*y), *expected, "{x:e}^{p} on {}", cpu.isa());
            }
        }
    }
}

#[test]
fn results_on_the_sample_are_pinned() {
    let results: Vec<f32> = POWERS.iter().flat_map(|p| sample().into_iter().map(|x| pow(x, *p))).collect();
    assert_eq!(format!("{:#018x}", Hash::of(&results).0), "0xadc44e5dfab47d26");
}
