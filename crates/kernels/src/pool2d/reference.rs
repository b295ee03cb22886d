//! Pooling as plain loops: what the kernels of [`super`] return, bit for bit.
//!
//! Means and their gradients are summed in f64 from +0 and rounded once.

use super::{Pool, window};
use crate::sums::reference::sum;

/// The greatest value of each window and the index `p·kw + q` of its tap.
///
/// The first tap inside the image is the candidate; in scan order (p, q) a later tap takes its place when it is
/// greater, or when it is NaN and the candidate is not. So of equal values the first wins, and NaN is kept. A
/// window without a tap inside the image gives -∞ and `kh·kw`.
pub fn max(pool: &Pool, x: &[f32], y: &mut [f32], winner: &mut [f32]) {
    let ([h, w], [oh, ow], [kh, kw]) = (pool.input, pool.output, pool.kernel);
    for plane in 0..pool.planes {
        for i in 0..oh {
            for j in 0..ow {
                let (mut best, mut tap) = (f32::NEG_INFINITY, kh * kw);
                for p in 0..kh {
                    for q in 0..kw {
                        let inside = (pool.position(0, i, p), pool.position(1, j, q));
                        let (Some(row), Some(column)) = inside else { continue };
                        let x = x[(plane * h + row) * w + column];
                        if tap == kh * kw || x > best || (x.is_nan() && !best.is_nan()) {
                            (best, tap) = (x, p * kw + q);
                        }
                    }
                }
                let at = (plane * oh + i) * ow + j;
                y[at] = best;
                winner[at] = tap as f32;
            }
        }
    }
}

/// `dx[u, v] = Σ dy[i, j]` over the outputs whose winner is (u, v), in the order (i, j), in f32 from +0.
pub fn max_backward(pool: &Pool, winner: &[f32], dy: &[f32], dx: &mut [f32]) {
    let ([h, w], [oh, ow], [kh, kw]) = (pool.input, pool.output, pool.kernel);
    dx.fill(0.0);
    for plane in 0..pool.planes {
        for i in 0..oh {
            for j in 0..ow {
                let at = (plane * oh + i) * ow + j;
                let tap = winner[at] as usize;
                if tap < kh * kw {
                    let inside = (pool.position(0, i, tap / kw), pool.position(1, j, tap % kw));
                    let (Some(row), Some(column)) = inside else { continue };
                    dx[(plane * h + row) * w + column] += dy[at];
                }
            }
        }
    }
}

/// `y[i, j] = f32((Σ x) / count)`, the sum over the taps inside the image in scan order (p, q), and the count by
/// [`Pool::taps`]; +0 where the count is 0.
pub fn average(pool: &Pool, include_padding: bool, x: &[f32], y: &mut [f32]) {
    let ([h, w], [oh, ow], [kh, kw]) = (pool.input, pool.output, pool.kernel);
    for plane in 0..pool.planes {
        for i in 0..oh {
            for j in 0..ow {
                let mut sum = 0.0;
                for p in 0..kh {
                    for q in 0..kw {
                        let inside = (pool.position(0, i, p), pool.position(1, j, q));
                        let (Some(row), Some(column)) = inside else { continue };
                        sum += f64::from(x[(plane * h + row) * w + column]);
                    }
                }
                let count = pool.taps(0, i, include_padding) * pool.taps(1, j, include_padding);
                y[(plane * oh + i) * ow + j] = if count == 0 { 0.0 } else { (sum / count as f64) as f32 };
            }
        }
    }
}

/// `dx[u, v] = f32(Σ f64(dy[i, j])/count)` over the windows (i, j) that have (u, v), in the order (i, j); each
/// quotient is rounded to f64.
pub fn average_backward(pool: &Pool, include_padding: bool, dy: &[f32], dx: &mut [f32]) {
    let ([h, w], [oh, ow], [kh, kw]) = (pool.input, pool.output, pool.kernel);
    for plane in 0..pool.planes {
        let mut sums = vec![0.0; h * w];
        for i in 0..oh {
            for j in 0..ow {
                let count = pool.taps(0, i, include_padding) * pool.taps(1, j, include_padding);
                let share = f64::from(dy[(plane * oh + i) * ow + j]) / count as f64;
                for p in 0..kh {
                    for q in 0..kw {
                        let inside = (pool.position(0, i, p), pool.position(1, j, q));
                        let (Some(row), Some(column)) = inside else { continue };
                        sums[row * w + column] += share;
                    }
                }
            }
        }
        for (at, sum) in sums.into_iter().enumerate() {
            dx[plane * h * w + at] = sum as f32;
        }
    }
}

/// `y[i, j] = f32((Σ x) / count)` over the pixels of [`window`]s, taken row by row, by the leaves of a long sum.
pub fn adaptive_average(planes: usize, input: [usize; 2], output: [usize; 2], x: &[f32], y: &mut [f32]) {
    let ([h, w], [oh, ow]) = (input, output);
    for plane in 0..planes {
        for i in 0..oh {
            for j in 0..ow {
                let (rows, columns) = (window(h, oh, i), window(w, ow, j));
                let count = rows.len() * columns.len();
                let term = |k: usize| {
                    let (row, column) = (rows.start + k / columns.len(), columns.start + k % columns.len());
                    f64::from(x[(plane * h + row) * w + column])
                };
                y[(plane * oh + i) * ow + j] = (sum(count, term) / count as f64) as f32;
            }
        }
    }
}

/// As [`average_backward`], with the windows of [`adaptive_average`].
pub fn adaptive_average_backward(
    planes: usize,
    input: [usize; 2],
    output: [usize; 2],
    dy: &[f32],
    dx: &mut [f32],
) {
    let ([h, w], [oh, ow]) = (input, output);
    for plane in 0..planes {
        let mut sums = vec![0.0; h * w];
        for i in 0..oh {
            for j in 0..ow {
                let (rows, columns) = (window(h, oh, i), window(w, ow, j));
                let count = rows.len() * columns.len();
                let share = f64::from(dy[(plane * oh + i) * ow + j]) / count as f64;
                for row in rows {
                    for column in columns.clone() {
                        sums[row * w + column] += share;
                    }
                }
            }
        }
        for (at, sum) in sums.into_iter().enumerate() {
            dx[plane * h * w + at] = sum as f32;
        }
    }
}
