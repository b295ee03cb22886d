//! Images to transformed squares and back. Channels lie in the lanes, so that no shape of an image, however small,
//! leaves a lane idle: pixels of 16 channels are transposed, transformed, and written where the products read them.

use super::doubles::Vector;
use super::line::{Line, Minimal};
use super::vectors::{Body, Register, dispatch};
use crate::conv::Finish;
use crate::cpu::SharedMut;
use crate::memory::Buffer;
use crate::product::lanes::{prefetch, prefetch_to_write};
use crate::product::{Panel, transpose, transpose_to};
use crate::{Cpu, Task};
use std::ops::Range;

/// Channels taken together: a cache line of each pixel.
const CHUNK: usize = 16;

/// The shape of images cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub(super) channels: usize,
    pub(super) size: (usize, usize),
    /// How far above and left of the image the first square begins.
    pub(super) offset: (usize, usize),
    /// Rows and columns of tiles of an image.
    pub(super) tiles: (usize, usize),
}

impl Planes {
    /// Some rows of tiles, counted through all images, image by image: (image, rows of tiles of it).
    fn runs(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let down = self.tiles.0;
        let images = rows.start / down..rows.end.div_ceil(down);
        images.map(move |n| (n, rows.start.max(n * down) - n * down..rows.end.min((n + 1) * down) - n * down))
    }
}

/// Lines of memory that will be wanted soon: some values of each of some planes.
#[derive(Clone, Copy)]
struct Ahead {
    from: *const f32,
    plane: usize,
    planes: usize,
    values: usize,
}

impl Ahead {
    /// Calls `ask` for part `part` of `parts` of the lines.
    #[inline(always)]
    fn lines(&self, part: usize, parts: usize, ask: fn(*const f32)) {
        let lines = self.values.div_ceil(16);
        for line in part * lines / parts..(part + 1) * lines / parts {
            for plane in 0..self.planes {
                ask(self.from.wrapping_add(plane * self.plane + line * 16));
            }
        }
    }
}

/// Where transformed squares go: for each element of the square, for each panel, `[tile][panel.width]`.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) memory: SharedMut<'a, f32>,
    /// From one element of the square to the next.
    pub(super) element: usize,
    pub(super) panels: &'a [Panel],
    /// The row of tiles whose first tile is tile 0, and the number of tiles.
    pub(super) first: usize,
    pub(super) tiles: usize,
}

impl Target<'_> {
    /// Where a channel of tile 0 lies, and how far it is to the next tile.
    fn place(&self, channel: usize) -> Option<(usize, usize)> {
        let inside =
            |panel: &&Panel| (panel.columns.start..panel.columns.start + panel.width).contains(&channel);
        let panel = self.panels.iter().find(inside)?;
        Some((panel.columns.start * self.tiles + channel - panel.columns.start, panel.width))
    }
}

/// Transforms the squares of some rows of tiles of `x`: [`Line`] of the columns, then of the rows.
pub(super) fn transform<L: Line<R, S>, const R: usize, const S: usize>(
    cpu: &Cpu,
    (planes, x): (&Planes, &[f32]),
    rows: Range<usize>,
    target: &Target,
) {
    let ((height, width), across) = (planes.size, planes.tiles.1);
    let plane = height * width;
    let columns = (across - 1) * L::step() + R;
    let deepest = rows.len().min(planes.tiles.0);
    let mut staged = Buffer::take((((deepest - 1) * L::step() + R).min(height) * width + 1) * CHUNK);
    let mut lines = Buffer::take(columns * S * CHUNK);
    for (n, down) in planes.runs(rows) {
        let first = (down.start * L::step()).saturating_sub(planes.offset.0);
        let last = ((down.end - 1) * L::step() + R).saturating_sub(planes.offset.0).min(height);
        for chunk in (0..planes.channels).step_by(CHUNK) {
            let lanes = CHUNK.min(planes.channels - chunk);
            if lanes < CHUNK {
                staged.fill(0.0);
            }
            let pixels = last.saturating_sub(first) * width;
            if pixels > 0 {
                let from = &x[(n * planes.channels + chunk) * plane + first * width..];
                transpose(cpu, (lanes, pixels), (from, plane), (&mut staged, CHUNK));
            }
            // The next channels of these rows, or the first channels of the next rows.
            let next = if chunk + CHUNK < planes.channels { (chunk + CHUNK, first) } else { (0, last) };
            let ahead = Ahead {
                from: x.as_ptr().wrapping_add((n * planes.channels + next.0) * plane + next.1 * width),
                plane,
                planes: CHUNK.min(planes.channels - next.0),
                values: pixels,
            };
            let tile = (n * planes.tiles.0 + down.start - target.first) * across;
            assert!(tile + down.len() * across <= target.tiles, "more tiles than there is room for");
            let strip = Strip::<L, R, S> {
                planes,
                rows: first..last,
                down: down.clone(),
                staged: &staged,
                lines: &mut lines,
                target,
                chunk,
                tile,
                ahead,
                line: std::marker::PhantomData,
            };
            // SAFETY: the buffers hold what the strip needs, other threads write other tiles, and `run` measures
            // the target.
            unsafe { dispatch(cpu, strip) };
        }
    }
}

