//! What an operator is: a definition, its gradient, and what to check them on.
//!
//! An author writes one `impl` in one file: what it is, attributes, doc, shape, definition, gradient,
//! schedule, ONNX, cases. [`crate::ops::OPERATORS`] lists it; the chain of trust ([`crate::check`]), the
//! manual and the ONNX replay are generated from that list.

use crate::case::Case;
use crate::onnx::{Fragment, Unsupported, Value};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use kinone_kernels::memory::Kept;
use kinone_kernels::{Cpu, Task};
use std::fmt::Debug;
use std::ops::Index;

/// What a reader of the manual learns about an operator.
#[derive(Clone, Copy, Debug)]
pub struct Doc {
    /// The name, as in the field: `conv2d`.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The value, in TeX.
    pub formula: &'static str,
    /// The gradient with respect to each input, in TeX; `\bar y` is the cotangent of the output.
    pub gradient: &'static str,
    /// The shapes of inputs and output.
    pub shapes: &'static str,
    /// What happens at kinks, ties, borders, zero, NaN and on empty input, and the order of sums.
    pub conventions: &'static str,
}

/// What the gradient reads. The graph keeps nothing else alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saves {
    /// The inputs, by index.
    pub inputs: &'static [usize],
    /// The output.
    pub output: bool,
    /// The auxiliary outputs.
    pub auxiliaries: bool,
}

impl Saves {
    /// Shapes alone.
    pub const NOTHING: Saves = Saves { inputs: &[], output: false, auxiliaries: false };
    /// The output alone.
    pub const OUTPUT: Saves = Saves { inputs: &[], output: true, auxiliaries: false };

    /// These inputs alone.
    pub const fn inputs(inputs: &'static [usize]) -> Saves {
        Saves { inputs, output: false, auxiliaries: false }
    }

    /// And the auxiliary outputs.
    pub const fn and_auxiliaries(self) -> Saves {
        Saves { auxiliaries: true, ..self }
    }
}

/// The shapes an operator produces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// The shape of the value.
    pub value: Shape,
    /// The shapes of the auxiliary outputs: numbers that the gradient or the module wants, and through
    /// which no gradient flows (the statistics of a batch, the winners of a pool).
    pub auxiliaries: Vec<Shape>,
}

impl From<Shape> for Shapes {
    fn from(value: Shape) -> Shapes {
        Shapes { value, auxiliaries: Vec::new() }
    }
}

/// Numbers to be read, with their shape; contiguous, the last dimension fastest.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, F> {
    shape: &'a Shape,
    data: &'a [F],
    keep: Option<&'a Kept>,
}

impl<'a, F> View<'a, F> {
    /// The numbers of `data` in `shape`.
    ///
    /// # Panics
    /// When their number differs from the shape's size.
    pub fn new(shape: &'a Shape, data: &'a [F]) -> View<'a, F> {
        assert_eq!(shape.size(), data.len(), "a view of {} numbers in shape {shape}", data.len());
        View { shape, data, keep: None }
    }

    /// The same with room for what kernels make of the numbers.
    pub fn keeping(self, kept: &'a Kept) -> View<'a, F> {
        View { keep: Some(kept), ..self }
    }

    /// The shape.
    pub fn shape(&self) -> &'a Shape {
        self.shape
    }

    /// The extent of dimension `axis`.
    pub fn dim(&self, axis: usize) -> usize {
        self.shape[axis]
    }

    /// The numbers.
    pub fn data(&self) -> &'a [F] {
        self.data
    }

    /// Room for what a kernel makes of the numbers and uses again, if there is some.
    pub fn keep(&self) -> Option<&'a Kept> {
        self.keep
    }
}

impl<F> Index<usize> for View<'_, F> {
    type Output = F;
    fn index(&self, flat: usize) -> &F {
        &self.data[flat]
    }
}

/// Where a definition writes its results. Every element holds rubbish before and must be overwritten.
#[derive(Debug)]
pub struct Output<'a, F> {
    /// The shape of the value.
    pub shape: &'a Shape,
    /// The value.
    pub value: &'a mut [F],
    /// The auxiliary outputs, in the order of [`Shapes::auxiliaries`].
    pub auxiliaries: Vec<&'a mut [F]>,
}

