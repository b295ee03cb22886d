//! Training, channel after channel: the statistics of a channel, then at once everything that follows from them.
//!
//! The values of a channel of a batch (32 images of 56 x 56 pixels: 400 KiB) stay in a core's cache between the two
//! looks at them, so memory sees each array once. Small planes are taken several channels together, so that what
//! is read lies together for a page or so. Threads take channels; the order of every sum is that of the leaves.

use super::apply::{
    Centred, Constants, Dx, Dz, GRAIN, Moments, Pass, PlaneMap, map_plane, map_plane_and_over, map_plane_over,
};
use super::{Channels, Cotangent, Gradients, inverse_deviation, scale_and_shift, variance};
use crate::cpu::SharedMut;
use crate::leaves::{BatchLeaf, batch_leaves, tree};
use crate::memory::{Buffer, Stream};
use crate::sums::{Images, Planes, Terms, channel_leaf};
use crate::{Cpu, Task};
use std::array::from_fn;
use std::ops::Range;

/// The values that lie together: channels are taken together until an image has this many.
const TOGETHER: usize = 2048;

/// What the forward pass writes.
pub(super) struct Outputs<'a> {
    pub(super) y: &'a mut [f32],
    pub(super) mean: &'a mut [f32],
    pub(super) var: &'a mut [f32],
    pub(super) invstd: &'a mut [f32],
}

/// The batch, cut for the work on it.
pub(super) struct Batch {
    pub(super) shape: Images,
    pub(super) leaves: Vec<BatchLeaf>,
    /// Channels taken together.
    pub(super) block: usize,
}

impl Batch {
    pub(super) fn new(cpu: &Cpu, shape: Images) -> Batch {
        let leaves = batch_leaves(shape.n, shape.h, shape.w);
        let fair = shape.c.div_ceil(cpu.threads());
        let block = (TOGETHER / shape.plane().max(1)).min(fair).max(1);
        Batch { shape, leaves, block }
    }

    /// Calls `body` with the channels of each thread.
    pub(super) fn for_channels(&self, cpu: &Cpu, body: impl Fn(Range<usize>) + Sync) {
        let channel = self.shape.n * self.shape.plane();
        cpu.for_ranges(self.shape.c, self.block.max(GRAIN / channel.max(1)), body);
    }

    /// The most planes of a leaf of a block.
    pub(super) fn together(&self) -> Images {
        let samples = self.leaves.iter().map(|leaf| leaf.samples.len()).max().unwrap_or(0);
        Images { n: samples, c: self.block, ..self.shape }
    }

    fn count(&self) -> f64 {
        (self.shape.n * self.shape.plane()) as f64
    }

    fn plane(&self, n: usize, c: usize) -> Range<usize> {
        self.planes(n, &(c..c + 1))
    }

    /// Where the planes of some channels of an image lie.
    pub(super) fn planes(&self, n: usize, channels: &Range<usize>) -> Range<usize> {
        let at = |c: usize| (n * self.shape.c + c) * self.shape.plane();
        at(channels.start)..at(channels.end)
    }

    /// Sums over each channel of a block, into `scratch`.
    ///
    /// # Safety
    /// Nobody writes these channels of `x` meanwhile.
    #[inline(always)]
    unsafe fn sums<const N: usize, T: Terms<N, 2>>(
        &self,
        x: [Planes; N],
        block: &Range<usize>,
        terms: &[T],
        scratch: &mut Scratch,
    ) {
        scratch.leaves.clear();
        for leaf in &self.leaves {
            // SAFETY: the caller's promise.
            unsafe { scratch.leaf(x, block, leaf, terms) };
        }
        scratch.add_up(block.len());
    }
}

/// What writes the planes of a block past the caches, from where they are computed.
pub(super) struct Past {
    stream: Stream,
    near: Buffer,
}

impl Past {
    /// For `planes` planes of an output, of which a block is written together, if that had better be written so.
    pub(super) fn of(planes: usize, plane: usize, block: usize) -> Option<Past> {
        Stream::of(planes * plane).map(|stream| Past { stream, near: Buffer::take(block * plane) })
    }

    /// Where `to` is to be written: there, or near.
    #[inline(always)]
    pub(super) fn place<'a>(past: &'a mut Option<Past>, to: &'a mut [f32]) -> &'a mut [f32] {
        match past {
            Some(past) => &mut past.near[..to.len()],
            None => to,
        }
    }

    /// Brings what was written near to its place.
    ///
    /// # Safety
    /// Nobody looks at `to` before all of it is there.
    #[inline(always)]
    pub(super) unsafe fn bring(past: &Option<Past>, to: &mut [f32]) {
        if let Some(Past { stream, near }) = past {
            // SAFETY: the caller's promise.
            unsafe { stream.copy(&near[..to.len()], to) };
        }
    }
}

