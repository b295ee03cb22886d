//! The product behind the forward pass and the input gradient.

use super::Tap;
use super::pack::Weights;
use super::planes::{Grid, Patches, Planes, Run};
use crate::cpu::SharedMut;
use crate::memory::{Buffer, Stream};
use crate::product::{self, Ahead, LINE, Output, Panel, Present, Product, SLACK, Step, Strewn, transpose_to};
use crate::{Cpu, Task, perturb};
use std::ops::Range;

/// Rows that are too few to pack pixels for them that serve as they are,
const FEW: usize = 64;
/// where a plane has so many pixels that packing takes long: each channel's then lie on another page.
const LARGE: usize = 1024;
/// Rows of planes from which a strewn tile reads its pixels in one block of k, at most: they are as many lines, which are
/// to stay in the first-level cache beside a panel of weights.
const NEAR: usize = 84;
/// Channels that pay for finding out where their pixels lie before they are staged, at least.
const MANY: usize = 8;
/// Values that are too many to lie in a near cache still.
const FAR: usize = 1 << 20;

/// Rows are filters (forward) or channels (input gradient), columns are positions.
pub(super) struct Direct<'a> {
    pub(super) rows: usize,
    pub(super) patches: Patches<'a>,
    pub(super) weights: Weights<'a>,
    pub(super) target: Target<'a>,
    /// What becomes of the sums, constants of the group.
    pub(super) finish: Option<super::Finish<'a>>,
    /// Whether many pixels are zero.
    pub(super) sparse: bool,
}

/// Where the outputs go: images `[n, channels, size]`, a pixel a position.
pub(super) struct Target<'a> {
    pub(super) memory: SharedMut<'a, f32>,
    /// All channels of an image, and the first that is written.
    pub(super) channels: (usize, usize),
    pub(super) size: (usize, usize),
}

/// The panels of a group, and the pixels they need.
pub(super) struct Group {
    planes: Planes,
    scratch: Buffer,
    panels: Vec<PanelRuns>,
    /// The longest run.
    longest: usize,
    /// The channels staged.
    channels: Range<usize>,
    /// The columns, the place of each, and the distance of each term from the first; where they are strewn.
    columns: Range<usize>,
    bases: Vec<usize>,
    steps: Vec<Step>,
}

struct PanelRuns {
    width: usize,
    runs: Vec<Run>,
}

impl Direct<'_> {
    fn taps(&self) -> &[Tap] {
        self.patches.taps
    }

    /// The positions as outputs: those of an image follow each other.
    fn outputs(&self) -> Grid {
        let Target { size, .. } = self.target;
        Grid { size: (1, size.0 * size.1), ..self.patches.grid }
    }

    /// Where the first output of a run of [`Direct::outputs`] lies, of one row.
    fn first(&self, run: &Run, row: usize) -> usize {
        let Target { channels, size, .. } = self.target;
        (run.n * channels.0 + channels.1 + row) * size.0 * size.1 + run.j
    }
}

