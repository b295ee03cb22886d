//! Convolution of images `[n, c, h, w]` with filters `[o, c/groups, kh, kw]`, and its gradients.
//!
//! The definitions are the loops of [`mod@reference`]. The kernels are products (`product.rs`) whose right
//! operand, the patches of the image, is gathered while it is packed: no matrix of patches is ever stored.
//!
//! | | rows | columns | terms, in order |
//! |---|---|---|---|
//! | forward | filters | positions (n, i, j) | (channel, tap row, tap column) |
//! | input gradient | channels | pixels (n, h, v) of one residue of the stride | (filter, tap row, tap column) |
//! | weight gradient | (channel, tap row, tap column) | filters | positions, in leaves of the batch |

mod direct;
mod interleave;
mod pack;
mod planes;
pub mod reference;
mod weight;
pub mod winograd;

use crate::Cpu;
use crate::cpu::SharedMut;
use crate::memory::{Buffer, Kept, size};
use crate::product::{is_sparse, multiply};
use crate::sums::{self, Images};
use direct::{Direct, Target};
use interleave::{Phase, interleave};
use pack::Weights;
use planes::{Grid, Patches};

/// What it costs that zeros are left out at one position, in units of [`is_sparse`]: 49 positions took a third longer so
/// on a Xeon with AMX, with filters of 4 MiB in memory.
const SCARCE: f64 = 13.0;

/// The geometry of a convolution. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Input rows and columns.
    pub input: (usize, usize),
    /// Filters: output channels.
    pub o: usize,
    /// Taps.
    pub kernel: (usize, usize),
    /// Pixels from one position to the next.
    pub stride: (usize, usize),
    /// Zeros added on every side.
    pub padding: (usize, usize),
    /// Pixels from one tap to the next.
    pub dilation: (usize, usize),
    /// Channel groups that do not see each other; divides `c` and `o`.
    pub groups: usize,
}

impl Conv {
    /// Output rows and columns: `⌊(size + 2·padding − dilation·(taps − 1) − 1)/stride⌋ + 1`, or 0 where the
    /// filter does not fit.
    pub fn output(&self) -> (usize, usize) {
        let extent = |size: usize, taps: usize, stride: usize, padding: usize, dilation: usize| {
            let span = dilation * (taps - 1) + 1;
            if size + 2 * padding < span { 0 } else { (size + 2 * padding - span) / stride + 1 }
        };
        let (s, p, d) = (self.stride, self.padding, self.dilation);
        (
            extent(self.input.0, self.kernel.0, s.0, p.0, d.0),
            extent(self.input.1, self.kernel.1, s.1, p.1, d.1),
        )
    }

    fn group_channels(&self) -> usize {
        self.c / self.groups
    }

    fn group_filters(&self) -> usize {
        self.o / self.groups
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Whether so many pixels are zero that their terms had better be left out, though that costs so much `more`.
    fn is_sparse(&self, cpu: &Cpu, x: &[f32], more: f64) -> bool {
        is_sparse(cpu, x, self.taps(), (self.group_channels() * self.taps(), self.group_filters()), more)
    }

    /// The same convolution with long rows, where every position is one pixel.
    fn flattened(&self) -> Conv {
        if (self.kernel, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0)) {
            Conv { input: (1, self.input.0 * self.input.1), ..*self }
        } else {
            *self
        }
    }

    /// The taps, each where its pixel lies from a position's origin.
    fn forward_taps(&self) -> Vec<Tap> {
        let offset =
            |tap: usize, dilation: usize, padding: usize| (tap * dilation) as isize - padding as isize;
        (0..self.taps())
            .map(|index| {
                let (p, q) = (index / self.kernel.1, index % self.kernel.1);
                let y = offset(p, self.dilation.0, self.padding.0);
                let x = offset(q, self.dilation.1, self.padding.1);
                Tap { index, y, x }
            })
            .collect()
    }

