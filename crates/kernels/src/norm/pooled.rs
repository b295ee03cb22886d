//! Normalization in training, a ReLU and max pooling, channel after channel: the stem of a residual network.
//!
//! What is normalized is larger than what leaves: it is pooled row by row, and never stored. Backward, the gradient of the
//! pooled is spread over a plane in the nearest cache, once for the sums and once for the gradient that follows from them.

use super::apply::{AffineRelu, Dx, PlaneMap, WhereAffine, map_plane};
use super::channels::{Batch, Parameters, Past, Scratch, Statistics};
use super::{Channels, Gradients};
use crate::cpu::SharedMut;
use crate::memory::Buffer;
use crate::pool2d::{Pool, Spread, Windows};
use crate::sums::{Images, Planes};
use crate::{Cpu, Task};
use std::ops::Range;

/// What is pooled, and which tap of each window won, as [`crate::pool2d::max`] has it.
#[derive(Debug)]
pub struct Pooled<'a> {
    /// The windows.
    pub pool: &'a Pool,
    /// The greatest values.
    pub y: &'a mut [f32],
    /// Their taps.
    pub winner: &'a mut [f32],
}

/// [`train_forward`](super::train_forward) with a ReLU, then [`crate::pool2d::max`].
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn train_forward_pooled(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    (gamma, beta, eps): (&[f32], &[f32], f32),
    Pooled { pool, y, winner }: Pooled,
    statistics: [&mut [f32]; 3],
) {
    let vectors = [gamma, beta].into_iter().map(<[f32]>::len).chain(statistics.iter().map(|to| to.len()));
    assert!(vectors.into_iter().all(|len| len == shape.c), "one value a channel");
    check(pool, shape, [y.len(), winner.len()]);
    let batch = Batch::new(cpu, shape);
    let statistics = Statistics { gamma, beta, eps, to: statistics.map(SharedMut::new) };
    let (x, y, winner) = (Planes::of(shape, x), SharedMut::new(y), SharedMut::new(winner));
    batch.for_channels(cpu, |channels| {
        cpu.vectorize(Forward { batch: &batch, channels, x, statistics: &statistics, pool, y, winner });
    });
}

fn check(pool: &Pool, shape: Images, [outputs, winners]: [usize; 2]) {
    let planes = (pool.planes, pool.input);
    assert_eq!(planes, (shape.n * shape.c, [shape.h, shape.w]), "the windows are of other images");
    pool.check(shape.len(), outputs);
    assert_eq!(winners, outputs, "one winner an output");
}

struct Forward<'a> {
    batch: &'a Batch,
    channels: Range<usize>,
    x: Planes<'a>,
    statistics: &'a Statistics<'a>,
    pool: &'a Pool,
    y: SharedMut<'a, f32>,
    winner: SharedMut<'a, f32>,
}

impl Task for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Forward { batch, channels, x, statistics, pool, y, winner } = self;
        let mut scratch = Scratch::of(batch);
        let mut constants = Vec::with_capacity(batch.block);
        let mut windows = Windows::new(pool);
        let outputs = pool.output[0] * pool.output[1];
        let mut past = [(); 2].map(|()| Past::of(pool.planes, outputs, 1));
        for first in channels.clone().step_by(batch.block) {
            let block = first..(first + batch.block).min(channels.end);
            // SAFETY: x is borrowed as a slice to read: nobody writes it; each channel is in one range only.
            unsafe { statistics.of_block(batch, x, &block, &mut scratch, &mut constants) };
            if outputs == 0 {
                continue;
            }
            // The last image is the one still in the nearest cache.
            for n in (0..batch.shape.n).rev() {
                for (c, constants) in block.clone().zip(&constants) {
                    let plane = n * batch.shape.c + c;
                    let place = plane * outputs..(plane + 1) * outputs;
                    // SAFETY: as above, and each plane of the outputs is in one range only.
                    let ([x, ahead], to) = unsafe {
                        let planes = [n, n.saturating_sub(1)].map(|n| x.rows(n, c, 0..batch.shape.h));
                        (planes, [y.slice(place.clone()), winner.slice(place)])
                    };
                    let of = |x| AffineRelu.value([x], *constants);
                    let [near_y, near_winner] = &mut past;
                    let [y, winner] = to;
                    let (to_y, to_winner) = (Past::place(near_y, y), Past::place(near_winner, winner));
                    windows.plane(x, of, ahead, to_y, to_winner);
                    // SAFETY: nobody looks at the outputs before all of them are there.
                    unsafe {
                        Past::bring(near_y, y);
                        Past::bring(near_winner, winner);
                    }
                }
            }
        }
    }
}

/// The gradient of what was pooled, and the taps that won.
#[derive(Clone, Copy, Debug)]
pub struct Unpool<'a> {
    /// The windows.
    pub pool: &'a Pool,
    /// The taps.
    pub winner: &'a [f32],
    /// The gradient.
    pub dy: &'a [f32],
}

