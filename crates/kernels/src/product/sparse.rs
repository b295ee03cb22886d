//! Products whose left operand is +0 or −0 in many places, as an activation is behind a relu: a term with such a factor
//! is left out where that changes no bit, as `gaps.rs` proves.
//!
//! ```text
//!                       right operand: [k][width], 64 terms of it in the first-level cache
//!                         │
//! row i: bits 0110…1 ─────┼──▶ sums [width] in registers: for each bit, sums += value (i, k) · row k
//! ```
//!
//! A tile of several rows cannot skip a term, since another row has it. So a row is computed alone, as wide as a few
//! registers, with the terms that its bits name, in ascending order. It loads a row of the right operand for each of them,
//! which a tile shares among its rows: what that costs differs among processors ([`pace`]), and it pays where enough of
//! the terms are zero.

use super::kernel::Kernel;
use super::lanes::{Lanes, prefetch, prefetch_far};
use super::tile::{Left, Raw, Step};
use super::{LINE, even};
use crate::{Cpu, Isa, Task, perturb, processor};
use std::iter::{Enumerate, Peekable};

/// Terms that one word of bits stands for, at most.
const WORD: usize = u64::BITS as usize;
/// Neighbouring rows whose bits are found together, and how many terms at once.
const BESIDE: usize = 16;
const HALF: usize = WORD / 2;
/// So many values of an operand are looked at, and asked for so many before: they lie in memory, each in another place.
const SAMPLE: usize = 1024;
const SOON: usize = 32;

/// Whether so many of some values are zero, by a sample, that to leave out their terms saves time: of a product with
/// that many terms and filters, which meets each value with so many taps.
///
/// In units of what the loop of a full tile takes for all terms: tiles take about 1.1, and the terms that are left their
/// share times [`pace`]. To find the bits costs as much as 40 filters of each term, or 16 where pixels are
/// staged for several taps, and to turn and to store the sums as much as 40 terms of each filter. `more` is what is to be
/// added. Measured, AVX-512.
pub(crate) fn is_sparse(
    cpu: &Cpu,
    values: &[f32],
    taps: usize,
    (terms, filters): (usize, usize),
    more: f64,
) -> bool {
    if values.is_empty() || terms == 0 || filters == 0 {
        return false;
    }
    let (count, other) = sample(values);
    let of_filters = if taps > 1 { 16.0 } else { 40.0 };
    let left = pace(cpu) * other as f64 / count as f64;
    let time = left + of_filters / filters as f64 + 40.0 / terms as f64 + more;
    perturb::zeros(count, other, time < 1.1)
}

