//! `conv2d_winograd`: the convolution of images with 3×3 filters by Winograd's minimal filtering (Winograd, 1980;
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, algorithm 1).

use super::conv2d::{add_bias, bias_gradient};
use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::{Axis, arity, images};
use crate::winograd::{F2, F4, Minimal, square};
use kinone_kernels::conv::winograd::{self, Tile, Winograd};
use kinone_kernels::leaves::{tile_leaves, tree};
use kinone_kernels::sums::Images;
use kinone_kernels::{Cpu, conv};
use std::array::from_fn;

/// 3×3 filters slid over images with stride 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv2dWinograd {
    /// How many outputs share their products.
    pub tile: Tile,
    /// Zeros added above and below, left and right: at most 2.
    pub padding: (usize, usize),
}

impl Tensor {
    /// Images `self [n, c, h, w]` with filters `w [o, c, 3, 3]`, plus `bias [o]`: `[n, o, i, j]`, by Winograd's
    /// minimal filtering.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn conv2d_winograd(
        &self,
        w: &Tensor,
        bias: Option<&Tensor>,
        conv: Conv2dWinograd,
    ) -> Result<Tensor, ShapeError> {
        match bias {
            Some(bias) => apply(conv, &[self, w, bias]),
            None => apply(conv, &[self, w]),
        }
    }
}

/// Planes of images, cut into squares that begin above and left of them by the offset; +0 outside.
#[derive(Clone, Copy)]
struct Planes {
    channels: usize,
    size: (usize, usize),
    offset: (usize, usize),
    /// Pixels from one square to the next.
    step: usize,
}

impl Planes {
    /// Pixel (i, j) of square (ti, tj) of a channel of image n: its flat index, if it lies inside.
    fn at(&self, [n, c]: [usize; 2], [ti, tj]: [usize; 2], [i, j]: [usize; 2]) -> Option<usize> {
        let h = (ti * self.step + i).checked_sub(self.offset.0).filter(|h| *h < self.size.0)?;
        let v = (tj * self.step + j).checked_sub(self.offset.1).filter(|v| *v < self.size.1)?;
        Some(((n * self.channels + c) * self.size.0 + h) * self.size.1 + v)
    }

    /// A square of S×S pixels.
    fn square<F: Real, const S: usize>(&self, x: &[F], nc: [usize; 2], tile: [usize; 2]) -> [[F; S]; S] {
        from_fn(|i| from_fn(|j| self.at(nc, tile, [i, j]).map_or(F::zero(), |at| x[at])))
    }
}

/// All extents of one application.
pub(super) struct Geometry {
    tile: Tile,
    n: usize,
    c: usize,
    o: usize,
    size: (usize, usize),
    out: (usize, usize),
    padding: (usize, usize),
}

