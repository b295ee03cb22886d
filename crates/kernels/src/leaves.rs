//! How long sums are cut: leaves fixed by the shape alone, added by a binary tree of their index.
//!
//! `T(lo, hi) = T(lo, mid) + T(mid, hi)`, where `mid - lo` is the largest power of two below `hi - lo`.

use std::ops::Range;

/// The number of terms of a leaf of a plain sum, and the most positions of a leaf of a batch sum.
pub const LEAF: usize = 4096;

/// The number of virtual lanes of an f64 sum inside a leaf: term `j` of the leaf goes to lane `j % 32`.
pub const LANES: usize = 32;

/// One leaf of a sum over a batch of images `[n, oh, ow]`: consecutive samples, and a range of output rows.
///
/// Either several whole samples, or some rows of one sample. Terms are taken in the order (n, oh, ow).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLeaf {
    /// The samples.
    pub samples: Range<usize>,
    /// The output rows of each of them.
    pub rows: Range<usize>,
}

/// The leaves of a sum over a batch of `n` samples of `oh`×`ow` positions, in the order of their index.
///
/// `g` consecutive samples a leaf, `g` the largest power of two with `g·oh·ow <= 4096` and `1 <= g <= 8`; a
/// sample of more than 4096 positions is cut at output rows into leaves of at most 4096 positions (one row
/// at least).
pub fn batch_leaves(n: usize, oh: usize, ow: usize) -> Vec<BatchLeaf> {
    leaves_within(LEAF, n, oh, ow)
}

/// The leaves of a sum over the tiles of a batch of `n` samples, `th`×`tw` tiles of `side`×`side` positions
/// each: those of [`batch_leaves`] with a tile for a position and 4096/side² tiles for 4096 positions.
pub fn tile_leaves(n: usize, (th, tw): (usize, usize), side: usize) -> Vec<BatchLeaf> {
    leaves_within(LEAF / (side * side), n, th, tw)
}

fn leaves_within(most: usize, n: usize, oh: usize, ow: usize) -> Vec<BatchLeaf> {
    let positions = oh * ow;
    if positions > most {
        let rows = (most / ow).max(1);
        return (0..n)
            .flat_map(|sample| {
                (0..oh).step_by(rows).map(move |row| BatchLeaf {
                    samples: sample..sample + 1,
                    rows: row..(row + rows).min(oh),
                })
            })
            .collect();
    }
    let g = [8, 4, 2, 1].into_iter().find(|g| g * positions <= most).unwrap_or(1);
    (0..n).step_by(g).map(|sample| BatchLeaf { samples: sample..(sample + g).min(n), rows: 0..oh }).collect()
}

/// The tree sum of `leaf(0), leaf(1), …, leaf(count - 1)`, asked for in that order; `None` of nothing.
///
/// At most ⌈log2(count)⌉ + 1 partial sums are alive at once: as in a binary counter, two partial sums of
/// equally many leaves become one.
pub fn tree<T>(count: usize, mut leaf: impl FnMut(usize) -> T, mut add: impl FnMut(T, T) -> T) -> Option<T> {
    let most = count.checked_ilog2().map_or(0, |log| log as usize + 2);
    let mut partial: Vec<(usize, T)> = Vec::with_capacity(most);
    for index in 0..count {
        let mut size = 1;
        let mut value = leaf(index);
        while let Some((_, left)) = partial.pop_if(|(left_size, _)| *left_size == size) {
            value = add(left, value);
            size *= 2;
        }
        partial.push((size, value));
    }
    let (_, mut value) = partial.pop()?;
    while let Some((_, left)) = partial.pop() {
        value = add(left, value);
    }
    Some(value)
}

