//! Batches: which radiographs come when is a pure function of (seed, epoch).

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::preprocess::Preprocessing;
use crate::split::Part;
use kinone_core::rng::Stream;

/// Some radiographs as the network sees them.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Shape `[b, 1, size, size]`, normalized.
    pub images: Vec<f32>,
    /// Shape `[b, classes]`, 0 or 1.
    pub targets: Vec<f32>,
    /// The index of each in [`Dataset::entries`].
    pub indices: Vec<usize>,
}

/// Gives out the batches of one part.
#[derive(Clone, Debug)]
pub struct Loader<'a> {
    data: &'a Dataset,
    indices: &'a [usize],
    table: [f32; 256],
    batch_size: usize,
}

impl<'a> Loader<'a> {
    /// A loader of `part` with batches of `batch_size`, normalized by `preprocessing`.
    ///
    /// # Errors
    /// The part is empty, `batch_size` is 0, or the preprocessing is for another size.
    pub fn new(
        data: &'a Dataset,
        part: Part,
        preprocessing: &Preprocessing,
        batch_size: usize,
    ) -> Result<Loader<'a>, DataError> {
        let value = |what, value: usize, need| Err(DataError::Value { what, value: value.to_string(), need });
        if batch_size == 0 {
            return value("the batch size", batch_size, "give at least 1");
        }
        if preprocessing.size != data.size() {
            return value(
                "the image size of the preprocessing",
                preprocessing.size,
                "load the data at that size",
            );
        }
        let indices = data.part(part);
        if indices.is_empty() {
            return Err(DataError::TooFew { part: part.name(), count: 0, need: 1 });
        }
        Ok(Loader { data, indices, table: preprocessing.table(), batch_size })
    }

    /// How many images an epoch of training has.
    pub fn train_images(&self) -> usize {
        (self.train_batches() * self.batch_size).min(self.indices.len())
    }

    /// How many batches an epoch of training has: the last short one counts unless it has 1 sample and
    /// the others have more, because batch normalization cannot learn from one sample.
    /// So a part of a single sample has none, and a caller that trains says so.
    pub fn train_batches(&self) -> usize {
        let rest = self.indices.len() % self.batch_size;
        self.indices.len() / self.batch_size + usize::from(rest > 1)
    }

    /// How many batches hold the whole part.
    pub fn eval_batches(&self) -> usize {
        self.indices.len().div_ceil(self.batch_size)
    }

    /// The batches of an epoch of training, in the order of the Philox permutation of stream "shuffle" at
    /// `epoch`; [`Loader::train_batches`] of them.
    pub fn train(&self, seed: u64, epoch: u32) -> impl Iterator<Item = Batch> + '_ {
        self.train_from(seed, epoch, 0)
    }

    /// The same without the first `batches`, which are not made: for going on in the middle of an epoch.
    pub fn train_from(&self, seed: u64, epoch: u32, batches: usize) -> impl Iterator<Item = Batch> + '_ {
        let order = Stream::new(seed, "shuffle").at(epoch, 0).permutation(self.indices.len());
        (batches..self.train_batches()).map(move |batch| {
            let lo = batch * self.batch_size;
            let hi = (lo + self.batch_size).min(order.len());
            self.batch(order[lo..hi].iter().map(|&k| self.indices[k]))
        })
    }

    /// Every radiograph of the part once, in the order of the names.
    pub fn eval(&self) -> impl Iterator<Item = Batch> + '_ {
        self.indices.chunks(self.batch_size).map(|chunk| self.batch(chunk.iter().copied()))
    }

    fn batch(&self, indices: impl Iterator<Item = usize>) -> Batch {
        let indices: Vec<usize> = indices.collect();
        let area = self.data.size() * self.data.size();
        let classes = self.data.classes().count();
        let mut images = Vec::with_capacity(indices.len() * area);
        let mut targets = vec![0.0; indices.len() * classes];
        for (&index, targets) in indices.iter().zip(targets.chunks_exact_mut(classes)) {
            images.extend(self.data.pixels(index).iter().map(|&u| self.table[usize::from(u)]));
            self.data.entries()[index].findings.write_targets(targets);
        }
        Batch { images, targets, indices }
    }
}
