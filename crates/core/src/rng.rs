//! Random numbers as a pure function: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011).
//!
//! There is no generator state. A draw is named by its key (seed, stream) and its counter (epoch, sample,
//! block), so it does not depend on the batch, the threads, or what was drawn before.

/// The ten-round Philox4x32 bijection of `counter` under `key`.
pub fn philox4x32(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    let mut c = counter;
    for round in 0..10 {
        if round > 0 {
            k0 = k0.wrapping_add(0x9E37_79B9);
            k1 = k1.wrapping_add(0xBB67_AE85);
        }
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k1, p0 as u32];
    }
    c
}

/// The uniform number in `[0, 1)` of 32 random bits.
pub fn uniform(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The draws of one purpose: a seed, the stream of that purpose, an epoch and a sample.
///
/// ```
/// use kinone_core::rng::Stream;
/// let a = Stream::new(42, "dropout.layer1").at(3, 1_000_000);
/// let b = Stream::new(42, "dropout.layer1").at(3, 1_000_000);
/// assert_eq!(a.uniform(17).to_bits(), b.uniform(17).to_bits());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    epoch: u32,
    sample: u64,
}

impl Stream {
    /// The stream called `name` under `seed`, at epoch 0 and sample 0.
    ///
    /// The key is the Philox image of the seed under a 64-bit FNV-1a hash of the name, so that streams of
    /// different names are unrelated.
    pub fn new(seed: u64, name: &str) -> Stream {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let image = philox4x32([hash as u32, (hash >> 32) as u32], [seed as u32, (seed >> 32) as u32, 0, 0]);
        Stream { key: [image[0], image[1]], epoch: 0, sample: 0 }
    }

    /// The same stream at another epoch (below 2^32) and sample (below 2^40).
    pub fn at(self, epoch: u32, sample: u64) -> Stream {
        Stream { epoch, sample, ..self }
    }

    /// The random bits `4·block` to `4·block + 3` (`block` below 2^26).
    pub fn block(&self, block: u64) -> [u32; 4] {
        let counter = [
            block as u32,
            self.sample as u32,
            (self.sample >> 32) as u32 | ((block >> 32) as u32) << 16,
            self.epoch,
        ];
        philox4x32(self.key, counter)
    }

    /// The `index`-th 32 random bits (`index` below 2^26 · 4).
    pub fn bits(&self, index: u64) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }

    /// The `index`-th uniform number in `[0, 1)`: the upper 24 bits, `(u >> 8)·2^-24`, exact in f32.
    pub fn uniform(&self, index: u64) -> f32 {
        uniform(self.bits(index))
    }

    /// The `index`-th integer in `0..bound`, by the multiply-shift of 32 bits (bias below `bound`·2^-32).
    pub fn below(&self, index: u64, bound: u32) -> u32 {
        ((u64::from(self.bits(index)) * u64::from(bound)) >> 32) as u32
    }

    /// The `index`-th approximately normal number of mean 0 and variance 1 in 16.16 fixed point: the sum of
    /// twelve uniform 16-bit integers, centred (Irwin and Hall). For images, where only integers are used.
    pub fn normal_fixed(&self, index: u64) -> i32 {
        let mut sum = 0_i64;
        for word in 0..6 {
            let bits = self.bits(index * 6 + word);
            sum += i64::from(bits & 0xffff) + i64::from(bits >> 16);
        }
        (sum - 6 * 65_535) as i32
    }

    /// The numbers `0..count` in random order: sorted by (random bits, index).
    pub fn permutation(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<(u32, usize)> = (0..count).map(|k| (self.bits(k as u64), k)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, k)| k).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox4x32([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 2], [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_permutation_holds_every_index_once_and_moves_with_the_epoch() {
        let stream = Stream::new(7, "shuffle");
        let mut order = stream.at(1, 0).permutation(1000);
        assert_ne!(order, stream.at(2, 0).permutation(1000));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }

    #[test]
    fn draws_have_the_moments_they_claim() {
        let stream = Stream::new(1, "moments");
        let n = 100_000_u64;
        let mean = (0..n).fold(0.0, |sum, k| sum + f64::from(stream.uniform(k))) / n as f64;
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0_f64 / n as f64).sqrt());
        let squares = (0..n).fold(0.0, |sum, k| {
            let z = f64::from(stream.normal_fixed(k)) / 65_536.0;
            sum + z * z
        });
        assert!((squares / n as f64 - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
    }
}
