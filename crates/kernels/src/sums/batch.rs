//! Sums over the batch and the positions of each channel (contract, rule 5).

use super::{Terms, Values, leaf_sum_of_parts};
use crate::cpu::SharedMut;
use crate::leaves::{BatchLeaf, batch_leaves, tree};
use crate::memory::size;
use crate::product::{LINE, prefetch_far};
use crate::{Cpu, Task};
use std::array::from_fn;
use std::marker::PhantomData;
use std::ops::Range;

/// Values of the next image's plane that are asked for while one is looked at, from planes that are not too short for it:
/// a processor fetches ahead line by line, but learns anew where a plane begins.
const SOON: usize = 512;
const SHORT: usize = 128;

/// The shape of a batch of images, stored as `[n, c, h, w]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl Images {
    /// The number of values.
    ///
    /// # Panics
    /// When no memory can hold so many.
    pub fn len(self) -> usize {
        match size(&[self.n, self.c, self.h, self.w]) {
            Some(len) => len,
            None => panic!("{self:?} exceed the address space"),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The number of positions of one channel of one image.
    pub fn plane(self) -> usize {
        self.h * self.w
    }
}

/// `Σ x[n, c, h, w]` for each channel c.
///
/// # Panics
/// When `x` does not have the length of its shape.
pub fn channel_sums(cpu: &Cpu, shape: Images, x: &[f32]) -> Vec<f64> {
    let sums = over_channels(cpu, shape, [x], Every(Values));
    sums.into_iter().map(|[sum]| sum).collect()
}

/// `[Σ dy, Σ dy·(x - mean[c])]` for each channel c, in one pass.
///
/// The second term is `f64(dy) * (f64(x) - f64(mean[c]))`: difference, product and addition to the lane each
/// rounded to f64.
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn channel_dot_sums(cpu: &Cpu, shape: Images, dy: &[f32], x: &[f32], mean: &[f32]) -> Vec<[f64; 2]> {
    assert_eq!(mean.len(), shape.c, "one mean a channel");
    over_channels(cpu, shape, [dy, x], Means(mean))
}

#[derive(Clone, Copy)]
struct Centred(f64);
impl Terms<2, 2> for Centred {
    #[inline(always)]
    fn terms(self, [dy, x]: [f32; 2]) -> [f64; 2] {
        let dy = f64::from(dy);
        [dy, dy * (f64::from(x) - self.0)]
    }
}

/// The terms that belong to a channel.
trait ChannelTerms<const N: usize, const K: usize>: Copy + Sync {
    type Terms: Terms<N, K>;
    fn of(self, c: usize) -> Self::Terms;
}

/// The same for all channels.
#[derive(Clone, Copy)]
struct Every<T>(T);
impl<T: Terms<N, K>, const N: usize, const K: usize> ChannelTerms<N, K> for Every<T> {
    type Terms = T;
    #[inline(always)]
    fn of(self, _c: usize) -> T {
        self.0
    }
}

#[derive(Clone, Copy)]
struct Means<'a>(&'a [f32]);
impl ChannelTerms<2, 2> for Means<'_> {
    type Terms = Centred;
    #[inline(always)]
    fn of(self, c: usize) -> Centred {
        Centred(f64::from(self.0[c]))
    }
}

/// The values a thread takes at least.
const GRAIN: usize = 16_384;

/// Leaf by leaf and channel by channel, then the tree over the leaves of each channel.
fn over_channels<const N: usize, const K: usize>(
    cpu: &Cpu,
    shape: Images,
    x: [&[f32]; N],
    terms: impl ChannelTerms<N, K>,
) -> Vec<[f64; K]> {
    let x = x.map(|x| Planes::of(shape, x));
    if shape.is_empty() {
        return vec![[0.0; K]; shape.c];
    }
    let leaves = batch_leaves(shape.n, shape.h, shape.w);
    let grid =
        Grid { channels: shape.c, cuts: leaves.iter().take_while(|leaf| leaf.samples.start == 0).count() };
    let mut sums = vec![[0.0; K]; leaves.len() * shape.c];
    let grain = (GRAIN * sums.len() / shape.len()).max(1);
    cpu.for_slices(sums.len(), grain, &mut [Some(&mut sums)], |first, parts| {
        for sums in parts.iter_mut().flatten() {
            cpu.vectorize(ChannelLeaves { x, terms, leaves: &leaves, grid, first, sums });
        }
    });
    let of_leaf = |leaf: usize| (0..shape.c).map(|c| sums[grid.place(leaf, c)]).collect::<Vec<_>>();
    let add = |mut a: Vec<[f64; K]>, b: Vec<[f64; K]>| {
        for (a, b) in a.iter_mut().zip(b) {
            *a = from_fn(|k| a[k] + b[k]);
        }
        a
    };
    tree(leaves.len(), of_leaf, add).unwrap_or_default()
}