    fn check(&self, x: usize, w: usize, y: usize) {
        let pairs = [self.kernel, self.stride, self.dilation];
        assert!(pairs.iter().all(|(a, b)| *a > 0 && *b > 0), "a kernel, stride or dilation of zero");
        let (oh, ow) = self.output();
        assert!(self.groups > 0 && self.c.is_multiple_of(self.groups) && self.o.is_multiple_of(self.groups));
        let (h, v, p, q) = (self.input.0, self.input.1, self.kernel.0, self.kernel.1);
        assert_eq!(Some(x), size(&[self.n, self.c, h, v]), "images of another size");
        assert_eq!(Some(w), size(&[self.o, self.group_channels(), p, q]), "filters of another size");
        assert_eq!(Some(y), size(&[self.n, self.o, oh, ow]), "outputs of another size");
    }
}

/// `y[n, o, i, j]`: [`reference::forward`].
///
/// # Panics
/// When a slice does not have the geometry's size.
pub fn forward(cpu: &Cpu, conv: &Conv, x: &[f32], w: &[f32], y: &mut [f32]) {
    forward_finished(cpu, conv, x, (w, None), None, y);
}

/// [`forward`], then [`Finish`], in one pass over `y`; the bits of [`reference::forward`] and
/// [`reference::finish`] one after the other. Filters that come with room for it keep what is made of them, for the
/// next call.
///
/// # Panics
/// When a slice does not have the geometry's size.
pub fn forward_finished(
    cpu: &Cpu,
    conv: &Conv,
    x: &[f32],
    (w, keep): (&[f32], Option<&Kept>),
    finish: Option<Finish>,
    y: &mut [f32],
) {
    conv.check(x.len(), w.len(), y.len());
    if let Some(finish) = finish {
        finish.check(conv.o, y.len());
    }
    let conv = conv.flattened();
    let (channels, filters) = (conv.group_channels(), conv.group_filters());
    if channels == 0 {
        // No terms.
        y.fill(0.0);
        if let Some(finish) = finish {
            let (oh, ow) = conv.output();
            reference::finish(oh * ow, &finish, y);
        }
        return;
    }
    let taps = conv.forward_taps();
    let grid = Grid { n: conv.n, size: conv.output(), step: conv.stride };
    // Few positions need filters faster than these come from memory where zeros are left out, if there is one tap.
    let more = if conv.taps() == 1 { SCARCE / grid.positions() as f64 } else { 0.0 };
    let sparse = conv.is_sparse(cpu, x, more);
    let y = SharedMut::new(y);
    for_groups(cpu, conv.groups, |group| {
        let patches = Patches {
            images: x,
            channels: (conv.c, group * channels),
            chosen: channels,
            size: conv.input,
            grid,
            taps: &taps,
        };
        let w = &w[group * filters * channels * taps.len()..];
        let target = Target { memory: y, channels: (conv.o, group * filters), size: conv.output() };
        let finish = finish.map(|finish| finish.of_group(group * filters..(group + 1) * filters));
        let weights = Weights::Filters { w, terms: channels * taps.len() };
        let direct = Direct { rows: filters, patches, weights, target, finish, sparse };
        // The room is for one group's.
        multiply(cpu, &direct, keep.filter(|_| conv.groups == 1));
    });
}

