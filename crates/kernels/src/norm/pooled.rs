//! Normalization in training, a ReLU and max pooling, channel after channel: the stem of a residual network.
//!
//! What is normalized is larger than what enters and leaves: it is pooled plane by plane while it is in the nearest
//! cache, and never stored. Backward, the gradient of the pooled is spread over a plane before its sums are taken.

use super::apply::{AffineRelu, map_plane};
use super::channels::{Batch, Scratch, Statistics};
use super::{Channels, Cotangent, Gradients, Mask, train_backward};
use crate::cpu::SharedMut;
use crate::memory::Buffer;
use crate::pool2d::{Max, Pool, scatter};
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
    check(pool, shape);
    pool.check(x.len(), y.len());
    assert_eq!(winner.len(), y.len(), "one winner an output");
    let batch = Batch::new(cpu, shape);
    let statistics = Statistics { gamma, beta, eps, to: statistics.map(SharedMut::new) };
    let (x, y, winner) = (Planes::of(shape, x), SharedMut::new(y), SharedMut::new(winner));
    batch.for_channels(cpu, |channels| {
        cpu.vectorize(Forward { batch: &batch, channels, x, statistics: &statistics, pool, y, winner });
    });
}

fn check(pool: &Pool, shape: Images) {
    let planes = (pool.planes, pool.input);
    assert_eq!(planes, (shape.n * shape.c, [shape.h, shape.w]), "the windows are of other images");
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
        let mut scratch = Scratch::default();
        let mut constants = Vec::new();
        let mut normalized = Buffer::take(batch.shape.plane());
        let outputs = pool.output[0] * pool.output[1];
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
                    let (x, y, winner) = unsafe {
                        (x.rows(n, c, 0..batch.shape.h), y.slice(place.clone()), winner.slice(place))
                    };
                    map_plane(AffineRelu, [x], *constants, &mut normalized);
                    Max { pool, x: &normalized, first: 0, y, winner }.run();
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

impl Unpool<'_> {
    /// # Panics
    /// When a slice does not have the length of its shape.
    pub(super) fn check(&self, shape: Images) {
        check(self.pool, shape);
        self.pool.check(shape.len(), self.dy.len());
        assert_eq!(self.winner.len(), self.dy.len(), "one winner an output");
    }

    /// Writes the gradient of a plane before the pooling.
    pub(super) fn spread(&self, plane: usize, to: &mut [f32]) {
        let outputs = self.pool.output[0] * self.pool.output[1];
        let outputs = plane * outputs..(plane + 1) * outputs;
        scatter(self.pool, &self.winner[outputs.clone()], &self.dy[outputs], to);
    }
}

/// [`crate::pool2d::max_backward`], then [`train_backward`] of a ReLU: the gradients of x, gamma
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
    mut gradients: Gradients,
) {
    assert!(gradients.dresidual.is_none(), "no residual has a gradient here");
    let mut own = Buffer::take(if gradients.dx.is_some() { 0 } else { shape.len() });
    let dx = gradients.dx.take().unwrap_or(&mut own);
    let dy = Cotangent::Pooled(pooled, dx);
    train_backward(cpu, shape, x, dy, channels, Mask::Relu(beta), gradients);
}