impl Product for Direct<'_> {
    type Group = Group;
    fn rows(&self) -> usize {
        self.rows
    }
    fn columns(&self) -> usize {
        self.patches.grid.positions()
    }
    fn terms(&self) -> usize {
        self.patches.chosen * self.taps().len()
    }
    /// Whole channels, as many in each block as can be.
    fn block(&self) -> usize {
        let mut most = product::block() / self.taps().len();
        if self.is_strewn() && !self.sparse {
            most = most.min(NEAR / self.patches.rows_of_taps());
        }
        // A few channels more than that are better than a last block of a few channels.
        let blocks = (2 * self.patches.chosen / most.max(1)).div_ceil(2).max(1);
        self.taps().len() * self.patches.chosen.div_ceil(blocks).max(1)
    }

    fn pack_rows(&self, cpu: &Cpu, rows: Range<usize>, height: usize, terms: Range<usize>, out: &mut [f32]) {
        self.weights.pack(cpu, self.taps(), self.rows, (rows, height), terms, out);
    }

    /// Of few terms more columns find room: then fewer pixels are staged twice.
    fn together(&self) -> usize {
        let times = if self.patches.are_pixels() { 1 } else { product::block() / self.terms().max(1) };
        product::GROUP.1 * times.max(1)
    }

    fn group(&self, panels: &[Panel], terms: usize) -> Group {
        let positions = |panel: &Panel| panel.columns.clone();
        let columns = Panel::all(panels);
        let planes = Planes::new(&self.patches, columns.clone());
        let runs = |panel| self.patches.grid.runs(positions(panel)).collect();
        let panels: Vec<_> = panels.iter().map(|p| PanelRuns { width: p.width, runs: runs(p) }).collect();
        let longest = panels.iter().flat_map(|panel| &panel.runs).map(|run| run.len).max().unwrap_or(0);
        let channels = (terms / self.taps().len()).min(self.patches.chosen);
        let scratch = Buffer::take(planes.scratch(channels) + SLACK);
        let (mut bases, mut steps) = (Vec::new(), Vec::new());
        if self.is_strewn() {
            bases.reserve_exact(columns.len());
            steps.reserve_exact(channels * planes.taps().len());
            for run in panels.iter().flat_map(|panel| &panel.runs) {
                bases.extend(planes.at(run)..planes.at(run) + run.len);
            }
            for channel in 0..channels {
                steps.extend(planes.taps().iter().map(|tap| Step::to(channel * planes.channel() + tap)));
            }
        }
        Group { planes, scratch, panels, longest, channels: 0..0, columns, bases, steps }
    }

    fn stage(&self, cpu: &Cpu, group: &mut Group, terms: Range<usize>) {
        let fresh = group.channels.is_empty();
        group.channels = terms.start / self.taps().len()..terms.end / self.taps().len();
        group.planes.stage(cpu, &self.patches, group.channels.clone(), &mut group.scratch, fresh);
    }

    fn pack_columns(&self, cpu: &Cpu, group: &Group, slot: usize, out: &mut [f32]) {
        if group.channels.is_empty() {
            return;
        }
        let pack = PackColumns { images: self.patches.images, group, slot, out };
        match group.longest {
            0..=4 => cpu.vectorize(Chunks::<4>(pack)),
            5..=8 => cpu.vectorize(Chunks::<8>(pack)),
            9..64 => cpu.vectorize(Chunks::<16>(pack)),
            // A panel of four registers of AVX-512 in one run.
            _ => cpu.vectorize(Chunks::<64>(pack)),
        }
    }

    /// For few rows a panel is not worth packing.
    fn right_as_it_is(&self, panel: &Panel, terms: Range<usize>) -> Option<(&[f32], usize)> {
        let Patches { images, channels, size, .. } = self.patches;
        let plane = size.0 * size.1;
        let slow = self.rows <= FEW && plane >= LARGE && self.patches.are_pixels();
        let (image, first) = panel.within(plane).filter(|_| slow)?;
        let channel = image * channels.0 + channels.1 + terms.start;
        Some((&images[channel * plane + first..], plane))
    }

    /// With several taps: a pixel is staged once, and would be packed for each of them. Turning the sums of a pixel back
    /// is work for each row, as packing it is for each term. And with many zeros, whose terms only strewn columns leave
    /// out.
    fn is_strewn(&self) -> bool {
        self.sparse || self.taps().len() > 1 && self.terms() >= self.rows
    }

    fn is_sparse(&self) -> bool {
        self.sparse
    }

    fn strewn<'g>(&'g self, group: &'g Group, columns: Range<usize>, terms: Range<usize>) -> Strewn<'g> {
        let Group { planes, scratch, bases, steps, .. } = group;
        let first = group.columns.start;
        let bases = &bases[columns.start - first..columns.end - first];
        // The channels of every block lie as those of the first.
        let channel = terms.start / self.taps().len() - group.channels.start;
        let (data, base) = planes.staged(self.patches.images, group.channels.start, scratch);
        let data = &data[base + channel * planes.channel()..];
        Strewn::new(data, bases.into(), steps[..terms.len()].into())
    }

    fn present(&self) -> Option<Present> {
        let patches = &self.patches;
        let (row, column) = (|i, tap| patches.has_row(i, tap), |j, tap| patches.has_column(j, tap));
        Present::new(patches.grid.size, patches.taps.len(), row, column)
    }

    fn sum(&self, row: usize, column: usize) -> f32 {
        let (Patches { chosen, grid, .. }, taps) = (self.patches, self.taps());
        let (n, i, j) =
            (column / (grid.size.0 * grid.size.1), column / grid.size.1 % grid.size.0, column % grid.size.1);
        let mut sum = 0.0_f32;
        for channel in 0..chosen {
            for tap in taps {
                let value = self.patches.value((n, i, j), channel, tap);
                sum = value.mul_add(self.weights.value(self.rows, row, (channel, taps.len()), tap), sum);
            }
        }
        sum
    }

    /// Pixels lie in as many places as there are channels.
    fn ahead(&self, columns: Range<usize>) -> Option<Ahead> {
        let Patches { images, channels, size, chosen, grid, .. } = self.patches;
        if !self.is_far() || chosen < MANY {
            return None;
        }
        let plane = size.0 * size.1;
        let pixels = match self.patches.are_pixels() {
            true => {
                let pixel = |at: usize| (at / plane * channels.0 + channels.1) * plane + at % plane;
                columns.step_by(LINE).map(pixel).collect()
            }
            false => Planes::new(&self.patches, columns).read(grid.step.1, LINE),
        };
        let lines = pixels.into_iter().map(|at| images.as_ptr().wrapping_add(at)).collect();
        Some(Ahead::new(lines, self.taps().len(), plane))
    }

    fn output(&self) -> Output<'_> {
        Output { memory: self.target.memory, stride: self.target.size.0 * self.target.size.1 }
    }

    fn place(&self, panel: &Panel) -> Option<usize> {
        let Target { channels, size, .. } = self.target;
        let plane = size.0 * size.1;
        let (image, first) = panel.within(plane)?;
        Some((image * channels.0 + channels.1) * plane + first)
    }

    fn finish(&self, rows: Range<usize>, place: usize) -> Option<product::Finish<'_>> {
        let finish = self.finish?;
        let Output { stride, .. } = self.output();
        let residual = finish.residual.map(|residual| residual[rows.start * stride + place..].as_ptr());
        Some(product::Finish {
            scale: &finish.scale[rows.clone()],
            shift: &finish.shift[rows],
            residual: residual.unwrap_or(std::ptr::null()),
            relu: finish.relu,
        })
    }

    fn is_far(&self) -> bool {
        self.patches.images.len().max(self.target.memory.len()) >= perturb::far(FAR)
    }

    fn past(&self) -> Option<Stream> {
        Stream::of(self.target.memory.len())
    }

    fn touched(&self, columns: Range<usize>, rows: Range<usize>, lines: &mut Vec<*const f32>) {
        let Target { memory, .. } = self.target;
        let residual = self.finish.and_then(|finish| finish.residual).map(<[f32]>::as_ptr);
        for start in std::iter::once(memory.pointer(0..0).cast_const()).chain(residual) {
            for run in self.outputs().runs(columns.clone()) {
                for row in rows.clone() {
                    let first = start.wrapping_add(self.first(&run, row));
                    lines.extend((0..run.len.div_ceil(LINE)).map(|line| first.wrapping_add(line * LINE)));
                }
            }
        }
    }

    fn store(&self, cpu: &Cpu, panel: &Panel, rows: Range<usize>, tile: &[f32]) {
        let Target { memory, size, .. } = self.target;
        let plane = size.0 * size.1;
        for run in self.outputs().runs(panel.columns.clone()) {
            let first = self.first(&run, rows.start);
            let len = (rows.len() - 1) * plane + run.len;
            let lines = Lines {
                from: Some((&tile[run.at..], panel.width)),
                rows: rows.clone(),
                len: run.len,
                first,
                // Tiles of one product do not overlap, and products of one call write other channels.
                to: memory.pointer(first..first + len),
                step: plane,
                finish: self.finish,
            };
            cpu.vectorize(lines);
        }
    }

    fn store_turned(&self, cpu: &Cpu, columns: Range<usize>, rows: Range<usize>, sums: &[f32]) {
        let Target { memory, size, .. } = self.target;
        let (plane, width) = (size.0 * size.1, rows.len());
        for run in self.outputs().runs(columns) {
            let first = self.first(&run, rows.start);
            let to = memory.pointer(first..first + (rows.len() - 1) * plane + run.len);
            let from = &sums[run.at * width..][..run.len * width];
            // SAFETY: measured just now; tiles of one product do not overlap, and products of one call write other channels.
            unsafe { transpose_to(cpu, (run.len, width), (from.as_ptr(), width), (to, plane)) };
            if self.finish.is_some() {
                let (rows, len, finish) = (rows.clone(), run.len, self.finish);
                cpu.vectorize(Lines { from: None, rows, len, first, to, step: plane, finish });
            }
        }
    }
}