/// Memory of a thread, used again for every block.
pub(super) struct Scratch {
    /// By leaf, then by channel.
    pub(super) leaves: Vec<[f64; 2]>,
    sums: Vec<[f64; 2]>,
}

impl Scratch {
    pub(super) fn of(batch: &Batch) -> Scratch {
        let leaves = Vec::with_capacity(batch.leaves.len() * batch.block);
        Scratch { leaves, sums: Vec::with_capacity(batch.block) }
    }

    /// The sums of the next leaf.
    ///
    /// # Safety
    /// Nobody writes its planes of `x` meanwhile.
    #[inline(always)]
    pub(super) unsafe fn leaf<const N: usize, T: Terms<N, 2>>(
        &mut self,
        x: [Planes; N],
        block: &Range<usize>,
        leaf: &BatchLeaf,
        terms: &[T],
    ) {
        for (c, terms) in block.clone().zip(terms) {
            // SAFETY: the caller's promise.
            self.leaves.push(unsafe { channel_leaf(x, c, leaf, *terms) });
        }
    }

    /// The sums of all leaves, of so many channels.
    #[inline(always)]
    pub(super) fn add_up(&mut self, channels: usize) {
        let Scratch { leaves, sums } = self;
        sums.clear();
        for at in 0..channels {
            let of_leaf = |leaf: usize| leaves[leaf * channels + at];
            let add = |a: [f64; 2], b: [f64; 2]| from_fn(|k| a[k] + b[k]);
            sums.push(tree(leaves.len() / channels, of_leaf, add).unwrap_or([0.0; 2]));
        }
    }
}

/// Statistics of `x[0]`, then `y = map(x, [scale, shift])`.
pub(super) fn forward<const N: usize>(
    cpu: &Cpu,
    shape: Images,
    x: [&[f32]; N],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    map: impl PlaneMap<N, 2>,
    Outputs { y, mean, var, invstd }: Outputs,
) {
    assert!(
        [gamma, beta, mean, var, invstd].iter().all(|vector| vector.len() == shape.c),
        "one value a channel"
    );
    assert_eq!(y.len(), shape.len(), "the output is not {shape:?}");
    let batch = Batch::new(cpu, shape);
    let x = x.map(|x| Planes::of(shape, x));
    let y = SharedMut::new(y);
    let statistics = Statistics { gamma, beta, eps, to: [mean, var, invstd].map(SharedMut::new) };
    batch.for_channels(cpu, |channels| {
        cpu.vectorize(Forward { batch: &batch, channels, x, statistics: &statistics, map, y });
    });
}

/// The statistics of channels, and what normalizes by them.
pub(super) struct Statistics<'a> {
    pub(super) gamma: &'a [f32],
    pub(super) beta: &'a [f32],
    pub(super) eps: f32,
    /// mean, var, invstd
    pub(super) to: [SharedMut<'a, f32>; 3],
}

impl Statistics<'_> {
    /// Those of a block of channels of `x`: scale and shift of each in `constants`.
    ///
    /// # Safety
    /// Nobody writes these channels of `x` meanwhile, nor touches their statistics.
    #[inline(always)]
    pub(super) unsafe fn of_block(
        &self,
        batch: &Batch,
        x: Planes,
        block: &Range<usize>,
        scratch: &mut Scratch,
        constants: &mut Vec<[f32; 2]>,
    ) {
        let moments = vec![Moments; block.len()];
        // SAFETY: the caller's promise.
        unsafe { batch.sums([x], block, &moments, scratch) };
        let count = batch.count();
        constants.clear();
        for (c, [sum, squares]) in block.clone().zip(&scratch.sums) {
            let wide = sum / count;
            let (mean, var) = (wide as f32, variance(*squares, count, wide) as f32);
            let invstd = inverse_deviation(var, self.eps);
            for (to, value) in self.to.iter().zip([mean, var, invstd]) {
                // SAFETY: as above.
                unsafe { to.write(c, 1, &[value]) };
            }
            constants.push(scale_and_shift(mean, invstd, self.gamma[c], self.beta[c]));
        }
    }
}

struct Forward<'a, M, const N: usize> {
    batch: &'a Batch,
    channels: Range<usize>,
    x: [Planes<'a>; N],
    statistics: &'a Statistics<'a>,
    map: M,
    y: SharedMut<'a, f32>,
}

