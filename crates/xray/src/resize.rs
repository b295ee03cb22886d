//! Resizing in fixed point: antialiased bilinear interpolation (a triangle filter), integers only.
//!
//! A side of `n` pixels becomes one of `m`. In units of 1/(2m) of an input pixel, output `i` is centred at
//! `(2i+1)·n`, input `j` at `(2j+1)·m`, and
//!
//! ```text
//! w(i,j) = max(0, 2·max(n,m) − |(2i+1)·n − (2j+1)·m|)
//! ```
//!
//! which for `m < n` averages over about `2n/m` pixels and for `m ≥ n` is plain bilinear interpolation. The
//! weights of an output are divided by their sum (at a border the filter is cut and grows by that) and
//! written in 1/65536 by rounding the running sum, so that they sum to exactly 65536 and each is off by
//! less than 1/65536: `q(i,j) = R(j+1) − R(j)`, `R(j) = (65536·Σ_{k<j} w(i,k) + W/2) / W`.
//!
//! First the rows are combined, giving values with 8 fractional bits, rounded; then the columns, rounded
//! once to 8 bits. With `T` weights a pixel vertically and `U` horizontally the result is within
//! `1/2 + 1/512 + 255·(T+U)/2^17` of the exact sum, less than one gray level while `T + U ≤ 255`.
//! Constant images stay as they are, and so does an image that already has the size.
//!
//! The picture is stretched to a square, as all published recipes for these data do.

use crate::decode::Gray;
use kinone_kernels::{Cpu, Task};

/// The weights of one side: for each output its first input and its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Weights {
    starts: Vec<usize>,
    /// `weights[ends[i-1]..ends[i]]` belong to output `i`.
    ends: Vec<usize>,
    weights: Vec<u32>,
}

impl Weights {
    fn new(n: usize, m: usize) -> Weights {
        let (n64, m64) = (n as i64, m as i64);
        let reach = 2 * n64.max(m64);
        let mut all =
            Weights { starts: Vec::with_capacity(m), ends: Vec::with_capacity(m), weights: Vec::new() };
        for i in 0..m64 {
            let centre = (2 * i + 1) * n64;
            let triangle = |j: i64| (reach - (centre - (2 * j + 1) * m64).abs()).max(0) as u64;
            // (2j+1)·m > centre − reach and < centre + reach.
            let first = ((centre - reach).div_euclid(m64) / 2).max(0);
            let last = ((centre + reach) / m64 / 2).min(n64 - 1);
            let (first, last) = (
                (first..=last).find(|&j| triangle(j) > 0).unwrap_or(first),
                (first..=last).rev().find(|&j| triangle(j) > 0).unwrap_or(last),
            );
            let total: u64 = (first..=last).map(triangle).sum();
            let mut running = 0;
            let mut rounded = 0;
            for j in first..=last {
                running += triangle(j);
                let next = ((running << 16) + total / 2) / total;
                all.weights.push((next - rounded) as u32);
                rounded = next;
            }
            all.starts.push(first as usize);
            all.ends.push(all.weights.len());
        }
        all
    }

    /// The first input and the weights of output `i`.
    #[inline(always)]
    fn of(&self, i: usize) -> (usize, &[u32]) {
        let begin = if i == 0 { 0 } else { self.ends[i - 1] };
        (self.starts[i], &self.weights[begin..self.ends[i]])
    }
}

/// Resizes images to `size`×`size`, keeping the weights of the last input size.
#[derive(Clone, Debug)]
pub struct Resizer {
    size: usize,
    columns: Weights,
    rows: Weights,
    from: (usize, usize),
    middle: Vec<u16>,
    sums: Vec<u32>,
}

impl Resizer {
    /// A resizer to `size`×`size`; `size` is at least 1.
    pub fn new(size: usize) -> Resizer {
        let none = Weights { starts: Vec::new(), ends: Vec::new(), weights: Vec::new() };
        Resizer {
            size,
            columns: none.clone(),
            rows: none,
            from: (0, 0),
            middle: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// Writes the resized `image` to `out`, which has `size·size` elements.
    ///
    /// # Panics
    /// When `out` has another length or the image is empty or its pixels do not match its sides.
    pub fn resize(&mut self, image: &Gray, out: &mut [u8], cpu: &Cpu) {
        assert!(out.len() == self.size * self.size, "output of the wrong size");
        assert!(image.width > 0 && image.height > 0, "empty image");
        assert!(image.pixels.len() == image.width * image.height, "pixels do not match the sides");
        if (image.width, image.height) == (self.size, self.size) {
            out.copy_from_slice(&image.pixels);
            return;
        }
        if self.from != (image.width, image.height) {
            self.columns = Weights::new(image.width, self.size);
            self.rows = Weights::new(image.height, self.size);
            self.from = (image.width, image.height);
            self.middle = vec![0; image.width];
            self.sums = vec![0; image.width];
        }
        cpu.vectorize(Passes { resizer: self, image, out });
    }
}

struct Passes<'a> {
    resizer: &'a mut Resizer,
    image: &'a Gray,
    out: &'a mut [u8],
}

impl Task for Passes<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Resizer { size, columns, rows, middle, sums, .. } = self.resizer;
        let width = self.image.width;
        for (v, out) in self.out.chunks_exact_mut(*size).enumerate() {
            let (first, weights) = rows.of(v);
            sums.fill(0);
            for (k, &weight) in weights.iter().enumerate() {
                let row = &self.image.pixels[(first + k) * width..][..width];
                for (sum, &pixel) in sums.iter_mut().zip(row) {
                    *sum += weight * u32::from(pixel);
                }
            }
            // At most 65536·255 + 128 before and 65280 after the shift: 8 fractional bits remain.
            for (value, &sum) in middle.iter_mut().zip(&*sums) {
                *value = ((sum + 128) >> 8) as u16;
            }
            for (h, pixel) in out.iter_mut().enumerate() {
                let (first, weights) = columns.of(h);
                let mut sum = 0_u32;
                for (&weight, &value) in weights.iter().zip(&middle[first..first + weights.len()]) {
                    sum += weight * u32::from(value);
                }
                // At most 65536·65280 + 2^23, which is below 2^32.
                *pixel = ((sum + (1 << 23)) >> 24) as u8;
            }
        }
    }
}
