//! `adaptive_avg_pool2d`: the mean of each cell of a grid laid over an image.

use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::{arity, images};
use kinone_kernels::Cpu;
use kinone_kernels::pool2d::{self, window};

/// A grid of cells: cell i of `rows` has the pixels `⌊i·h/rows⌋ .. ⌈(i+1)·h/rows⌉`, columns alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptiveAvgPool2d {
    /// Rows and columns of the grid.
    pub cells: (usize, usize),
}

impl Tensor {
    /// The mean of each cell of a grid over `self [n, c, h, w]`: `[n, c, rows, columns]`.
    ///
    /// # Errors
    /// `self` is not images, or images or grid are empty.
    pub fn adaptive_avg_pool2d(&self, cells: (usize, usize)) -> Result<Tensor, ShapeError> {
        apply(AdaptiveAvgPool2d { cells }, &[self])
    }
}

impl AdaptiveAvgPool2d {
    /// For each cell of each plane, its flat index and those of its pixels, row by row.
    fn for_cells(&self, x: &Shape, mut body: impl FnMut(usize, &[usize])) {
        let (planes, h, w) = (x[0] * x[1], x[2], x[3]);
        let (rows, columns) = self.cells;
        for plane in 0..planes {
            for i in 0..rows {
                for j in 0..columns {
                    let line = |row: usize| window(w, columns, j).map(move |v| (plane * h + row) * w + v);
                    let pixels: Vec<usize> = window(h, rows, i).flat_map(line).collect();
                    body((plane * rows + i) * columns + j, &pixels);
                }
            }
        }
    }
}

impl Operator for AdaptiveAvgPool2d {
    const DOC: Doc = Doc {
        name: "adaptive_avg_pool2d",
        summary: "The mean of each cell of a grid.",
        formula: r"y_{ncij} = \frac{1}{m_{ij}} \sum_{(h,v) \in \text{cell}(i,j)} x_{nchv}",
        gradient: r"\bar x_{nchv} = \sum_{ij \ni (h,v)} \bar y_{ncij} / m_{ij}",
        shapes: "x [n, c, h, w]; y [n, c, rows, columns]",
        conventions: "Cells overlap where the sizes do not divide. Sums in f64, by leaves of 4096 pixels row by \
            row, rounded once; the gradient's in f64 over (i, j).",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[1], x.len())?;
        let [n, c, h, w] = images(Self::DOC.name, x[0])?;
        if [self.cells.0, self.cells.1, h, w].contains(&0) {
            let reason = format!("no cells {:?} or no pixels {}", self.cells, x[0]);
            return Err(ShapeError::new(Self::DOC.name, reason));
        }
        Ok(Shape::from([n, c, self.cells.0, self.cells.1]).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        self.for_cells(x[0].shape(), |cell, pixels| {
            let sum = reduce::sum(pixels.len(), |k| x[0][pixels[k]].wide());
            y.value[cell] = F::narrow(sum / F::Wide::of(pixels.len() as f64));
        });
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dx) = &mut dx[0] else { return };
        let mut sums = vec![F::Wide::zero(); dx.len()];
        self.for_cells(saved.shape(0), |cell, pixels| {
            let share = dy[cell].wide() / F::Wide::of(pixels.len() as f64);
            for &pixel in pixels {
                sums[pixel] = sums[pixel] + share;
            }
        });
        for (dx, sum) in dx.iter_mut().zip(sums) {
            *dx = F::narrow(sum);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let (shape, cells) = (x[0].shape(), [self.cells.0, self.cells.1]);
        let planes = shape[0] * shape[1];
        pool2d::adaptive_average(cpu, planes, [shape[2], shape[3]], cells, x[0].data(), y.value);
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        if let Some(dx) = &mut dx[0] {
            let (shape, cells) = (saved.shape(0), [self.cells.0, self.cells.1]);
            let planes = shape[0] * shape[1];
            pool2d::adaptive_average_backward(cpu, planes, [shape[2], shape[3]], cells, dy.data(), dx);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let (h, w, (rows, columns)) = (x[0].shape[2], x[0].shape[3], self.cells);
        if (rows, columns) == (1, 1) {
            return Ok(graph.node("GlobalAveragePool", &[&x[0].name], &[]));
        }
        if h % rows != 0 || w % columns != 0 {
            let reason = "the cells of an adaptive pool differ in size where the sizes do not divide";
            return Err(Unsupported(reason.to_owned()));
        }
        let cell = Attribute::sizes(&[h / rows, w / columns]);
        Ok(graph.node("AveragePool", &[&x[0].name], &[("kernel_shape", cell.clone()), ("strides", cell)]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case =
            |name, cells, x: [usize; 4]| Case::new(name, AdaptiveAvgPool2d { cells }, [Input::real(x)]);
        vec![
            case("one cell", (1, 1), [2, 3, 4, 5]),
            case("cells that divide", (2, 3), [2, 2, 4, 6]),
            case("cells that overlap", (2, 3), [1, 2, 5, 7]),
            case("more cells than pixels", (4, 3), [1, 2, 3, 2]),
            case("one cell of many pixels", (1, 1), [3, 5, 67, 66]).bits_only(),
            case("no images", (2, 2), [0, 3, 4, 4]).bits_only(),
        ]
    }
}
