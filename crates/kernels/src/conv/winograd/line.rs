//! The transforms of a line (`docs/WINOGRAD.md`), each with its order of operations.

use std::array::from_fn;

/// What filters are transformed in.
pub(super) trait Number: Copy {
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    /// `k·self`
    fn times(self, k: f64) -> Self;
    /// `self + k·x`, the product rounded.
    fn add_times(self, k: f64, x: Self) -> Self {
        self.add(x.times(k))
    }
    /// The same of k and of −k, whose products differ in their sign alone.
    fn add_both(self, k: f64, x: Self) -> [Self; 2] {
        let product = x.times(k);
        [self.add(product), self.sub(product)]
    }
}

/// What all else is transformed in.
pub(super) trait Fused: Number {
    /// `k·self + c`, rounded once.
    fn fma(self, k: f64, c: Self) -> Self;
}

macro_rules! number {
    ($scalar:ty) => {
        impl Number for $scalar {
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self + b
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self - b
            }
            #[inline(always)]
            fn times(self, k: f64) -> Self {
                k as $scalar * self
            }
        }
    };
}
number!(f32);
number!(f64);

impl Fused for f32 {
    #[inline(always)]
    fn fma(self, k: f64, c: f32) -> f32 {
        self.mul_add(k as f32, c)
    }
}

/// The five transforms of F(M, 3), N = M + 2.
pub(super) trait Minimal<const M: usize, const N: usize>: Sync {
    /// `Bᵀ d`
    fn input<F: Fused>(d: [F; N]) -> [F; N];
    /// `Aᵀ m`
    fn output<F: Fused>(m: [F; N]) -> [F; M];
    /// `A y`
    fn cotangent<F: Fused>(y: [F; M]) -> [F; N];
    /// `G g`; the last is `g[2]`.
    fn filter<W: Number>(g: [W; 3]) -> [W; N];
    /// `Gᵀ s`
    fn taps<W: Number>(s: [W; N]) -> [W; 3];
}

/// The transform of the lines of R×R squares that begin `step` pixels apart.
pub(super) trait Line<const R: usize, const S: usize>: Sync {
    fn step() -> usize;
    fn line<F: Fused>(x: [F; R]) -> [F; S];
}

/// `Bᵀ d`
pub(super) struct Input;
/// `A y`
pub(super) struct Cotangent;

macro_rules! lines {
    ($algorithm:ty, $m:literal, $n:literal) => {
        impl Line<$n, $n> for (Input, $algorithm) {
            #[inline(always)]
            fn step() -> usize {
                $m
            }
            #[inline(always)]
            fn line<F: Fused>(x: [F; $n]) -> [F; $n] {
                <$algorithm>::input(x)
            }
        }
        impl Line<$m, $n> for (Cotangent, $algorithm) {
            #[inline(always)]
            fn step() -> usize {
                $m
            }
            #[inline(always)]
            fn line<F: Fused>(x: [F; $m]) -> [F; $n] {
                <$algorithm>::cotangent(x)
            }
        }
    };
}
lines!(F2, 2, 4);
lines!(F4, 4, 6);

/// A transform of a square: of its columns, then of the rows of what came out.
pub(super) fn square<F: Copy, const R: usize, const S: usize>(
    x: [[F; R]; R],
    line: impl Fn([F; R]) -> [F; S],
) -> [[F; S]; S] {
    let columns: [[F; S]; R] = from_fn(|j| line(from_fn(|i| x[i][j])));
    from_fn(|i| line(from_fn(|j| columns[j][i])))
}

/// F(2, 3) with the points 0, 1, −1, ∞.
pub(super) struct F2;

