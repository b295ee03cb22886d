//! The built-in set: radiographs of chests that never were, drawn in integers.
//!
//! It exists so that everything can be tried and tested without a download, and means nothing clinically. Each
//! radiograph is a pure function of the set's seed, its number and the size of the image; how many there are
//! changes none of them. A patient has one to five radiographs, which share his anatomy and most of his
//! findings. Findings come together as they do in life (effusion with oedema and a large heart), and some are
//! rare. Where a finding lies, on which side, how large and how dense is random, so that no single pixel
//! tells: a linear model fails where a convolution succeeds.
//!
//! Reading order: `patients` (who has what), `anatomy` (what a chest looks like), `disease` (what
//! findings do to it), `paint` (from densities to gray values), `noise` (textures).

mod anatomy;
mod disease;
mod noise;
mod paint;
mod patients;

use crate::error::DataError;
use crate::source::{Record, Source};
use patients::Visit;

/// The built-in set.
#[derive(Clone, Debug)]
pub struct Synth {
    seed: u64,
    size: usize,
    visits: Vec<Visit>,
}

impl Synth {
    /// The first `images` radiographs of the set of `seed`, `size` pixels a side.
    ///
    /// # Errors
    /// No images, or a size outside 16 to 2048.
    pub fn new(seed: u64, images: usize, size: usize) -> Result<Synth, DataError> {
        if images == 0 || images > 1_000_000 {
            let value = images.to_string();
            return Err(DataError::Value { what: "the number of images", value, need: "give 1 to 1000000" });
        }
        if !(16..=2048).contains(&size) {
            let value = size.to_string();
            return Err(DataError::Value { what: "the image size", value, need: "give 16 to 2048 pixels" });
        }
        Ok(Synth { seed, size, visits: patients::visits(seed, images) })
    }
}

impl Source for Synth {
    fn description(&self) -> String {
        format!("built-in set, seed {}, {} images", self.seed, self.visits.len())
    }

    fn count(&self) -> usize {
        self.visits.len()
    }

    fn size(&self) -> usize {
        self.size
    }

    fn record(&self, index: usize) -> Record {
        patients::record(self.seed, self.visits[index])
    }

    fn pixels(&self, index: usize) -> Vec<u8> {
        let visit = self.visits[index];
        paint::radiograph(self.seed, visit, &patients::record(self.seed, visit), self.size)
    }
}
