//! `conv2d`: the cross-correlation of images with filters (LeCun et al., 1989).

use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::{Axis, arity, images};
use kinone_kernels::leaves::{batch_leaves, tree};
use kinone_kernels::sums::Images;
use kinone_kernels::{Cpu, conv};

/// Filters slid over images; pairs are (vertical, horizontal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Pixels from one position to the next.
    pub stride: (usize, usize),
    /// Zeros added on every side.
    pub padding: (usize, usize),
    /// Pixels from one tap to the next.
    pub dilation: (usize, usize),
    /// Channel groups that do not see each other.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Conv2d {
        Conv2d { stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1 }
    }
}

impl Tensor {
    /// Images `self [n, c, h, w]` with filters `w [o, c/groups, kh, kw]`, plus `bias [o]`: `[n, o, i, j]`.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn conv2d(&self, w: &Tensor, bias: Option<&Tensor>, conv: Conv2d) -> Result<Tensor, ShapeError> {
        match bias {
            Some(bias) => apply(conv, &[self, w, bias]),
            None => apply(conv, &[self, w]),
        }
    }
}

/// All extents of one application.
pub(crate) struct Geometry {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) o: usize,
    pub(crate) rows: Axis,
    pub(crate) columns: Axis,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
    pub(crate) groups: usize,
}

impl Geometry {
    /// Input channels, and filters, of a group.
    pub(crate) fn group(&self) -> (usize, usize) {
        (self.c / self.groups, self.o / self.groups)
    }

    /// The flat index of pixel (h, v) of channel c of image n.
    fn x(&self, n: usize, c: usize, h: usize, v: usize) -> usize {
        ((n * self.c + c) * self.rows.size + h) * self.columns.size + v
    }

    /// The flat index of tap (p, q) of channel k (within its group) of filter o.
    fn w(&self, o: usize, k: usize, p: usize, q: usize) -> usize {
        ((o * self.group().0 + k) * self.rows.taps + p) * self.columns.taps + q
    }

    /// The flat index of position (i, j) of filter o of image n.
    fn y(&self, n: usize, o: usize, i: usize, j: usize) -> usize {
        ((n * self.o + o) * self.oh + i) * self.ow + j
    }

    /// The input under tap (p, q) of position (i, j); +0 on the padding.
    fn input<F: Real>(&self, x: &[F], [n, c]: [usize; 2], [i, j]: [usize; 2], [p, q]: [usize; 2]) -> F {
        match (self.rows.pixel(i, p), self.columns.pixel(j, q)) {
            (Some(h), Some(v)) => x[self.x(n, c, h, v)],
            _ => F::zero(),
        }
    }

    /// `y[n,o,i,j] = Σ_{c,p,q} x·w`, in that order from +0.
    pub(crate) fn forward<F: Real>(&self, x: &[F], w: &[F], y: &mut [F]) {
        let (channels, filters) = self.group();
        for n in 0..self.n {
            for o in 0..self.o {
                for i in 0..self.oh {
                    for j in 0..self.ow {
                        let mut sum = F::zero();
                        for k in 0..channels {
                            let c = o / filters * channels + k;
                            for p in 0..self.rows.taps {
                                for q in 0..self.columns.taps {
                                    let value = self.input(x, [n, c], [i, j], [p, q]);
                                    sum = value.fma(w[self.w(o, k, p, q)], sum);
                                }
                            }
                        }
                        y[self.y(n, o, i, j)] = sum;
                    }
                }
            }
        }
    }

    /// `dx[n,c,h,v] = Σ_{o,p,q} dy·w`, in that order from +0. A tap between two positions is no term; one
    /// beside all positions is a term with +0.
    pub(crate) fn input_gradient<F: Real>(&self, dy: &[F], w: &[F], dx: &mut [F]) {
        let (channels, filters) = self.group();
        for n in 0..self.n {
            for c in 0..self.c {
                for h in 0..self.rows.size {
                    for v in 0..self.columns.size {
                        let mut sum = F::zero();
                        for o in c / channels * filters..(c / channels + 1) * filters {
                            for p in 0..self.rows.taps {
                                for q in 0..self.columns.taps {
                                    let i = self.rows.position(h, p, self.oh);
                                    let j = self.columns.position(v, q, self.ow);
                                    let (Some(i), Some(j)) = (i, j) else { continue };
                                    let value = match (i, j) {
                                        (Some(i), Some(j)) => dy[self.y(n, o, i, j)],
                                        _ => F::zero(),
                                    };
                                    sum = value.fma(w[self.w(o, c % channels, p, q)], sum);
                                }
                            }
                        }
                        dx[self.x(n, c, h, v)] = sum;
                    }
                }
            }
        }
    }

