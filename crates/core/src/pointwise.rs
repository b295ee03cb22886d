//! Functions of numbers, lifted to arrays with broadcasting.
//!
//! An author gives the function of one element and its partial derivatives; the loops, the broadcasting,
//! its gradient (a sum, by the contract), the threads and the vector code come from here.

use crate::case::Case;
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce;
use crate::shape::{Shape, ShapeError, broadcast};
use kinone_kernels::memory::Buffer;
use kinone_kernels::{Cpu, Task, sums};
use std::borrow::Cow;
use std::fmt::Debug;

/// A function of one, two or three numbers.
pub trait Pointwise: Clone + Debug + Send + Sync + Sized + 'static {
    /// The arguments: `[F; 1]`, `[F; 2]` or `[F; 3]`.
    type Args<F: Real>: Arguments<F>;
    /// What it is.
    const DOC: Doc;
    /// What the derivative reads.
    const SAVES: Saves;

    /// Whether the attributes are sensible.
    ///
    /// # Errors
    /// What was expected and what came.
    fn validate(&self) -> Result<(), ShapeError> {
        Ok(())
    }

    /// The value. Mark it `#[inline(always)]`.
    fn value<F: Real>(&self, x: Self::Args<F>) -> F;

    /// `dy·∂y/∂x` for each argument; arguments that `SAVES` does not name are rubbish, and so is `y`.
    /// Mark it `#[inline(always)]`.
    fn gradient<F: Real>(&self, x: Self::Args<F>, y: F, dy: F) -> Self::Args<F>;

    /// See [`Operator::is_differentiable`].
    fn is_differentiable(&self, _k: usize) -> bool {
        true
    }

    /// See [`Operator::onnx`].
    ///
    /// # Errors
    /// As there.
    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported>;

    /// See [`Operator::cases`].
    fn cases() -> Vec<Case<Self>>;
}

/// The arguments of one element, and the loops over arrays of them.
pub trait Arguments<F: Real>: Copy + AsRef<[F]> {
    /// How many.
    const COUNT: usize;
    /// `y[k] = value(x[·][k])` for all k.
    fn value_loop<P: Pointwise<Args<F> = Self>>(operator: &P, x: &[&[F]], y: &mut [F]);
    /// `dx[k] = gradient(x[·][k], y[k], dy[k])[input]` for all k.
    fn gradient_loop<P: Pointwise<Args<F> = Self>>(operator: &P, input: usize, read: Read<F>, dx: &mut [F]);
}

/// What the loop of a gradient reads, all of one length.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a, F> {
    /// The inputs.
    pub x: &'a [&'a [F]],
    /// The output.
    pub y: &'a [F],
    /// The cotangent.
    pub dy: &'a [F],
}

macro_rules! arguments {
    ($count:literal, $x:ident, $k:ident, $args:expr) => {
        impl<F: Real> Arguments<F> for [F; $count] {
            const COUNT: usize = $count;
            #[inline(always)]
            fn value_loop<P: Pointwise<Args<F> = Self>>(operator: &P, x: &[&[F]], y: &mut [F]) {
                let $x: [&[F]; $count] = std::array::from_fn(|i| &x[i][..y.len()]);
                for $k in 0..y.len() {
                    y[$k] = operator.value($args);
                }
            }
            #[inline(always)]
            fn gradient_loop<P: Pointwise<Args<F> = Self>>(
                operator: &P,
                input: usize,
                read: Read<F>,
                dx: &mut [F],
            ) {
                let n = dx.len();
                let (y, dy) = (&read.y[..n], &read.dy[..n]);
                let $x: [&[F]; $count] = std::array::from_fn(|i| &read.x[i][..n]);
                // `input` is tested outside the loop, so that a loop computes one partial derivative alone.
                for wanted in 0..$count {
                    if input == wanted {
                        for $k in 0..n {
                            dx[$k] = operator.gradient($args, y[$k], dy[$k])[wanted];
                        }
                    }
                }
            }
        }
    };
}
arguments!(1, x, k, [x[0][k]]);
arguments!(2, x, k, [x[0][k], x[1][k]]);
arguments!(3, x, k, [x[0][k], x[1][k], x[2][k]]);

/// `x` repeated to `shape`.
fn expand<'a, F: Real>(x: View<'a, F>, shape: &Shape) -> Cow<'a, [F]> {
    if x.shape().size() == shape.size() {
        return Cow::Borrowed(x.data());
    }
    Cow::Owned(reduce::broadcast_index(x.shape(), shape).into_iter().map(|at| x[at]).collect())
}

/// The gradient of a repeated input: the sum, by the contract, over its repetitions.
fn collapse<F: Real>(full: &[F], large: &Shape, small: &Shape, dx: &mut [F]) {
    for (d, fibre) in dx.iter_mut().zip(reduce::fibres(small, large)) {
        *d = F::narrow(reduce::sum(fibre.len(), |j| full[fibre[j]].wide()));
    }
}