/// Some rows of tiles of one image, 16 channels.
struct Strip<'a, L, const R: usize, const S: usize> {
    planes: &'a Planes,
    /// The rows of pixels staged.
    rows: Range<usize>,
    /// The rows of tiles.
    down: Range<usize>,
    /// Pixels `[row][column][16]`.
    staged: &'a [f32],
    /// Transformed columns, `[column][S][lanes]`.
    lines: &'a mut [f32],
    target: &'a Target<'a>,
    chunk: usize,
    /// The first tile's number in the target.
    tile: usize,
    /// Pixels of the next strip.
    ahead: Ahead,
    line: std::marker::PhantomData<L>,
}

impl<L: Line<R, S>, const R: usize, const S: usize> Body for Strip<'_, L, R, S> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Strip { planes, rows, down, staged, lines, target, chunk, tile, ahead, .. } = self;
        let ((_, width), across, lines) = (planes.size, planes.tiles.1, lines.as_mut_ptr());
        let columns = (across - 1) * L::step() + R;
        for sub in 0..CHUNK / V::COUNT {
            let Some((place, stride)) = target.place(chunk + sub * V::COUNT) else { continue };
            let start = place + tile * stride;
            let len = (S * S - 1) * target.element + (down.len() * across - 1) * stride + V::COUNT;
            let mut to = target.memory.pointer(start..start + len);
            let staged = staged[sub * V::COUNT..].as_ptr();
            for ti in down.clone() {
                let inside = |i: usize| {
                    let h = (ti * L::step() + i).checked_sub(planes.offset.0)?;
                    rows.contains(&h).then(|| (h - rows.start) * width * CHUNK)
                };
                let at: [Option<usize>; R] = std::array::from_fn(inside);
                for column in 0..columns {
                    let v = column.checked_sub(planes.offset.1).filter(|v| *v < width);
                    // SAFETY: the processor has the instructions; pixels of staged rows, columns of `lines`.
                    unsafe {
                        let mut d = [Register::<V>::zero(); R];
                        if let Some(v) = v {
                            for i in 0..R {
                                if let Some(row) = at[i] {
                                    d[i] = Register::load(staged.add(row + v * CHUNK));
                                }
                            }
                        }
                        let t = L::line(d);
                        for i in 0..S {
                            t[i].store(lines.add((column * S + i) * V::COUNT));
                        }
                    }
                }
                for tj in 0..across {
                    if sub == 0 {
                        ahead.lines((ti - down.start) * across + tj, down.len() * across, prefetch);
                    }
                    // SAFETY: columns of `lines`; the target was measured.
                    unsafe {
                        let from = lines.add(tj * L::step() * S * V::COUNT);
                        for i in 0..S {
                            let mut d = [Register::<V>::zero(); R];
                            for j in 0..R {
                                d[j] = Register::load(from.add((j * S + i) * V::COUNT));
                            }
                            let t = L::line(d);
                            for j in 0..S {
                                t[j].store(to.add((i * S + j) * target.element));
                            }
                        }
                        to = to.wrapping_add(stride);
                    }
                }
            }
        }
    }
}

/// Products `[element][tile][stride]` of some channels, from which outputs are made.
#[derive(Clone, Copy)]
pub(super) struct Products<'a> {
    pub(super) data: &'a [f32],
    pub(super) element: usize,
    pub(super) stride: usize,
    /// The row of tiles whose first tile is tile 0.
    pub(super) first: usize,
}

/// Where outputs go.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) planes: &'a Planes,
    pub(super) y: SharedMut<'a, f32>,
    pub(super) finish: Option<Finish<'a>>,
}

/// Finishes the outputs of some channels, each `plane` after the one before.
struct FinishLines<'a> {
    finish: Finish<'a>,
    channels: Range<usize>,
    /// Where the first output lies, in memory and in all outputs.
    y: *mut f32,
    first: usize,
    plane: usize,
    len: usize,
}

impl Task for FinishLines<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (index, channel) in self.channels.enumerate() {
            let at = index * self.plane;
            // SAFETY: measured where this was made, and nobody else's.
            let y = unsafe { std::slice::from_raw_parts_mut(self.y.add(at), self.len) };
            self.finish.line(channel, self.first + at, None, y);
        }
    }
}

