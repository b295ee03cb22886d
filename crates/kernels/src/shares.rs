//! Work that threads share: each has a share of its own, one stretch of all, and takes from another's when its own is done
//! (Markatos and LeBlanc, "Using processor affinity in loop scheduling on shared-memory multiprocessors", 1994).
//!
//! Shares depend on nothing but how much there is and on how many threads. So where kernels cut what they compute alike, a
//! thread meets what it made itself: in its own caches, and not in those of another core, which may be far away.

use crate::product::even;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is left of the share of each thread.
pub(crate) struct Shares(Vec<Share>);

/// The bounds of what is left, in the two halves of a number, on cache lines of its own.
#[repr(align(128))]
struct Share(AtomicU64);

impl Shares {
    /// As much as can be shared.
    pub(crate) const MOST: usize = u32::MAX as usize;

    /// `0..count`, shared by some threads, as even as they can be.
    pub(crate) fn new(count: usize, threads: usize) -> Shares {
        assert!(count <= Shares::MOST, "{count} pieces of work are too many");
        Shares((0..threads).map(|thread| Share(AtomicU64::new(pack(even(count, threads, thread))))).collect())
    }

    /// What `thread` does next: half of what is left of its own share, from the front, or of another's, from the back.
    pub(crate) fn take(&self, thread: usize) -> Option<Range<usize>> {
        let own = self.0[thread].cut(|Range { start, end }| {
            let middle = start + (end - start).div_ceil(2);
            (start..middle, middle..end)
        });
        own.or_else(|| {
            let mut others = (1..self.0.len()).map(|further| (thread + further) % self.0.len());
            others.find_map(|other| {
                self.0[other].cut(|Range { start, end }| {
                    let middle = start + (end - start) / 2;
                    (middle..end, start..middle)
                })
            })
        })
    }
}

impl Share {
    /// Cuts what is left, if there is anything, into what is taken and what is left then.
    fn cut(&self, parts: impl Fn(Range<usize>) -> (Range<usize>, Range<usize>)) -> Option<Range<usize>> {
        let left = |share| Some(unpack(share)).filter(|left| !left.is_empty());
        let take = |share| left(share).map(|left| pack(parts(left).1));
        // Relaxed: only who does what is decided here. What was computed passes from thread to thread elsewhere.
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(parts(unpack(before)).0)
    }
}

fn pack(range: Range<usize>) -> u64 {
    (range.start as u64) << 32 | range.end as u64
}

fn unpack(share: u64) -> Range<usize> {
    (share >> 32) as usize..(share & u64::from(u32::MAX)) as usize
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn everything_is_taken_once_in_any_order_of_threads() {
        for (count, threads) in [(0, 2), (1, 3), (7, 2), (100, 7), (3, 5)] {
            for order in 0..threads {
                let shares = Shares::new(count, threads);
                let mut times = vec![0; count];
                // One thread takes a few pieces, the next one some more, the last one all that is left.
                for turn in 0..threads {
                    let most = if turn + 1 < threads { turn + 1 } else { usize::MAX };
                    let takes = std::iter::from_fn(|| shares.take((order + turn) % threads)).take(most);
                    takes.flatten().for_each(|index| times[index] += 1);
                }
                assert!(times.iter().all(|times| *times == 1), "{count} for {threads} threads: {times:?}");
            }
        }
    }

    #[test]
    fn a_thread_begins_with_the_front_of_its_share_and_helps_from_the_back() {
        let shares = Shares::new(16, 2);
        assert_eq!(shares.take(1), Some(8..12));
        assert_eq!(shares.take(0), Some(0..4));
        let all: Vec<_> = std::iter::from_fn(|| shares.take(0)).collect();
        assert_eq!(all, [4..6, 6..7, 7..8, 14..16, 13..14, 12..13]);
    }
}
