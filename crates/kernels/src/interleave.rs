//! Rows put together from their values of each residue to a stride.

/// Writes `row`: value `k·stride + residue` is value `k` of `part(residue)`. For use inside a [`Task`](crate::Task).
#[inline(always)]
pub(crate) fn weave<'a>(stride: usize, part: impl Fn(usize) -> &'a [f32], row: &mut [f32]) {
    match stride {
        1 => row.copy_from_slice(&part(0)[..row.len()]),
        2 => {
            let (pairs, last) = row.as_chunks_mut::<2>();
            let even = &part(0)[..pairs.len() + last.len()];
            let odd = &part(1)[..pairs.len()];
            for k in 0..pairs.len() {
                pairs[k] = [even[k], odd[k]];
            }
            last.copy_from_slice(&even[pairs.len()..]);
        }
        _ => {
            for residue in 0..stride.min(row.len()) {
                for (to, from) in row[residue..].iter_mut().step_by(stride).zip(part(residue)) {
                    *to = *from;
                }
            }
        }
    }
}