/// The same for f32, with the fast kernel where the repeated dimensions are neighbours.
fn collapse_fast(cpu: &Cpu, full: &[f32], large: &Shape, small: &Shape, dx: &mut [f32]) {
    let padded: Vec<usize> =
        std::iter::repeat_n(1, large.len() - small.len()).chain(small.iter().copied()).collect();
    let repeated = |axis: &usize| padded[*axis] == 1 && large[*axis] != 1;
    let first = (0..large.len()).find(repeated).unwrap_or(0);
    let last = (0..large.len()).rev().find(repeated).map_or(0, |axis| axis + 1);
    if (first..last).all(|axis| padded[axis] == 1) {
        let outer = large[..first].iter().product();
        let len = large[first..last].iter().product();
        let inner = large[last..].iter().product();
        sums::sum_axis(cpu, outer, len, inner, full, dx);
    } else {
        collapse(full, large, small, dx);
    }
}

struct ValueTask<'a, P> {
    operator: &'a P,
    x: &'a [&'a [f32]],
    y: &'a mut [f32],
}

impl<P: Pointwise> Task for ValueTask<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        P::Args::<f32>::value_loop(self.operator, self.x, self.y);
    }
}

struct GradientTask<'a, P> {
    operator: &'a P,
    input: usize,
    read: Read<'a, f32>,
    dx: &'a mut [f32],
}

impl<P: Pointwise> Task for GradientTask<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        P::Args::<f32>::gradient_loop(self.operator, self.input, self.read, self.dx);
    }
}

/// The elements a thread takes at least: less would cost more to hand over than to compute.
const GRAIN: usize = 16_384;

/// What the gradient reads, repeated to the output's shape. Where an input or the output was not kept the
/// cotangent stands in: the derivative does not look at it.
struct Operands<'a, F: Real> {
    x: Vec<Cow<'a, [F]>>,
    y: &'a [F],
    dy: View<'a, F>,
}

impl<'a, F: Real> Operands<'a, F> {
    fn new(saves: Saves, saved: &Saved<'a, F>, dy: View<'a, F>) -> Self {
        let x = (0..saved.arity())
            .map(|k| saved.kept(k).map_or(Cow::Borrowed(dy.data()), |view| expand(view, dy.shape())))
            .collect();
        let y = if saves.output { saved.output().data() } else { dy.data() };
        Operands { x, y, dy }
    }

    fn slices(&self) -> Vec<&[F]> {
        self.x.iter().map(AsRef::as_ref).collect()
    }
}

impl<P: Pointwise> Operator for P {
    const DOC: Doc = P::DOC;
    const SAVES: Saves = P::SAVES;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        self.validate()?;
        let count = P::Args::<f32>::COUNT;
        if x.len() != count {
            return Err(ShapeError::new(P::DOC.name, format!("takes {count} inputs, not {}", x.len())));
        }
        broadcast(P::DOC.name, x).map(Shapes::from)
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let x: Vec<Cow<[F]>> = x.iter().map(|view| expand(*view, y.shape)).collect();
        let x: Vec<&[F]> = x.iter().map(AsRef::as_ref).collect();
        P::Args::<F>::value_loop(self, &x, y.value);
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let operands = Operands::new(P::SAVES, saved, dy);
        let read = Read { x: &operands.slices(), y: operands.y, dy: dy.data() };
        for (input, slot) in dx.iter_mut().enumerate() {
            let Some(dx) = slot else { continue };
            if saved.shape(input).size() == dy.shape().size() {
                P::Args::<F>::gradient_loop(self, input, read, dx);
            } else {
                let mut full = vec![F::zero(); dy.shape().size()];
                P::Args::<F>::gradient_loop(self, input, read, &mut full);
                collapse(&full, dy.shape(), saved.shape(input), dx);
            }
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let x: Vec<Cow<[f32]>> = x.iter().map(|view| expand(*view, y.shape)).collect();
        let x: Vec<&[f32]> = x.iter().map(AsRef::as_ref).collect();
        cpu.for_slices(y.value.len(), GRAIN, &mut [Some(&mut *y.value)], |offset, parts| {
            for y in parts.iter_mut().flatten() {
                let x: Vec<&[f32]> = x.iter().map(|x| &x[offset..offset + y.len()]).collect();
                cpu.vectorize(ValueTask { operator: self, x: &x, y });
            }
        });
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let operands = Operands::new(P::SAVES, saved, dy);
        let x = operands.slices();
        let gradient = |input: usize, full: &mut [f32]| {
            cpu.for_slices(full.len(), GRAIN, &mut [Some(full)], |offset, parts| {
                for dx in parts.iter_mut().flatten() {
                    let range = offset..offset + dx.len();
                    let x: Vec<&[f32]> = x.iter().map(|x| &x[range.clone()]).collect();
                    let read = Read { x: &x, y: &operands.y[range.clone()], dy: &operands.dy.data()[range] };
                    cpu.vectorize(GradientTask { operator: self, input, read, dx });
                }
            });
        };
        for (input, slot) in dx.iter_mut().enumerate() {
            let Some(dx) = slot else { continue };
            if saved.shape(input).size() == dy.shape().size() {
                gradient(input, dx);
            } else {
                let mut full = Buffer::take(dy.shape().size());
                gradient(input, &mut full);
                collapse_fast(cpu, &full, dy.shape(), saved.shape(input), dx);
            }
        }
    }

    fn is_differentiable(&self, k: usize) -> bool {
        Pointwise::is_differentiable(self, k)
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Pointwise::onnx(self, graph, x)
    }

    fn cases() -> Vec<Case<Self>> {
        P::cases()
    }
}
