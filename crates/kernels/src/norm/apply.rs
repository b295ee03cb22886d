//! Functions of the values at one position, and the loops that apply them to planes.

use crate::sums::{Images, Terms};
use crate::{Cpu, Task};

/// The values a thread takes at least.
pub(super) const GRAIN: usize = 16_384;

/// A function of `N` values at one position, with `K` constants of the channel.
pub(super) trait PlaneMap<const N: usize, const K: usize>: Copy + Sync {
    /// Mark it `#[inline(always)]`.
    fn value(self, x: [f32; N], constants: [f32; K]) -> f32;
}

/// `if 0 > x { 0 } else { x }`: NaN stays.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if 0.0 > x { 0.0 } else { x }
}

#[derive(Clone, Copy)]
pub(super) struct Affine;
impl PlaneMap<1, 2> for Affine {
    #[inline(always)]
    fn value(self, [x]: [f32; 1], [scale, shift]: [f32; 2]) -> f32 {
        x.mul_add(scale, shift)
    }
}

#[derive(Clone, Copy)]
pub(super) struct AffineRelu;
impl PlaneMap<1, 2> for AffineRelu {
    #[inline(always)]
    fn value(self, [x]: [f32; 1], [scale, shift]: [f32; 2]) -> f32 {
        relu(x.mul_add(scale, shift))
    }
}