impl Minimal<2, 4> for F2 {
    #[inline(always)]
    fn input<F: Fused>(d: [F; 4]) -> [F; 4] {
        [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[3].sub(d[1])]
    }
    #[inline(always)]
    fn output<F: Fused>(m: [F; 4]) -> [F; 2] {
        [m[0].add(m[1].add(m[2])), m[1].sub(m[2]).add(m[3])]
    }
    #[inline(always)]
    fn cotangent<F: Fused>(y: [F; 2]) -> [F; 4] {
        [y[0], y[0].add(y[1]), y[0].sub(y[1]), y[1]]
    }
    #[inline(always)]
    fn filter<W: Number>(g: [W; 3]) -> [W; 4] {
        let (even, odd) = (g[0].add(g[2]).times(0.5), g[1].times(0.5));
        [g[0], even.add(odd), even.sub(odd), g[2]]
    }
    #[inline(always)]
    fn taps<W: Number>(s: [W; 4]) -> [W; 3] {
        let (even, odd) = (s[1].add(s[2]).times(0.5), s[1].sub(s[2]).times(0.5));
        [s[0].add(even), odd, even.add(s[3])]
    }
}

/// F(4, 3) with the points 0, ±5/8, ±3/2, ∞.
pub(super) struct F4;

const A: f64 = 0.625;
const B: f64 = 1.5;
const A2: f64 = A * A;
const B2: f64 = B * B;
const A3: f64 = A * A2;
const B3: f64 = B * B2;
const SUM: f64 = A2 + B2;
const PRODUCT: f64 = A2 * B2;
const OF_ZERO: f64 = 1.0 / PRODUCT;
const OF_A: f64 = 1.0 / (2.0 * A2 * (A2 - B2));
const OF_B: f64 = 1.0 / (2.0 * B2 * (B2 - A2));

impl Minimal<4, 6> for F4 {
    #[inline(always)]
    fn input<F: Fused>(d: [F; 6]) -> [F; 6] {
        let (even_a, odd_a) = (d[2].fma(-B2, d[4]), d[1].fma(-B2, d[3]));
        let (even_b, odd_b) = (d[2].fma(-A2, d[4]), d[1].fma(-A2, d[3]));
        [
            d[0].fma(PRODUCT, d[2].fma(-SUM, d[4])),
            odd_a.fma(A, even_a),
            odd_a.fma(-A, even_a),
            odd_b.fma(B, even_b),
            odd_b.fma(-B, even_b),
            d[1].fma(PRODUCT, d[3].fma(-SUM, d[5])),
        ]
    }
    #[inline(always)]
    fn output<F: Fused>(m: [F; 6]) -> [F; 4] {
        let (even_a, odd_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (even_b, odd_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(even_a.add(even_b)),
            odd_b.fma(B, odd_a.times(A)),
            even_b.fma(B2, even_a.times(A2)),
            odd_b.fma(B3, odd_a.fma(A3, m[5])),
        ]
    }
    #[inline(always)]
    fn cotangent<F: Fused>(y: [F; 4]) -> [F; 6] {
        let (even_a, odd_a) = (y[2].fma(A2, y[0]), y[3].fma(A2, y[1]));
        let (even_b, odd_b) = (y[2].fma(B2, y[0]), y[3].fma(B2, y[1]));
        [y[0], odd_a.fma(A, even_a), odd_a.fma(-A, even_a), odd_b.fma(B, even_b), odd_b.fma(-B, even_b), y[3]]
    }
    #[inline(always)]
    fn filter<W: Number>(g: [W; 3]) -> [W; 6] {
        let a = g[0].add_times(A2, g[2]).add_both(A, g[1]);
        let b = g[0].add_times(B2, g[2]).add_both(B, g[1]);
        [g[0].times(OF_ZERO), a[0].times(OF_A), a[1].times(OF_A), b[0].times(OF_B), b[1].times(OF_B), g[2]]
    }
    #[inline(always)]
    fn taps<W: Number>(s: [W; 6]) -> [W; 3] {
        let (even_a, odd_a) = (s[1].add(s[2]).times(OF_A), s[1].sub(s[2]).times(OF_A));
        let (even_b, odd_b) = (s[3].add(s[4]).times(OF_B), s[3].sub(s[4]).times(OF_B));
        [
            s[0].times(OF_ZERO).add(even_a.add(even_b)),
            odd_a.times(A).add(odd_b.times(B)),
            even_a.times(A2).add(even_b.times(B2)).add(s[5]),
        ]
    }
}
