//! Sums over some axes: which numbers belong to which output, and in which order they are taken.

use crate::onnx::{Attribute, Fragment};
use crate::operator::{Output, View};
use crate::real::Real;
use crate::reduce;
use crate::shape::{Shape, ShapeError};
use kinone_kernels::{Cpu, sums};

/// Axes that are summed away, and whether they stay with the extent 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axes {
    /// The axes, in ascending order.
    pub axes: Vec<usize>,
    /// Whether they stay with the extent 1.
    pub keep: bool,
}

impl Axes {
    /// These axes, in any order; `keep` leaves them with the extent 1.
    pub fn new(axes: &[usize], keep: bool) -> Axes {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        Axes { axes, keep }
    }

    /// The output's shape, with the summed axes of extent 1.
    fn kept(&self, x: &Shape) -> Shape {
        let extent = |(axis, extent): (usize, &usize)| if self.axes.contains(&axis) { 1 } else { *extent };
        x.iter().enumerate().map(extent).collect::<Vec<usize>>().into()
    }

    /// The output's shape.
    ///
    /// # Errors
    /// An axis is missing or named twice.
    pub(crate) fn shape(&self, operator: &'static str, x: &[&Shape]) -> Result<Shape, ShapeError> {
        let [x] = x else { return Err(ShapeError::new(operator, format!("takes 1 input, not {}", x.len()))) };
        let twice = self.axes.windows(2).any(|pair| pair[0] == pair[1]);
        if twice || self.axes.iter().any(|axis| *axis >= x.len()) {
            return Err(ShapeError::new(operator, format!("axes {:?} of {x}", self.axes)));
        }
        if self.keep {
            return Ok(self.kept(x));
        }
        let rest = x.iter().enumerate().filter(|(axis, _)| !self.axes.contains(axis));
        Ok(rest.map(|(_, extent)| *extent).collect::<Vec<usize>>().into())
    }

    /// The number of terms of each output.
    pub(crate) fn count(&self, x: &Shape) -> usize {
        self.axes.iter().map(|axis| x[*axis]).product()
    }

    /// For each output, the flat indices of its terms, in row-major order.
    pub(crate) fn fibres(&self, x: &Shape) -> Vec<Vec<usize>> {
        reduce::fibres(&self.kept(x), x)
    }

    /// For each element of x, the flat index of its output.
    pub(crate) fn targets(&self, x: &Shape) -> Vec<usize> {
        reduce::broadcast_index(&self.kept(x), x)
    }

    /// `(outer, len, inner)` where the axes are neighbours, so that a kernel can sum them.
    fn as_one(&self, x: &Shape) -> Option<[usize; 3]> {
        let (first, last) = (*self.axes.first()?, *self.axes.last()?);
        (last - first + 1 == self.axes.len()).then(|| {
            let extent = |range: std::ops::Range<usize>| x[range].iter().product();
            [extent(0..first), extent(first..last + 1), extent(last + 1..x.len())]
        })
    }

    /// The sum of each fibre, in f64 by leaves of 4096, divided by `divisor`, rounded once.
    pub(crate) fn sum<F: Real>(&self, x: View<F>, divisor: f64, y: &mut [F]) {
        for (y, fibre) in y.iter_mut().zip(self.fibres(x.shape())) {
            *y = F::narrow(reduce::sum(fibre.len(), |k| x[fibre[k]].wide()) / F::Wide::of(divisor));
        }
    }

    /// The same for f32, by a kernel where the axes are neighbours.
    pub(crate) fn sum_fast(&self, cpu: &Cpu, x: View<f32>, divisor: f64, y: &mut Output<f32>) {
        match self.as_one(x.shape()) {
            Some([outer, len, inner]) if divisor == 1.0 => {
                sums::sum_axis(cpu, outer, len, inner, x.data(), y.value);
            }
            Some([outer, len, inner]) => {
                let mut wide = vec![0.0; y.value.len()];
                sums::sum_axis_wide(cpu, outer, len, inner, x.data(), &mut wide);
                for (y, sum) in y.value.iter_mut().zip(wide) {
                    *y = (sum / divisor) as f32;
                }
            }
            None => self.sum(x, divisor, y.value),
        }
    }

    /// ONNX's way to name the axes from opset 13 on for sums, before it for the rest.
    pub(crate) fn attributes(&self) -> [(&'static str, Attribute); 2] {
        [("axes", Attribute::sizes(&self.axes)), ("keepdims", Attribute::Int(i64::from(self.keep)))]
    }

    /// The node of a sum, whose axes are an input.
    pub(crate) fn onnx_sum(&self, graph: &mut Fragment, x: &str) -> String {
        let axes: Vec<i64> = self.axes.iter().map(|axis| *axis as i64).collect();
        let axes = graph.integers(&axes);
        let keep = [
            ("keepdims", Attribute::Int(i64::from(self.keep))),
            // Without axes nothing is summed.
            ("noop_with_empty_axes", Attribute::Int(1)),
        ];
        graph.node("ReduceSum", &[x, &axes], &keep)
    }
}

/// The fibres of one axis: `[outer, len, inner]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fibres {
    pub(crate) outer: usize,
    pub(crate) len: usize,
    pub(crate) inner: usize,
}

impl Fibres {
    /// The fibres of `axis`, which exists.
    pub(crate) fn new(x: &Shape, axis: usize) -> Fibres {
        let extent = |range: std::ops::Range<usize>| x[range].iter().product();
        Fibres { outer: extent(0..axis), len: x[axis], inner: extent(axis + 1..x.len()) }
    }

    /// For each fibre, the flat index of its k-th element.
    pub(crate) fn indices(self) -> impl Iterator<Item = impl Fn(usize) -> usize> {
        let Fibres { outer, len, inner } = self;
        (0..outer).flat_map(move |o| (0..inner).map(move |i| move |k: usize| (o * len + k) * inner + i))
    }
}

/// The greatest of `x(0), …, x(len − 1)` by strict comparison, a zero as +0; NaN is left out.
pub(crate) fn greatest<F: Real>(len: usize, x: impl Fn(usize) -> F) -> F {
    let mut best = F::of(f64::NEG_INFINITY);
    for k in 0..len {
        if x(k) > best {
            best = x(k);
        }
    }
    best + F::zero()
}

/// Refuses an axis that is not there.
///
/// # Errors
/// There is no such axis, or not one input.
pub(crate) fn one_axis<'a>(
    operator: &'static str,
    axis: usize,
    x: &[&'a Shape],
) -> Result<&'a Shape, ShapeError> {
    match x {
        [x] if axis < x.len() => Ok(x),
        [x] => Err(ShapeError::new(operator, format!("axis {axis} of {x}"))),
        _ => Err(ShapeError::new(operator, format!("takes 1 input, not {}", x.len()))),
    }
}