/// Writes lines of sums, a row each.
struct Lines<'a> {
    /// The sums, and from one line to the next; none where they lie in the output.
    from: Option<(&'a [f32], usize)>,
    rows: Range<usize>,
    len: usize,
    /// Where the first sum goes, in the output and in memory.
    first: usize,
    to: *mut f32,
    /// From one row to the next.
    step: usize,
    finish: Option<super::Finish<'a>>,
}

impl Task for Lines<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Lines { from, rows, len, first, to, step, finish } = self;
        for (index, row) in rows.enumerate() {
            let line = from.map(|(from, width)| &from[index * width..][..len]);
            let at = index * step;
            // SAFETY: measured where this was made, and nobody else's.
            let to = unsafe { std::slice::from_raw_parts_mut(to.add(at), len) };
            match (finish, line) {
                (Some(finish), line) => finish.line(row, first + at, line, to),
                (None, Some(line)) => to.copy_from_slice(line),
                // They are there.
                (None, None) => {}
            }
        }
    }
}

/// Packs the staged channels for all panels.
struct PackColumns<'a> {
    images: &'a [f32],
    group: &'a Group,
    slot: usize,
    out: &'a mut [f32],
}

/// The same, runs copied in chunks of `LEN`. A chunk may run past its run: what it writes there is written over by the
/// next run or term, or lies behind the panel in its slot. Where it would read or write too far it is cut.
struct Chunks<'a, const LEN: usize>(PackColumns<'a>);

