//! Rows of a product that is cut into leaves, those with the same terms together: rows are taps, and a tap meets the
//! padding at some positions. Those terms are left out where that changes no bit, as `gaps.rs` proves.

use super::gaps::WORTH;
use super::kernel::Kernel;
use super::tile::Step;
use super::turned::height;
use super::{STACK, Strewn, cut};
use std::ops::Range;
use std::rc::Rc;

/// Of so many blocks the terms are kept that were worked out: blocks begin at few places of an image.
const KNOWN: usize = 16;

/// At which positions of an image the taps lie inside. A row is a tap of a channel, a term a position of an image.
pub(crate) struct Outside {
    /// Positions of an image.
    plane: usize,
    /// The different sets of positions, and which of them each tap has.
    inside: Vec<Vec<bool>>,
    of: Vec<usize>,
}

impl Outside {
    /// For positions of `size` rows and columns: whether a tap's row is inside, and whether its column is. `None` where
    /// nearly all always are.
    pub(crate) fn new(
        size: (usize, usize),
        taps: usize,
        row: impl Fn(usize, usize) -> bool,
        column: impl Fn(usize, usize) -> bool,
    ) -> Option<Outside> {
        let rows = |tap: usize| (0..size.0).filter(|i| row(*i, tap)).count();
        let columns = |tap: usize| (0..size.1).filter(|j| column(*j, tap)).count();
        let (plane, inside): (usize, usize) =
            (size.0 * size.1, (0..taps).map(|tap| rows(tap) * columns(tap)).sum());
        if inside * WORTH.1 >= plane * taps * WORTH.0 {
            return None;
        }
        let mut outside = Outside { plane, inside: Vec::new(), of: Vec::new() };
        for tap in 0..taps {
            let set = (0..plane).map(|at| row(at / size.1, tap) && column(at % size.1, tap)).collect();
            let known = outside.inside.iter().position(|other| *other == set);
            outside.of.push(known.unwrap_or(outside.inside.len()));
            if known.is_none() {
                outside.inside.push(set);
            }
        }
        Some(outside)
    }

    pub(super) fn taps(&self) -> usize {
        self.of.len()
    }
}

/// Rows that one call computes.
pub(super) struct Stack {
    pub(super) places: Range<usize>,
    pub(super) class: usize,
    pub(super) kernel: Kernel,
}

/// Rows with the same terms, for one block of k.
pub(super) struct Class {
    pub(super) places: Range<usize>,
    /// Where their values lie, as in [`Strewn`].
    pub(super) bases: Vec<usize>,
}

/// For each chain of a block, the row of the right operand that its first term meets, and its terms.
pub(super) type Chains = Vec<(usize, Vec<Step>)>;

/// What a block's terms were worked out from, and what they are for each class.
struct Known {
    start: usize,
    finite: bool,
    chains: Vec<Range<usize>>,
    steps: Vec<Step>,
    classes: Rc<Vec<Chains>>,
}

/// Some rows, those with the same terms together.
pub(super) struct Arranged<'a> {
    pub(super) all: Range<usize>,
    pub(super) stacks: Vec<Stack>,
    outside: Option<&'a Outside>,
    /// The places of each class, and its set of positions.
    classes: Vec<(Range<usize>, usize)>,
    /// The row of each place, from the first one on; and the place of each row.
    rows: Vec<usize>,
    place: Vec<usize>,
    /// The stack of each place.
    stack: Vec<usize>,
    known: Vec<Known>,
}

impl<'a> Arranged<'a> {
    pub(super) fn new(all: Range<usize>, kernel: &Kernel, outside: Option<&'a Outside>) -> Arranged<'a> {
        let sets = outside.map_or(1, |outside| outside.inside.len());
        let most = sets + all.len().div_ceil(kernel.rows.div_ceil(2).max(1));
        let (mut rows, mut classes, mut stacks) =
            (Vec::with_capacity(all.len()), Vec::with_capacity(sets), Vec::with_capacity(most));
        for set in 0..sets {
            let start = rows.len();
            let has = |row: &usize| outside.is_none_or(|outside| outside.of[row % outside.of.len()] == set);
            rows.extend(all.clone().filter(has).map(|row| row - all.start));
            let kernel = match outside {
                Some(_) => kernel.of_height(height(rows.len() - start, kernel.rows)),
                None => *kernel,
            };
            let class = classes.len();
            stacks.extend(cut(start..rows.len(), STACK * kernel.rows).map(|places| Stack {
                places,
                class,
                kernel,
            }));
            classes.push((start..rows.len(), set));
        }
        let mut place = vec![0; rows.len()];
        for (at, row) in rows.iter().enumerate() {
            place[*row] = at;
        }
        let mut stack = Vec::with_capacity(rows.len());
        for (index, some) in stacks.iter().enumerate() {
            stack.resize(some.places.end, index);
        }
        Arranged { all, stack, stacks, outside, classes, rows, place, known: Vec::new() }
    }

    /// The place of each row, if it may be another than its own.
    pub(super) fn place(&self) -> Option<&[usize]> {
        self.outside.map(|_| &self.place[..])
    }

    /// The stack of a place.
    pub(super) fn stack(&self, place: usize) -> &Stack {
        &self.stacks[self.stack[place]]
    }

    /// The rows of each class, from the left operand of all in order.
    pub(super) fn classes(&self, left: &Strewn) -> Vec<Class> {
        let class = |(places, _): &(Range<usize>, usize)| {
            let bases = self.rows[places.clone()].iter().map(|row| left.bases()[*row]).collect();
            Class { places: places.clone(), bases }
        };
        self.classes.iter().map(class).collect()
    }

    /// The terms of each class, for the chains of a block that begins with position `start` of all images. None are left
    /// out where a value of the right operand is not finite.
    pub(super) fn chains(
        &mut self,
        left: &Strewn,
        start: usize,
        chains: Vec<Range<usize>>,
        finite: bool,
    ) -> Rc<Vec<Chains>> {
        let start = self.outside.map_or(0, |outside| start % outside.plane);
        let same = |known: &&Known| {
            (known.start, known.finite) == (start, finite)
                && known.chains == chains
                && known.steps == left.steps()
        };
        if let Some(known) = self.known.iter().find(same) {
            return Rc::clone(&known.classes);
        }
        let chain = |set: usize, terms: &Range<usize>| {
            let mut chosen: Vec<usize> = Vec::with_capacity(terms.len());
            match self.outside {
                Some(outside) if finite => {
                    let first = (start + terms.start) % outside.plane;
                    let inside = outside.inside[set].iter().cycle().skip(first);
                    chosen.extend(
                        terms.clone().zip(inside).filter(|(_, inside)| **inside).map(|(term, _)| term),
                    );
                }
                _ => chosen.extend(terms.clone()),
            }
            let terms = chosen;
            (terms.first().copied().unwrap_or(0), left.some_steps(&terms))
        };
        let class =
            |(_, set): &(Range<usize>, usize)| chains.iter().map(|terms| chain(*set, terms)).collect();
        let classes = Rc::new(self.classes.iter().map(class).collect());
        let steps = left.steps().to_vec();
        if self.outside.is_some() {
            self.known.truncate(KNOWN - 1);
            self.known.insert(0, Known { start, finite, chains, steps, classes: Rc::clone(&classes) });
        }
        classes
    }
}
