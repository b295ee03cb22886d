//! The transforms of Winograd's minimal filtering (Winograd, "Arithmetic Complexity of Computations", SIAM 1980;
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016), each with its order of
//! operations.
//!
//! `M` outputs of a filter of three taps come from `N = M + 2` inputs by `N` multiplications:
//! `y = Aᵀ[(G g) ⊙ (Bᵀ d)]`, and in two dimensions by `N²`: `Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A`.

use crate::real::Real;
use std::array::from_fn;

/// The five transforms of a line. Those of inputs, products and cotangents are of the scalar; those of filters
/// are of the wide one, and rounded once by the caller.
pub(crate) trait Minimal<const M: usize, const N: usize> {
    /// `Bᵀ d`
    fn input<F: Real>(d: [F; N]) -> [F; N];
    /// `Aᵀ m`
    fn output<F: Real>(m: [F; N]) -> [F; M];
    /// `A y`
    fn cotangent<F: Real>(y: [F; M]) -> [F; N];
    /// `G g`
    fn filter<W: Real>(g: [W; 3]) -> [W; N];
    /// `Gᵀ s`
    fn taps<W: Real>(s: [W; N]) -> [W; 3];
}

/// A transform of a square: of its columns, then of the rows of what came out.
pub(crate) fn square<F: Copy, const R: usize, const S: usize>(
    x: [[F; R]; R],
    line: impl Fn([F; R]) -> [F; S],
) -> [[F; S]; S] {
    let columns: [[F; S]; R] = from_fn(|j| line(from_fn(|i| x[i][j])));
    from_fn(|i| line(from_fn(|j| columns[j][i])))
}

/// F(2, 3) with the points 0, 1, −1, ∞.
pub(crate) struct F2;

impl Minimal<2, 4> for F2 {
    fn input<F: Real>(d: [F; 4]) -> [F; 4] {
        [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]
    }

    fn output<F: Real>(m: [F; 4]) -> [F; 2] {
        [m[0] + (m[1] + m[2]), (m[1] - m[2]) + m[3]]
    }

    fn cotangent<F: Real>(y: [F; 2]) -> [F; 4] {
        [y[0], y[0] + y[1], y[0] - y[1], y[1]]
    }

    fn filter<W: Real>(g: [W; 3]) -> [W; 4] {
        let half = W::of(0.5);
        let (even, odd) = (half * (g[0] + g[2]), half * g[1]);
        [g[0], even + odd, even - odd, g[2]]
    }

    fn taps<W: Real>(s: [W; 4]) -> [W; 3] {
        let half = W::of(0.5);
        let (even, odd) = (half * (s[1] + s[2]), half * (s[1] - s[2]));
        [s[0] + even, odd, even + s[3]]
    }
}

/// F(4, 3) with the points 0, ±5/8, ±3/2, ∞: of the pairs of short binary fractions among the most accurate, and
/// more than twice as accurate as the usual ±1, ±2.
pub(crate) struct F4;

/// The points a and b, and what the transforms need of them; exact, but for the last three.
const A: f64 = 0.625;
const B: f64 = 1.5;
const A2: f64 = A * A;
const B2: f64 = B * B;
const A3: f64 = A * A2;
const B3: f64 = B * B2;
/// a² + b² and a²b²
const SUM: f64 = A2 + B2;
const PRODUCT: f64 = A2 * B2;
/// One over the product of a point's distances to the others: of 0, of ±a, of ±b.
const OF_ZERO: f64 = 1.0 / PRODUCT;
const OF_A: f64 = 1.0 / (2.0 * A2 * (A2 - B2));
const OF_B: f64 = 1.0 / (2.0 * B2 * (B2 - A2));

impl Minimal<4, 6> for F4 {
    fn input<F: Real>(d: [F; 6]) -> [F; 6] {
        let first = F::of(PRODUCT).fma(d[0], F::of(-SUM).fma(d[2], d[4]));
        let last = F::of(PRODUCT).fma(d[1], F::of(-SUM).fma(d[3], d[5]));
        // The even and odd terms of a and −a, and of b and −b.
        let (even_a, odd_a) = (F::of(-B2).fma(d[2], d[4]), F::of(-B2).fma(d[1], d[3]));
        let (even_b, odd_b) = (F::of(-A2).fma(d[2], d[4]), F::of(-A2).fma(d[1], d[3]));
        [
            first,
            F::of(A).fma(odd_a, even_a),
            F::of(-A).fma(odd_a, even_a),
            F::of(B).fma(odd_b, even_b),
            F::of(-B).fma(odd_b, even_b),
            last,
        ]
    }