/// `dx[n, c, h, v]`: [`reference::input_gradient`].
///
/// Pixels are taken by the residue of (h + padding) and (v + padding) to the stride: those of one residue
/// meet the same taps, and their gradient is a convolution of `dy` without strides.
///
/// # Panics
/// When a slice does not have the geometry's size.
pub fn input_gradient(cpu: &Cpu, conv: &Conv, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    conv.check(dx.len(), w.len(), dy.len());
    let conv = conv.flattened();
    if conv.group_filters() == 0 {
        // No terms.
        dx.fill(0.0);
        return;
    }
    if conv.stride == (1, 1) {
        let taps = phase_taps(&conv, (0, 0));
        return phase_gradient(cpu, &conv, (dy, w), &taps, conv.input, SharedMut::new(dx));
    }
    let residues = (conv.stride.0.min(conv.input.0), conv.stride.1.min(conv.input.1));
    let pixels = |size: usize, start: usize, stride: usize| size.saturating_sub(start).div_ceil(stride);
    let phases: Vec<_> = (0..residues.0)
        .flat_map(|a| (0..residues.1).map(move |b| (a, b)))
        .map(|(a, b)| {
            let size = (pixels(conv.input.0, a, conv.stride.0), pixels(conv.input.1, b, conv.stride.1));
            let taps = phase_taps(&conv, (a, b));
            let values = (!taps.is_empty()).then(|| {
                let mut values = Buffer::take(conv.n * conv.c * size.0 * size.1);
                phase_gradient(cpu, &conv, (dy, w), &taps, size, SharedMut::new(&mut values));
                values
            });
            Phase { size, values }
        })
        .collect();
    interleave(cpu, (conv.n * conv.c, conv.input), conv.stride, &phases, dx);
}

/// The gradient of the pixels of one residue, images of `size`, from the taps that they meet.
fn phase_gradient(
    cpu: &Cpu,
    conv: &Conv,
    (dy, w): (&[f32], &[f32]),
    taps: &[Tap],
    size: (usize, usize),
    dx: SharedMut<f32>,
) {
    let (channels, filters) = (conv.group_channels(), conv.group_filters());
    let grid = Grid { n: conv.n, size, step: (1, 1) };
    for_groups(cpu, conv.groups, |group| {
        let patches = Patches {
            images: dy,
            channels: (conv.o, group * filters),
            chosen: filters,
            size: conv.output(),
            grid,
            taps,
        };
        let w = &w[group * filters * channels * conv.taps()..];
        let target = Target { memory: dx, channels: (conv.c, group * channels), size };
        let weights = Weights::Channels { w, taps: conv.taps() };
        // Zeros are not looked for: the gradient of a batch norm has none.
        let direct = Direct { rows: channels, patches, weights, target, finish: None, sparse: false };
        multiply(cpu, &direct, None);
    });
}

/// Calls `body` for every group; threads share the groups where there are enough.
fn for_groups(cpu: &Cpu, groups: usize, body: impl Fn(usize) + Sync) {
    if groups >= 2 * cpu.threads() {
        cpu.for_ranges(groups, 1, |range| range.for_each(&body));
    } else {
        (0..groups).for_each(body);
    }
}

/// The taps that pixels of residue (a, b) meet, and where their `dy` lies from position (h/stride, v/stride).
fn phase_taps(conv: &Conv, (a, b): (usize, usize)) -> Vec<Tap> {
    let offset = |start: usize, padding: usize, tap: usize, dilation: usize, stride: usize| {
        let distance = (start + padding) as isize - (tap * dilation) as isize;
        (distance.rem_euclid(stride as isize) == 0).then(|| distance.div_euclid(stride as isize))
    };
    let mut taps = Vec::new();
    for p in 0..conv.kernel.0 {
        for q in 0..conv.kernel.1 {
            let y = offset(a, conv.padding.0, p, conv.dilation.0, conv.stride.0);
            let x = offset(b, conv.padding.1, q, conv.dilation.1, conv.stride.1);
            if let (Some(y), Some(x)) = (y, x) {
                taps.push(Tap { index: p * conv.kernel.1 + q, y, x });
            }
        }
    }
    taps
}

/// `dw[o, c/groups, p, q]`: [`reference::weight_gradient`].
///
/// # Panics
/// When a slice does not have the geometry's size.
pub fn weight_gradient(cpu: &Cpu, conv: &Conv, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    conv.check(x.len(), dw.len(), dy.len());
    weight::gradient(cpu, conv, x, dy, dw);
}