/// Into subtrees of how many leaves a tree is cut, so that threads have equal shares of them; all, if that cannot be.
///
/// One for each, or several, so that none waits long for another, if the sums of all, of `size` values each, are no more
/// than `most`. The subtrees of equally many leaves, a power of two, and of those that are left are nodes of the tree, and
/// what is above them is the tree of their index.
pub(crate) fn subtree(leaves: usize, threads: usize, size: usize, most: usize) -> usize {
    if threads == 1 {
        return leaves;
    }
    let count = |subtree: usize| leaves.div_ceil(subtree);
    let fair = |subtree: &usize| leaves.is_multiple_of(subtree * threads) || count(*subtree) >= 4 * threads;
    let sizes = std::iter::successors(Some(leaves.next_power_of_two()), |size| Some(size / 2));
    let mut fair = sizes.take_while(|size| *size > 0).filter(fair);
    let keeps = |subtree: usize| count(subtree) * size <= most;
    let largest = fair.next().filter(|subtree| count(*subtree) == threads || keeps(*subtree));
    let Some(largest) = largest else { return leaves };
    let few = |subtree: &usize| count(*subtree) <= 8 * threads && keeps(*subtree);
    fair.take_while(few).last().unwrap_or(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, as a recursion.
    fn recursive(lo: usize, hi: usize) -> String {
        if hi - lo == 1 {
            return lo.to_string();
        }
        let mut half = 1;
        while half * 2 < hi - lo {
            half *= 2;
        }
        format!("({}+{})", recursive(lo, lo + half), recursive(lo + half, hi))
    }

    #[test]
    fn the_tree_is_the_recursion_of_the_contract() {
        assert_eq!(tree(0, |k| k.to_string(), |a, b| format!("({a}+{b})")), None);
        for count in 1..70 {
            let sum = tree(count, |k| k.to_string(), |a, b| format!("({a}+{b})"));
            assert_eq!(sum.unwrap(), recursive(0, count));
        }
    }

    #[test]
    fn subtrees_are_nodes_of_the_tree() {
        for (leaves, threads) in (1..70).flat_map(|leaves| [1, 2, 3, 7].map(|threads| (leaves, threads))) {
            for most in [0, 3, 10, 100] {
                let subtree = subtree(leaves, threads, 1, most);
                let add = |a, b| format!("({a}+{b})");
                let of = |at: usize| {
                    let leaf = |k: usize| (at * subtree + k).to_string();
                    tree(subtree.min(leaves - at * subtree), leaf, add).unwrap()
                };
                let count = leaves.div_ceil(subtree);
                assert_eq!(tree(count, of, add).unwrap(), recursive(0, leaves), "{leaves} by {subtree}");
                assert!(threads > 1 || count == 1, "one thread has no use for {count} subtrees");
                assert!([1, threads].contains(&count) || count <= most, "{count} subtrees of {most} at most");
            }
        }
        // Equal shares: of sixteen leaves, and of three of which two threads would get two and one.
        assert_eq!([subtree(16, 2, 1, 0), subtree(16, 2, 1, 16), subtree(3, 2, 1, 99)], [8, 1, 3]);
    }

    #[test]
    fn leaves_cover_the_batch_in_order_and_keep_their_limits() {
        for (n, oh, ow) in
            [(1, 1, 1), (9, 1, 1), (32, 7, 7), (5, 56, 56), (3, 112, 112), (2, 3, 5000), (4, 64, 64)]
        {
            let leaves = batch_leaves(n, oh, ow);
            let mut next = (0, 0);
            for leaf in &leaves {
                assert_eq!((leaf.samples.start, leaf.rows.start), next);
                assert!(leaf.samples.len() * leaf.rows.len() * ow <= LEAF.max(ow));
                next = if leaf.rows.end == oh {
                    (leaf.samples.end, 0)
                } else {
                    (leaf.samples.start, leaf.rows.end)
                };
            }
            assert_eq!(next, (n, 0));
        }
        assert_eq!(batch_leaves(32, 7, 7).len(), 4);
        assert_eq!(batch_leaves(32, 56, 56).len(), 32);
        assert_eq!(batch_leaves(1, 112, 112).len(), 4);
        // 256 tiles of 4×4 positions: one image of 14×14, two rows of an image of 100 a row.
        assert_eq!(tile_leaves(32, (14, 14), 4).len(), 32);
        assert_eq!(tile_leaves(32, (2, 2), 4).len(), 4);
        assert_eq!(
            tile_leaves(1, (5, 100), 4).iter().map(|leaf| leaf.rows.len()).collect::<Vec<_>>(),
            [2, 2, 1]
        );
    }
}