/// Writes the outputs of some rows of tiles and some channels.
pub(super) fn outputs<A: Minimal<M, N>, const M: usize, const N: usize>(
    cpu: &Cpu,
    products: &Products,
    (rows, channels): (Range<usize>, Range<usize>),
    destination: &Destination,
) {
    let Destination { planes, y, finish } = *destination;
    let ((height, width), across) = (planes.size, planes.tiles.1);
    let deepest = rows.len().min(planes.tiles.0);
    let mut staged = Buffer::take(deepest * M * width * CHUNK);
    for (n, down) in planes.runs(rows) {
        let pixels = down.start * M..(down.end * M).min(height);
        for chunk in channels.clone().step_by(CHUNK) {
            let lanes = CHUNK.min(channels.end - chunk);
            let tile = (n * planes.tiles.0 + down.start - products.first) * across;
            let plane = height * width;
            let (start, positions) =
                ((n * planes.channels + chunk) * plane + pixels.start * width, pixels.len() * width);
            let to = y.pointer(start..start + (lanes - 1) * plane + positions);
            // A residual lies as the outputs do, not as the lanes.
            let in_lanes = finish.filter(|finish| finish.residual.is_none());
            let strip = OutputStrip::<A, M, N> {
                finish: in_lanes.map(|finish| Constants::of(&finish, chunk..chunk + lanes)),
                products,
                from: tile * products.stride + chunk - channels.start,
                lanes,
                planes,
                down: down.clone(),
                staged: &mut staged,
                ahead: Ahead { from: to, plane, planes: lanes, values: positions },
                algorithm: std::marker::PhantomData,
            };
            // SAFETY: the buffer holds what the strip needs, and `run` measures the products.
            unsafe { dispatch(cpu, strip) };
            // SAFETY: both sides were measured; other calls write other rows or channels.
            unsafe {
                transpose_to(cpu, (positions, lanes), (staged.as_ptr(), CHUNK), (to, plane));
            }
            if let (Some(finish), None) = (finish, in_lanes) {
                let channels = chunk..chunk + lanes;
                cpu.vectorize(FinishLines { finish, channels, y: to, first: start, plane, len: positions });
            }
        }
    }
}

/// How outputs are finished in the lanes.
struct Constants {
    scale: [f32; CHUNK],
    shift: [f32; CHUNK],
    relu: bool,
}

impl Constants {
    /// Those of some channels.
    fn of(finish: &Finish, channels: Range<usize>) -> Constants {
        let mut constants = Constants { scale: [0.0; CHUNK], shift: [0.0; CHUNK], relu: finish.relu };
        constants.scale[..channels.len()].copy_from_slice(&finish.scale[channels.clone()]);
        constants.shift[..channels.len()].copy_from_slice(&finish.shift[channels]);
        constants
    }
}

/// Some rows of tiles of one image, up to 16 channels.
struct OutputStrip<'a, A, const M: usize, const N: usize> {
    finish: Option<Constants>,
    products: &'a Products<'a>,
    /// Where the first tile's first channel lies.
    from: usize,
    lanes: usize,
    planes: &'a Planes,
    down: Range<usize>,
    /// Outputs `[row][column][16]`.
    staged: &'a mut [f32],
    /// Where the outputs will go.
    ahead: Ahead,
    algorithm: std::marker::PhantomData<A>,
}

impl<A: Minimal<M, N>, const M: usize, const N: usize> Body for OutputStrip<'_, A, M, N> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let OutputStrip { finish, products, from, lanes, planes, down, staged, ahead, .. } = self;
        let ((height, width), across) = (planes.size, planes.tiles.1);
        for sub in 0..lanes.div_ceil(V::COUNT) {
            let from = from + sub * V::COUNT;
            let len = (N * N - 1) * products.element + (down.len() * across - 1) * products.stride + V::COUNT;
            let mut from = products.data[from..from + len].as_ptr();
            let staged = staged[sub * V::COUNT..].as_mut_ptr();
            let finish = finish.as_ref().map(|finish| {
                let of = |constants: &[f32; CHUNK]| constants[sub * V::COUNT..][..V::COUNT].as_ptr();
                (of(&finish.scale), of(&finish.shift), finish.relu)
            });
            for ti in down.clone() {
                for tj in 0..across {
                    if sub == 0 {
                        let part = (ti - down.start) * across + tj;
                        ahead.lines(part, down.len() * across, prefetch_to_write);
                    }
                    // SAFETY: the processor has the instructions; the products were measured; only pixels of the
                    // strip are written.
                    unsafe {
                        let mut columns = [[Register::<V>::zero(); M]; N];
                        for j in 0..N {
                            let mut m = [Register::<V>::zero(); N];
                            for i in 0..N {
                                m[i] = Register::load(from.add((i * N + j) * products.element));
                            }
                            columns[j] = A::output(m);
                        }
                        let (rows, pixels) = (M.min(height - ti * M), M.min(width - tj * M));
                        for i in 0..M {
                            let mut m = [Register::<V>::zero(); N];
                            for j in 0..N {
                                m[j] = columns[j][i];
                            }
                            let mut y = A::output(m);
                            if let Some((scale, shift, relu)) = finish {
                                for j in 0..M {
                                    y[j] = y[j].finish(scale, shift, relu);
                                }
                            }
                            let to = staged.add((((ti - down.start) * M + i) * width + tj * M) * CHUNK);
                            for j in 0..M {
                                if i < rows && j < pixels {
                                    y[j].store(to.add(j * CHUNK));
                                }
                            }
                        }
                    }
                    from = from.wrapping_add(products.stride);
                }
            }
        }
    }
}