/// `db[o] = Σ dy[n, o, i, j]` in f64, by the leaves of the batch, rounded once.
///
/// # Panics
/// When `dy` or `db` is of another size.
pub fn bias_gradient(cpu: &Cpu, images: Images, dy: &[f32], db: &mut [f32]) {
    assert_eq!(db.len(), images.c, "a bias of another size");
    for (d, sum) in db.iter_mut().zip(sums::channel_sums(cpu, images, dy)) {
        *d = sum as f32;
    }
}

/// What becomes of the sums of a convolution: `relu(fma(sum, scale, shift) + residual)`, constants of the filter.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a> {
    /// `[o]`
    pub scale: &'a [f32],
    /// `[o]`
    pub shift: &'a [f32],
    /// Like the output; not added if there is none.
    pub residual: Option<&'a [f32]>,
    /// Whether negative values become 0.
    pub relu: bool,
}

impl<'a> Finish<'a> {
    fn check(&self, filters: usize, outputs: usize) {
        assert!(self.scale.len() == filters && self.shift.len() == filters, "constants of another size");
        assert!(self.residual.is_none_or(|r| r.len() == outputs), "a residual of another size");
    }

    /// The constants of some filters.
    fn of_group(self, filters: std::ops::Range<usize>) -> Finish<'a> {
        Finish { scale: &self.scale[filters.clone()], shift: &self.shift[filters], ..self }
    }

    /// Finishes some sums of one filter, which are outputs from `start` on: those given, or those in `y`. For use inside
    /// a [`Task`].
    #[inline(always)]
    fn line(&self, filter: usize, start: usize, sums: Option<&[f32]>, y: &mut [f32]) {
        let residual = self.residual.map(|residual| &residual[start..start + y.len()]);
        let line = Line { scale: self.scale[filter], shift: self.shift[filter], sums, residual };
        match (sums.is_some(), residual.is_some(), self.relu) {
            (false, false, false) => line.run::<false, false, false>(y),
            (false, false, true) => line.run::<false, false, true>(y),
            (false, true, false) => line.run::<false, true, false>(y),
            (false, true, true) => line.run::<false, true, true>(y),
            (true, false, false) => line.run::<true, false, false>(y),
            (true, false, true) => line.run::<true, false, true>(y),
            (true, true, false) => line.run::<true, true, false>(y),
            (true, true, true) => line.run::<true, true, true>(y),
        }
    }
}

/// Sums that become outputs.
struct Line<'a> {
    scale: f32,
    shift: f32,
    sums: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
}

impl Line<'_> {
    /// Lines are short: eight sums together, so that few are left over.
    #[inline(always)]
    fn run<const GIVEN: bool, const RESIDUAL: bool, const RELU: bool>(&self, y: &mut [f32]) {
        let (sums, last_sums) = self.sums.unwrap_or_default().as_chunks::<8>();
        let (residual, last_residual) = self.residual.unwrap_or_default().as_chunks::<8>();
        let (y, last) = y.as_chunks_mut::<8>();
        for k in 0..y.len() {
            for l in 0..8 {
                let sum = if GIVEN { sums[k][l] } else { y[k][l] };
                y[k][l] = self.one::<RESIDUAL, RELU>(sum, if RESIDUAL { residual[k][l] } else { 0.0 });
            }
        }
        for l in 0..last.len() {
            let sum = if GIVEN { last_sums[l] } else { last[l] };
            last[l] = self.one::<RESIDUAL, RELU>(sum, if RESIDUAL { last_residual[l] } else { 0.0 });
        }
    }

    #[inline(always)]
    fn one<const RESIDUAL: bool, const RELU: bool>(&self, sum: f32, residual: f32) -> f32 {
        let y = sum.mul_add(self.scale, self.shift);
        let y = if RESIDUAL { y + residual } else { y };
        if RELU && 0.0 > y { 0.0 } else { y }
    }
}

/// A tap: its index in the filter, and where its pixel lies from a position's origin.
#[derive(Clone, Copy, Debug)]
struct Tap {
    index: usize,
    y: isize,
    x: isize,
}
