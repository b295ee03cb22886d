//! The definitions: the loops from which the kernels differ in speed alone.
//!
//! Indices: n image, c channel, o filter, (ti, tj) tile, (i, j) pixel of a square, (a, b) element of a transformed
//! square.

use super::line::{F2, F4, Minimal, square};
use super::{Tile, Winograd};
use crate::leaves::{tile_leaves, tree};
use std::array::from_fn;

/// The S×S pixels of tile (ti, tj), squares `step` apart and `offset` above and left of the plane; +0 outside.
fn square_of<const S: usize>(
    plane: &[f32],
    size: (usize, usize),
    offset: (usize, usize),
    (ti, tj): (usize, usize),
    step: usize,
) -> [[f32; S]; S] {
    let pixel = |i: usize, j: usize| {
        let h = (ti * step + i).checked_sub(offset.0).filter(|h| *h < size.0)?;
        let v = (tj * step + j).checked_sub(offset.1).filter(|v| *v < size.1)?;
        Some(plane[h * size.1 + v])
    };
    from_fn(|i| from_fn(|j| pixel(i, j).unwrap_or(0.0)))
}

/// Plane `index` of images of `size`.
fn plane(x: &[f32], size: (usize, usize), index: usize) -> &[f32] {
    &x[index * size.0 * size.1..(index + 1) * size.0 * size.1]
}

impl Winograd {
    fn taps(&self, w: &[f32], o: usize, c: usize) -> [[f32; 3]; 3] {
        from_fn(|p| from_fn(|q| w[((o * self.c + c) * 3 + p) * 3 + q]))
    }
}

/// `Y = Aᵀ[Σ_k (G g Gᵀ) ⊙ (Bᵀ d B)]A`, g = `filter(column, k)`: filters in f64 and rounded once, the sum over ascending
/// k from +0, each term one fused multiply-add.
fn correlate<A: Minimal<M, N>, const M: usize, const N: usize>(
    n: usize,
    (x, channels, size, offset): (&[f32], usize, (usize, usize), (usize, usize)),
    filter: impl Fn(usize, usize) -> [[f32; 3]; 3],
    (y, columns, out): (&mut [f32], usize, (usize, usize)),
) {
    for n in 0..n {
        for o in 0..columns {
            for ti in 0..out.0.div_ceil(M) {
                for tj in 0..out.1.div_ceil(M) {
                    let mut m = [[0.0_f32; N]; N];
                    for k in 0..channels {
                        let from = plane(x, size, n * channels + k);
                        let v = square(square_of::<N>(from, size, offset, (ti, tj), M), A::input);
                        let wide = square(filter(o, k).map(|row| row.map(f64::from)), A::filter);
                        for a in 0..N {
                            for b in 0..N {
                                m[a][b] = v[a][b].mul_add(wide[a][b] as f32, m[a][b]);
                            }
                        }
                    }
                    let tile = square(m, A::output);
                    for i in 0..M.min(out.0 - ti * M) {
                        for j in 0..M.min(out.1 - tj * M) {
                            y[((n * columns + o) * out.0 + ti * M + i) * out.1 + tj * M + j] = tile[i][j];
                        }
                    }
                }
            }
        }
    }
}

fn forward_of<A: Minimal<M, N>, const M: usize, const N: usize>(
    conv: &Winograd,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
) {
    let from = (x, conv.c, conv.input, conv.padding);
    correlate::<A, M, N>(conv.n, from, |o, c| conv.taps(w, o, c), (y, conv.o, conv.output()));
}

fn input_gradient_of<A: Minimal<M, N>, const M: usize, const N: usize>(
    conv: &Winograd,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
) {
    let from = (dy, conv.o, conv.output(), (2 - conv.padding.0, 2 - conv.padding.1));
    let turned = |c: usize, o: usize| {
        let g = conv.taps(w, o, c);
        from_fn(|p| from_fn(|q| g[2 - p][2 - q]))
    };
    correlate::<A, M, N>(conv.n, from, turned, (dx, conv.c, conv.input));
}

fn weight_gradient_of<A: Minimal<M, N>, const M: usize, const N: usize>(
    conv: &Winograd,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let out = conv.output();
    let tiles = (out.0.div_ceil(M), out.1.div_ceil(M));
    let leaves = tile_leaves(conv.n, tiles, M);
    for o in 0..conv.o {
        for c in 0..conv.c {
            let leaf = |index: usize| {
                let mut s = [[0.0_f32; N]; N];
                for n in leaves[index].samples.clone() {
                    for ti in leaves[index].rows.clone() {
                        for tj in 0..tiles.1 {
                            let (from, to) =
                                (plane(x, conv.input, n * conv.c + c), plane(dy, out, n * conv.o + o));
                            let d = square_of::<N>(from, conv.input, conv.padding, (ti, tj), M);
                            let e = square_of::<M>(to, out, (0, 0), (ti, tj), M);
                            let (v, u) = (square(d, A::input), square(e, A::cotangent));
                            for a in 0..N {
                                for b in 0..N {
                                    s[a][b] = u[a][b].mul_add(v[a][b], s[a][b]);
                                }
                            }
                        }
                    }
                }
                s
            };
            let add = |p: [[f32; N]; N], q: [[f32; N]; N]| from_fn(|a| from_fn(|b| p[a][b] + q[a][b]));
            let s = tree(leaves.len(), leaf, add).unwrap_or([[0.0; N]; N]);
            let taps = square(s.map(|row| row.map(f64::from)), A::taps);
            for p in 0..3 {
                for q in 0..3 {
                    dw[((o * conv.c + c) * 3 + p) * 3 + q] = taps[p][q] as f32;
                }
            }
        }
    }
}

/// `y[n,o] = Aᵀ[Σ_c (G w[o,c] Gᵀ) ⊙ (Bᵀ d[n,c] B)]A` for every tile of outputs.
pub fn forward(conv: &Winograd, x: &[f32], w: &[f32], y: &mut [f32]) {
    match conv.tile {
        Tile::Two => forward_of::<F2, 2, 4>(conv, x, w, y),
        Tile::Four => forward_of::<F4, 4, 6>(conv, x, w, y),
    }
}

/// The same of `dy`, padded by 2 − padding, with every filter turned by half a turn; the sum is over filters.
pub fn input_gradient(conv: &Winograd, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    match conv.tile {
        Tile::Two => input_gradient_of::<F2, 2, 4>(conv, dy, w, dx),
        Tile::Four => input_gradient_of::<F4, 4, 6>(conv, dy, w, dx),
    }
}

/// `dw[o,c] = Gᵀ[Σ (A dy[n,o] Aᵀ) ⊙ (Bᵀ d[n,c] B)]G` over tiles (n, ti, tj) in leaves of the batch: within a leaf in that
/// order from +0, leaves added in f32 by the tree of their index; the last transform in f64, rounded once.
pub fn weight_gradient(conv: &Winograd, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    match conv.tile {
        Tile::Two => weight_gradient_of::<F2, 2, 4>(conv, x, dy, dw),
        Tile::Four => weight_gradient_of::<F4, 4, 6>(conv, x, dy, dw),
    }
}
