//! Stores past the caches, for results too large to be there still when they are read.
//!
//! A store to a line that lies far first fetches the line, only to overwrite it, and a core has few such fetches on their
//! way at once. A non-temporal store writes a whole line to memory and fetches nothing. On a Xeon with AMX two threads fill
//! memory so with 44 GB/s instead of 18, and copy with 38 instead of 25. A line that is written in parts is slower so.

use crate::perturb;
use crate::product::LINE;
use std::marker::PhantomData;

/// Values of a result that had better be written past the caches, at least.
const PAST: usize = 1 << 21;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Writes past the caches; what it wrote is there for all to see once it is dropped. That fences the stores of one thread,
/// so it stays with it.
pub(crate) struct Stream(PhantomData<*const ()>);

impl Stream {
    /// One for a result of so many values, if it had better be written so.
    pub(crate) fn of(len: usize) -> Option<Stream> {
        (len >= perturb::far(PAST)).then_some(Stream(PhantomData))
    }

    /// `to = from`, whole lines past the caches.
    ///
    /// # Safety
    /// Nobody looks at `to` before this is dropped.
    #[inline(always)]
    pub(crate) unsafe fn copy(&self, from: &[f32], to: &mut [f32]) {
        // SAFETY: a line is values, and whatever bits are values.
        let (head, lines, tail) = unsafe { to.align_to_mut::<Line>() };
        let (from_head, from) = from.split_at(head.len());
        head.copy_from_slice(from_head);
        let (from, from_tail) = from.split_at(lines.len() * LINE);
        tail.copy_from_slice(from_tail);
        for (to, from) in lines.iter_mut().zip(from.as_chunks().0) {
            write(to, from);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn write(to: &mut Line, from: &[f32; LINE]) {
    use std::arch::x86_64::{_mm_loadu_ps, _mm_stream_ps};
    let (to, from) = (to.0.as_mut_ptr(), from.as_ptr());
    for quarter in (0..LINE).step_by(4) {
        // SAFETY: SSE is part of x86-64; four of the sixteen values of each side, that of the line on its boundary. A
        // fence follows before anybody looks.
        unsafe { _mm_stream_ps(to.add(quarter), _mm_loadu_ps(from.add(quarter))) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn write(to: &mut Line, from: &[f32; LINE]) {
    to.0 = *from;
}

impl Drop for Stream {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of x86-64.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
    }
}
