//! Memory for results: aligned, recycled from step to step, never cleared when it will be overwritten.
//!
//! Fresh pages cost more than the arithmetic done in them, so freed memory is handed out again with its old
//! contents: small blocks by their size from a list, large ones from the free spans of an arena (`arena.rs`). Every
//! kernel overwrites the whole of its output; the tests prove it by poisoning ([`set_poison`]).

mod arena;
mod kept;
mod stream;

use crate::perturb;
use arena::{Arena, PAGE};
pub(crate) use kept::Form;
pub use kept::Kept;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
pub(crate) use stream::Stream;

const ALIGNMENT: usize = 64;
/// Blocks of at least this many f32 come from the arena.
const LARGE: usize = 16 * PAGE;

/// A block of f32 on a cache-line boundary that is handed out again when dropped.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
    capacity: usize,
    /// f32 of the block before `start`: 0 but in tests.
    offset: usize,
}

// SAFETY: a `Buffer` owns its memory alone.
unsafe impl Send for Buffer {}
// SAFETY: shared access is read-only.
unsafe impl Sync for Buffer {}

struct Block(NonNull<f32>);
// SAFETY: an unused block belongs to the free list alone.
unsafe impl Send for Block {}

static FREE: Mutex<BTreeMap<usize, Vec<Block>>> = Mutex::new(BTreeMap::new());

thread_local! {
    static NEAR: RefCell<Near> = const { RefCell::new(Near(Vec::new())) };
}

/// The small blocks that a thread gave back last, and their sizes: to take one of these asks no lock, and finds it in the
/// thread's own cache.
struct Near(Vec<(usize, Block)>);

impl Near {
    const MOST: usize = 16;

    /// The last that is fit for `capacity` values.
    fn take(&mut self, capacity: usize) -> Option<(Block, usize)> {
        let at = self.0.iter().rposition(|(size, _)| is_fit(capacity).contains(size))?;
        let (size, block) = self.0.remove(at);
        Some((block, size))
    }

    /// Keeps a block. Returns the one that must make room.
    fn give(&mut self, size: usize, block: Block) -> Option<(usize, Block)> {
        self.0.reserve_exact(Near::MOST - self.0.len());
        let oldest = if self.0.len() == Near::MOST { Some(self.0.remove(0)) } else { None };
        self.0.push((size, block));
        oldest
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(size, block)| put(size, block));
    }
}

/// Sizes of blocks for so many values that waste at most a quarter.
fn is_fit(capacity: usize) -> RangeInclusive<usize> {
    capacity..=capacity + capacity / 4
}

/// Puts a block into the list for all.
fn put(size: usize, block: Block) {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    free.entry(size).or_default().push(block);
}

static ARENA: Mutex<Arena> = Mutex::new(Arena::new());
/// The bytes of all buffers, and the most they have been.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// What [`Buffer::take`] panics with when the system has no memory left. A program catches it and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The bytes that were asked for.
    pub bytes: usize,
}

fn refused(bytes: usize) -> ! {
    std::panic::panic_any(OutOfMemory { bytes })
}

/// Measures the bytes of buffers that `work` holds at once, at most, beyond those held before. For a process in
/// which nothing else takes buffers meanwhile.
pub fn peak_during(work: impl FnOnce()) -> usize {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}

/// The bytes that large buffers can be cut from without asking the system.
pub fn unused_bytes() -> usize {
    arena().unused() * size_of::<f32>()
}

/// When on, every buffer handed out is filled with a signalling pattern, so that a kernel which reads or
/// leaves what it should have written is found. For tests.
pub fn set_poison(on: bool) {
    perturb::fill_with(on.then_some(0x7fa5_a5a5));
}

/// Returns every unused block to the system, but for the few small ones that other threads keep.
pub fn release_unused() {
    drop(NEAR.with_borrow_mut(|near| std::mem::replace(near, Near(Vec::new()))));
    let free = std::mem::take(&mut *FREE.lock().unwrap_or_else(PoisonError::into_inner));
    for (capacity, blocks) in free {
        for Block(start) in blocks {
            // SAFETY: allocated in `Buffer::take` with the layout of this capacity, owned by the list.
            unsafe { dealloc(start.as_ptr().cast(), layout(capacity)) };
        }
    }
    arena().release();
}

fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of values of an array with these extents; `None` beyond the address space.
pub(crate) fn size(extents: &[usize]) -> Option<usize> {
    extents.iter().try_fold(1_usize, |all, extent| all.checked_mul(*extent))
}

