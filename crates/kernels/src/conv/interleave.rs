//! Images put together from their pixels of each residue to a stride.
//!
//! The pixels of a residue are computed as images of their own, one after the other in memory, and every line of the
//! whole is then written once: to write every second value in place would fetch and store each line twice, a value at a
//! time.

use crate::cpu::SharedMut;
use crate::interleave::weave;
use crate::memory::{Buffer, Stream};
use crate::{Cpu, Task};

/// The pixels a thread takes at least.
const GRAIN: usize = 1 << 14;

/// The pixels of one residue of all planes, planes of `size`; none if they are 0.
pub(super) struct Phase {
    pub(super) size: (usize, usize),
    pub(super) values: Option<Buffer>,
}

/// Writes `planes` planes of `size`: pixel (h, v) is that of phase (h mod stride, v mod stride), phases in rows.
pub(super) fn interleave(
    cpu: &Cpu,
    (planes, (height, width)): (usize, (usize, usize)),
    stride: (usize, usize),
    phases: &[Phase],
    out: &mut [f32],
) {
    let (across, plane) = (stride.1.min(width), height * width);
    if out.is_empty() {
        return;
    }
    let widest = phases.iter().map(|phase| phase.size.1).max().unwrap_or(0);
    let zeros = vec![0.0; widest];
    let out = SharedMut::new(out);
    cpu.for_ranges(planes, GRAIN.div_ceil(plane), |range| {
        let past = Stream::of(planes * plane);
        let mut near = Buffer::take(if past.is_some() { plane } else { 0 });
        for index in range {
            // SAFETY: each plane is in one range only.
            let out = unsafe { out.slice(index * plane..(index + 1) * plane) };
            let whole = |out: &mut [f32]| {
                cpu.vectorize(Plane { index, width, down: stride.0, across, phases, zeros: &zeros, out });
            };
            match &past {
                Some(past) => {
                    whole(&mut near);
                    // SAFETY: nobody looks at the images before all of them are there.
                    unsafe { past.copy(&near, out) };
                }
                None => whole(out),
            }
        }
    });
}

struct Plane<'a> {
    index: usize,
    width: usize,
    /// Residues of rows, and of columns.
    down: usize,
    across: usize,
    phases: &'a [Phase],
    zeros: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Plane<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Plane { index, width, down, across, phases, zeros, out } = self;
        // What row `i` of a phase is.
        let part = |phase: usize, i: usize| {
            let Phase { size: (height, width), values } = &phases[phase];
            match values {
                Some(values) => &values[(index * height + i) * width..][..*width],
                None => &zeros[..*width],
            }
        };
        for (h, row) in out.chunks_exact_mut(width).enumerate() {
            let (first, i) = (h % down * across, h / down);
            weave(across, |residue| part(first + residue, i), row);
        }
    }
}