/// Looks at some values, spread over all: at how many, and how many of them are not zero.
fn sample(values: &[f32]) -> (usize, usize) {
    let count = SAMPLE.min(values.len());
    // Multiples of the golden ratio, less their whole part: whatever the sizes of planes and images.
    let at = |k: usize| {
        let fraction = (k as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((u128::from(fraction) * values.len() as u128) >> 64) as usize
    };
    let ask = |k: usize| prefetch(values.as_ptr().wrapping_add(at(k)));
    (0..SOON.min(count)).for_each(ask);
    let seen = (0..count).map(|k| {
        ask(k + SOON);
        values[at(k)]
    });
    (count, seen.filter(|value| *value != 0.0).count())
}

/// How much longer a multiply-add takes in the loop of sparse operands, where half of the terms are left out, than in a
/// full tile. The first loads an operand for each, the other one for some. Measured: on Zen 4 (AVX-512) 4/3; on a Xeon
/// with AMX 1.87 in registers of 512 bits, where such a multiply-add begins 1.35 times a cycle and not twice, and about
/// as on Zen 4 in those of 256.
fn pace(cpu: &Cpu) -> f64 {
    if cpu.isa() == Isa::Avx512 && processor::is_intel() { 1.87 } else { 4.0 / 3.0 }
}

/// The terms of some rows that are not left out: a bit each, a word for each of the parts into which [`even`] cuts them.
pub(super) struct Bits {
    words: Vec<u64>,
    terms: usize,
}

/// Into how many parts so many terms are cut.
fn parts(terms: usize) -> usize {
    terms.div_ceil(WORD).max(1)
}

/// The lowest `count` bits.
fn lowest(count: usize) -> u64 {
    u64::MAX.checked_shr((WORD - count) as u32).unwrap_or(0)
}

impl Bits {
    /// Of the rows and terms of an operand that lies anywhere. None are left out if that would change a bit, since the
    /// right operand has values that are not finite.
    pub(super) fn of(cpu: &Cpu, left: &Left, finite: bool) -> Bits {
        let Left::Strewn { data, bases, steps, .. } = *left else {
            unreachable!("only strewn operands are sparse")
        };
        let terms = steps.len();
        let part = |part: usize| &steps[even(terms, parts(terms), part)];
        let mut words = vec![0; bases.len() * parts(terms)];
        if !finite {
            for (index, word) in words.iter_mut().enumerate() {
                *word = lowest(part(index % parts(terms)).len());
            }
            return Bits { words, terms };
        }
        let rows = beside(bases.iter().copied(), BESIDE);
        let runs: Vec<Vec<Beside>> =
            (0..parts(terms)).map(|index| beside(part(index).iter().map(|step| step.at), WORD)).collect();
        // Several neighbours are looked at together: rows of a term, or terms of a row.
        if rows.len() * terms < runs.iter().map(Vec::len).sum::<usize>() * bases.len() {
            cpu.vectorize(Down { data, rows: &rows, steps, words: &mut words });
        } else {
            Kernel::of(cpu).find(data, bases, &runs, &mut words);
        }
        Bits { words, terms }
    }

    /// The words of so many rows from `first` on, and of so many terms.
    pub(super) fn words(&self, first: usize, rows: usize, terms: usize) -> &[u64] {
        assert!(terms == self.terms, "bits of other terms");
        &self.words[first * parts(terms)..(first + rows) * parts(terms)]
    }
}

/// `len` neighbours, rows or terms, that lie side by side, the first of them at `at`.
pub(super) struct Beside {
    first: usize,
    at: usize,
    len: usize,
}

/// Cuts what lies at these places into neighbours that lie side by side, `most` at most.
fn beside(places: impl Iterator<Item = usize> + Clone, most: usize) -> Vec<Beside> {
    let all = Neighbours { places: places.enumerate().peekable(), most };
    let mut list = Vec::with_capacity(all.clone().count());
    list.extend(all);
    list
}

#[derive(Clone)]
struct Neighbours<P: Iterator<Item = usize>> {
    places: Peekable<Enumerate<P>>,
    most: usize,
}

impl<P: Iterator<Item = usize>> Iterator for Neighbours<P> {
    type Item = Beside;
    #[inline]
    fn next(&mut self) -> Option<Beside> {
        let (first, at) = self.places.next()?;
        let mut len = 1;
        while len < self.most && self.places.next_if(|(_, next)| *next == at + len).is_some() {
            len += 1;
        }
        Some(Beside { first, at, len })
    }
}

/// Finds the bits of neighbouring rows, which are +0 before.
struct Down<'a> {
    data: &'a [f32],
    rows: &'a [Beside],
    steps: &'a [Step],
    words: &'a mut [u64],
}

impl Task for Down<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Down { data, rows, steps, words } = self;
        let parts = parts(steps.len());
        for part in 0..parts {
            for (half, steps) in steps[even(steps.len(), parts, part)].chunks(HALF).enumerate() {
                for Beside { first, at, len } in rows {
                    let mut bits = [0_u32; BESIDE];
                    let mut whole = 0;
                    for step in steps {
                        let Some(values) = data[at + step.at..].first_chunk::<BESIDE>() else { break };
                        for l in 0..BESIDE {
                            bits[l] |= if values[l] != 0.0 { 1 << whole } else { 0 };
                        }
                        whole += 1;
                    }
                    // Near the end of the data.
                    for (term, step) in steps.iter().enumerate().skip(whole) {
                        for (bits, value) in bits.iter_mut().zip(&data[at + step.at..][..*len]) {
                            *bits |= u32::from(*value != 0.0) << term;
                        }
                    }
                    for (row, bits) in bits[..*len].iter().enumerate() {
                        words[(first + row) * parts + part] |= u64::from(*bits) << (half * HALF);
                    }
                }
            }
        }
    }
}