/// What a gradient may read: exactly what [`Operator::SAVES`] declares, and all shapes.
#[derive(Debug)]
pub struct Saved<'a, F> {
    name: &'static str,
    shapes: &'a [Shape],
    inputs: Vec<Option<View<'a, F>>>,
    output: Option<View<'a, F>>,
    auxiliaries: Vec<View<'a, F>>,
}

impl<'a, F> Saved<'a, F> {
    /// Collects what was kept.
    pub fn new(
        name: &'static str,
        shapes: &'a [Shape],
        inputs: Vec<Option<View<'a, F>>>,
        output: Option<View<'a, F>>,
        auxiliaries: Vec<View<'a, F>>,
    ) -> Saved<'a, F> {
        Saved { name, shapes, inputs, output, auxiliaries }
    }

    /// The number of inputs.
    pub fn arity(&self) -> usize {
        self.shapes.len()
    }

    /// The shape of input `k`; always known.
    pub fn shape(&self, k: usize) -> &'a Shape {
        &self.shapes[k]
    }

    /// Input `k`, if it was kept.
    pub fn kept(&self, k: usize) -> Option<View<'a, F>>
    where
        F: Copy,
    {
        self.inputs.get(k).copied().flatten()
    }

    /// Input `k`.
    ///
    /// # Panics
    /// When `SAVES` does not declare it: a mistake of the operator's author that its first check finds.
    pub fn input(&self, k: usize) -> View<'a, F>
    where
        F: Copy,
    {
        match self.kept(k) {
            Some(view) => view,
            None => panic!("{}: the gradient reads input {k}, which SAVES does not declare", self.name),
        }
    }

    /// The output.
    ///
    /// # Panics
    /// As [`Saved::input`].
    pub fn output(&self) -> View<'a, F>
    where
        F: Copy,
    {
        match self.output {
            Some(view) => view,
            None => panic!("{}: the gradient reads the output, which SAVES does not declare", self.name),
        }
    }

    /// Auxiliary output `k`.
    ///
    /// # Panics
    /// As [`Saved::input`].
    pub fn auxiliary(&self, k: usize) -> View<'a, F>
    where
        F: Copy,
    {
        match self.auxiliaries.get(k) {
            Some(view) => *view,
            None => panic!("{}: the gradient reads auxiliary {k}, which SAVES does not declare", self.name),
        }
    }
}

/// Where the gradient of one input goes: `None` where nobody wants it, else rubbish to be overwritten whole.
pub type Slot<'a, F> = Option<&'a mut [F]>;

/// A differentiable function of arrays.
///
/// `forward` and `vjp` are the definition: loops a reader can follow, generic in the scalar. The `_fast`
/// pair must return the same bits over f32; by default it is the same loop compiled for the instruction set.
pub trait Operator: Clone + Debug + Send + Sync + Sized + 'static {
    /// What it is.
    const DOC: Doc;
    /// What `vjp` reads.
    const SAVES: Saves;
    /// The input, of the output's size, whose gradient [`Operator::vjp_over`] writes over the cotangent. It is handed on
    /// before those of the other inputs, which follow in their order: so this decides bits where an input has other uses.
    const OVER: Option<usize> = None;

    /// Whether there is [`Operator::vjp_over_sum`], which does better than to add first. Only with [`Operator::OVER`].
    const OVER_SUM: bool = false;

    /// The shapes it produces from these inputs.
    ///
    /// # Errors
    /// The inputs do not fit: what was expected and what came.
    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError>;

    /// The definition of the value.
    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>);

    /// The definition of the gradient: for each wanted input, `dx = (∂y/∂x)ᵀ dy`.
    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]);

    /// `forward` over f32, fast; the same bits.
    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        cpu.vectorize(Forward { operator: self, x, y });
    }

    /// `vjp` over f32, fast; the same bits.
    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        cpu.vectorize(Vjp { operator: self, saved, dy, dx });
    }

    /// `vjp` over f32 where nobody needs the cotangent any more: the gradient of input [`Operator::OVER`] is
    /// written over `dy`, and its slot is `None`. The same bits.
    fn vjp_over(&self, cpu: &Cpu, saved: &Saved<f32>, dy: &mut [f32], dx: &mut [Slot<f32>]) {
        let _ = (cpu, saved, dy, dx);
        unreachable!("{} writes nothing over its cotangent", Self::DOC.name);
    }

    /// [`Operator::vjp_over`] of the cotangent `dy + more`, written over `dy`. The same bits.
    fn vjp_over_sum(
        &self,
        cpu: &Cpu,
        saved: &Saved<f32>,
        dy: &mut [f32],
        more: &[f32],
        dx: &mut [Slot<f32>],
    ) {
        let _ = (cpu, saved, dy, more, dx);
        unreachable!("{} adds nothing to its cotangent", Self::DOC.name);
    }

    /// Whether a gradient with respect to input `k` exists (labels and masks have none).
    fn is_differentiable(&self, _k: usize) -> bool {
        true
    }

    /// Writes itself into an ONNX graph and returns the name of its output.
    ///
    /// # Errors
    /// ONNX cannot express it, and why.
    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported>;

    /// What every check runs on.
    fn cases() -> Vec<Case<Self>>;
}

