//! Areas under the receiver operating characteristic and the precision–recall curve of one class.
//!
//! Both count in whole numbers over groups of equal scores, in descending order, and divide at the end.

use crate::error::ScoreError;

/// Positives and negatives of equal score.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tie {
    /// The score: −0 and +0 are equal, and either may stand here.
    pub(crate) score: f32,
    pub(crate) positives: u64,
    pub(crate) negatives: u64,
}

/// The images of one class by descending score: sorted once, counted as often as a bootstrap wants.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Score, image, label; images of equal score in ascending order.
    ranked: Vec<(f32, usize, bool)>,
}

impl Ranking {
    /// Sorts.
    ///
    /// # Errors
    /// A score is NaN, or the lengths differ.
    pub fn new(scores: &[f32], labels: &[bool]) -> Result<Ranking, ScoreError> {
        if scores.len() != labels.len() {
            return Err(ScoreError::Lengths { scores: scores.len(), labels: labels.len() });
        }
        if let Some(at) = scores.iter().position(|score| score.is_nan()) {
            return Err(ScoreError::NotANumber(at));
        }
        let mut ranked: Vec<(f32, usize, bool)> = scores
            .iter()
            .zip(labels)
            .enumerate()
            .map(|(image, (score, label))| (*score, image, *label))
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(Ranking { ranked })
    }

    /// Groups of equal scores, the highest first, each image counted `copies(image)` times.
    pub(crate) fn ties(&self, copies: impl Fn(usize) -> u64) -> impl Iterator<Item = Tie> {
        self.ranked.chunk_by(|a, b| a.0 == b.0).map(move |group| {
            let mut tie = Tie { score: group[0].0, ..Tie::default() };
            for (_, image, positive) in group {
                let count = copies(*image);
                if *positive {
                    tie.positives += count;
                } else {
                    tie.negatives += count;
                }
            }
            tie
        })
    }

    /// [`auroc`] where each image counts `copies(image)` times.
    pub fn auroc(&self, copies: impl Fn(usize) -> u64) -> Option<f64> {
        let (mut above, mut twice, mut negatives) = (0_u64, 0_u128, 0_u64);
        for tie in self.ties(copies) {
            // Every negative here is beaten by the positives above, and half by those beside it.
            twice += u128::from(tie.negatives) * u128::from(2 * above + tie.positives);
            above += tie.positives;
            negatives += tie.negatives;
        }
        let pairs = 2 * u128::from(above) * u128::from(negatives);
        (pairs > 0).then(|| twice as f64 / pairs as f64)
    }

    /// [`auprc`] where each image counts `copies(image)` times.
    pub fn auprc(&self, copies: impl Fn(usize) -> u64) -> Option<f64> {
        let (mut positives, mut taken, mut sum) = (0_u64, 0_u64, 0.0);
        for tie in self.ties(copies).filter(|tie| tie.positives + tie.negatives > 0) {
            positives += tie.positives;
            taken += tie.positives + tie.negatives;
            sum += tie.positives as f64 * (positives as f64 / taken as f64);
        }
        (positives > 0 && taken > positives).then(|| sum / positives as f64)
    }
}

/// The area under the receiver operating characteristic: the chance that a random positive scores above a
/// random negative, ties counting half (Mann and Whitney, 1947; Hanley and McNeil, 1982). `None` without both.
///
/// # Errors
/// A score is NaN, or the lengths differ.
pub fn auroc(scores: &[f32], labels: &[bool]) -> Result<Option<f64>, ScoreError> {
    Ok(Ranking::new(scores, labels)?.auroc(|_| 1))
}

