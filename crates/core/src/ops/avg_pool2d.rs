//! `avg_pool2d`: the mean of each window.

use super::max_pool2d::Windows;
use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::arity;
use kinone_kernels::{Cpu, pool2d};

/// Windows over images; pairs are (vertical, horizontal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvgPool2d {
    /// Taps.
    pub kernel: (usize, usize),
    /// Pixels from one position to the next.
    pub stride: (usize, usize),
    /// Pixels by which the first window lies outside the image.
    pub padding: (usize, usize),
    /// Whether a last window may reach beyond the padding.
    pub ceil_mode: bool,
    /// Whether the padding counts in the number that is divided by.
    pub count_include_pad: bool,
}

impl Tensor {
    /// The mean of each window of `self [n, c, h, w]`: `[n, c, i, j]`.
    ///
    /// # Errors
    /// The windows do not fit.
    pub fn avg_pool2d(&self, pool: AvgPool2d) -> Result<Tensor, ShapeError> {
        apply(pool, &[self])
    }
}

impl AvgPool2d {
    fn windows(&self, x: &Shape) -> Result<Windows, ShapeError> {
        let extents = [self.kernel, self.stride, self.padding, (1, 1)];
        Windows::new(Self::DOC.name, x, extents, self.ceil_mode)
    }

    fn known(&self, x: &Shape) -> Windows {
        match self.windows(x) {
            Ok(windows) => windows,
            Err(error) => unreachable!("shapes were checked: {error}"),
        }
    }

    /// The number that window (i, j) divides by.
    fn count(&self, pool: &pool2d::Pool, i: usize, j: usize) -> usize {
        pool.taps(0, i, self.count_include_pad) * pool.taps(1, j, self.count_include_pad)
    }
}

impl Operator for AvgPool2d {
    const DOC: Doc = Doc {
        name: "avg_pool2d",
        summary: "The mean of each window.",
        formula: r"y_{ncij} = \frac{1}{m_{ij}} \sum_{pq} x_{n,c,\,is+p-a,\,js+q-a}",
        gradient: r"\bar x_{nchv} = \sum_{ij \ni (h,v)} \bar y_{ncij} / m_{ij}",
        shapes: "x [n, c, h, w]; y [n, c, i, j]",
        conventions: "s is the stride, a the padding. Taps on the padding add nothing; they count in m if asked for, those beyond the padding \
            (ceil mode) never. Sums in f64 in scan order, rounded once; a window of no pixels gives 0.",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[1], x.len())?;
        let windows = self.windows(x[0])?;
        Ok(Shape::from([x[0][0], x[0][1], windows.oh, windows.ow]).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let g = self.known(x[0].shape());
        let pool = g.kernel();
        for plane in 0..g.planes {
            for i in 0..g.oh {
                for j in 0..g.ow {
                    let mut sum = F::Wide::zero();
                    for p in 0..self.kernel.0 {
                        for q in 0..self.kernel.1 {
                            if let Some(pixel) = g.pixel(plane, [i, j], [p, q]) {
                                sum = sum + x[0][pixel].wide();
                            }
                        }
                    }
                    let mean = match self.count(&pool, i, j) {
                        0 => F::zero(),
                        count => F::narrow(sum / F::Wide::of(count as f64)),
                    };
                    y.value[(plane * g.oh + i) * g.ow + j] = mean;
                }
            }
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dx) = &mut dx[0] else { return };
        let g = self.known(saved.shape(0));
        let pool = g.kernel();
        let mut sums = vec![F::Wide::zero(); dx.len()];
        for plane in 0..g.planes {
            for i in 0..g.oh {
                for j in 0..g.ow {
                    let count = F::Wide::of(self.count(&pool, i, j) as f64);
                    let share = dy[(plane * g.oh + i) * g.ow + j].wide() / count;
                    for p in 0..self.kernel.0 {
                        for q in 0..self.kernel.1 {
                            if let Some(pixel) = g.pixel(plane, [i, j], [p, q]) {
                                sums[pixel] = sums[pixel] + share;
                            }
                        }
                    }
                }
            }
        }
        for (dx, sum) in dx.iter_mut().zip(sums) {
            *dx = F::narrow(sum);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let pool = self.known(x[0].shape()).kernel();
        pool2d::average(cpu, &pool, self.count_include_pad, x[0].data(), y.value);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        if let Some(dx) = &mut dx[0] {
            let pool = self.known(saved.shape(0)).kernel();
            pool2d::average_backward(cpu, &pool, self.count_include_pad, dy.data(), dx);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let windows = self.windows(&x[0].shape).map_err(|error| Unsupported(error.to_string()))?;
        let ((above, left), [below, right]) = (self.padding, windows.padding_behind());
        let counts = |yes: bool| ("count_include_pad", Attribute::Int(i64::from(yes)));
        if !self.count_include_pad || (below, right) == self.padding {
            let mut attributes = windows.attributes([above, left, below, right]);
            attributes.push(counts(self.count_include_pad));
            return Ok(graph.node("AveragePool", &[&x[0].name], &attributes));
        }
        // Zeros of the image's padding count, what lies beyond them does not: the first become pixels.
        let (a, b) = (above as i64, left as i64);
        let pads = graph.integers(&[0, 0, a, b, 0, 0, a, b]);
        let padded = graph.node("Pad", &[&x[0].name, &pads], &[]);
        let mut attributes = windows.attributes([0, 0, below - above, right - left]);
        attributes.push(counts(false));
        Ok(graph.node("AveragePool", &[&padded], &attributes))
    }

    fn cases() -> Vec<Case<Self>> {
        let pool = |kernel, stride, padding, ceil_mode, count_include_pad| AvgPool2d {
            kernel,
            stride,
            padding,
            ceil_mode,
            count_include_pad,
        };
        let case = |name, operator, x: [usize; 4]| Case::new(name, operator, [Input::real(x)]);
        vec![
            case("a grid", pool((2, 2), (2, 2), (0, 0), false, true), [2, 2, 4, 6]),
            case("padding that counts", pool((3, 3), (2, 2), (1, 1), false, true), [2, 2, 5, 6]),
            case("padding that does not", pool((3, 3), (2, 2), (1, 1), false, false), [2, 2, 5, 6]),
            case("ceil mode", pool((3, 2), (2, 3), (1, 1), true, true), [1, 2, 6, 5]),
            case("ceil mode, pixels alone", pool((3, 2), (2, 3), (1, 1), true, false), [1, 2, 6, 5]),
            case("many", pool((3, 3), (2, 2), (1, 1), false, true), [3, 17, 33, 34]).bits_only(),
            case("no images", pool((2, 2), (2, 2), (0, 0), false, true), [0, 2, 4, 6]).bits_only(),
        ]
    }
}
