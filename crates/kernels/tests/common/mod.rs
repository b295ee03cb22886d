//! What every test of a kernel needs: all the ways to run it, values that break careless code, and the
//! comparison of bits.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use kinone_kernels::conv::Conv;
use kinone_kernels::{Cpu, Isa};

/// Every instruction set of this machine on 1, 2, 3 and 7 threads.
pub fn cpus() -> Vec<Cpu> {
    let sets = Isa::present();
    sets.iter().flat_map(|isa| [1, 2, 3, 7].map(|threads| Cpu::new(*isa, threads).unwrap())).collect()
}

/// A small generator (splitmix64): tests need variety, not quality.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    /// Values of both signs below 4, with full mantissas and exponents so far apart that f64 sums of them are
    /// rounded, at an address that no vector is aligned to.
    pub fn values(&mut self, len: usize) -> Odd {
        self.fill(len, Random::value)
    }

    /// The same with zeros of both signs, denormals, huge values and, where asked for, infinities and NaN
    /// strewn in.
    pub fn hostile(&mut self, len: usize, non_finite: bool) -> Odd {
        let kinds = if non_finite { 14 } else { 11 };
        self.fill(len, |random| match random.next() % 40 % 20 {
            kind if kind >= kinds => random.value(),
            0 | 1 => 0.0,
            2 | 3 => -0.0,
            4 => f32::from_bits((random.next() >> 41) as u32),
            5 => -f32::from_bits((random.next() >> 41) as u32),
            6 => f32::MIN_POSITIVE,
            7 => 3.0e38,
            8 => -3.0e38,
            9 => 1.0,
            10 => f32::from_bits(1),
            11 => f32::INFINITY,
            12 => f32::NEG_INFINITY,
            _ => f32::NAN,
        })
    }

    fn value(&mut self) -> f32 {
        let (u, exponent) = (self.next() as u32, self.between(127 - 36, 127 + 1) as u32);
        f32::from_bits(u & 0x807f_ffff | exponent << 23)
    }

    fn fill(&mut self, len: usize, mut value: impl FnMut(&mut Random) -> f32) -> Odd {
        let mut odd = Odd::poisoned(len);
        for slot in odd.get_mut() {
            *slot = value(self);
        }
        odd
    }
}

/// Values that start one f32 past a 16-byte boundary.
#[derive(Clone)]
pub struct Odd(Vec<[f32; 4]>, usize);

impl Odd {
    /// `len` signalling patterns, for a kernel to overwrite.
    pub fn poisoned(len: usize) -> Odd {
        Odd(vec![[f32::from_bits(0x7fa5_a5a5); 4]; len / 4 + 2], len)
    }

    pub fn get(&self) -> &[f32] {
        &self.0.as_flattened()[1..][..self.1]
    }

    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.0.as_flattened_mut()[1..][..self.1]
    }
}

impl std::ops::Deref for Odd {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.get()
    }
}

impl std::ops::DerefMut for Odd {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.get_mut()
    }
}

/// The bits, with one NaN for all.
pub fn bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

/// The bits, with one NaN for all.
pub fn wide_bits(x: f64) -> u64 {
    if x.is_nan() { 0x7ff8_0000_0000_0000 } else { x.to_bits() }
}

/// Fails at the first value whose bits differ.
pub fn assert_same(got: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}: lengths");
    for (k, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!(bits(*g) == bits(*w), "{what}: value {k} is {g:e}, its loop says {w:e}");
    }
}

/// Fails at the first value whose bits differ.
pub fn assert_same_wide(got: &[f64], wanted: &[f64], what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}: lengths");
    for (k, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!(wide_bits(*g) == wide_bits(*w), "{what}: value {k} is {g:e}, its loop says {w:e}");
    }
}

/// A convolution of square images by square filters, padded so that outputs are as many as pixels, but for the stride.
pub fn square(n: usize, c: usize, o: usize, size: usize, k: usize, stride: usize) -> Conv {
    Conv {
        n,
        c,
        input: (size, size),
        o,
        kernel: (k, k),
        stride: (stride, stride),
        padding: (k / 2, k / 2),
        dilation: (1, 1),
        groups: 1,
    }
}