/// `y = Aᵀ[Σ_k (G g Gᵀ) ⊙ (Bᵀ d B)]A` for every square of outputs of every image, where g is `filter(o, k)`. Filters
/// are transformed in the wide scalar and rounded once; the sum over k is ascending, from +0, each term one fused
/// multiply-add.
fn correlate<F: Real, T: Minimal<M, N>, const M: usize, const N: usize>(
    images: usize,
    (from, x): (Planes, &[F]),
    filter: impl Fn(usize, usize) -> [[F; 3]; 3],
    (to, y): (Planes, &mut [F]),
) {
    let transformed = |o: usize, k: usize| {
        let wide = square(filter(o, k).map(|row| row.map(F::wide)), T::filter);
        wide.map(|row| row.map(F::narrow))
    };
    let u: Vec<Vec<[[F; N]; N]>> =
        (0..to.channels).map(|o| (0..from.channels).map(|k| transformed(o, k)).collect()).collect();
    for n in 0..images {
        for ti in 0..to.size.0.div_ceil(M) {
            for tj in 0..to.size.1.div_ceil(M) {
                let v: Vec<[[F; N]; N]> = (0..from.channels)
                    .map(|k| square(from.square::<F, N>(x, [n, k], [ti, tj]), T::input))
                    .collect();
                for o in 0..to.channels {
                    let mut m = [[F::zero(); N]; N];
                    for k in 0..from.channels {
                        for a in 0..N {
                            for b in 0..N {
                                m[a][b] = v[k][a][b].fma(u[o][k][a][b], m[a][b]);
                            }
                        }
                    }
                    let tile = square(m, T::output);
                    for i in 0..M {
                        for j in 0..M {
                            if let Some(at) = to.at([n, o], [ti, tj], [i, j]) {
                                y[at] = tile[i][j];
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Geometry {
    fn images(&self) -> Planes {
        Planes { channels: self.c, size: self.size, offset: self.padding, step: 0 }
    }

    fn outputs(&self) -> Planes {
        Planes { channels: self.o, size: self.out, offset: (0, 0), step: 0 }
    }

    /// The nine taps of channel c of filter o.
    fn taps<F: Real>(&self, w: &[F], o: usize, c: usize) -> [[F; 3]; 3] {
        from_fn(|p| from_fn(|q| w[((o * self.c + c) * 3 + p) * 3 + q]))
    }

    fn correlate<F: Real, T: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        x: &[F],
        w: &[F],
        y: &mut [F],
    ) {
        let (from, to) = (Planes { step: M, ..self.images() }, Planes { step: M, ..self.outputs() });
        correlate::<F, T, M, N>(self.n, (from, x), |o, c| self.taps(w, o, c), (to, y));
    }

    /// The same of the cotangents, padded by 2 − padding, with every filter turned by half a turn; the sum is over
    /// filters.
    fn correlate_back<F: Real, T: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        dy: &[F],
        w: &[F],
        dx: &mut [F],
    ) {
        let offset = (2 - self.padding.0, 2 - self.padding.1);
        let from = Planes { offset, step: M, ..self.outputs() };
        let to = Planes { offset: (0, 0), step: M, ..self.images() };
        let turned = |c: usize, o: usize| {
            let g = self.taps(w, o, c);
            from_fn(|p| from_fn(|q| g[2 - p][2 - q]))
        };
        correlate::<F, T, M, N>(self.n, (from, dy), turned, (to, dx));
    }

    /// `dw = Gᵀ[Σ (A ȳ Aᵀ) ⊙ (Bᵀ d B)]G` over the squares (n, ti, tj) in leaves of the batch: within a leaf in that
    /// order from +0, leaves added by the tree of their index; the last transform is in the wide scalar.
    fn gather<F: Real, T: Minimal<M, N>, const M: usize, const N: usize>(
        &self,
        x: &[F],
        dy: &[F],
        dw: &mut [F],
    ) {
        let (images, outputs) = (Planes { step: M, ..self.images() }, Planes { step: M, ..self.outputs() });
        let (th, tw) = (self.out.0.div_ceil(M), self.out.1.div_ceil(M));
        let tiles = || (0..self.n * th * tw).map(|at| (at / (th * tw), [at / tw % th, at % tw]));
        let leaves = tile_leaves(self.n, (th, tw), M);
        let v: Vec<Vec<[[F; N]; N]>> = (0..self.c)
            .map(|c| tiles().map(|(n, t)| square(images.square::<F, N>(x, [n, c], t), T::input)).collect())
            .collect();
        for o in 0..self.o {
            let u: Vec<[[F; N]; N]> =
                tiles().map(|(n, t)| square(outputs.square::<F, M>(dy, [n, o], t), T::cotangent)).collect();
            for c in 0..self.c {
                let leaf = |index: usize| {
                    let mut s = [[F::zero(); N]; N];
                    for n in leaves[index].samples.clone() {
                        for ti in leaves[index].rows.clone() {
                            for tj in 0..tw {
                                let at = (n * th + ti) * tw + tj;
                                for a in 0..N {
                                    for b in 0..N {
                                        s[a][b] = u[at][a][b].fma(v[c][at][a][b], s[a][b]);
                                    }
                                }
                            }
                        }
                    }
                    s
                };
                let add = |p: [[F; N]; N], q: [[F; N]; N]| from_fn(|a| from_fn(|b| p[a][b] + q[a][b]));
                let s = tree(leaves.len(), leaf, add).unwrap_or([[F::zero(); N]; N]);
                let taps = square(s.map(|row| row.map(F::wide)), T::taps);
                for p in 0..3 {
                    for q in 0..3 {
                        dw[((o * self.c + c) * 3 + p) * 3 + q] = F::narrow(taps[p][q]);
                    }
                }
            }
        }
    }
}

impl Geometry {
    /// What the kernels call it.
    pub(super) fn kernel(&self) -> Winograd {
        let &Geometry { tile, n, c, o, size: input, padding, .. } = self;
        Winograd { tile, n, c, input, o, padding }
    }

    pub(super) fn forward<F: Real>(&self, x: &[F], w: &[F], y: &mut [F]) {
        match self.tile {
            Tile::Two => self.correlate::<F, F2, 2, 4>(x, w, y),
            Tile::Four => self.correlate::<F, F4, 4, 6>(x, w, y),
        }
    }

    pub(super) fn input_gradient<F: Real>(&self, dy: &[F], w: &[F], dx: &mut [F]) {
        match self.tile {
            Tile::Two => self.correlate_back::<F, F2, 2, 4>(dy, w, dx),
            Tile::Four => self.correlate_back::<F, F4, 4, 6>(dy, w, dx),
        }
    }

    pub(super) fn weight_gradient<F: Real>(&self, x: &[F], dy: &[F], dw: &mut [F]) {
        match self.tile {
            Tile::Two => self.gather::<F, F2, 2, 4>(x, dy, dw),
            Tile::Four => self.gather::<F, F4, 4, 6>(x, dy, dw),
        }
    }
}

impl Conv2dWinograd {
    fn geometry(&self, x: &Shape, w: &Shape) -> Result<Geometry, ShapeError> {
        let name = Self::DOC.name;
        let ([n, c, h, v], [o, k, kh, kw]) = (images(name, x)?, images(name, w)?);
        if (k, kh, kw) != (c, 3, 3) {
            let reason = format!("filters {w} do not fit images {x}; they are [o, {c}, 3, 3]");
            return Err(ShapeError::new(name, reason));
        }
        if self.padding.0 > 2 || self.padding.1 > 2 {
            let reason = format!("padding {} and {} must be at most 2", self.padding.0, self.padding.1);
            return Err(ShapeError::new(name, reason));
        }
        let extent = |size, padding| Axis { size, taps: 3, stride: 1, padding, dilation: 1 }.positions(name);
        let out = (extent(h, self.padding.0)?, extent(v, self.padding.1)?);
        Ok(Geometry { tile: self.tile, n, c, o, size: (h, v), out, padding: self.padding })
    }

    pub(super) fn known(&self, x: &Shape, w: &Shape) -> Geometry {
        match self.geometry(x, w) {
            Ok(geometry) => geometry,
            Err(error) => unreachable!("shapes were checked: {error}"),
        }
    }
}

impl Operator for Conv2dWinograd {
    const DOC: Doc = Doc {
        name: "conv2d_winograd",
        summary: "The cross-correlation of images with 3×3 filters by Winograd's minimal filtering.",
        formula: r"Y_{not} = A^\top\Bigl[\sum_c (G\, w_{oc}\, G^\top) \odot (B^\top d_{nct} B)\Bigr] A + b_o",
        gradient: r"\bar x = \text{the same of } \bar y \text{ with } w \text{ turned by half a turn}, \quad
            \bar w_{oc} = G^\top\Bigl[\sum_{nt} (A\, \bar Y_{not} A^\top) \odot (B^\top d_{nct} B)\Bigr] G, \quad
            \bar b_o = \sum_{nij} \bar y_{noij}",
        shapes: "x [n, c, h, w], w [o, c, 3, 3], b [o] or none; y [n, o, i, j]",
        conventions: "Y_{not} is square t of m×m outputs (m is 2 or 4) and d_{nct} the square of m+2 inputs under \
            it, +0 outside the image; outputs outside are dropped. A transform of a square is that of its columns, \
            then of its rows; the order of operations of a line is that of core/src/winograd.rs. G w Gᵀ is taken in \
            f64 and rounded once, and so is the last transform of the weight's gradient. The sum over c is \
            ascending from +0, each term one fused multiply-add; in the gradient of x it is over filters. The sum \
            over squares is in leaves of the batch. The bias is added by a rounding of its own, its gradient \
            summed in f64. An infinite input makes NaN of its whole square. Without channels y is b.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[2, 3], x.len())?;
        let g = self.geometry(x[0], x[1])?;
        if let Some(bias) = x.get(2).filter(|bias| bias[..] != [g.o]) {
            return Err(ShapeError::new(Self::DOC.name, format!("the bias is [{}], not {bias}", g.o)));
        }
        Ok(Shape::from([g.n, g.o, g.out.0, g.out.1]).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let g = self.known(x[0].shape(), x[1].shape());
        g.forward(x[0].data(), x[1].data(), y.value);
        if let Some(bias) = x.get(2) {
            add_bias(bias.data(), g.out.0 * g.out.1, y.value);
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let g = self.known(x.shape(), w.shape());
        if let Some(dx) = &mut dx[0] {
            g.input_gradient(dy.data(), w.data(), dx);
        }
        if let Some(dw) = &mut dx[1] {
            g.weight_gradient(x.data(), dy.data(), dw);
        }
        if let Some(Some(db)) = dx.get_mut(2) {
            bias_gradient(g.n, g.out, dy.data(), db);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let g = self.known(x[0].shape(), x[1].shape());
        winograd::forward(cpu, &g.kernel(), x[0].data(), x[1].data(), y.value);
        if let Some(bias) = x.get(2) {
            add_bias(bias.data(), g.out.0 * g.out.1, y.value);
        }
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let g = self.known(x.shape(), w.shape());
        if let Some(dx) = &mut dx[0] {
            winograd::input_gradient(cpu, &g.kernel(), dy.data(), w.data(), dx);
        }
        if let Some(dw) = &mut dx[1] {
            winograd::weight_gradient(cpu, &g.kernel(), x.data(), dy.data(), dw);
        }
        if let Some(Some(db)) = dx.get_mut(2) {
            conv::bias_gradient(cpu, Images { n: g.n, c: g.o, h: g.out.0, w: g.out.1 }, dy.data(), db);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let inputs: Vec<&str> = x.iter().map(|value| value.name.as_str()).collect();
        let (above, left) = self.padding;
        let attributes = [
            ("kernel_shape", Attribute::sizes(&[3, 3])),
            ("strides", Attribute::sizes(&[1, 1])),
            ("pads", Attribute::sizes(&[above, left, above, left])),
            ("dilations", Attribute::sizes(&[1, 1])),
            ("group", Attribute::Int(1)),
        ];
        Ok(graph.node("Conv", &inputs, &attributes))
    }

    fn cases() -> Vec<Case<Self>> {
        let inputs = |x: [usize; 4], o: usize| vec![Input::real(x), Input::real([o, x[1], 3, 3])];
        let with_bias = |x: [usize; 4], o: usize| [inputs(x, o), vec![Input::real([o])]].concat();
        let of = |tile: Tile| {
            let conv = move |padding: (usize, usize)| Conv2dWinograd { tile, padding };
            vec![
                Case::new("whole squares", conv((1, 1)), inputs([2, 2, 4, 4], 2)),
                Case::new("squares over the edge", conv((1, 1)), with_bias([1, 2, 5, 7], 3)),
                Case::new("no padding", conv((0, 0)), with_bias([2, 1, 3, 6], 2)),
                Case::new("wide padding", conv((2, 1)), inputs([1, 2, 3, 1], 2)),
                Case::new("one pixel", conv((2, 2)), inputs([2, 1, 1, 1], 1)),
                Case::new("several leaves", conv((1, 1)), with_bias([9, 3, 34, 33], 5)).bits_only(),
                Case::new("an image in several leaves", conv((1, 0)), inputs([2, 2, 67, 66], 3)).bits_only(),
                Case::new("a residual layer", conv((1, 1)), inputs([5, 67, 7, 7], 50)).bits_only(),
                Case::new("no images", conv((0, 0)), with_bias([0, 2, 4, 4], 3)).bits_only(),
                Case::new("no channels", conv((1, 1)), with_bias([2, 0, 4, 4], 3)).bits_only(),
                Case::new("no filters", conv((1, 1)), inputs([2, 2, 4, 4], 0)).bits_only(),
            ]
        };
        [of(Tile::Two), of(Tile::Four)].concat()
    }
}