impl<M: PlaneMap<N, 2>, const N: usize> Task for Forward<'_, M, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let batch = self.batch;
        let mut scratch = Scratch::of(batch);
        let mut constants = Vec::with_capacity(batch.block);
        let (plane, planes) = (batch.shape.plane(), batch.shape.n * batch.shape.c);
        let mut past = Past::of(planes, plane, batch.block);
        for first in self.channels.clone().step_by(batch.block) {
            let block = first..(first + batch.block).min(self.channels.end);
            // SAFETY: the inputs are borrowed as slices to read: nobody writes them; each channel is in one range only.
            unsafe { self.statistics.of_block(batch, self.x[0], &block, &mut scratch, &mut constants) };
            // The last image is the one still in the nearest cache.
            for n in (0..batch.shape.n).rev() {
                // SAFETY: each plane of the output is in one range only.
                let y = unsafe { self.y.slice(batch.planes(n, &block)) };
                let to = Past::place(&mut past, y).chunks_exact_mut(plane.max(1));
                for ((c, constants), to) in block.clone().zip(&constants).zip(to) {
                    // The first was looked at just now.
                    self.x[1..].iter().for_each(|x| x.ask(n.wrapping_sub(1), c, 0));
                    // SAFETY: as above.
                    let x = unsafe { self.x.map(|x| x.rows(n, c, 0..batch.shape.h)) };
                    map_plane(self.map, x, *constants, to);
                }
                // SAFETY: nobody looks at the output before all of it is there.
                unsafe { Past::bring(&past, y) };
            }
        }
    }
}

/// The gradients, from the values that `pass` looks at: dy, in the place of `x[0]`, then x, then others. Without
/// `beta` it looks at no shift.
pub(super) fn backward<const N: usize, P: Pass<N>>(
    cpu: &Cpu,
    shape: Images,
    x: [&[f32]; N],
    dy: Cotangent,
    channels: Channels,
    beta: Option<&[f32]>,
    pass: P,
    gradients: Gradients,
) {
    gradients.check(shape);
    let Gradients { dx, dresidual, dgamma, dbeta } = gradients;
    let parameters = Parameters::new(shape, channels, beta, [dgamma, dbeta]);
    let images = [dx, dresidual].map(|to| to.map(SharedMut::new));
    let (kept, over): (&[f32], _) = match dy {
        Cotangent::Kept(dy) => (dy, None),
        Cotangent::Spent(over) => (&[], Some(over)),
        Cotangent::Added(..) => unreachable!("the second is among the values of the pass"),
    };
    let over = over.map(|over| {
        assert!(images[usize::from(P::RESIDUAL)].is_none(), "a gradient with two places");
        assert_eq!(over.len(), shape.len(), "the cotangent is not {shape:?}");
        SharedMut::new(over)
    });
    let dy = over.map_or_else(|| Planes::of(shape, kept), |over| Planes::of_shared(shape, over));
    let mut values = [dy; N];
    for i in 1..N {
        values[i] = Planes::of(shape, x[i]);
    }
    let batch = Batch::new(cpu, shape);
    batch.for_channels(cpu, |range| {
        let (batch, parameters) = (&batch, &parameters);
        cpu.vectorize(Backward { batch, range, values, parameters, pass, over, images });
    });
}

/// What the gradients of channels are made of, and where those of gamma and beta go.
pub(super) struct Parameters<'a> {
    channels: Channels<'a>,
    /// Absent where no shift is looked at.
    beta: Option<&'a [f32]>,
    /// dgamma, dbeta
    to: [Option<SharedMut<'a, f32>>; 2],
}

impl<'a> Parameters<'a> {
    /// # Panics
    /// When there is not one value a channel.
    pub(super) fn new(
        shape: Images,
        channels: Channels<'a>,
        beta: Option<&'a [f32]>,
        to: [Option<&'a mut [f32]>; 2],
    ) -> Parameters<'a> {
        let vectors = [Some(channels.mean), Some(channels.invstd), Some(channels.gamma), beta];
        assert!(vectors.iter().flatten().all(|vector| vector.len() == shape.c), "one value a channel");
        Parameters { channels, beta, to: to.map(|to| to.map(SharedMut::new)) }
    }

    /// What is added up in each channel of a block.
    #[inline(always)]
    pub(super) fn terms<P: Copy>(&self, pass: P, block: &Range<usize>, terms: &mut Vec<Centred<P>>) {
        let Channels { mean, invstd, gamma } = self.channels;
        terms.clear();
        terms.extend(block.clone().map(|c| {
            let beta = self.beta.map_or(0.0, |beta| beta[c]);
            let [scale, shift] = scale_and_shift(mean[c], invstd[c], gamma[c], beta);
            Centred { pass, mean: mean[c], scale, shift }
        }));
    }

