//! Sums of contributions to one gradient.

use crate::{Cpu, Task};

/// The values a thread takes at least.
const GRAIN: usize = 16_384;

/// `sum[k] = sum[k] + x[k]`
///
/// # Panics
/// When the lengths differ.
pub fn accumulate(cpu: &Cpu, sum: &mut [f32], x: &[f32]) {
    assert_eq!(sum.len(), x.len(), "contributions of unequal length");
    cpu.for_slices(sum.len(), GRAIN, &mut [Some(sum)], |offset, parts| {
        for part in parts.iter_mut().flatten() {
            let x = &x[offset..offset + part.len()];
            cpu.vectorize(Accumulate { sum: part, x });
        }
    });
}

struct Accumulate<'a> {
    sum: &'a mut [f32],
    x: &'a [f32],
}

impl Task for Accumulate<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (sum, x) in self.sum.iter_mut().zip(self.x) {
            *sum += x;
        }
    }
}
