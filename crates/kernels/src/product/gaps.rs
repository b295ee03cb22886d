//! Terms that need not be computed, since one factor is zero: those of pixels on the padding, which are +0, sorted here;
//! and those of other zeros (`sparse.rs`).
//!
//! `fma(±0, w, c)` has the bits of c for every finite w and every c but −0: its product is a zero, and a zero changes
//! no other number. Compare the chain with all its terms and one without some of these, while every other factor is finite.
//! After every term (1) both have the same value, (2) the same bits unless that is zero, and (3) if the long one is −0,
//! so is the short one. Both begin with +0. A term left out keeps a number that is not zero; of a zero of the long chain
//! it makes a zero, −0 only if it was −0. A term that both have makes the same of equal numbers; of two zeros it makes
//! the same unless its product is zero, and then −0 of the long one only if that was −0 and the product is −0, which
//! leaves the short one −0. So a short chain that does not end with −0 has the bits of the long one. Sums that do end
//! with −0 are computed once more, as they are defined.
//!
//! Leaves added by a tree keep all three: a sum of two f32 is never rounded to zero, and is −0 only of −0 and −0.
//!
//! Columns with the same terms are computed together, so that the tiles' loop asks no question.

use super::Strewn;
use super::sparse::Bits;
use super::tile::{Left, Step};
use super::turned::cost;
use crate::{Cpu, Task};
use std::ops::Range;

/// The bits of −0.
const NEGATIVE_ZERO: u32 = 1 << 31;

/// Computes those of some sums once more, as they are defined, that are −0: `[line][width]`, `lanes` of each line, by
/// `sum` of line and lane.
pub(super) fn repair(
    cpu: &Cpu,
    (width, lanes): (usize, usize),
    sums: &mut [f32],
    sum: impl Fn(usize, usize) -> f32,
) {
    if !cpu.vectorize(HasNegativeZero(sums)) {
        return;
    }
    for (line, sums) in sums.chunks_exact_mut(width).enumerate() {
        for (lane, value) in sums[..lanes].iter_mut().enumerate() {
            if value.to_bits() == NEGATIVE_ZERO {
                *value = sum(line, lane);
            }
        }
    }
}

/// Whether one of some sums is −0.
struct HasNegativeZero<'a>(&'a [f32]);

impl Task for HasNegativeZero<'_> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        self.0.iter().fold(0, |found, sum| found | u32::from(sum.to_bits() == NEGATIVE_ZERO)) != 0
    }
}

/// Columns are sorted if that leaves less than this share of the work, for it takes time too.
pub(super) const WORTH: (usize, usize) = (31, 32);

/// What a class costs besides its tiles, about: a row and a half.
const CLASS: usize = 8;

/// Which taps of positions lie inside an image: those of the position's row that are also those of its column.
pub(crate) struct Present {
    rows: Sets,
    columns: Sets,
    /// How many taps a channel has.
    taps: usize,
}

/// Sets of taps.
struct Sets {
    different: Vec<u64>,
    /// Which of them each row, or column, has.
    of: Vec<usize>,
}

impl Sets {
    fn new(each: impl Iterator<Item = u64>) -> Sets {
        let (mut different, mut of) = (Vec::new(), Vec::new());
        for set in each {
            of.push(different.iter().position(|other| *other == set).unwrap_or(different.len()));
            if of.last() == Some(&different.len()) {
                different.push(set);
            }
        }
        Sets { different, of }
    }

    /// The different sets, and how many rows or columns have each.
    fn counts(&self) -> impl Iterator<Item = (u64, usize)> {
        let count = |index: usize| self.of.iter().filter(|of| **of == index).count();
        self.different.iter().enumerate().map(move |(index, set)| (*set, count(index)))
    }
}

impl Present {
    /// For positions of `size` rows and columns: whether a tap's row is inside, and whether its column is. `None` where
    /// nearly all always are, or where they are too many to tell.
    pub(crate) fn new(
        size: (usize, usize),
        taps: usize,
        row: impl Fn(usize, usize) -> bool,
        column: impl Fn(usize, usize) -> bool,
    ) -> Option<Present> {
        if taps > 64 {
            return None;
        }
        let set = |inside: &dyn Fn(usize) -> bool| {
            (0..taps).filter(|tap| inside(*tap)).fold(0, |set, tap| set | 1_u64 << tap)
        };
        let rows = Sets::new((0..size.0).map(|i| set(&|tap| row(i, tap))));
        let columns = Sets::new((0..size.1).map(|j| set(&|tap| column(j, tap))));
        let (mut inside, all) = (0, size.0 * size.1 * taps);
        for (row, i) in rows.counts() {
            for (column, j) in columns.counts() {
                inside += i * j * (row & column).count_ones() as usize;
            }
        }
        (inside * WORTH.1 < all * WORTH.0).then_some(Present { rows, columns, taps })
    }

    fn all(&self) -> u64 {
        u64::MAX.checked_shr(64 - self.taps as u32).unwrap_or(0)
    }

    /// Calls `each` for some columns of the product, with the sets of their rows and columns.
    fn each(&self, columns: Range<usize>, mut each: impl FnMut((usize, usize))) {
        let across = self.columns.of.len();
        let mut next = columns.start;
        while next < columns.end {
            let j = next % across;
            let len = (across - j).min(columns.end - next);
            let row = self.rows.of[next / across % self.rows.of.len()];
            for column in &self.columns.of[j..j + len] {
                each((row, *column));
            }
            next += len;
        }
    }
}