    /// `dw[o,k,p,q] = Σ_{n,i,j} dy·x`: within a leaf of the batch in that order from +0, leaves added by the
    /// tree of their index.
    pub(crate) fn weight_gradient<F: Real>(&self, x: &[F], dy: &[F], dw: &mut [F]) {
        let (channels, filters) = self.group();
        let leaves = batch_leaves(self.n, self.oh, self.ow);
        for o in 0..self.o {
            for k in 0..channels {
                let c = o / filters * channels + k;
                for p in 0..self.rows.taps {
                    for q in 0..self.columns.taps {
                        let leaf = |index: usize| {
                            let mut sum = F::zero();
                            for n in leaves[index].samples.clone() {
                                for i in leaves[index].rows.clone() {
                                    for j in 0..self.ow {
                                        let value = self.input(x, [n, c], [i, j], [p, q]);
                                        sum = dy[self.y(n, o, i, j)].fma(value, sum);
                                    }
                                }
                            }
                            sum
                        };
                        let sum = tree(leaves.len(), leaf, |a, b| a + b).unwrap_or(F::zero());
                        dw[self.w(o, k, p, q)] = sum;
                    }
                }
            }
        }
    }

    /// What the kernels call it.
    pub(crate) fn kernel(&self) -> conv::Conv {
        let pair = |f: fn(&Axis) -> usize| (f(&self.rows), f(&self.columns));
        conv::Conv {
            n: self.n,
            c: self.c,
            input: pair(|axis| axis.size),
            o: self.o,
            kernel: pair(|axis| axis.taps),
            stride: pair(|axis| axis.stride),
            padding: pair(|axis| axis.padding),
            dilation: pair(|axis| axis.dilation),
            groups: self.groups,
        }
    }
}

/// `y[n,o,i,j] = y[n,o,i,j] + b[o]`, a rounding of its own.
pub(crate) fn add_bias<F: Real>(b: &[F], plane: usize, y: &mut [F]) {
    for (index, plane) in y.chunks_exact_mut(plane.max(1)).enumerate() {
        for y in plane {
            *y = *y + b[index % b.len()];
        }
    }
}

/// `db[o] = Σ_{n,i,j} dy`, in f64 by the leaves of the batch, rounded once.
pub(crate) fn bias_gradient<F: Real>(n: usize, (oh, ow): (usize, usize), dy: &[F], db: &mut [F]) {
    let filters = db.len();
    for (o, d) in db.iter_mut().enumerate() {
        let term = |n: usize, at: usize| dy[(n * filters + o) * oh * ow + at].wide();
        *d = F::narrow(reduce::batch_sum(n, oh, ow, term));
    }
}

impl Conv2d {
    fn geometry(&self, x: &Shape, w: &Shape) -> Result<Geometry, ShapeError> {
        let name = Self::DOC.name;
        let ([n, c, h, v], [o, k, kh, kw]) = (images(name, x)?, images(name, w)?);
        let groups = self.groups;
        if groups == 0 || !c.is_multiple_of(groups) || !o.is_multiple_of(groups) || k != c / groups {
            let reason = format!("filters {w} do not fit images {x} in {groups} groups");
            return Err(ShapeError::new(name, reason));
        }
        let axis = |size, taps, stride, padding, dilation| Axis { size, taps, stride, padding, dilation };
        let rows = axis(h, kh, self.stride.0, self.padding.0, self.dilation.0);
        let columns = axis(v, kw, self.stride.1, self.padding.1, self.dilation.1);
        let (oh, ow) = (rows.positions(name)?, columns.positions(name)?);
        Ok(Geometry { n, c, o, rows, columns, oh, ow, groups })
    }

    pub(crate) fn known(&self, x: &Shape, w: &Shape) -> Geometry {
        match self.geometry(x, w) {
            Ok(geometry) => geometry,
            Err(error) => unreachable!("shapes were checked: {error}"),
        }
    }
}

