//! `conv_transpose2d`: the adjoint of a convolution, as a layer that enlarges (Zeiler et al., CVPR 2010).

use super::conv2d::{Geometry, add_bias, bias_gradient};
use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::{Axis, arity, images};
use kinone_kernels::sums::Images;
use kinone_kernels::{Cpu, conv};

/// What a convolution of this geometry does to the gradient of its input; pairs are (vertical, horizontal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTranspose2d {
    /// Pixels of the output from one input pixel to the next.
    pub stride: (usize, usize),
    /// Pixels cut from every side of the output.
    pub padding: (usize, usize),
    /// Pixels added at the lower and right end, fewer than the stride.
    pub output_padding: (usize, usize),
    /// Pixels from one tap to the next.
    pub dilation: (usize, usize),
    /// Channel groups that do not see each other.
    pub groups: usize,
}

impl Tensor {
    /// Images `self [n, c, h, w]` spread by filters `w [c, o/groups, kh, kw]`, plus `bias [o]`: `[n, o, i, j]`.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn conv_transpose2d(
        &self,
        w: &Tensor,
        bias: Option<&Tensor>,
        conv: ConvTranspose2d,
    ) -> Result<Tensor, ShapeError> {
        match bias {
            Some(bias) => apply(conv, &[self, w, bias]),
            None => apply(conv, &[self, w]),
        }
    }
}

impl ConvTranspose2d {
    /// The convolution whose adjoint this is: its input is our output, its filters are our input channels.
    fn geometry(&self, x: &Shape, w: &Shape) -> Result<Geometry, ShapeError> {
        let name = Self::DOC.name;
        let ([n, c, h, v], [filters, k, kh, kw]) = (images(name, x)?, images(name, w)?);
        let groups = self.groups;
        if groups == 0 || c != filters || !c.is_multiple_of(groups) {
            return Err(ShapeError::new(
                name,
                format!("filters {w} do not fit images {x} in {groups} groups"),
            ));
        }
        let axis = |positions: usize,
                    taps: usize,
                    stride: usize,
                    padding: usize,
                    extra: usize,
                    dilation: usize| {
            let axis = Axis { size: 0, taps, stride, padding, dilation };
            axis.check(name)?;
            if positions == 0 || extra >= stride {
                let reason = format!(
                    "the image must not be empty, and the output padding {extra} be below the stride {stride}"
                );
                return Err(ShapeError::new(name, reason));
            }
            let spread = (positions - 1) * stride + dilation * (taps - 1) + 1 + extra;
            match spread.checked_sub(2 * padding).filter(|size| *size > 0) {
                Some(size) => Ok(Axis { size, ..axis }),
                None => {
                    Err(ShapeError::new(name, format!("a padding of {padding} leaves nothing of {spread}")))
                }
            }
        };
        let (s, p, e, d) = (self.stride, self.padding, self.output_padding, self.dilation);
        let rows = axis(h, kh, s.0, p.0, e.0, d.0)?;
        let columns = axis(v, kw, s.1, p.1, e.1, d.1)?;
        Ok(Geometry { n, c: k * groups, o: c, rows, columns, oh: h, ow: v, groups })
    }

    fn known(&self, x: &Shape, w: &Shape) -> Geometry {
        match self.geometry(x, w) {
            Ok(geometry) => geometry,
            Err(error) => unreachable!("shapes were checked: {error}"),
        }
    }
}