/// The left operand of some columns, for one block of k.
pub(super) struct Part<'a> {
    /// Where their sums lie among those of all columns.
    pub(super) places: Range<usize>,
    pub(super) left: Left<'a>,
    /// The first term of the block that they have, and how many they have.
    pub(super) first: usize,
    pub(super) terms: usize,
}

/// Columns with the same terms.
struct Class {
    places: Range<usize>,
    /// Their taps.
    taps: Vec<usize>,
    /// Where their values lie, as in [`Strewn`].
    bases: Vec<usize>,
    steps: Vec<Step>,
}

/// Neighbouring columns, those with the same terms together.
pub(super) struct Sorted {
    columns: usize,
    /// None if all have all terms.
    classes: Vec<Class>,
    /// The place of each column, where it has another.
    place: Vec<usize>,
    /// How many taps a channel has.
    taps: usize,
}

impl Sorted {
    /// As takes least time with tiles of at most so many rows.
    pub(super) fn new(present: Option<&Present>, columns: Range<usize>, most: usize) -> Sorted {
        let mut sorted = Sorted { columns: columns.len(), classes: Vec::new(), place: Vec::new(), taps: 0 };
        if let Some(present) = present {
            sorted.sort(present, columns, most);
        }
        sorted
    }

    fn sort(&mut self, present: &Present, columns: Range<usize>, most: usize) {
        let (rows, across) = (&present.rows.different, &present.columns.different);
        let mut counts = vec![0; rows.len() * across.len()];
        present.each(columns.clone(), |(row, column)| counts[row * across.len() + column] += 1);
        let all = present.all();
        // To sort by rows and by columns, or by one of them.
        let ways = [(true, true), (true, false), (false, true)];
        let class = |(by_row, by_column): (bool, bool), (row, column): (usize, usize)| {
            (if by_row { row * across.len() } else { 0 }) + (if by_column { column } else { 0 })
        };
        let classes = |way: (bool, bool)| {
            let mut classes = vec![(all, 0); counts.len()];
            for (index, count) in counts.iter().enumerate() {
                let (row, column) = (index / across.len(), index % across.len());
                let taps = (if way.0 { rows[row] } else { all }) & (if way.1 { across[column] } else { all });
                let class = &mut classes[class(way, (row, column))];
                *class = (taps, class.1 + count);
            }
            classes
        };
        let time = |taps: u64, count: usize| taps.count_ones() as usize * (cost(count, most) + CLASS);
        let time_of = |way: (bool, bool)| -> usize {
            classes(way).iter().filter(|class| class.1 > 0).map(|(taps, count)| time(*taps, *count)).sum()
        };
        let Some((way, least)) =
            ways.map(|way| (way, time_of(way))).into_iter().min_by_key(|(_, time)| *time)
        else {
            return;
        };
        if least * WORTH.1 > time(all, columns.len()) * WORTH.0 {
            return;
        }
        let classes = classes(way);
        let (mut first, mut next) = (0, Vec::with_capacity(classes.len()));
        self.classes.reserve_exact(classes.len());
        self.place.reserve_exact(columns.len());
        for (set, count) in classes {
            next.push(first);
            if count > 0 {
                let places = first..first + count;
                let mut taps = Vec::with_capacity(set.count_ones() as usize);
                taps.extend((0..present.taps).filter(|tap| set >> tap & 1 == 1));
                self.classes.push(Class { places, taps, bases: Vec::new(), steps: Vec::new() });
            }
            first += count;
        }
        present.each(columns, |sets| {
            let class = class(way, sets);
            self.place.push(next[class]);
            next[class] += 1;
        });
        self.taps = present.taps;
    }

    /// Gets ready for a block of so many terms, which begins and ends with a channel, and none longer than that: from
    /// the left operand of all columns in order.
    pub(super) fn ready(&mut self, strewn: &Strewn, terms: usize) {
        let mut columns = vec![0; self.place.len()];
        for (column, place) in self.place.iter().enumerate() {
            columns[*place] = column;
        }
        for class in &mut self.classes {
            let of_channel = |first: usize| class.taps.iter().map(move |tap| first + tap);
            let channels = (0..terms).step_by(self.taps);
            let mut terms = Vec::with_capacity(channels.len() * class.taps.len());
            terms.extend(channels.flat_map(of_channel));
            let bases = columns[class.places.clone()].iter().map(|column| strewn.bases()[*column]);
            (class.bases, class.steps) = (bases.collect(), strewn.some_steps(&terms));
        }
    }

    /// The place of each column, if it is another than its own.
    pub(super) fn place(&self) -> Option<&[usize]> {
        (!self.classes.is_empty()).then_some(&self.place[..])
    }

    /// The left operands of a block; where nothing is sorted, without the terms that have no bit.
    pub(super) fn parts<'a>(
        &'a self,
        strewn: &'a Strewn,
        terms: usize,
        bits: Option<&'a Bits>,
    ) -> Vec<Part<'a>> {
        if self.classes.is_empty() {
            let left = strewn.left();
            let left = bits.map_or(left, |bits| left.sparse(bits));
            return vec![Part { places: 0..self.columns, left, first: 0, terms }];
        }
        let part = |class: &'a Class| {
            let steps = &class.steps[..terms / self.taps * class.taps.len()];
            let first = class.taps.first().copied().unwrap_or(0);
            let left = strewn.left_of(&class.bases, steps);
            Part { places: class.places.clone(), left, first, terms: steps.len() }
        };
        self.classes.iter().map(part).collect()
    }
}
