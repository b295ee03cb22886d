//! From gray values of 8 bits to the numbers a network sees: `x = (u/255 − mean) / std`.

use crate::decode::read_png;
use crate::error::DataError;
use crate::resize::Resizer;
use kinone_kernels::Cpu;
use std::path::Path;

/// How images become inputs; stored with every run and every exported model.
///
/// It survives JSON bit for bit, since shortest decimal numbers identify an f32.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Preprocessing {
    /// The side of the square image in pixels.
    pub size: usize,
    /// How many channels a sample has: 1.
    pub channels: usize,
    /// The mean of the training pixels in `0..=1`.
    pub mean: f32,
    /// Their standard deviation.
    pub std: f32,
}

impl Preprocessing {
    /// The mean and standard deviation of pixels, from exact integer sums.
    ///
    /// With `N` pixels, `S = Σu` and `Q = Σu²`: `mean = S/(255·N)` and `std = sqrt(N·Q − S²)/(255·N)`,
    /// computed in f64 from the exact integers and rounded once to f32.
    ///
    /// # Errors
    /// There is no pixel, or all are equal.
    pub fn of_pixels<'a>(
        size: usize,
        images: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Preprocessing, DataError> {
        let (mut count, mut sum, mut squares) = (0_u64, 0_u64, 0_u64);
        for image in images {
            count += image.len() as u64;
            for row in image.chunks(4096) {
                // A chunk's squares stay below 2^32.
                let (mut s, mut q) = (0_u32, 0_u32);
                for &pixel in row {
                    let u = u32::from(pixel);
                    s += u;
                    q += u * u;
                }
                sum += u64::from(s);
                squares += u64::from(q);
            }
        }
        if count == 0 {
            return Err(DataError::TooFew { part: "train", count: 0, need: 1 });
        }
        let spread = u128::from(count) * u128::from(squares) - u128::from(sum) * u128::from(sum);
        if spread == 0 {
            return Err(DataError::Blank { value: (sum / count) as u8 });
        }
        let n = 255.0 * count as f64;
        Ok(Preprocessing {
            size,
            channels: 1,
            mean: (sum as f64 / n) as f32,
            std: ((spread as f64).sqrt() / n) as f32,
        })
    }

    /// The input for each gray value, computed in f64 and rounded once.
    pub fn table(&self) -> [f32; 256] {
        std::array::from_fn(|u| ((u as f64 / 255.0 - f64::from(self.mean)) / f64::from(self.std)) as f32)
    }

    /// Reads a radiograph as an input of shape `[1, 1, size, size]`.
    ///
    /// # Errors
    /// As [`read_png`].
    pub fn read(&self, path: &Path, cpu: &Cpu) -> Result<Vec<f32>, DataError> {
        let mut pixels = vec![0; self.size * self.size];
        Resizer::new(self.size).resize(&read_png(path)?, &mut pixels, cpu);
        let table = self.table();
        Ok(pixels.iter().map(|&u| table[usize::from(u)]).collect())
    }
}