/// Some pixels of a run: where they are read for the first channel and tap, where they are written for the first term,
/// how far it is from there to the next, and how many they are.
struct Chunk {
    read: usize,
    write: usize,
    width: usize,
    len: usize,
}

impl<const LEN: usize> Task for Chunks<'_, LEN> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let PackColumns { images, group: Group { planes, scratch, panels, channels, .. }, slot, out } =
            self.0;
        let (from, base) = planes.staged(images, channels.start, scratch);
        let taps = planes.taps();
        let (terms, farthest) = (channels.len() * taps.len(), taps.iter().max().unwrap_or(&0));
        // How many steps of `by` from `start` leave room for `len` values before `end`.
        let room = |start: usize, by: usize, len: usize, end: usize| match end.checked_sub(start + len) {
            Some(left) => left / by + 1,
            None => 0,
        };
        let count = panels.iter().flat_map(|panel| &panel.runs).map(|run| run.len.div_ceil(LEN)).sum();
        let mut chunks: Vec<Chunk> = Vec::with_capacity(count);
        // Terms whose chunks may all run past their runs.
        let mut whole = terms;
        for (index, panel) in panels.iter().enumerate() {
            let end = ((index + 1) * slot).min(out.len());
            for run in &panel.runs {
                for k in (0..run.len).step_by(LEN) {
                    let (read, write) = (base + planes.at(run) + k, index * slot + run.at + k);
                    let (width, len) = (panel.width, LEN.min(run.len - k));
                    let can_read = |len| room(read + farthest, planes.channel(), len, from.len());
                    let can_write = |len| room(write, width, len, end);
                    assert!(can_read(len) >= channels.len(), "reading outside the planes");
                    assert!(can_write(len) >= terms, "writing outside the panel");
                    whole = whole.min(can_read(LEN) * taps.len()).min(can_write(LEN));
                    chunks.push(Chunk { read, write, width, len });
                }
            }
        }
        let to = out.as_mut_ptr();
        let mut term = 0;
        for channel in 0..channels.len() {
            for tap in taps {
                let from = from.as_ptr().wrapping_add(channel * planes.channel() + tap);
                if term < whole {
                    for Chunk { read, write, width, .. } in &chunks {
                        // SAFETY: inside both slices, as counted above.
                        unsafe {
                            let chunk = from.add(*read).cast::<[f32; LEN]>().read_unaligned();
                            to.add(write + term * width).cast::<[f32; LEN]>().write_unaligned(chunk);
                        }
                    }
                } else {
                    for Chunk { read, write, width, len } in &chunks {
                        // SAFETY: inside both slices, by the assertions.
                        unsafe {
                            std::ptr::copy_nonoverlapping(from.add(*read), to.add(write + term * width), *len)
                        }
                    }
                }
                term += 1;
            }
        }
    }
}
