//! The functions of `kinone_kernels::math` of one argument, each with an oracle in f64 and its pinned hashes.
//!
//! Shared by the everyday test on a sample and by `examples/exhaustive_math.rs`, which takes every f32.
#![allow(dead_code, unreachable_pub, reason = "the test and the example each use a part of it")]

use kinone_kernels::{Cpu, Task, math};

/// One function.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Kinone's.
    pub scalar: fn(f32) -> f32,
    /// The same as a loop over slices, compiled for the instruction set of the `Cpu`.
    pub vector: fn(&Cpu, &[f32], &mut [f32]),
    /// In f64, wrong by at most 3 units in the last place.
    pub oracle: fn(f64) -> f64,
    /// Whether it grows everywhere.
    pub monotone: bool,
    /// [`Hash`] of the results on the sample of the everyday test.
    pub sample_hash: u64,
    /// [`Hash`] of the hashes of the results on each 2^20 inputs, all 2^32 inputs in the order of their bits.
    pub exhaustive_hash: u64,
}

/// Every function of one argument.
pub const CASES: [Case; 8] = [
    case::<Exp>("exp", libm::exp, true, 0x3ad5_38eb_ad6f_d3a8, 0x9f1d_7f9e_61f4_6e98),
    case::<Log>("log", libm::log, true, 0x9393_1e97_894c_ac56, 0x15fd_e52c_22e3_918c),
    case::<Tanh>("tanh", libm::tanh, true, 0x9617_3007_18b8_333d, 0x18b6_301b_44a8_43f2),
    case::<Sigmoid>(
        "sigmoid",
        |x| 1.0 / (1.0 + libm::exp(-x)),
        true,
        0xf68a_1f5c_a00f_611c,
        0x850f_5ac6_092b_8a23,
    ),
    case::<Softplus>("softplus", softplus, true, 0xc727_8be5_ec2e_5afb, 0x8368_f91a_020a_4096),
    case::<Erf>("erf", libm::erf, true, 0x677c_36da_68d7_7475, 0x9770_b3c9_a4dd_51aa),
    case::<Sin>("sin", libm::sin, false, 0x357d_5a72_c1d3_77c9, 0xdd3f_6e21_18c9_dc7d),
    case::<Cos>("cos", libm::cos, false, 0x06a3_3340_bd32_2ed5, 0xbed9_d62c_f330_45e5),
];

fn softplus(x: f64) -> f64 {
    let tail = libm::log1p(libm::exp(-x.abs()));
    if x > 0.0 { x + tail } else { tail }
}

const fn case<F: Function>(
    name: &'static str,
    oracle: fn(f64) -> f64,
    monotone: bool,
    sample_hash: u64,
    exhaustive_hash: u64,
) -> Case {
    Case { name, scalar: F::of, vector: vector::<F>, oracle, monotone, sample_hash, exhaustive_hash }
}

/// A function that is inlined where it is used; a pointer to one is not.
trait Function {
    fn of(x: f32) -> f32;
}

macro_rules! functions {
    ($($name:ident = $function:path),*) => {$(
        struct $name;
        impl Function for $name {
            #[inline(always)]
            fn of(x: f32) -> f32 {
                $function(x)
            }
        }
    )*};
}

functions!(
    Exp = math::exp,
    Log = math::log,
    Tanh = math::tanh,
    Sigmoid = math::sigmoid,
    Softplus = math::softplus,
    Erf = math::erf,
    Sin = math::sin,
    Cos = math::cos
);

fn vector<F: Function>(cpu: &Cpu, x: &[f32], y: &mut [f32]) {
    struct Map<'a, F>(&'a [f32], &'a mut [f32], std::marker::PhantomData<F>);
    impl<F: Function> Task for Map<'_, F> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            for (y, x) in self.1.iter_mut().zip(self.0) {
                *y = F::of(*x);
            }
        }
    }
    cpu.vectorize(Map(x, y, std::marker::PhantomData::<F>));
}

/// How a result compares with its oracle.
pub enum Verdict {
    /// The f32 nearest to the true value.
    Right,
    /// The oracle is so near the middle between two f32 that its own error decides which is nearest; the
    /// result is one of the two.
    Undecided,
    /// Something else.
    Wrong,
}

/// Judges a result, where it and the oracle together may be wrong by `margin` f64 units in the last place.
pub fn judge(result: f32, oracle: f64, margin: u64) -> Verdict {
    let nearest = oracle as f32;
    if oracle.is_nan() || oracle == 0.0 || oracle.is_infinite() {
        let right = math::canonical_bits(result) == math::canonical_bits(nearest);
        return if right { Verdict::Right } else { Verdict::Wrong };
    }
    let low = f64::from_bits(oracle.to_bits().saturating_sub(margin)) as f32;
    let high = f64::from_bits(oracle.to_bits() + margin) as f32;
    let bits = result.to_bits();
    match (low.to_bits() == high.to_bits(), bits == low.to_bits(), bits == high.to_bits()) {
        (true, true, _) => Verdict::Right,
        (false, true, _) | (false, _, true) => Verdict::Undecided,
        _ => Verdict::Wrong,
    }
}

/// The distance from the oracle in units of the last place of f32 there.
pub fn ulps(result: f32, oracle: f64) -> f64 {
    if result.to_bits() == (oracle as f32).to_bits() && result.is_infinite() || oracle.is_nan() {
        return 0.0;
    }
    let exponent = (oracle.abs().to_bits() >> 52).clamp(1023 - 126, 1023 + 127);
    (f64::from(result) - oracle).abs() / f64::from_bits((exponent - 23) << 52)
}

/// FNV-1a over the bytes, lowest first.
#[derive(Clone, Copy)]
pub struct Hash(pub u64);

impl Hash {
    pub const EMPTY: Hash = Hash(0xcbf2_9ce4_8422_2325);

    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash of results, every NaN alike.
    pub fn of(results: &[f32]) -> Hash {
        let mut hash = Hash::EMPTY;
        for result in results {
            hash.add(&math::canonical_bits(*result).to_le_bytes());
        }
        hash
    }
}

/// Results of Kinone and the oracle together are wrong by at most so many f64 units in the last place: the
/// oracle by 3, Kinone by 4 (see the documentation of `kinone_kernels::math`).
pub const MARGIN: u64 = 7;
