//! Learning rates over time. All arithmetic is f64; cosines are those of the crate `libm`, the same on every
//! machine.

/// The learning rate of each epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Always the base rate.
    Constant,
    /// `base·factor^⌊epoch/every⌋`.
    Step {
        /// Epochs between two cuts.
        every: u32,
        /// The factor of a cut.
        factor: f64,
    },
    /// `floor + (base − floor)·(1 + cos(π·epoch/epochs))/2` (Loshchilov and Hutter, SGDR, ICLR 2017).
    Cosine {
        /// Where the half wave ends.
        epochs: u32,
        /// The last rate.
        floor: f64,
    },
    /// Cut by `factor` when the watched loss has not improved by `threshold`, relative, for more than
    /// `patience` epochs.
    Plateau {
        /// Epochs to wait.
        patience: u32,
        /// The factor of a cut.
        factor: f64,
        /// The smallest relative improvement that counts.
        threshold: f64,
        /// The smallest rate.
        floor: f64,
    },
}

/// A schedule under way: what it has seen of the watched loss, which is all its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    base: f64,
    schedule: Schedule,
    warmup: u64,
    /// The progress of [`Schedule::Plateau`].
    pub plateau: Plateau,
}

/// What a plateau schedule remembers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plateau {
    /// The lowest loss so far.
    pub best: f64,
    /// Epochs since then.
    pub waited: u32,
    /// The product of all cuts.
    pub scale: f64,
}

impl Rate {
    /// A schedule from a base rate, with a linear rise over the first `warmup` steps: step `s` has
    /// `(s + 1)/warmup` of the rate (Goyal et al., 2017).
    pub fn new(base: f64, schedule: Schedule, warmup: u64) -> Rate {
        Rate { base, schedule, warmup, plateau: Plateau { best: f64::INFINITY, waited: 0, scale: 1.0 } }
    }

    /// The rate of a step, both counted from 0 over the whole run.
    pub fn at(&self, epoch: u32, step: u64) -> f32 {
        let rate = match &self.schedule {
            Schedule::Constant => self.base,
            Schedule::Step { every, factor } => {
                (0..epoch / (*every).max(1)).fold(self.base, |rate, _| rate * factor)
            }
            Schedule::Cosine { epochs, floor } => {
                let part = f64::from(epoch.min(*epochs)) / f64::from((*epochs).max(1));
                floor + (self.base - floor) * (1.0 + libm::cos(std::f64::consts::PI * part)) / 2.0
            }
            Schedule::Plateau { floor, .. } => {
                let rate = self.base * self.plateau.scale;
                if rate < *floor { *floor } else { rate }
            }
        };
        let rise = if step < self.warmup { (step + 1) as f64 / self.warmup as f64 } else { 1.0 };
        (rate * rise) as f32
    }

    /// Tells a plateau schedule the watched loss of an epoch that ended. NaN counts as no improvement.
    pub fn observe(&mut self, loss: f64) {
        let Schedule::Plateau { patience, factor, threshold, .. } = self.schedule else { return };
        if loss < self.plateau.best * (1.0 - threshold) {
            self.plateau.best = loss;
            self.plateau.waited = 0;
        } else {
            self.plateau.waited += 1;
            if self.plateau.waited > patience {
                self.plateau.scale *= factor;
                self.plateau.waited = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_schedule_cuts_at_multiples() {
        let rate = Rate::new(1.0, Schedule::Step { every: 3, factor: 0.5 }, 0);
        let rates: Vec<f32> = (0..7).map(|epoch| rate.at(epoch, 0)).collect();
        assert_eq!(rates, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]);
    }

    #[test]
    fn a_cosine_starts_at_the_base_and_ends_at_the_floor() {
        let rate = Rate::new(1.0, Schedule::Cosine { epochs: 10, floor: 0.25 }, 0);
        assert_eq!(rate.at(0, 0), 1.0);
        assert_eq!(rate.at(10, 0), 0.25);
        assert_eq!(rate.at(99, 0), 0.25);
        assert_eq!(rate.at(5, 0), 0.625);
    }

    #[test]
    fn warm_up_rises_linearly_to_the_rate() {
        let rate = Rate::new(0.5, Schedule::Constant, 4);
        let rates: Vec<f32> = (0..6).map(|step| rate.at(0, step)).collect();
        assert_eq!(rates, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn a_plateau_waits_cuts_and_keeps_its_floor() {
        let schedule = Schedule::Plateau { patience: 1, factor: 0.5, threshold: 0.01, floor: 0.2 };
        let mut rate = Rate::new(1.0, schedule, 0);
        let mut rates = Vec::new();
        for loss in [1.0, 0.5, 0.499, f64::NAN, 0.5, 0.5, 0.5, 0.5] {
            rate.observe(loss);
            rates.push(rate.at(0, 0));
        }
        assert_eq!(rates, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2]);
    }
}
