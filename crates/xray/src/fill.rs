//! Decoding many images on all threads into one array.

use crate::dataset::Progress;
use crate::decode::Gray;
use crate::error::DataError;
use crate::resize::Resizer;
use kinone_kernels::Cpu;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The gray values `[count, size, size]`, and the number and message of each image that failed.
pub(crate) type Filled = (Vec<u8>, Vec<(usize, String)>);

/// Fills the array with `image(k)` resized, for each `k` below `count`.
///
/// Threads take the next number in turn, and each number has its own place, so the result is the same
/// for any number of threads. The same holds for a failure: when one is met, all lower numbers have been
/// taken already, so the lowest of those found is the lowest of all.
///
/// # Errors
/// The array does not fit in memory, or an image fails and `skip_bad` is not set.
pub(crate) fn fill(
    count: usize,
    size: usize,
    skip_bad: bool,
    cpu: &Cpu,
    progress: Progress,
    image: impl Fn(usize) -> Result<Gray, DataError> + Sync,
) -> Result<Filled, DataError> {
    let area = size * size;
    let bytes = count as u128 * area as u128;
    let mut pixels: Vec<u8> = Vec::new();
    let room = usize::try_from(bytes).ok().and_then(|bytes| pixels.try_reserve_exact(bytes).ok());
    room.ok_or(DataError::Memory { images: count, size, bytes })?;
    pixels.resize(count * area, 0);

    let queue = Mutex::new(pixels.chunks_exact_mut(area).enumerate());
    let failures: Mutex<Vec<(usize, DataError)>> = Mutex::new(Vec::new());
    let done = Mutex::new(0);
    cpu.on_every_thread(|_| {
        let mut resizer = Resizer::new(size);
        loop {
            if !skip_bad && !lock(&failures).is_empty() {
                break;
            }
            let Some((k, place)) = lock(&queue).next() else { break };
            match image(k) {
                Ok(gray) => resizer.resize(&gray, place, cpu),
                Err(error) => lock(&failures).push((k, error)),
            }
            // The lock is held during the call, so the counts arrive in order.
            let mut done = lock(&done);
            *done += 1;
            progress(*done, count);
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_unstable_by_key(|&(k, _)| k);
    if !skip_bad && !failures.is_empty() {
        return Err(failures.swap_remove(0).1);
    }
    Ok((pixels, failures.into_iter().map(|(k, error)| (k, error.to_string())).collect()))
}

/// The lock's content, also after a panic elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