/// Average precision: `Σ (R_k − R_{k−1})·P_k` over thresholds, precision P and recall R, equal scores taken
/// together. `None` without a positive or without a negative.
///
/// # Errors
/// As [`auroc`].
pub fn auprc(scores: &[f32], labels: &[bool]) -> Result<Option<f64>, ScoreError> {
    Ok(Ranking::new(scores, labels)?.auprc(|_| 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinone_core::rng::Stream;

    /// The definition: every pair.
    fn pairs(scores: &[f32], labels: &[bool]) -> Option<f64> {
        let (mut twice, mut count) = (0_u64, 0_u64);
        for (s, _) in scores.iter().zip(labels).filter(|(_, l)| **l) {
            for (t, _) in scores.iter().zip(labels).filter(|(_, l)| !**l) {
                twice += if s > t { 2 } else { u64::from(s == t) };
                count += 2;
            }
        }
        (count > 0).then(|| twice as f64 / count as f64)
    }

    /// The definition: at every score as a threshold, precision and recall counted anew.
    fn thresholds(scores: &[f32], labels: &[bool]) -> Option<f64> {
        let mut cuts = scores.to_vec();
        cuts.sort_by(|a, b| b.total_cmp(a));
        cuts.dedup();
        let all = labels.iter().filter(|l| **l).count();
        let (mut sum, mut before) = (0.0, 0);
        for cut in cuts {
            let taken = scores.iter().filter(|s| **s >= cut).count();
            let hits = scores.iter().zip(labels).filter(|(s, l)| **s >= cut && **l).count();
            sum += (hits - before) as f64 * (hits as f64 / taken as f64);
            before = hits;
        }
        (all > 0 && all < labels.len()).then(|| sum / all as f64)
    }

    #[test]
    fn areas_are_what_their_definitions_count() {
        for sample in 0..200 {
            let stream = Stream::new(2, "auc").at(0, sample);
            let n = 1 + stream.below(9999, 60) as u64;
            // Few different scores, so that many are equal.
            let scores: Vec<f32> = (0..n).map(|k| stream.below(k, 9) as f32 - 4.0).collect();
            let labels: Vec<bool> = (0..n).map(|k| stream.below(1000 + k, 4) == 0).collect();
            assert_eq!(auroc(&scores, &labels).unwrap(), pairs(&scores, &labels));
            assert_eq!(auprc(&scores, &labels).unwrap(), thresholds(&scores, &labels));
        }
    }

    /// Counting an image several times is having it several times.
    #[test]
    fn copies_are_images() {
        for sample in 0..100 {
            let stream = Stream::new(3, "copies").at(0, sample);
            let scores: Vec<f32> = (0..20).map(|k| stream.below(k, 7) as f32).collect();
            let labels: Vec<bool> = (0..20).map(|k| stream.below(100 + k, 2) == 0).collect();
            let copies = |image: usize| u64::from(stream.below(200 + image as u64, 4));
            let many = || (0..20).flat_map(|image| vec![image; copies(image) as usize]);
            let s: Vec<f32> = many().map(|image| scores[image]).collect();
            let l: Vec<bool> = many().map(|image| labels[image]).collect();
            let ranking = Ranking::new(&scores, &labels).unwrap();
            assert_eq!(ranking.auroc(copies), auroc(&s, &l).unwrap());
            assert_eq!(ranking.auprc(copies), auprc(&s, &l).unwrap());
        }
    }

    #[test]
    fn worked_examples() {
        let labels = [false, false, true, true];
        assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &labels).unwrap(), Some(0.75));
        // Recall 1/2 at precision 1, then 1 at 2/3.
        assert_eq!(auprc(&[0.1, 0.4, 0.35, 0.8], &labels).unwrap(), Some((1.0 + 2.0 / 3.0) / 2.0));
        assert_eq!(auroc(&[0.5; 4], &labels).unwrap(), Some(0.5));
        assert_eq!(auprc(&[0.5; 4], &labels).unwrap(), Some(0.5));
        assert_eq!(auroc(&[-0.0, 0.0], &[true, false]).unwrap(), Some(0.5));
    }

    #[test]
    fn one_kind_of_label_has_no_area_and_nan_no_rank() {
        assert_eq!(auroc(&[0.1, 0.2], &[true, true]).unwrap(), None);
        assert_eq!(auprc(&[0.1, 0.2], &[true, true]).unwrap(), None);
        assert_eq!(auprc(&[0.1, 0.2], &[false, false]).unwrap(), None);
        assert_eq!(auroc(&[0.1, f32::NAN], &[true, false]), Err(ScoreError::NotANumber(1)));
        assert!(auroc(&[0.1], &[]).is_err());
    }
}
