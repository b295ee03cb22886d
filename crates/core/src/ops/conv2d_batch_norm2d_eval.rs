//! `conv2d_batch_norm2d_eval`: a layer of a network as it infers, in one pass over its output.

use super::batch_norm2d::{affine, at, channel_shapes, inverse_deviation, known_images, sums};
use super::conv2d::{self, Conv2d};
use super::conv2d_winograd::{self, Conv2dWinograd};
use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::arity;
use kinone_kernels::Cpu;
use kinone_kernels::conv::winograd::{self, Tile};
use kinone_kernels::conv::{self, Finish};
use kinone_kernels::norm::{self, Channels, Gradients};
use kinone_kernels::sums::Images;

/// A convolution, normalization by given statistics, a residual, and relu.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2dBatchNorm2dEval {
    /// The convolution.
    pub conv: Convolution,
    /// Added to the variance.
    pub eps: f32,
    /// Whether relu comes last.
    pub relu: bool,
}

/// A convolution without a bias, by one definition or the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Convolution {
    /// By the plain sum.
    Direct(Conv2d),
    /// By minimal filtering.
    Winograd(Conv2dWinograd),
}

/// A convolution and all its extents.
enum Geometry {
    Direct(conv2d::Geometry),
    Winograd(conv2d_winograd::Geometry),
}

impl Convolution {
    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        match self {
            Convolution::Direct(conv) => Operator::shape(conv, x),
            Convolution::Winograd(conv) => Operator::shape(conv, x),
        }
    }

    fn known(&self, x: &Shape, w: &Shape) -> Geometry {
        match self {
            Convolution::Direct(conv) => Geometry::Direct(conv.known(x, w)),
            Convolution::Winograd(conv) => Geometry::Winograd(conv.known(x, w)),
        }
    }
}

impl Geometry {
    fn forward<F: Real>(&self, x: &[F], w: &[F], y: &mut [F]) {
        match self {
            Geometry::Direct(g) => g.forward(x, w, y),
            Geometry::Winograd(g) => g.forward(x, w, y),
        }
    }

    fn input_gradient<F: Real>(&self, dy: &[F], w: &[F], dx: &mut [F]) {
        match self {
            Geometry::Direct(g) => g.input_gradient(dy, w, dx),
            Geometry::Winograd(g) => g.input_gradient(dy, w, dx),
        }
    }

    fn weight_gradient<F: Real>(&self, x: &[F], dy: &[F], dw: &mut [F]) {
        match self {
            Geometry::Direct(g) => g.weight_gradient(x, dy, dw),
            Geometry::Winograd(g) => g.weight_gradient(x, dy, dw),
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[f32], w: View<f32>, finish: Option<Finish>, y: &mut [f32]) {
        let w = (w.data(), w.keep());
        match self {
            Geometry::Direct(g) => conv::forward_finished(cpu, &g.kernel(), x, w, finish, y),
            Geometry::Winograd(g) => winograd::forward_finished(cpu, &g.kernel(), x, w, finish, y),
        }
    }

    fn input_gradient_fast(&self, cpu: &Cpu, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        match self {
            Geometry::Direct(g) => conv::input_gradient(cpu, &g.kernel(), dy, w, dx),
            Geometry::Winograd(g) => winograd::input_gradient(cpu, &g.kernel(), dy, w, dx),
        }
    }

    fn weight_gradient_fast(&self, cpu: &Cpu, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        match self {
            Geometry::Direct(g) => conv::weight_gradient(cpu, &g.kernel(), x, dy, dw),
            Geometry::Winograd(g) => winograd::weight_gradient(cpu, &g.kernel(), x, dy, dw),
        }
    }
}

impl Tensor {
    /// `self` through [`Tensor::conv2d`] or [`Tensor::conv2d_winograd`] with filters `w`, [`Tensor::batch_norm2d_eval`] with
    /// `channels = [gamma, beta, mean, var]`, [`Tensor::add`] of `residual` if there is one, and [`Tensor::relu`] if
    /// asked for: the same bits, with one pass over the output.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn conv2d_batch_norm2d_eval(
        &self,
        w: &Tensor,
        [gamma, beta, mean, var]: [&Tensor; 4],
        residual: Option<&Tensor>,
        operator: Conv2dBatchNorm2dEval,
    ) -> Result<Tensor, ShapeError> {
        let inputs = [self, w, gamma, beta, mean, var];
        match residual {
            Some(residual) => apply(operator, &[&inputs[..], &[residual]].concat()),
            None => apply(operator, &inputs),
        }
    }
}

impl Conv2dBatchNorm2dEval {
    /// The gradient of what relu was given.
    fn through_relu<F: Real>(&self, y: &[F], dy: &[F]) -> Vec<F> {
        let gradient = |(y, dy): (&F, &F)| if !self.relu || *y > F::zero() { *dy } else { F::zero() };
        y.iter().zip(dy).map(gradient).collect()
    }
}