    /// What follows from the sums of these terms: the gradients of gamma and beta, and the constants of that of x.
    ///
    /// # Safety
    /// Nobody else touches the gradients of these channels.
    #[inline(always)]
    pub(super) unsafe fn constants<P>(
        &self,
        batch: &Batch,
        block: &Range<usize>,
        terms: &[Centred<P>],
        Scratch { sums, .. }: &Scratch,
        constants: &mut Vec<Constants>,
    ) {
        let count = batch.count();
        constants.clear();
        for ((c, [s1, s2]), terms) in block.clone().zip(sums).zip(terms) {
            let r = f64::from(self.channels.invstd[c]);
            for (to, value) in self.to.iter().zip([(s2 * r) as f32, *s1 as f32]) {
                if let Some(to) = to {
                    // SAFETY: the caller's promise.
                    unsafe { to.write(c, 1, &[value]) };
                }
            }
            let (k1, k2) = ((s1 / count) as f32, (s2 * r * r / count) as f32);
            constants.push([terms.mean, k1, k2, terms.scale, terms.shift]);
        }
    }
}

struct Backward<'a, P, const N: usize> {
    batch: &'a Batch,
    range: Range<usize>,
    values: [Planes<'a>; N],
    parameters: &'a Parameters<'a>,
    pass: P,
    /// Where dy lies, if a gradient is to be written over it.
    over: Option<SharedMut<'a, f32>>,
    /// dx, dresidual
    images: [Option<SharedMut<'a, f32>>; 2],
}

impl<P: Pass<N>, const N: usize> Task for Backward<'_, P, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let (batch, shape) = (self.batch, self.batch.shape);
        let wanted = self.over.is_some() || self.images.iter().any(Option::is_some);
        let mut scratch = Scratch::of(batch);
        let (mut terms, mut constants) = (Vec::with_capacity(batch.block), Vec::with_capacity(batch.block));
        // Planes of dy are in a near cache, and what is written over them too.
        let wide = if self.images[0].is_some() { shape.n * shape.c } else { 0 };
        let mut past = Past::of(wide, shape.plane(), batch.block);
        for first in self.range.clone().step_by(batch.block) {
            let block = first..(first + batch.block).min(self.range.end);
            self.parameters.terms(self.pass, &block, &mut terms);
            // SAFETY: dy is written in this range of channels by this thread alone, and later; the other inputs are
            // borrowed as slices to read; each channel is in one range only.
            unsafe {
                batch.sums(self.values, &block, &terms, &mut scratch);
                self.parameters.constants(batch, &block, &terms, &scratch, &mut constants);
            }
            if wanted {
                // The last image is the one still in the nearest cache.
                for n in (0..batch.shape.n).rev() {
                    let dx = self.images[0].map(|dx| {
                        // SAFETY: this thread alone looks at and writes these planes.
                        unsafe { dx.slice(batch.planes(n, &block)) }
                    });
                    let dx = dx.unwrap_or_default();
                    let mut to = Past::place(&mut past, dx).chunks_exact_mut(shape.plane().max(1));
                    for (c, constants) in block.clone().zip(&constants) {
                        // SAFETY: as above.
                        unsafe { self.plane(n, c, *constants, to.next()) };
                    }
                    // SAFETY: nobody looks at the gradient before all of it is there.
                    unsafe { Past::bring(&past, dx) };
                }
            }
        }
    }
}

impl<P: Pass<N>, const N: usize> Backward<'_, P, N> {
    /// # Safety
    /// Nobody else touches plane (n, c) of what is written.
    #[inline(always)]
    unsafe fn plane(&self, n: usize, c: usize, constants: Constants, to_x: Option<&mut [f32]>) {
        let (dx, dz) = (Dx(self.pass), Dz(self.pass));
        let place = self.batch.plane(n, c);
        let rows = 0..self.batch.shape.h;
        // SAFETY: the caller's promise; dy is read here, and written below when this is no longer looked at.
        let mut values = unsafe { self.values.map(|values| values.rows(n, c, rows.clone())) };
        if let Some(to) = to_x {
            if let (Some(over), true) = (self.over, P::RESIDUAL) {
                values[0] = &[];
                // SAFETY: the caller's promise, and the slice of dy is gone.
                let over = unsafe { over.slice(place) };
                return map_plane_and_over(dx, dz, values, constants, to, over);
            }
            map_plane(dx, values, constants, to);
        }
        if let Some(to) = self.images[1] {
            // SAFETY: the caller's promise.
            map_plane(dz, values, constants, unsafe { to.slice(place.clone()) });
        }
        if let Some(over) = self.over {
            values[0] = &[];
            // SAFETY: the caller's promise, and the slice of dy is gone.
            let over = unsafe { over.slice(place) };
            if P::RESIDUAL {
                map_plane_over(dz, values, constants, over);
            } else {
                map_plane_over(dx, values, constants, over);
            }
        }
    }
}