/// The leaf sums lie as the values of the images do: by samples, channels, and the cuts of large images, so
/// that memory is read in order.
#[derive(Clone, Copy)]
struct Grid {
    channels: usize,
    cuts: usize,
}

impl Grid {
    /// Where the sum of channel `c` over a leaf lies.
    fn place(self, leaf: usize, c: usize) -> usize {
        (leaf / self.cuts * self.channels + c) * self.cuts + leaf % self.cuts
    }

    /// Which leaf and channel lie at `place`.
    #[inline(always)]
    fn at(self, place: usize) -> (usize, usize) {
        let (row, cut) = (place / self.cuts, place % self.cuts);
        (row / self.channels * self.cuts + cut, row % self.channels)
    }
}

/// Writes `sums[first..]` of the leaf sums.
struct ChannelLeaves<'a, T, const N: usize, const K: usize> {
    x: [Planes<'a>; N],
    terms: T,
    leaves: &'a [BatchLeaf],
    grid: Grid,
    first: usize,
    sums: &'a mut [[f64; K]],
}

impl<T: ChannelTerms<N, K>, const N: usize, const K: usize> Task for ChannelLeaves<'_, T, N, K> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (at, sums) in self.sums.iter_mut().enumerate() {
            let (leaf, c) = self.grid.at(self.first + at);
            // SAFETY: the images are borrowed as slices to read: nobody writes them.
            *sums = unsafe { channel_leaf(self.x, c, &self.leaves[leaf], self.terms.of(c)) };
        }
    }
}

/// The planes of images, to be read one by one while other threads may write others.
#[derive(Clone, Copy)]
pub(crate) struct Planes<'a> {
    start: *const f32,
    shape: Images,
    /// The image and the channel whose plane is the first.
    first: (usize, usize),
    borrow: PhantomData<&'a [f32]>,
}

// SAFETY: it only reads, and `rows` carries the obligation that nobody writes what is read.
unsafe impl Send for Planes<'_> {}
// SAFETY: as above.
unsafe impl Sync for Planes<'_> {}

impl<'a> Planes<'a> {
    /// # Panics
    /// When `x` does not have the length of its shape.
    pub(crate) fn of(shape: Images, x: &'a [f32]) -> Planes<'a> {
        assert_eq!(x.len(), shape.len(), "an array is not {shape:?}");
        Planes { start: x.as_ptr(), shape, first: (0, 0), borrow: PhantomData }
    }

    /// Those of an array that is also written.
    ///
    /// # Panics
    /// When `x` is shorter than its shape.
    pub(crate) fn of_shared(shape: Images, x: SharedMut<'a, f32>) -> Planes<'a> {
        Planes { start: x.pointer(0..shape.len()), shape, first: (0, 0), borrow: PhantomData }
    }

    /// The same as the planes of a batch from an image and a channel on.
    pub(crate) fn from(self, first: (usize, usize)) -> Planes<'a> {
        Planes { first, ..self }
    }

    /// Some rows of channel `c` of image `n`.
    ///
    /// # Safety
    /// Nobody writes them while the result lives.
    #[inline(always)]
    pub(crate) unsafe fn rows(self, n: usize, c: usize, rows: Range<usize>) -> &'a [f32] {
        let Images { h, w, .. } = self.shape;
        let (n, c) = (n - self.first.0, c - self.first.1);
        assert!(n < self.shape.n && c < self.shape.c && rows.start <= rows.end && rows.end <= h);
        let start = ((n * self.shape.c + c) * h + rows.start) * w;
        // SAFETY: inside the array by the assertion, not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(start), rows.len() * w) }
    }

    /// Asks for the beginning of channel `c` of image `n`, from a row on, if there is one.
    #[inline(always)]
    pub(crate) fn ask(self, n: usize, c: usize, row: usize) {
        let Images { h, w, .. } = self.shape;
        let len = h.saturating_sub(row) * w;
        let (n, c) = (n.wrapping_sub(self.first.0), c - self.first.1);
        if len >= SHORT && n < self.shape.n {
            let start = self.start.wrapping_add(((n * self.shape.c + c) * h + row) * w);
            (0..len.min(SOON)).step_by(LINE).for_each(|at| prefetch_far(start.wrapping_add(at)));
        }
    }
}

/// The sums of channel `c` over one leaf, on this thread. For use inside a [`Task`].
///
/// # Safety
/// Nobody writes channel `c` meanwhile.
#[inline(always)]
pub(crate) unsafe fn channel_leaf<const N: usize, const K: usize>(
    x: [Planes; N],
    c: usize,
    BatchLeaf { samples, rows }: &BatchLeaf,
    terms: impl Terms<N, K>,
) -> [f64; K] {
    let part = |n: usize| {
        let n = samples.start + n;
        x.iter().for_each(|x| x.ask(n + 1, c, rows.start));
        // SAFETY: the caller's promise.
        x.map(|x| unsafe { x.rows(n, c, rows.clone()) })
    };
    leaf_sum_of_parts(terms, samples.len(), part)
}
