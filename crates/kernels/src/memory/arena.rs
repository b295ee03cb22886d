//! Large blocks out of a few large stretches of address space, so that what one step frees fits the next whatever
//! its sizes: neighbouring free spans become one.
//!
//! A stretch is asked for in whole and costs nothing until it is touched; on Linux it is asked for in huge pages,
//! which cost a quarter to touch and far fewer address translations to use.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;

/// Spans begin and end at multiples of this many f32: a page.
pub(super) const PAGE: usize = 1024;
/// The f32 of a huge page.
const HUGE: usize = 512 * PAGE;
/// The f32 of a stretch, unless more is asked for at once or the system refuses: 1 GiB.
const STRETCH: usize = 512 * HUGE;
/// The f32 of a stretch where the system refuses that: 16 MiB, beside which the one huge page that finding the
/// boundary costs is little.
const SHORT: usize = 8 * HUGE;

/// The stretches.
pub(super) struct Arena(Vec<Stretch>);

struct Stretch {
    /// What was allocated, in bytes.
    allocated: (NonNull<u8>, Layout),
    /// Its first multiple of a huge page.
    start: NonNull<f32>,
    spans: Spans,
}

// SAFETY: a stretch belongs to the arena alone; the blocks cut from it belong to whoever took them.
unsafe impl Send for Stretch {}

impl Arena {
    pub(super) const fn new() -> Arena {
        Arena(Vec::new())
    }

    /// `len` f32, a multiple of [`PAGE`] above 0; whatever was there, zeros at first.
    pub(super) fn take(&mut self, len: usize) -> NonNull<f32> {
        let fit = |(index, stretch): (usize, &Stretch)| Some((stretch.spans.best(len)?, index));
        let best = self.0.iter().enumerate().filter_map(fit).min().map(|(_, index)| index);
        let roomy = || self.0.iter().position(|stretch| stretch.spans.has_room(len));
        let index = match best.or_else(roomy) {
            Some(index) => index,
            None => {
                self.0.push(Stretch::new(len));
                self.0.len() - 1
            }
        };
        let stretch = &mut self.0[index];
        match stretch.spans.take(len) {
            // SAFETY: a span lies inside its stretch.
            Some(offset) => unsafe { stretch.start.add(offset) },
            None => unreachable!("a span of {len} was found"),
        }
    }

    /// # Safety
    /// `start` came from [`Arena::take`] with this `len`, and nobody uses it any more.
    pub(super) unsafe fn give(&mut self, start: NonNull<f32>, len: usize) {
        let offset = |stretch: &Stretch| {
            let bytes = start.addr().get().checked_sub(stretch.start.addr().get())?;
            Some(bytes / size_of::<f32>()).filter(|offset| *offset < stretch.spans.len)
        };
        match self.0.iter_mut().find_map(|stretch| Some((offset(stretch)?, stretch))) {
            Some((offset, stretch)) => stretch.spans.give(offset, len),
            None => unreachable!("a block of no stretch"),
        }
    }

    /// The f32 that nobody uses.
    pub(super) fn unused(&self) -> usize {
        let unused = |spans: &Spans| spans.len - spans.touched + spans.free.values().sum::<usize>();
        self.0.iter().map(|stretch| unused(&stretch.spans)).sum()
    }

    /// Returns to the system what nobody uses.
    pub(super) fn release(&mut self) {
        self.0.retain(|stretch| {
            if stretch.spans.is_whole() {
                let (start, layout) = stretch.allocated;
                // SAFETY: allocated in `Stretch::new` with this layout, and no block is cut from it.
                unsafe { dealloc(start.as_ptr(), layout) };
                return false;
            }
            for (offset, len) in &stretch.spans.free {
                // SAFETY: a free span inside the stretch, of whole pages.
                unsafe { forget(stretch.start.add(*offset), *len) };
            }
            true
        });
    }
}

impl Stretch {
    fn new(len: usize) -> Stretch {
        let sizes = [len.max(STRETCH), len.max(SHORT), len];
        let Some(stretch) = sizes.into_iter().find_map(Stretch::of) else {
            super::refused(Stretch::layout(len).size());
        };
        stretch
    }

    fn layout(len: usize) -> Layout {
        // The alignment of every allocator: a larger one would have the zeros written, page by page.
        let bytes = len.checked_add(HUGE).and_then(|len| len.checked_mul(size_of::<f32>()));
        match bytes.map(|bytes| Layout::from_size_align(bytes, 16)) {
            Some(Ok(layout)) => layout,
            _ => panic!("a block of {len} f32 exceeds the address space"),
        }
    }

    fn of(len: usize) -> Option<Stretch> {
        let layout = Stretch::layout(len);
        // SAFETY: the layout is not empty.
        let allocated = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skipped = allocated.as_ptr().align_offset(HUGE * size_of::<f32>());
        // SAFETY: at most one huge page is skipped, and one more than `len` was asked for.
        let start = unsafe { allocated.add(skipped) }.cast::<f32>();
        // SAFETY: `len` f32 from there were allocated.
        unsafe { ask_for_huge_pages(start, len) };
        Some(Stretch { allocated: (allocated, layout), start, spans: Spans::new(len) })
    }
}