impl Operator for Conv2d {
    const DOC: Doc = Doc {
        name: "conv2d",
        summary: "The cross-correlation of images with filters.",
        formula: r"y_{noij} = \sum_{cpq} x_{n,c,\,is+pd-a,\,js+qd-a}\, w_{ocpq} + b_o",
        gradient: r"\bar x_{nchv} = \sum_{opq} \bar y_{noij} w_{ocpq} \ (is+pd-a=h,\ js+qd-a=v), \quad
            \bar w_{ocpq} = \sum_{nij} \bar y_{noij}\, x_{n,c,\,is+pd-a,\,js+qd-a}, \quad
            \bar b_o = \sum_{nij} \bar y_{noij}",
        shapes: "x [n, c, h, w], w [o, c/groups, kh, kw], b [o] or none; y [n, o, i, j]",
        conventions: "s is the stride, a the padding, d the dilation. Sums in the order written, from +0; the \
            bias is added by a rounding of its own. Padding is +0 and takes part, so it makes NaN of an infinite \
            weight. In the gradient of x a tap between two positions is no term, one beside all of them a term \
            with +0. The weight's gradient is summed in leaves of the batch, the bias's in f64 by the same \
            leaves. Without channels y is b.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[2, 3], x.len())?;
        let g = self.geometry(x[0], x[1])?;
        if let Some(bias) = x.get(2).filter(|bias| bias[..] != [g.o]) {
            return Err(ShapeError::new(Self::DOC.name, format!("the bias is [{}], not {bias}", g.o)));
        }
        Ok(Shape::from([g.n, g.o, g.oh, g.ow]).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let g = self.known(x[0].shape(), x[1].shape());
        g.forward(x[0].data(), x[1].data(), y.value);
        if let Some(bias) = x.get(2) {
            add_bias(bias.data(), g.oh * g.ow, y.value);
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
            bias_gradient(g.n, (g.oh, g.ow), dy.data(), db);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let g = self.known(x[0].shape(), x[1].shape());
        conv::forward(cpu, &g.kernel(), x[0].data(), x[1].data(), y.value);
        if let Some(bias) = x.get(2) {
            add_bias(bias.data(), g.oh * g.ow, y.value);
        }
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let g = self.known(x.shape(), w.shape());
        if let Some(dx) = &mut dx[0] {
            conv::input_gradient(cpu, &g.kernel(), dy.data(), w.data(), dx);
        }
        if let Some(dw) = &mut dx[1] {
            conv::weight_gradient(cpu, &g.kernel(), x.data(), dy.data(), dw);
        }
        if let Some(Some(db)) = dx.get_mut(2) {
            conv::bias_gradient(cpu, Images { n: g.n, c: g.o, h: g.oh, w: g.ow }, dy.data(), db);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let inputs: Vec<&str> = x.iter().map(|value| value.name.as_str()).collect();
        let (p, s, d) = (self.padding, self.stride, self.dilation);
        let attributes = [
            ("kernel_shape", Attribute::sizes(&x[1].shape[2..])),
            ("strides", Attribute::sizes(&[s.0, s.1])),
            ("pads", Attribute::sizes(&[p.0, p.1, p.0, p.1])),
            ("dilations", Attribute::sizes(&[d.0, d.1])),
            ("group", Attribute::Int(self.groups as i64)),
        ];
        Ok(graph.node("Conv", &inputs, &attributes))
    }

    fn cases() -> Vec<Case<Self>> {
        let plain = Conv2d::default();
        let conv = |stride, padding, dilation, groups| Conv2d { stride, padding, dilation, groups };
        let inputs = |x: [usize; 4], w: [usize; 4]| vec![Input::real(x), Input::real(w)];
        let with_bias =
            |x: [usize; 4], w: [usize; 4]| vec![Input::real(x), Input::real(w), Input::real([w[0]])];
        vec![
            Case::new("plain", plain.clone(), inputs([2, 3, 5, 4], [2, 3, 3, 2])),
            Case::new("a bias", plain, with_bias([2, 2, 4, 4], [3, 2, 1, 1])),
            Case::new("padding", conv((1, 1), (1, 2), (1, 1), 1), with_bias([2, 2, 4, 3], [2, 2, 3, 3])),
            Case::new("strides", conv((2, 3), (1, 1), (1, 1), 1), inputs([1, 2, 6, 7], [2, 2, 3, 3])),
            Case::new(
                "a stride beyond the taps",
                conv((3, 2), (0, 0), (1, 1), 1),
                inputs([1, 1, 7, 7], [2, 1, 2, 1]),
            ),
            Case::new("dilation", conv((1, 2), (2, 1), (2, 3), 1), inputs([1, 1, 6, 8], [2, 1, 3, 2])),
            Case::new("groups", conv((1, 1), (1, 1), (1, 1), 2), with_bias([2, 4, 3, 3], [6, 2, 3, 3])),
            Case::new("depthwise", conv((2, 2), (1, 1), (1, 1), 3), inputs([2, 3, 5, 5], [3, 1, 3, 3])),
            Case::new(
                "several leaves",
                conv((1, 1), (1, 1), (1, 1), 1),
                with_bias([9, 3, 34, 33], [5, 3, 3, 3]),
            )
            .bits_only(),
            Case::new(
                "a residual layer",
                conv((2, 2), (1, 1), (1, 1), 1),
                inputs([3, 67, 9, 9], [50, 67, 3, 3]),
            )
            .bits_only(),
            Case::new("no images", conv((1, 1), (0, 0), (1, 1), 1), with_bias([0, 2, 4, 4], [3, 2, 3, 3]))
                .bits_only(),
            Case::new("no channels", conv((2, 1), (1, 1), (1, 1), 1), with_bias([2, 0, 4, 4], [3, 0, 3, 3]))
                .bits_only(),
            Case::new("no filters", conv((2, 1), (1, 1), (1, 1), 1), inputs([2, 2, 4, 4], [0, 2, 3, 3]))
                .bits_only(),
        ]
    }
}