impl<'a> Unpool<'a> {
    /// The taps and the gradient of a plane.
    #[inline(always)]
    fn plane(&self, plane: usize) -> [&'a [f32]; 2] {
        let size = self.pool.output[0] * self.pool.output[1];
        [self.winner, self.dy].map(|of| &of[plane * size..(plane + 1) * size])
    }
}

/// [`crate::pool2d::max_backward`], then [`train_backward`](super::train_backward) of a ReLU: the gradients of x, gamma
/// and beta. The winners are those of the forward pass.
///
/// # Panics
/// When a slice does not have the length of its shape, or a residual's gradient is wanted: there is none.
pub fn train_backward_pooled(
    cpu: &Cpu,
    shape: Images,
    x: &[f32],
    pooled: Unpool,
    channels: Channels,
    beta: &[f32],
    gradients: Gradients,
) {
    check(pooled.pool, shape, [pooled.dy.len(), pooled.winner.len()]);
    gradients.check(shape);
    let Gradients { dx, dresidual, dgamma, dbeta } = gradients;
    assert!(dresidual.is_none(), "no residual has a gradient here");
    let parameters = Parameters::new(shape, channels, Some(beta), [dgamma, dbeta]);
    let (x, dx) = (Planes::of(shape, x), dx.map(SharedMut::new));
    let batch = Batch::new(cpu, shape);
    batch.for_channels(cpu, |channels| {
        let (batch, parameters) = (&batch, &parameters);
        cpu.vectorize(Backward { batch, channels, x, pooled, parameters, dx });
    });
}

struct Backward<'a> {
    batch: &'a Batch,
    channels: Range<usize>,
    x: Planes<'a>,
    pooled: Unpool<'a>,
    parameters: &'a Parameters<'a>,
    dx: Option<SharedMut<'a, f32>>,
}

impl Backward<'_> {
    /// Spreads the gradient of plane (n, c); asks meanwhile for what else is looked at there, and at that of image `next`.
    #[inline(always)]
    fn spread(&self, spread: &mut Spread, (n, c): (usize, usize), next: usize, to: &mut [f32]) {
        let Images { c: channels, h, .. } = self.batch.shape;
        // SAFETY: x is borrowed as a slice to read.
        let x = unsafe { self.x.rows(n, c, 0..h) };
        let [[winner, dy], [next_winner, next_dy]] = [n, next].map(|n| self.pooled.plane(n * channels + c));
        spread.plane(winner, dy, &[x, next_winner, next_dy], to);
    }
}

impl Task for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Backward { batch, x, parameters, dx, .. } = self;
        let (shape, plane) = (batch.shape, batch.shape.plane());
        let mut scratch = Scratch::of(batch);
        let (mut terms, mut constants) = (Vec::with_capacity(batch.block), Vec::with_capacity(batch.block));
        let mut spread = Spread::new(self.pooled.pool);
        let together = batch.together();
        let mut near = Buffer::take(together.len());
        let near = SharedMut::new(&mut near);
        let mut past = Past::of(if dx.is_some() { shape.n * shape.c } else { 0 }, plane, batch.block);
        for first in self.channels.clone().step_by(batch.block) {
            let block = first..(first + batch.block).min(self.channels.end);
            parameters.terms(WhereAffine, &block, &mut terms);
            scratch.leaves.clear();
            for leaf in &batch.leaves {
                if leaf.rows.start == 0 {
                    for (at, n) in leaf.samples.clone().enumerate() {
                        for (c, at) in block.clone().zip(at * batch.block..) {
                            // SAFETY: this thread's, and not looked at now.
                            let to = unsafe { near.slice(at * plane..(at + 1) * plane) };
                            self.spread(&mut spread, (n, c), (n + 1).min(shape.n - 1), to);
                        }
                    }
                }
                let dz = Planes::of_shared(together, near).from((leaf.samples.start, block.start));
                // SAFETY: x is borrowed as a slice to read, and near is written above alone.
                unsafe { scratch.leaf([dz, x], &block, leaf, &terms) };
            }
            scratch.add_up(block.len());
            // SAFETY: each channel is in one range only.
            unsafe { parameters.constants(batch, &block, &terms, &scratch, &mut constants) };
            let Some(dx) = dx else { continue };
            // The last image is the one still in the nearest cache.
            for n in (0..shape.n).rev() {
                // SAFETY: this thread alone touches these planes, and near.
                let (dx, dz) = unsafe { (dx.slice(batch.planes(n, &block)), near.slice(0..plane)) };
                let to = Past::place(&mut past, dx).chunks_exact_mut(plane.max(1));
                for ((c, constants), to) in block.clone().zip(&constants).zip(to) {
                    self.spread(&mut spread, (n, c), n.saturating_sub(1), dz);
                    // SAFETY: x is borrowed as a slice to read.
                    let x = unsafe { x.rows(n, c, 0..shape.h) };
                    map_plane(Dx(WhereAffine), [dz, x], *constants, to);
                }
                // SAFETY: nobody looks at the gradient before all of it is there.
                unsafe { Past::bring(&past, dx) };
            }
        }
    }
}