impl Operator for Conv2dBatchNorm2dEval {
    const DOC: Doc = Doc {
        name: "conv2d_batch_norm2d_eval",
        summary: "A convolution, batch normalization by given statistics, a residual and relu, in one pass.",
        formula: r"z = \mathrm{conv2d}(x, w) \text{ or conv2d\_winograd}(x, w), \quad
            y = \max\!\left(\gamma_o \frac{z - \mu_o}{\sqrt{\sigma_o^2 + \varepsilon}} + \beta_o + r,\ 0\right)",
        gradient: r"g = \bar y\,[y > 0], \quad \bar r = g, \quad \bar z, \bar\gamma, \bar\beta \text{ from } g
            \text{ as in batch\_norm2d\_eval}, \quad \bar x, \bar w \text{ from } \bar z \text{ as in conv2d or conv2d\_winograd}",
        shapes: "x [n, c, h, w], w [o, c/groups, kh, kw], gamma, beta, mean, var [o], r like y or none; \
            y [n, o, i, j]",
        conventions: "Those of conv2d or conv2d_winograd, batch_norm2d_eval, add and relu, of which this is the composition \
            bit for bit. Without relu, g is the cotangent. The gradient computes z again.",
    };
    const SAVES: Saves = Saves { inputs: &[0, 1, 2, 4, 5], output: true, auxiliaries: false };

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[6, 7], x.len())?;
        let y = self.conv.shape(&x[..2])?.value;
        channel_shapes(Self::DOC.name, &[&y, x[2], x[3], x[4], x[5]], self.eps)?;
        if let Some(residual) = x.get(6).filter(|residual| ***residual != y) {
            let reason = format!("the residual is {y}, not {residual}");
            return Err(ShapeError::new(Self::DOC.name, reason));
        }
        Ok(y.into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let shape = known_images(y.shape);
        self.conv.known(x[0].shape(), x[1].shape()).forward(x[0].data(), x[1].data(), y.value);
        let z = y.value.to_vec();
        for c in 0..shape.c {
            let invstd = inverse_deviation(x[5][c], self.eps);
            affine(shape, c, &z, [x[4][c], invstd, x[2][c], x[3][c]], y.value);
        }
        for (k, y) in y.value.iter_mut().enumerate() {
            if let Some(residual) = x.get(6) {
                *y = *y + residual[k];
            }
            if self.relu && F::zero() > *y {
                *y = F::zero();
            }
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let (gamma, mean, var) = (saved.input(2), saved.input(4), saved.input(5));
        let shape = known_images(dy.shape());
        let geometry = self.conv.known(x.shape(), w.shape());
        let mut z = vec![F::zero(); shape.len()];
        geometry.forward(x.data(), w.data(), &mut z);
        let mut g = self.through_relu(saved.output().data(), dy.data());
        if let Some(Some(residual)) = dx.get_mut(6) {
            residual.copy_from_slice(&g);
        }
        for c in 0..shape.c {
            let invstd: F = inverse_deviation(var[c], self.eps);
            let (s1, s2) = sums(shape, c, &z, &g, mean[c]);
            if let Some(dgamma) = &mut dx[2] {
                dgamma[c] = F::narrow(s2 * invstd.wide());
            }
            if let Some(dbeta) = &mut dx[3] {
                dbeta[c] = F::narrow(s1);
            }
            let scale = gamma[c] * invstd;
            for n in 0..shape.n {
                for position in 0..shape.plane() {
                    let k = at(shape, n, c, position);
                    g[k] = g[k] * scale;
                }
            }
        }
        if let Some(dx) = &mut dx[0] {
            geometry.input_gradient(&g, w.data(), dx);
        }
        if let Some(dw) = &mut dx[1] {
            geometry.weight_gradient(x.data(), &g, dw);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let geometry = self.conv.known(x[0].shape(), x[1].shape());
        let [scale, shift] = norm::eval_constants(cpu, [2, 3, 4, 5].map(|k| x[k].data()), self.eps);
        let residual = x.get(6).map(View::data);
        let finish = Finish { scale: &scale, shift: &shift, residual, relu: self.relu };
        geometry.forward_fast(cpu, x[0].data(), x[1], Some(finish), y.value);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let shape = known_images(dy.shape());
        let geometry = self.conv.known(x.shape(), w.shape());
        let mut z = vec![0.0; shape.len()];
        geometry.forward_fast(cpu, x.data(), w, None, &mut z);
        let g = self.through_relu(saved.output().data(), dy.data());
        if let Some(Some(residual)) = dx.get_mut(6) {
            residual.copy_from_slice(&g);
        }
        let mut dz = vec![0.0; shape.len()];
        let [dx, dw, dgamma, dbeta, ..] = dx else { unreachable!("six inputs or seven") };
        let gradients = Gradients {
            dx: Some(&mut dz),
            dresidual: None,
            dgamma: dgamma.as_deref_mut(),
            dbeta: dbeta.as_deref_mut(),
        };
        eval_backward(cpu, shape, &z, &g, saved, self.eps, gradients);
        if let Some(dx) = dx {
            geometry.input_gradient_fast(cpu, &dz, w.data(), dx);
        }
        if let Some(dw) = dw {
            geometry.weight_gradient_fast(cpu, x.data(), &dz, dw);
        }
    }

    fn is_differentiable(&self, k: usize) -> bool {
        !matches!(k, 4 | 5)
    }

    fn onnx(&self, _graph: &mut Fragment, _x: &[Value]) -> Result<String, Unsupported> {
        let reason = "ONNX has no operator for the whole; a model is exported as conv2d, batch_norm2d_eval, add \
                      and relu, which runtimes join themselves";
        Err(Unsupported(reason.to_owned()))
    }

    fn cases() -> Vec<Case<Self>> {
        let conv = |stride, padding, groups| {
            let (stride, padding) = ((stride, stride), (padding, padding));
            Convolution::Direct(Conv2d { stride, padding, dilation: (1, 1), groups })
        };
        let minimal = |tile| Convolution::Winograd(Conv2dWinograd { tile, padding: (1, 1) });
        let case = |name, conv: Convolution, relu, x: [usize; 4], w: [usize; 4], residual: Option<Input>| {
            // Where relu follows, γ is so small that no step of a difference crosses its kink.
            let o = || [w[0]];
            let (gamma, beta) = match relu {
                true => (Input::uniform(o(), 0.001, 0.002), Input::real(o()).avoiding(&[0.0])),
                false => (Input::real(o()), Input::real(o())),
            };
            let (mean, var) = (Input::real(o()), Input::uniform(o(), 4.0, 9.0));
            let mut inputs = vec![Input::real(x), Input::real(w), gamma, beta, mean, var];
            inputs.extend(residual);
            Case::new(name, Conv2dBatchNorm2dEval { conv, eps: 1e-5, relu }, inputs)
        };
        let small = |shape: [usize; 4]| Some(Input::uniform(shape, -0.002, 0.002));
        let real = |shape: [usize; 4]| Some(Input::real(shape));
        vec![
            case("plain", conv(1, 1, 1), false, [2, 2, 4, 3], [3, 2, 3, 3], None),
            case("relu", conv(2, 1, 1), true, [2, 2, 4, 5], [6, 2, 3, 3], None),
            case("a residual", conv(1, 0, 2), false, [2, 4, 2, 3], [4, 2, 1, 1], real([2, 4, 2, 3])),
            case("both", conv(1, 1, 1), true, [1, 2, 3, 3], [5, 2, 3, 3], small([1, 5, 3, 3])),
            case("by 2×2", minimal(Tile::Two), false, [2, 2, 4, 3], [3, 2, 3, 3], real([2, 3, 4, 3])),
            case("by 4×4, both", minimal(Tile::Four), true, [1, 2, 5, 4], [3, 2, 3, 3], small([1, 3, 5, 4])),
            case(
                "a layer by 4×4",
                minimal(Tile::Four),
                true,
                [3, 19, 9, 9],
                [50, 19, 3, 3],
                real([3, 50, 9, 9]),
            )
            .bits_only(),
            case("a layer by 2×2", minimal(Tile::Two), true, [3, 33, 7, 6], [18, 33, 3, 3], None).bits_only(),
            case("many filters by 4×4", minimal(Tile::Four), true, [2, 260, 3, 3], [300, 260, 3, 3], None)
                .bits_only(),
            case("a layer", conv(1, 1, 1), true, [3, 19, 9, 9], [50, 19, 3, 3], real([3, 50, 9, 9]))
                .bits_only(),
            case("long rows", conv(2, 3, 1), true, [2, 3, 67, 66], [9, 3, 7, 7], None).bits_only(),
            case("no images", conv(1, 1, 1), true, [0, 2, 4, 4], [3, 2, 3, 3], None).bits_only(),
            case("no channels", conv(1, 1, 1), true, [2, 0, 4, 4], [3, 0, 3, 3], None).bits_only(),
            case("no channels by 4×4", minimal(Tile::Four), true, [2, 0, 4, 4], [3, 0, 3, 3], None)
                .bits_only(),
        ]
    }
}

/// The gradients of the normalization alone.
fn eval_backward(
    cpu: &Cpu,
    shape: Images,
    z: &[f32],
    g: &[f32],
    saved: &Saved<f32>,
    eps: f32,
    gradients: Gradients,
) {
    let invstd: Vec<f32> =
        saved.input(5).data().iter().map(|var| norm::inverse_deviation(*var, eps)).collect();
    let channels = Channels { mean: saved.input(4).data(), invstd: &invstd, gamma: saved.input(2).data() };
    norm::eval_backward(cpu, shape, z, g, channels, gradients);
}