    fn output<F: Real>(m: [F; 6]) -> [F; 4] {
        let (even_a, odd_a) = (m[1] + m[2], m[1] - m[2]);
        let (even_b, odd_b) = (m[3] + m[4], m[3] - m[4]);
        [
            m[0] + (even_a + even_b),
            F::of(B).fma(odd_b, F::of(A) * odd_a),
            F::of(B2).fma(even_b, F::of(A2) * even_a),
            F::of(B3).fma(odd_b, F::of(A3).fma(odd_a, m[5])),
        ]
    }

    fn cotangent<F: Real>(y: [F; 4]) -> [F; 6] {
        let (even_a, odd_a) = (F::of(A2).fma(y[2], y[0]), F::of(A2).fma(y[3], y[1]));
        let (even_b, odd_b) = (F::of(B2).fma(y[2], y[0]), F::of(B2).fma(y[3], y[1]));
        [
            y[0],
            F::of(A).fma(odd_a, even_a),
            F::of(-A).fma(odd_a, even_a),
            F::of(B).fma(odd_b, even_b),
            F::of(-B).fma(odd_b, even_b),
            y[3],
        ]
    }

    fn filter<W: Real>(g: [W; 3]) -> [W; 6] {
        let (even_a, odd_a) = (g[0] + W::of(A2) * g[2], W::of(A) * g[1]);
        let (even_b, odd_b) = (g[0] + W::of(B2) * g[2], W::of(B) * g[1]);
        [
            W::of(OF_ZERO) * g[0],
            W::of(OF_A) * (even_a + odd_a),
            W::of(OF_A) * (even_a - odd_a),
            W::of(OF_B) * (even_b + odd_b),
            W::of(OF_B) * (even_b - odd_b),
            g[2],
        ]
    }

    fn taps<W: Real>(s: [W; 6]) -> [W; 3] {
        let (even_a, odd_a) = (W::of(OF_A) * (s[1] + s[2]), W::of(OF_A) * (s[1] - s[2]));
        let (even_b, odd_b) = (W::of(OF_B) * (s[3] + s[4]), W::of(OF_B) * (s[3] - s[4]));
        [
            W::of(OF_ZERO) * s[0] + (even_a + even_b),
            W::of(A) * odd_a + W::of(B) * odd_b,
            (W::of(A2) * even_a + W::of(B2) * even_b) + s[5],
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entry (i, j) of the matrix of a linear map, from what it makes of unit vectors.
    fn matrix<const R: usize, const S: usize>(map: impl Fn([f64; R]) -> [f64; S]) -> [[f64; R]; S] {
        let columns: [[f64; S]; R] = from_fn(|j| map(from_fn(|k| if k == j { 1.0 } else { 0.0 })));
        from_fn(|i| from_fn(|j| columns[j][i]))
    }

    /// Σ_k A[k,i]·G[k,p]·Bᵀ[k,j] is 1 where j = i + p and 0 elsewhere: the products are the correlation. The other
    /// two maps are transposes of these.
    fn holds<T: Minimal<M, N>, const M: usize, const N: usize>() {
        let (input, output) = (matrix(T::input::<f64>), matrix(T::output::<f64>));
        let (filter, taps) = (matrix(T::filter::<f64>), matrix(T::taps::<f64>));
        let cotangent = matrix(T::cotangent::<f64>);
        for i in 0..M {
            for p in 0..3 {
                for j in 0..N {
                    let sum: f64 = (0..N).fold(0.0, |sum, k| sum + output[i][k] * filter[k][p] * input[k][j]);
                    let wanted = if j == i + p { 1.0 } else { 0.0 };
                    assert!((sum - wanted).abs() < 1e-14, "output {i}, tap {p}, input {j}: {sum}");
                }
            }
        }
        for k in 0..N {
            assert!((0..M).all(|i| cotangent[k][i] == output[i][k]), "the cotangent's row {k}");
            assert!((0..3).all(|p| taps[p][k] == filter[k][p]), "the taps' column {k}");
        }
    }

    #[test]
    fn the_transforms_make_a_correlation_of_products() {
        holds::<F2, 2, 4>();
        holds::<F4, 4, 6>();
    }

    /// Every constant of the transforms of inputs, products and cotangents is a number of single precision.
    #[test]
    fn the_constants_are_exact() {
        for constant in [A, B, A2, B2, A3, B3, SUM, PRODUCT] {
            assert_eq!(f64::from(constant as f32), constant);
        }
    }
}