fn layout(capacity: usize) -> Layout {
    let bytes = capacity.checked_mul(4);
    match bytes.map(|bytes| Layout::from_size_align(bytes, ALIGNMENT)) {
        Some(Ok(layout)) => layout,
        _ => panic!("a buffer of {capacity} f32 exceeds the address space"),
    }
}

impl Buffer {
    /// `len` values, whatever they are: the caller overwrites all of them.
    ///
    /// # Panics
    /// With [`OutOfMemory`] when the system has none left.
    pub fn take(len: usize) -> Buffer {
        let offset = perturb::offset();
        let whole = len.saturating_add(offset);
        let (start, capacity) = if whole >= LARGE {
            let Some(capacity) = whole.checked_next_multiple_of(PAGE) else {
                panic!("a buffer of {len} f32 exceeds the address space");
            };
            (arena().take(capacity), capacity)
        } else {
            let capacity = whole.next_multiple_of(ALIGNMENT / 4).max(ALIGNMENT / 4);
            let (Block(start), capacity) = recycled(capacity).unwrap_or_else(|| (fresh(capacity), capacity));
            (start, capacity)
        };
        let in_use = IN_USE.fetch_add(4 * capacity, Ordering::Relaxed) + 4 * capacity;
        PEAK.fetch_max(in_use, Ordering::Relaxed);
        // SAFETY: the block holds `offset + len` values.
        let start = unsafe { start.add(offset) };
        let mut buffer = Buffer { start, len, capacity, offset };
        if let Some(bits) = perturb::fill() {
            buffer.fill(f32::from_bits(bits));
        }
        buffer
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Buffer {
        let mut buffer = Buffer::take(len);
        buffer.fill(0.0);
        buffer
    }

    /// A copy of `values`.
    pub fn copy_of(values: &[f32]) -> Buffer {
        let mut buffer = Buffer::take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

/// An unused small block that is fit for `capacity` values: one of this thread's, otherwise the smallest.
fn recycled(capacity: usize) -> Option<(Block, usize)> {
    // A thread that ends has let go of them.
    if let Ok(Some(near)) = NEAR.try_with(|near| near.borrow_mut().take(capacity)) {
        return Some(near);
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    // A list that is empty stays, and so does its room.
    let mut sizes = free.range_mut(is_fit(capacity));
    sizes.find_map(|(size, blocks)| blocks.pop().map(|block| (block, *size)))
}

fn fresh(capacity: usize) -> Block {
    let layout = layout(capacity);
    // SAFETY: the layout is not empty (`take` asks for at least one cache line).
    let start = unsafe { alloc_zeroed(layout) };
    match NonNull::new(start.cast::<f32>()) {
        Some(start) => Block(start),
        None => refused(layout.size()),
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        IN_USE.fetch_sub(4 * self.capacity, Ordering::Relaxed);
        // SAFETY: the block begins there.
        let block = unsafe { self.start.sub(self.offset) };
        if self.len + self.offset >= LARGE {
            // SAFETY: taken from the arena with this capacity, and nobody else has it.
            unsafe { arena().give(block, self.capacity) };
            return;
        }
        let mut given = Some((self.capacity, Block(block)));
        let _ = NEAR.try_with(|near| {
            given = given.take().and_then(|(size, block)| near.borrow_mut().give(size, block));
        });
        if let Some((size, block)) = given {
            put(size, block);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: owned, `offset + len <= capacity`, and initialised: zeroed at birth, written as f32 ever after.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        Buffer::copy_of(self)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_holds_what_was_written() {
        for len in [0, 1, 15, 16, 17, 1000, LARGE - 1, LARGE, LARGE + 1] {
            let mut buffer = Buffer::take(len);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            for (k, value) in buffer.iter_mut().enumerate() {
                *value = k as f32;
            }
            assert_eq!(buffer.len(), len);
            assert!(buffer.clone().iter().enumerate().all(|(k, value)| *value == k as f32));
        }
    }

    #[test]
    fn what_no_machine_has_is_refused_in_a_way_that_can_be_caught() {
        let bytes = 1_usize << 60;
        let caught = std::panic::catch_unwind(|| Buffer::take(bytes / 4)).unwrap_err();
        assert!(caught.downcast_ref::<OutOfMemory>().is_some_and(|refused| refused.bytes >= bytes));
        Buffer::take(LARGE).fill(1.0);
    }

    #[test]
    fn a_freed_block_comes_back() {
        let len = 1_234_567;
        let first = Buffer::take(len);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::take(len).as_ptr(), address);
        release_unused();
    }
}