impl Operator for ConvTranspose2d {
    const DOC: Doc = Doc {
        name: "conv_transpose2d",
        summary: "The adjoint of a convolution.",
        formula: r"y_{nohv} = \sum_{cpq} x_{ncij}\, w_{copq} + b_o \ (is+pd-a=h,\ js+qd-a=v)",
        gradient: r"\bar x_{ncij} = \sum_{opq} \bar y_{n,o,\,is+pd-a,\,js+qd-a}\, w_{copq}, \quad
            \bar w_{copq} = \sum_{nij} x_{ncij}\, \bar y_{n,o,\,is+pd-a,\,js+qd-a}, \quad
            \bar b_o = \sum_{nhv} \bar y_{nohv}",
        shapes: "x [n, c, i, j], w [c, o/groups, kh, kw], b [o] or none; y [n, o, h, v]",
        conventions: "As conv2d, with forward and input gradient exchanged: a tap between two inputs is no term, \
            one beside all inputs a term with +0. The weight's gradient is summed in leaves of the batch of x, the \
            bias's in f64 by the leaves of the batch of y. s is the stride, a the padding, d the dilation.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[2, 3], x.len())?;
        let g = self.geometry(x[0], x[1])?;
        if let Some(bias) = x.get(2).filter(|bias| bias[..] != [g.c]) {
            return Err(ShapeError::new(Self::DOC.name, format!("the bias is [{}], not {bias}", g.c)));
        }
        Ok(Shape::from([g.n, g.c, g.rows.size, g.columns.size]).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let g = self.known(x[0].shape(), x[1].shape());
        g.input_gradient(x[0].data(), x[1].data(), y.value);
        if let Some(bias) = x.get(2) {
            add_bias(bias.data(), g.rows.size * g.columns.size, y.value);
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let g = self.known(x.shape(), w.shape());
        if let Some(dx) = &mut dx[0] {
            g.forward(dy.data(), w.data(), dx);
        }
        if let Some(dw) = &mut dx[1] {
            g.weight_gradient(dy.data(), x.data(), dw);
        }
        if let Some(Some(db)) = dx.get_mut(2) {
            bias_gradient(g.n, (g.rows.size, g.columns.size), dy.data(), db);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let g = self.known(x[0].shape(), x[1].shape());
        conv::input_gradient(cpu, &g.kernel(), x[0].data(), x[1].data(), y.value);
        if let Some(bias) = x.get(2) {
            add_bias(bias.data(), g.rows.size * g.columns.size, y.value);
        }
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let g = self.known(x.shape(), w.shape());
        if let Some(dx) = &mut dx[0] {
            conv::forward(cpu, &g.kernel(), dy.data(), w.data(), dx);
        }
        if let Some(dw) = &mut dx[1] {
            conv::weight_gradient(cpu, &g.kernel(), dy.data(), x.data(), dw);
        }
        if let Some(Some(db)) = dx.get_mut(2) {
            let images = Images { n: g.n, c: g.c, h: g.rows.size, w: g.columns.size };
            conv::bias_gradient(cpu, images, dy.data(), db);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let inputs: Vec<&str> = x.iter().map(|value| value.name.as_str()).collect();
        let (p, s, d, e) = (self.padding, self.stride, self.dilation, self.output_padding);
        let attributes = [
            ("kernel_shape", Attribute::sizes(&x[1].shape[2..])),
            ("strides", Attribute::sizes(&[s.0, s.1])),
            ("pads", Attribute::sizes(&[p.0, p.1, p.0, p.1])),
            ("output_padding", Attribute::sizes(&[e.0, e.1])),
            ("dilations", Attribute::sizes(&[d.0, d.1])),
            ("group", Attribute::Int(self.groups as i64)),
        ];
        Ok(graph.node("ConvTranspose", &inputs, &attributes))
    }

    fn cases() -> Vec<Case<Self>> {
        let conv = |stride, padding, output_padding, dilation, groups| ConvTranspose2d {
            stride,
            padding,
            output_padding,
            dilation,
            groups,
        };
        let one = (1, 1);
        let none = (0, 0);
        let inputs = |x: [usize; 4], w: [usize; 4]| vec![Input::real(x), Input::real(w)];
        let with_bias =
            |x: [usize; 4], w: [usize; 4], o: usize| vec![Input::real(x), Input::real(w), Input::real([o])];
        vec![
            Case::new("plain", conv(one, none, none, one, 1), inputs([2, 2, 3, 4], [2, 3, 3, 2])),
            Case::new(
                "twice the size",
                conv((2, 2), one, one, one, 1),
                with_bias([2, 2, 3, 3], [2, 2, 3, 3], 2),
            ),
            Case::new("dilation", conv((1, 2), (1, 0), none, (2, 1), 1), inputs([1, 2, 4, 3], [2, 2, 2, 3])),
            Case::new("groups", conv((2, 1), none, none, one, 2), with_bias([1, 4, 3, 3], [4, 1, 2, 2], 2)),
            Case::new("large", conv((2, 2), one, one, one, 1), inputs([3, 17, 11, 12], [17, 19, 3, 3]))
                .bits_only(),
            Case::new("no images", conv(one, none, none, one, 1), inputs([0, 2, 3, 4], [2, 3, 3, 2]))
                .bits_only(),
            Case::new(
                "no channels",
                conv((2, 2), none, none, one, 1),
                with_bias([2, 0, 3, 4], [0, 3, 3, 2], 3),
            )
            .bits_only(),
        ]
    }
}