/// Finds the bits of neighbouring terms, given for each part: of all rows.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
pub(super) unsafe fn across<V: Lanes>(
    data: &[f32],
    bases: &[usize],
    runs: &[Vec<Beside>],
    words: &mut [u64],
) {
    let end = |run: &Beside| run.at + run.len.next_multiple_of(V::COUNT);
    let reach = runs.iter().flatten().map(end).max().unwrap_or(0);
    for (base, words) in bases.iter().zip(words.chunks_exact_mut(runs.len())) {
        let whole = base + reach <= data.len();
        for (runs, word) in runs.iter().zip(words) {
            for Beside { first, at, len } in runs {
                let values = &data[base + at..][..*len];
                let mut bits = 0;
                if whole {
                    for k in (0..*len).step_by(V::COUNT) {
                        // SAFETY: whole registers end inside the data.
                        bits |= unsafe { V::load(values.as_ptr().wrapping_add(k)).other_than_zero() } << k;
                    }
                } else {
                    for (k, value) in values.iter().enumerate() {
                        bits |= u64::from(*value != 0.0) << k;
                    }
                }
                *word |= (bits & lowest(*len)) << first;
            }
        }
    }
}

/// Computes `count` rows from `first` on.
///
/// # Safety
/// The processor has `V`'s instruction set, and `raw` points to what `Tile` says for these rows and `WIDE·COUNT` columns,
/// which is also from one row of the right operand to the next; its words name no other terms than there are.
#[inline(always)]
pub(super) unsafe fn rows<V: Lanes, const WIDE: usize>(raw: &Raw, first: usize, count: usize) {
    let parts = parts(raw.terms);
    for part in 0..parts {
        let terms = even(raw.terms, parts, part);
        let (begins, ends) = (part == 0 && raw.from.is_null(), part + 1 == parts);
        let right = raw.b.wrapping_add(terms.start * raw.b_step);
        let mut next = match ends {
            true => raw.b.wrapping_byte_offset(raw.next),
            false => right.wrapping_add(terms.len() * raw.b_step),
        };
        // Each row asks for some of the next rows of the right operand.
        let lines = if ends && raw.next == 0 { 0 } else { (terms.len() * raw.b_step).div_ceil(LINE) };
        let share = lines.div_ceil(count.max(1));
        // SAFETY: the caller's promise; there is a bit for each term that is named.
        unsafe {
            let steps = raw.steps.add(terms.start);
            let mut c = raw.c.add(first * raw.stride);
            let mut from =
                if part == 0 { raw.from } else { raw.c.cast_const() }.wrapping_add(first * raw.stride);
            let mut bases = raw.bases.add(first);
            let mut words = raw.words.add(first * parts + part);
            for index in 0..count {
                for _ in 0..share {
                    prefetch_far(next);
                    next = next.wrapping_add(LINE);
                }
                if part == 0 {
                    raw.asked(index).iter().for_each(|line| prefetch(*line));
                }
                let mut sums = [V::splat(0.0); WIDE];
                if !begins {
                    for j in 0..WIDE {
                        sums[j] = V::load(from.add(j * V::COUNT));
                    }
                }
                let (values, mut bits) = (raw.a.add(*bases), *words);
                while bits != 0 {
                    let term = bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let value = V::splat(*values.add((*steps.add(term)).at));
                    let right = right.add(term * WIDE * V::COUNT);
                    for j in 0..WIDE {
                        sums[j] = value.fma(V::load(right.add(j * V::COUNT)), sums[j]);
                    }
                }
                if ends {
                    for earlier in 0..raw.earlier_len {
                        let earlier = (*raw.earlier.add(earlier)).wrapping_add((first + index) * raw.stride);
                        for j in 0..WIDE {
                            sums[j] = V::load(earlier.add(j * V::COUNT)).add(sums[j]);
                        }
                    }
                }
                for j in 0..WIDE {
                    sums[j].store(c.add(j * V::COUNT));
                }
                c = c.wrapping_add(raw.stride);
                from = from.wrapping_add(raw.stride);
                bases = bases.wrapping_add(1);
                words = words.wrapping_add(parts);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SAMPLE, sample};

    #[test]
    fn a_sample_sees_zeros_wherever_they_are() {
        for len in [0, 1, SAMPLE - 1, SAMPLE, SAMPLE + 1, 1 << 21] {
            let count = len.min(SAMPLE);
            assert_eq!(sample(&vec![0.0; len]), (count, 0), "{len} zeros");
            assert_eq!(sample(&vec![f32::NAN; len]), (count, count), "{len} others");
        }
        // Every other plane, row or column is zero.
        for stretch in [1, 56, 112 * 112] {
            let values: Vec<f32> = (0..1 << 21).map(|k| (k / stretch % 2) as f32).collect();
            let (count, other) = sample(&values);
            assert!(count / 4 < other && other < count - count / 4, "{other} of {count} by {stretch}");
        }
    }
}
