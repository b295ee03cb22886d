//! Contributions to a gradient, put together.

use crate::Cpu;
use crate::product::Add;

/// The values a thread takes at least.
const GRAIN: usize = 16_384;

/// `sum[k] = sum[k] + more[k]`
///
/// # Panics
/// When one is longer than the other.
pub fn accumulate(cpu: &Cpu, sum: &mut [f32], more: &[f32]) {
    assert_eq!(sum.len(), more.len(), "arrays of unequal length");
    cpu.for_slices(sum.len(), GRAIN, &mut [Some(sum)], |offset, parts| {
        for part in parts.iter_mut().flatten() {
            let range = offset..offset + part.len();
            cpu.vectorize(Add(part, &more[range]));
        }
    });
}