struct Forward<'a, 'x, 'y, O> {
    operator: &'a O,
    x: &'a [View<'x, f32>],
    y: &'a mut Output<'y, f32>,
}

impl<O: Operator> Task for Forward<'_, '_, '_, O> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.operator.forward(self.x, self.y);
    }
}

struct Vjp<'a, 's, 'y, 'x, O> {
    operator: &'a O,
    saved: &'a Saved<'s, f32>,
    dy: View<'y, f32>,
    dx: &'a mut [Slot<'x, f32>],
}

impl<O: Operator> Task for Vjp<'_, '_, '_, '_, O> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.operator.vjp(self.saved, self.dy, self.dx);
    }
}

/// The face of an operator that the graph sees: f32, fast, object-safe. Every [`Operator`] has it.
pub trait Primitive: Debug + Send + Sync {
    /// The name.
    fn name(&self) -> &'static str;
    /// What the gradient reads.
    fn saves(&self) -> Saves;
    /// See [`Operator::shape`].
    ///
    /// # Errors
    /// As there.
    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError>;
    /// See [`Operator::forward_fast`].
    fn forward(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>);
    /// See [`Operator::vjp_fast`].
    fn vjp(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]);
    /// See [`Operator::OVER`].
    fn over(&self) -> Option<usize>;
    /// See [`Operator::vjp_over`].
    fn vjp_over(&self, cpu: &Cpu, saved: &Saved<f32>, dy: &mut [f32], dx: &mut [Slot<f32>]);
    /// See [`Operator::OVER_SUM`].
    fn is_over_sum(&self) -> bool;
    /// See [`Operator::vjp_over_sum`].
    fn vjp_over_sum(&self, cpu: &Cpu, saved: &Saved<f32>, dy: &mut [f32], more: &[f32], dx: &mut [Slot<f32>]);
    /// See [`Operator::is_differentiable`].
    fn is_differentiable(&self, k: usize) -> bool;
    /// See [`Operator::onnx`].
    ///
    /// # Errors
    /// As there.
    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported>;
}

impl<O: Operator> Primitive for O {
    fn name(&self) -> &'static str {
        O::DOC.name
    }
    fn saves(&self) -> Saves {
        O::SAVES
    }
    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        Operator::shape(self, x)
    }
    fn forward(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        self.forward_fast(cpu, x, y);
    }
    fn vjp(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        self.vjp_fast(cpu, saved, dy, dx);
    }
    fn over(&self) -> Option<usize> {
        O::OVER
    }
    fn vjp_over(&self, cpu: &Cpu, saved: &Saved<f32>, dy: &mut [f32], dx: &mut [Slot<f32>]) {
        Operator::vjp_over(self, cpu, saved, dy, dx);
    }
    fn is_over_sum(&self) -> bool {
        const { assert!(!O::OVER_SUM || O::OVER.is_some(), "a sum over which no gradient is written") }
        O::OVER_SUM
    }
    fn vjp_over_sum(
        &self,
        cpu: &Cpu,
        saved: &Saved<f32>,
        dy: &mut [f32],
        more: &[f32],
        dx: &mut [Slot<f32>],
    ) {
        Operator::vjp_over_sum(self, cpu, saved, dy, more, dx);
    }
    fn is_differentiable(&self, k: usize) -> bool {
        Operator::is_differentiable(self, k)
    }
    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Operator::onnx(self, graph, x)
    }
}
