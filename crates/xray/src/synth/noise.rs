//! Textures: random numbers on a lattice, blended between its points.

use kinone_core::rng::Stream;

/// One unit of length: the side of the image. Lengths and places are in these units whatever the size.
pub(super) const SIDE: i64 = 4096;

/// Numbers in -1000..1000 that vary over a given length.
#[derive(Clone, Debug)]
pub(super) struct Texture {
    cell: i64,
    width: usize,
    points: Vec<i16>,
}

impl Texture {
    /// A texture that changes within `cell` units.
    pub(super) fn new(stream: &Stream, cell: i64) -> Texture {
        let width = (SIDE / cell) as usize + 2;
        let point = |k: usize| (i64::from(stream.bits(k as u64) >> 16) * 2001 / 65_536 - 1000) as i16;
        Texture { cell, width, points: (0..width * width).map(point).collect() }
    }

    /// The number at (x, y).
    pub(super) fn at(&self, x: i64, y: i64) -> i64 {
        let (x, y) = (x.clamp(0, SIDE - 1), y.clamp(0, SIDE - 1));
        let (column, row) = ((x / self.cell) as usize, (y / self.cell) as usize);
        let (right, down) = (ease(x % self.cell, self.cell), ease(y % self.cell, self.cell));
        let point = |i: usize, j: usize| i64::from(self.points[(row + i) * self.width + column + j]);
        let blend = |a: i64, b: i64, share: i64| a + (b - a) * share / 1024;
        blend(blend(point(0, 0), point(0, 1), right), blend(point(1, 0), point(1, 1), right), down)
    }
}

/// `3t² − 2t³` with t = part/whole, in 1/1024.
fn ease(part: i64, whole: i64) -> i64 {
    let t = part * 1024 / whole;
    (3 * t * t - 2 * t * t * t / 1024) / 1024
}

/// How far inside: 1000 where `distance` is at most −`soft`, 0 where it is at least `soft`, eased between.
pub(super) fn inside(distance: i64, soft: i64) -> i64 {
    let part = (soft - distance).clamp(0, 2 * soft);
    ease(part, 2 * soft) * 1000 / 1024
}

/// About how far (x, y) lies outside an ellipse (negative inside), in units of length: exact on the axes.
pub(super) fn ellipse(x: i64, y: i64, rx: i64, ry: i64) -> i64 {
    // √((x/rx)² + (y/ry)²) in 1/1024.
    let (u, v) = (x * 1024 / rx, y * 1024 / ry);
    let radius = (u * u + v * v).isqrt();
    (radius - 1024) * rx.min(ry) / 1024
}
