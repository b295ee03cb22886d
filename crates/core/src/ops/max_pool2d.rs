//! `max_pool2d`: the largest value of each window (Zhou and Chellappa, 1988).

use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::{Axis, arity, images};
use kinone_kernels::{Cpu, pool2d};

/// Windows over images; pairs are (vertical, horizontal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPool2d {
    /// Taps.
    pub kernel: (usize, usize),
    /// Pixels from one position to the next.
    pub stride: (usize, usize),
    /// Pixels by which the first window lies outside the image.
    pub padding: (usize, usize),
    /// Pixels from one tap to the next.
    pub dilation: (usize, usize),
    /// Whether a last window may reach beyond the padding.
    pub ceil_mode: bool,
}

impl Tensor {
    /// The largest value of each window of `self [n, c, h, w]`: `[n, c, i, j]`.
    ///
    /// # Errors
    /// The windows do not fit.
    pub fn max_pool2d(&self, pool: MaxPool2d) -> Result<Tensor, ShapeError> {
        apply(pool, &[self])
    }
}

/// Two axes of windows over planes of pixels, and the positions along each.
pub(crate) struct Windows {
    pub(crate) planes: usize,
    pub(crate) rows: Axis,
    pub(crate) columns: Axis,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

impl Windows {
    /// The windows of `x [n, c, h, w]`.
    pub(crate) fn new(
        name: &'static str,
        x: &Shape,
        [kernel, stride, padding, dilation]: [(usize, usize); 4],
        ceil: bool,
    ) -> Result<Windows, ShapeError> {
        let [n, c, h, w] = images(name, x)?;
        if padding.0 > kernel.0 / 2 || padding.1 > kernel.1 / 2 {
            let reason = format!("padding {padding:?} is more than half of the kernel {kernel:?}");
            return Err(ShapeError::new(name, reason));
        }
        let axis = |size, taps, stride, padding, dilation| Axis { size, taps, stride, padding, dilation };
        let rows = axis(h, kernel.0, stride.0, padding.0, dilation.0);
        let columns = axis(w, kernel.1, stride.1, padding.1, dilation.1);
        let count = |axis: &Axis| -> Result<usize, ShapeError> {
            axis.positions(name)?;
            let count = pool2d::windows(axis.size, axis.taps, axis.stride, axis.padding, axis.dilation, ceil);
            Ok(count.unwrap_or(0))
        };
        Ok(Windows { planes: n * c, oh: count(&rows)?, ow: count(&columns)?, rows, columns })
    }

    /// What the kernels call it.
    pub(crate) fn kernel(&self) -> pool2d::Pool {
        let pair = |f: fn(&Axis) -> usize| [f(&self.rows), f(&self.columns)];
        pool2d::Pool {
            planes: self.planes,
            input: pair(|axis| axis.size),
            output: [self.oh, self.ow],
            kernel: pair(|axis| axis.taps),
            stride: pair(|axis| axis.stride),
            padding: pair(|axis| axis.padding),
            dilation: pair(|axis| axis.dilation),
        }
    }

    /// The flat index of the pixel under tap (p, q) of position (i, j) of a plane, if it lies on the image.
    pub(crate) fn pixel(&self, plane: usize, [i, j]: [usize; 2], [p, q]: [usize; 2]) -> Option<usize> {
        let (h, v) = (self.rows.pixel(i, p)?, self.columns.pixel(j, q)?);
        Some((plane * self.rows.size + h) * self.columns.size + v)
    }

    /// The padding below and to the right that gives ONNX these windows without its ceil mode, on whose number of
    /// windows readers disagree: the operator's, or more where the last window reaches beyond it.
    pub(crate) fn padding_behind(&self) -> [usize; 2] {
        let behind = |axis: &Axis, positions: usize| {
            let end = positions.saturating_sub(1) * axis.stride + axis.dilation * (axis.taps - 1) + 1;
            end.saturating_sub(axis.size + axis.padding).max(axis.padding)
        };
        [behind(&self.rows, self.oh), behind(&self.columns, self.ow)]
    }

    /// The attributes of ONNX's pooling operators, with padding `[above, left, below, right]`.
    pub(crate) fn attributes(&self, pads: [usize; 4]) -> Vec<(&'static str, Attribute)> {
        let pair = |f: fn(&Axis) -> usize| Attribute::sizes(&[f(&self.rows), f(&self.columns)]);
        vec![
            ("kernel_shape", pair(|axis| axis.taps)),
            ("strides", pair(|axis| axis.stride)),
            ("pads", Attribute::sizes(&pads)),
        ]
    }
}

impl MaxPool2d {
    pub(crate) fn windows(&self, x: &Shape) -> Result<Windows, ShapeError> {
        let extents = [self.kernel, self.stride, self.padding, self.dilation];
        Windows::new(Self::DOC.name, x, extents, self.ceil_mode)
    }

    pub(crate) fn known(&self, x: &Shape) -> Windows {
        match self.windows(x) {
            Ok(windows) => windows,
            Err(error) => unreachable!("shapes were checked: {error}"),
        }
    }

