//! What cannot be scored.

/// Why there is no figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// A score is not a number.
    #[error("score {0} is not a number, so nothing can be ranked")]
    NotANumber(usize),
    /// A score is not a probability.
    #[error("score {0} is not in [0, 1], so it is no probability")]
    NotAProbability(usize),
    /// Scores and labels are not as many.
    #[error("{scores} scores for {labels} labels")]
    Lengths {
        /// Scores.
        scores: usize,
        /// Labels.
        labels: usize,
    },
}