/// # Safety
/// `len` f32 from `start` are allocated.
#[cfg(target_os = "linux")]
unsafe fn ask_for_huge_pages(start: NonNull<f32>, len: usize) {
    // SAFETY: advice about allocated memory; it changes no contents. A refusal costs speed alone.
    unsafe { libc::madvise(start.as_ptr().cast(), len * size_of::<f32>(), libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
unsafe fn ask_for_huge_pages(_start: NonNull<f32>, _len: usize) {}

/// Leaves zeros, or what was there.
///
/// # Safety
/// `len` f32 from `start` are allocated, whole pages, and nobody uses them.
#[cfg(target_os = "linux")]
unsafe fn forget(start: NonNull<f32>, len: usize) {
    // SAFETY: the caller's promise; private memory of no file reads as zeros afterwards.
    unsafe { libc::madvise(start.as_ptr().cast(), len * size_of::<f32>(), libc::MADV_DONTNEED) };
}

#[cfg(not(target_os = "linux"))]
unsafe fn forget(_start: NonNull<f32>, _len: usize) {}

/// The free spans of `0..len`: what was used before, and beyond it what nobody has touched.
#[derive(Debug)]
struct Spans {
    len: usize,
    /// The end of what was used before.
    touched: usize,
    /// The free spans before that: offset and length, no two neighbours.
    free: BTreeMap<usize, usize>,
}

impl Spans {
    fn new(len: usize) -> Spans {
        Spans { len, touched: 0, free: BTreeMap::new() }
    }

    fn is_whole(&self) -> bool {
        self.free.values().sum::<usize>() == self.touched
    }

    /// The length of the shortest used span that holds `len`.
    fn best(&self, len: usize) -> Option<usize> {
        self.free.values().copied().filter(|span| *span >= len).min()
    }

    /// Where what nobody has touched begins, with the free span before it.
    fn end(&self) -> usize {
        let last = self.free.last_key_value().filter(|(offset, len)| **offset + **len == self.touched);
        last.map_or(self.touched, |(offset, _)| *offset)
    }

    fn has_room(&self, len: usize) -> bool {
        self.len - self.end() >= len
    }

    /// The start of the first of the shortest used spans that hold `len`, of which the rest stays free; where there
    /// is none, fresh memory.
    fn take(&mut self, len: usize) -> Option<usize> {
        let Some(best) = self.best(len) else {
            let offset = self.end();
            return self.has_room(len).then(|| {
                self.free.remove(&offset);
                self.touched = offset + len;
                offset
            });
        };
        let offset = *self.free.iter().find(|(_, span)| **span == best)?.0;
        self.free.remove(&offset);
        if best > len {
            self.free.insert(offset + len, best - len);
        }
        Some(offset)
    }

    fn give(&mut self, offset: usize, len: usize) {
        let (mut offset, mut len) = (offset, len);
        if let Some(behind) = self.free.remove(&(offset + len)) {
            len += behind;
        }
        if let Some((before, span)) = self.free.range(..offset).next_back().map(|(b, s)| (*b, *s))
            && before + span == offset
        {
            self.free.remove(&before);
            (offset, len) = (before, span + len);
        }
        self.free.insert(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of many sizes, taken and given in a disorder: none overlap, and in the end all is one span again.
    #[test]
    fn blocks_never_overlap_and_grow_together_again() {
        let mut spans = Spans::new(1000);
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut state = 1_u32;
        for _ in 0..10_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (state >> 16) as usize;
            if number.is_multiple_of(2) && !taken.is_empty() {
                let (offset, len) = taken.swap_remove(number / 2 % taken.len());
                spans.give(offset, len);
            } else if let Some(offset) = spans.take(1 + number % 97) {
                let len = 1 + number % 97;
                assert!(offset + len <= 1000);
                assert!(taken.iter().all(|(o, l)| offset + len <= *o || o + l <= offset));
                taken.push((offset, len));
            }
            let free: usize = spans.free.values().sum();
            assert_eq!(free + taken.iter().map(|(_, len)| len).sum::<usize>(), spans.touched);
        }
        taken.into_iter().for_each(|(offset, len)| spans.give(offset, len));
        assert!(spans.is_whole());
    }

    #[test]
    fn the_shortest_span_that_holds_a_block_is_cut() {
        let mut spans = Spans::new(100);
        let starts: Vec<usize> = [20, 5, 30, 5].map(|len| spans.take(len).unwrap()).to_vec();
        assert_eq!(starts, [0, 20, 25, 55]);
        spans.give(0, 20);
        spans.give(25, 30);
        assert_eq!(spans.take(15), Some(0));
        assert_eq!(spans.take(41), None);
        // Fresh memory last, though it is the shorter rest.
        assert_eq!(spans.take(6), Some(25));
        spans.give(55, 5);
        assert_eq!(spans.take(60), Some(31));
        assert_eq!(spans.touched, 91);
    }

    #[test]
    fn stretches_hold_what_is_written_and_are_returned() {
        let mut arena = Arena::new();
        let blocks: Vec<(NonNull<f32>, usize)> =
            [PAGE, STRETCH - PAGE, 3 * PAGE].map(|len| (arena.take(len), len)).to_vec();
        assert_eq!(arena.0.len(), 2);
        for (start, len) in &blocks {
            // SAFETY: the block was taken.
            unsafe {
                assert_eq!(start.add(len - 1).read(), 0.0);
                start.add(len - 1).write(1.0);
            }
        }
        // SAFETY: as taken, and not used any more.
        unsafe { arena.give(blocks[2].0, blocks[2].1) };
        arena.release();
        assert_eq!(arena.0.len(), 1);
        // SAFETY: as above.
        unsafe { arena.give(blocks[1].0, blocks[1].1) };
        arena.release();
        assert_eq!(arena.0.len(), 1);
        // SAFETY: as above.
        unsafe { arena.give(blocks[0].0, blocks[0].1) };
        arena.release();
        assert!(arena.0.is_empty());
    }
}
