//! Areas under the receiver operating characteristic and the precision–recall curve of one class.
//!
//! Both count in whole numbers over groups of equal scores, in descending order, and divide at the end.

/// A score that cannot be ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// A score is not a number.
    #[error("score {0} is not a number, so nothing can be ranked")]
    NotANumber(usize),
    /// Scores and labels are not as many.
    #[error("{scores} scores for {labels} labels")]
    Lengths {
        /// Scores.
        scores: usize,
        /// Labels.
        labels: usize,
    },
}

/// Positives and negatives of equal score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tie {
    positives: u64,
    negatives: u64,
}

/// Groups of equal scores, the highest first; −0 and +0 are equal.
fn ties(scores: &[f32], labels: &[bool]) -> Result<Vec<Tie>, ScoreError> {
    if scores.len() != labels.len() {
        return Err(ScoreError::Lengths { scores: scores.len(), labels: labels.len() });
    }
    if let Some(at) = scores.iter().position(|score| score.is_nan()) {
        return Err(ScoreError::NotANumber(at));
    }
    let mut order: Vec<(f32, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut ties: Vec<Tie> = Vec::new();
    let mut last = None;
    for (score, positive) in order {
        if last != Some(score) {
            ties.push(Tie::default());
            last = Some(score);
        }
        if let Some(tie) = ties.last_mut() {
            tie.positives += u64::from(positive);
            tie.negatives += u64::from(!positive);
        }
    }
    Ok(ties)
}

/// The area under the receiver operating characteristic: the chance that a random positive scores above a
/// random negative, ties counting half (Mann and Whitney, 1947; Hanley and McNeil, 1982). `None` without both.
///
/// # Errors
/// A score is NaN, or the lengths differ.
pub fn auroc(scores: &[f32], labels: &[bool]) -> Result<Option<f64>, ScoreError> {
    let (mut above, mut twice, mut negatives) = (0_u64, 0_u128, 0_u64);
    for tie in ties(scores, labels)? {
        // Every negative here is beaten by the positives above, and half by those beside it.
        twice += u128::from(tie.negatives) * u128::from(2 * above + tie.positives);
        above += tie.positives;
        negatives += tie.negatives;
    }
    let pairs = 2 * u128::from(above) * u128::from(negatives);
    Ok((pairs > 0).then(|| twice as f64 / pairs as f64))
}

/// Average precision: `Σ (R_k − R_{k−1})·P_k` over thresholds, precision P and recall R, equal scores taken
/// together. `None` without a positive or without a negative.
///
/// # Errors
/// As [`auroc`].
pub fn auprc(scores: &[f32], labels: &[bool]) -> Result<Option<f64>, ScoreError> {
    let (mut positives, mut taken, mut sum) = (0_u64, 0_u64, 0.0);
    for tie in ties(scores, labels)? {
        positives += tie.positives;
        taken += tie.positives + tie.negatives;
        sum += tie.positives as f64 * (positives as f64 / taken as f64);
    }
    Ok((positives > 0 && taken > positives).then(|| sum / positives as f64))
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

    #[test]
    fn the_area_is_the_share_of_pairs_in_order() {
        for sample in 0..200 {
            let stream = Stream::new(2, "auc").at(0, sample);
            let n = 1 + stream.below(9999, 60) as u64;
            // Few different scores, so that many are equal.
            let scores: Vec<f32> = (0..n).map(|k| stream.below(k, 9) as f32 - 4.0).collect();
            let labels: Vec<bool> = (0..n).map(|k| stream.below(1000 + k, 4) == 0).collect();
            assert_eq!(auroc(&scores, &labels).unwrap(), pairs(&scores, &labels));
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