    /// The definition of the gradient.
    pub(crate) fn spread<F: Real>(&self, shape: &Shape, winner: View<F>, dy: View<F>, dx: &mut [F]) {
        let g = self.known(shape);
        let kw = self.kernel.1;
        dx.fill(F::zero());
        for plane in 0..g.planes {
            for i in 0..g.oh {
                for j in 0..g.ow {
                    let at = (plane * g.oh + i) * g.ow + j;
                    let winner = winner[at].value() as usize;
                    if winner < self.kernel.0 * kw
                        && let Some(pixel) = g.pixel(plane, [i, j], [winner / kw, winner % kw])
                    {
                        dx[pixel] = dx[pixel] + dy[at];
                    }
                }
            }
        }
    }
}

impl Operator for MaxPool2d {
    const DOC: Doc = Doc {
        name: "max_pool2d",
        summary: "The largest value of each window.",
        formula: r"y_{ncij} = \max_{pq} x_{n,c,\,is+pd-a,\,js+qd-a}",
        gradient: r"\bar x_{nchv} = \sum_{ij:\ (h,v)\ \text{wins}\ (i,j)} \bar y_{ncij}",
        shapes: "x [n, c, h, w]; y [n, c, i, j], auxiliary: the winner's tap p*kw + q, like y",
        conventions: "s is the stride, a the padding, d the dilation. Taps on the padding take no part; a window \
            of no pixels gives -inf and no gradient. In scan order the first of equal values wins, and a NaN \
            wins over numbers. In ceil mode a last window may reach beyond the padding, but begins on the image \
            or the padding before it. The gradient is summed in f32 over (i, j).",
    };
    const SAVES: Saves = Saves::NOTHING.and_auxiliaries();

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[1], x.len())?;
        let windows = self.windows(x[0])?;
        let shape = Shape::from([x[0][0], x[0][1], windows.oh, windows.ow]);
        Ok(Shapes { value: shape.clone(), auxiliaries: vec![shape] })
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let g = self.known(x[0].shape());
        let (kh, kw) = self.kernel;
        for plane in 0..g.planes {
            for i in 0..g.oh {
                for j in 0..g.ow {
                    let (mut best, mut winner) = (F::of(f64::NEG_INFINITY), kh * kw);
                    for p in 0..kh {
                        for q in 0..kw {
                            let Some(pixel) = g.pixel(plane, [i, j], [p, q]) else { continue };
                            let value = x[0][pixel];
                            let first = winner == kh * kw;
                            if first || value > best || (value.is_nan() && !best.is_nan()) {
                                (best, winner) = (value, p * kw + q);
                            }
                        }
                    }
                    let at = (plane * g.oh + i) * g.ow + j;
                    y.value[at] = best;
                    y.auxiliaries[0][at] = F::of(winner as f64);
                }
            }
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        if let Some(dx) = &mut dx[0] {
            self.spread(saved.shape(0), saved.auxiliary(0), dy, dx);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let pool = self.known(x[0].shape()).kernel();
        pool2d::max(cpu, &pool, x[0].data(), y.value, y.auxiliaries[0]);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        if let Some(dx) = &mut dx[0] {
            let pool = self.known(saved.shape(0)).kernel();
            pool2d::max_backward(cpu, &pool, saved.auxiliary(0).data(), dy.data(), dx);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let windows = self.windows(&x[0].shape).map_err(|error| Unsupported(error.to_string()))?;
        let [below, right] = windows.padding_behind();
        let mut attributes = windows.attributes([self.padding.0, self.padding.1, below, right]);
        attributes.push(("dilations", Attribute::sizes(&[self.dilation.0, self.dilation.1])));
        Ok(graph.node("MaxPool", &[&x[0].name], &attributes))
    }

    fn cases() -> Vec<Case<Self>> {
        let pool = |kernel, stride, padding, dilation, ceil_mode| MaxPool2d {
            kernel,
            stride,
            padding,
            dilation,
            ceil_mode,
        };
        let case = |name, operator, x: [usize; 4]| Case::new(name, operator, [Input::distinct(x)]);
        let one = (1, 1);
        vec![
            case("a grid", pool((2, 2), (2, 2), (0, 0), one, false), [2, 2, 4, 6]),
            case("windows that overlap, padded", pool((3, 3), (2, 2), one, one, false), [2, 3, 6, 7]),
            case("ceil mode", pool((3, 2), (2, 2), (1, 0), one, true), [1, 2, 6, 5]),
            case("dilation", pool((2, 2), (1, 2), (0, 1), (2, 3), false), [1, 2, 6, 7]),
            case("a stem", pool((3, 3), (2, 2), one, one, false), [3, 17, 33, 34]).bits_only(),
            case("windows of no pixels", pool((2, 2), (1, 1), one, (3, 3), true), [1, 2, 2, 2]).bits_only(),
            case("no images", pool((2, 2), (2, 2), (0, 0), one, false), [0, 2, 4, 6]).bits_only(),
        ]
    }
}
