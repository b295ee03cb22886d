//! Convolution with 3×3 filters by Winograd's minimal filtering: another definition than that of
//! [`super::forward`], with fewer multiplications and other roundings. `docs/WINOGRAD.md` explains it.
//!
//! The definitions are the loops of [`mod@reference`]. The kernels transform squares with channels in the lanes, so
//! that the products of a block of tiles are plain products of matrices, one for each element of the square, whose
//! operands lie in memory as the tiles of `product.rs` want them.

mod correlate;
mod doubles;
mod filters;
mod line;
pub mod reference;
mod squares;
mod vectors;
mod weight;

use super::Finish;
use crate::Cpu;
use crate::cpu::SharedMut;
use crate::memory::{Kept, size};
use correlate::Correlation;
use filters::Filters;
use line::{F2, F4};
use squares::Planes;
use weight::WeightGradient;

/// How many outputs share their products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// F(2×2, 3×3): 2×2 outputs from 16 products, 2.25 times fewer than the plain sum.
    Two,
    /// F(4×4, 3×3): 4×4 outputs from 36 products, 4 times fewer.
    Four,
}

impl Tile {
    /// Outputs of a side.
    pub fn side(self) -> usize {
        match self {
            Tile::Two => 2,
            Tile::Four => 4,
        }
    }
}

/// The geometry of a convolution with 3×3 filters and stride 1. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Winograd {
    /// How many outputs share their products.
    pub tile: Tile,
    /// Images.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Input rows and columns.
    pub input: (usize, usize),
    /// Filters: output channels.
    pub o: usize,
    /// Zeros added on every side: at most 2.
    pub padding: (usize, usize),
}

impl Winograd {
    /// Output rows and columns: `size + 2·padding − 2`, or 0 where the filter does not fit.
    pub fn output(&self) -> (usize, usize) {
        let extent = |size: usize, padding: usize| (size + 2 * padding).saturating_sub(2);
        (extent(self.input.0, self.padding.0), extent(self.input.1, self.padding.1))
    }

    fn check(&self, x: usize, w: usize, y: usize) {
        let (oh, ow) = self.output();
        assert!(self.padding.0 <= 2 && self.padding.1 <= 2, "padding above 2");
        assert_eq!(Some(x), size(&[self.n, self.c, self.input.0, self.input.1]), "images of another size");
        assert_eq!(Some(w), size(&[self.o, self.c, 3, 3]), "filters of another size");
        assert_eq!(Some(y), size(&[self.n, self.o, oh, ow]), "outputs of another size");
    }

    fn planes(
        &self,
        channels: usize,
        size: (usize, usize),
        offset: (usize, usize),
        out: (usize, usize),
    ) -> Planes {
        let side = self.tile.side();
        Planes { channels, size, offset, tiles: (out.0.div_ceil(side), out.1.div_ceil(side)) }
    }
}

/// `y[n, o, i, j]`: [`reference::forward`].
///
/// # Panics
/// When a slice does not have the geometry's size, or a padding is above 2.
pub fn forward(cpu: &Cpu, conv: &Winograd, x: &[f32], w: &[f32], y: &mut [f32]) {
    forward_finished(cpu, conv, x, (w, None), None, y);
}

/// [`forward`], then [`Finish`], while the outputs of some tiles are at hand; the bits of [`reference::forward`] and
/// [`finish`](super::reference::finish) one after the other. Filters that come with room for it keep what is made of
/// them, for the next call.
///
/// # Panics
/// As [`forward`].
pub fn forward_finished(
    cpu: &Cpu,
    conv: &Winograd,
    x: &[f32],
    (w, keep): (&[f32], Option<&Kept>),
    finish: Option<Finish>,
    y: &mut [f32],
) {
    conv.check(x.len(), w.len(), y.len());
    if let Some(finish) = finish {
        finish.check(conv.o, y.len());
    }
    let out = conv.output();
    correlate(
        cpu,
        conv.tile,
        Correlation {
            n: conv.n,
            from: conv.planes(conv.c, conv.input, conv.padding, out),
            to: conv.planes(conv.o, out, (0, 0), out),
            x,
            filters: Filters { w, terms: conv.c, columns: conv.o, turned: false },
            keep,
            finish,
            y: SharedMut::new(y),
        },
    );
}

/// `dx[n, c, h, v]`: [`reference::input_gradient`].
///
/// # Panics
/// As [`forward`].
pub fn input_gradient(cpu: &Cpu, conv: &Winograd, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    conv.check(dx.len(), w.len(), dy.len());
    let offset = (2 - conv.padding.0, 2 - conv.padding.1);
    correlate(
        cpu,
        conv.tile,
        Correlation {
            n: conv.n,
            from: conv.planes(conv.o, conv.output(), offset, conv.input),
            to: conv.planes(conv.c, conv.input, (0, 0), conv.input),
            x: dy,
            filters: Filters { w, terms: conv.o, columns: conv.c, turned: true },
            keep: None,
            finish: None,
            y: SharedMut::new(dx),
        },
    );
}

fn correlate(cpu: &Cpu, tile: Tile, correlation: Correlation) {
    match tile {
        Tile::Two => correlation.run::<F2, 2, 4>(cpu),
        Tile::Four => correlation.run::<F4, 4, 6>(cpu),
    }
}

/// `dw[o, c, p, q]`: [`reference::weight_gradient`].
///
/// # Panics
/// As [`forward`].
pub fn weight_gradient(cpu: &Cpu, conv: &Winograd, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    conv.check(x.len(), dw.len(), dy.len());
    if dw.is_empty() || dy.is_empty() {
        dw.fill(0.0);
        return;
    }
    let out = conv.output();
    let gradient = WeightGradient {
        n: conv.n,
        images: conv.planes(conv.c, conv.input, conv.padding, out),
        outputs: conv.planes(conv.o, out, (0, 0), out),
        x,
        dy,
        dw: SharedMut::new(dw),
    };
    match conv.tile {
        Tile::Two => gradient.run::<F2, 2, 4>(cpu),
        Tile::Four => gradient.run::<F4, 4, 6>(cpu),
    }
}