#[derive(Clone, Copy)]
pub(super) struct AffineAddRelu;
impl PlaneMap<2, 2> for AffineAddRelu {
    #[inline(always)]
    fn value(self, [x, residual]: [f32; 2], [scale, shift]: [f32; 2]) -> f32 {
        relu(x.mul_add(scale, shift) + residual)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Scale;
impl PlaneMap<1, 1> for Scale {
    #[inline(always)]
    fn value(self, [dy]: [f32; 1], [scale]: [f32; 1]) -> f32 {
        dy * scale
    }
}

/// The gradient `dz` of the normalized value z, from `N` values of which the first are dy and x.
pub(super) trait Pass<const N: usize>: Copy + Sync {
    /// Whether there is a residual, whose gradient is `dz` too.
    const RESIDUAL: bool;
    /// `dz`. Mark it `#[inline(always)]`.
    fn dz(self, values: [f32; N], scale: f32, shift: f32) -> f32;
}

/// `dz = dy`
#[derive(Clone, Copy)]
pub(super) struct All;
impl Pass<2> for All {
    const RESIDUAL: bool = false;
    #[inline(always)]
    fn dz(self, [dy, _]: [f32; 2], _scale: f32, _shift: f32) -> f32 {
        dy
    }
}

/// `dz = dy` where z, computed again, is above 0.
#[derive(Clone, Copy)]
pub(super) struct WhereAffine;
impl Pass<2> for WhereAffine {
    const RESIDUAL: bool = false;
    #[inline(always)]
    fn dz(self, [dy, x]: [f32; 2], scale: f32, shift: f32) -> f32 {
        if x.mul_add(scale, shift) > 0.0 { dy } else { 0.0 }
    }
}

/// `dz = dy` where the output is above 0.
#[derive(Clone, Copy)]
pub(super) struct WhereOutput;
impl Pass<3> for WhereOutput {
    const RESIDUAL: bool = true;
    #[inline(always)]
    fn dz(self, [dy, _, y]: [f32; 3], _scale: f32, _shift: f32) -> f32 {
        if y > 0.0 { dy } else { 0.0 }
    }
}

/// The same where dy is the first value plus the last.
#[derive(Clone, Copy)]
pub(super) struct SumWhereOutput;
impl Pass<4> for SumWhereOutput {
    const RESIDUAL: bool = true;
    #[inline(always)]
    fn dz(self, [dy, _, y, more]: [f32; 4], _scale: f32, _shift: f32) -> f32 {
        if y > 0.0 { dy + more } else { 0.0 }
    }
}

/// What the gradients of one channel are made of: mean, k1, k2, scale, shift (see [`super::reference`]).
pub(super) type Constants = [f32; 5];

/// `dx = scale·fma(-(x - mean), k2, dz - k1)`
#[derive(Clone, Copy)]
pub(super) struct Dx<P>(pub(super) P);
impl<const N: usize, P: Pass<N>> PlaneMap<N, 5> for Dx<P> {
    #[inline(always)]
    fn value(self, values: [f32; N], [mean, k1, k2, scale, shift]: Constants) -> f32 {
        let dz = self.0.dz(values, scale, shift);
        scale * (-(values[1] - mean)).mul_add(k2, dz - k1)
    }
}

/// `dz`
#[derive(Clone, Copy)]
pub(super) struct Dz<P>(pub(super) P);
impl<const N: usize, P: Pass<N>> PlaneMap<N, 5> for Dz<P> {
    #[inline(always)]
    fn value(self, values: [f32; N], [_, _, _, scale, shift]: Constants) -> f32 {
        self.0.dz(values, scale, shift)
    }
}

/// `[dz, dz·(x - mean)]`: difference and product each rounded to f64.
#[derive(Clone, Copy)]
pub(super) struct Centred<P> {
    pub(super) pass: P,
    pub(super) mean: f32,
    pub(super) scale: f32,
    pub(super) shift: f32,
}
impl<const N: usize, P: Pass<N>> Terms<N, 2> for Centred<P> {
    #[inline(always)]
    fn terms(self, values: [f32; N]) -> [f64; 2] {
        let dz = f64::from(self.pass.dz(values, self.scale, self.shift));
        [dz, dz * (f64::from(values[1]) - f64::from(self.mean))]
    }
}

/// `[x, x²]`; the square is exact.
#[derive(Clone, Copy)]
pub(super) struct Moments;
impl Terms<1, 2> for Moments {
    #[inline(always)]
    fn terms(self, [x]: [f32; 1]) -> [f64; 2] {
        let x = f64::from(x);
        [x, x * x]
    }
}

/// `y[k] = map(x[·][k])` for all k. For use inside a [`Task`].
#[inline(always)]
pub(super) fn map_plane<const N: usize, const K: usize>(
    map: impl PlaneMap<N, K>,
    mut x: [&[f32]; N],
    constants: [f32; K],
    y: &mut [f32],
) {
    for x in &mut x {
        *x = &x[..y.len()];
    }
    for k in 0..y.len() {
        let mut one = [0.0; N];
        for i in 0..N {
            one[i] = x[i][k];
        }
        y[k] = map.value(one, constants);
    }
}

/// The same with `y` in the place of the first input, whose slice is not looked at.
#[inline(always)]
pub(super) fn map_plane_over<const N: usize, const K: usize>(
    map: impl PlaneMap<N, K>,
    mut x: [&[f32]; N],
    constants: [f32; K],
    y: &mut [f32],
) {
    for x in &mut x[1..] {
        *x = &x[..y.len()];
    }
    for k in 0..y.len() {
        let mut one = [0.0; N];
        one[0] = y[k];
        for i in 1..N {
            one[i] = x[i][k];
        }
        y[k] = map.value(one, constants);
    }
}

/// [`map_plane`] of `map` to `to` and [`map_plane_over`] of `over` to `y` in one pass.
#[inline(always)]
pub(super) fn map_plane_and_over<const N: usize, const K: usize>(
    map: impl PlaneMap<N, K>,
    over: impl PlaneMap<N, K>,
    mut x: [&[f32]; N],
    constants: [f32; K],
    to: &mut [f32],
    y: &mut [f32],
) {
    for x in &mut x[1..] {
        *x = &x[..y.len()];
    }
    let to = &mut to[..y.len()];
    for k in 0..y.len() {
        let mut one = [0.0; N];
        one[0] = y[k];
        for i in 1..N {
            one[i] = x[i][k];
        }
        to[k] = map.value(one, constants);
        y[k] = over.value(one, constants);
    }
}

/// `y[n, c, :] = map(x[n, c, :], constants[c])`, whole planes to a thread.
pub(super) fn over_planes<const N: usize, const K: usize>(
    cpu: &Cpu,
    shape: Images,
    x: [&[f32]; N],
    constants: &[[f32; K]],
    map: impl PlaneMap<N, K>,
    y: &mut [f32],
) {
    assert!(x.iter().all(|x| x.len() == shape.len()), "an input is not {shape:?}");
    assert_eq!(y.len(), shape.len(), "the output is not {shape:?}");
    if shape.is_empty() {
        return;
    }
    let plane = shape.plane();
    cpu.for_slices(y.len(), GRAIN.div_ceil(plane) * plane, &mut [Some(y)], |offset, parts| {
        for y in parts.iter_mut().flatten() {
            let x = x.map(|x| &x[offset..offset + y.len()]);
            cpu.vectorize(EachPlane { plane, first: offset / plane, x, constants, map, y });
        }
    });
}

struct EachPlane<'a, M, const N: usize, const K: usize> {
    plane: usize,
    first: usize,
    x: [&'a [f32]; N],
    constants: &'a [[f32; K]],
    map: M,
    y: &'a mut [f32],
}

impl<M: PlaneMap<N, K>, const N: usize, const K: usize> Task for EachPlane<'_, M, N, K> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (at, y) in self.y.chunks_exact_mut(self.plane).enumerate() {
            let constants = self.constants[(self.first + at) % self.constants.len()];
            let mut x = self.x;
            for x in &mut x {
                *x = &x[at * self.plane..];
            }
            map_plane(self.map, x, constants, y);
        }
    }
}
