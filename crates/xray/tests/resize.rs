//! Resizing against its definition, evaluated in exact integers.

use kinone_core::rng::Stream;
use kinone_kernels::{Cpu, Isa};
use kinone_xray::Gray;
use kinone_xray::resize::Resizer;
use sha2::{Digest as _, Sha256};

fn noise(width: usize, height: usize) -> Gray {
    let stream = Stream::new(5, "resize").at(width as u32, height as u64);
    let pixels = (0..width * height).map(|k| stream.bits(k as u64) as u8).collect();
    Gray { width, height, pixels }
}

fn resize(image: &Gray, size: usize, cpu: &Cpu) -> Vec<u8> {
    let mut out = vec![0; size * size];
    Resizer::new(size).resize(image, &mut out, cpu);
    out
}

fn scalar() -> Cpu {
    Cpu::new(Isa::Scalar, 1).unwrap()
}

/// The triangle filter of output `i`, `n` pixels to `m`: every weight, and how many are not zero.
fn triangle(n: usize, m: usize, i: usize) -> (Vec<i128>, i128) {
    let reach = 2 * n.max(m) as i128;
    let centre = (2 * i as i128 + 1) * n as i128;
    let weight = |j: usize| (reach - (centre - (2 * j as i128 + 1) * m as i128).abs()).max(0);
    let weights: Vec<i128> = (0..n).map(weight).collect();
    let taps = weights.iter().filter(|&&w| w > 0).count() as i128;
    (weights, taps)
}

#[test]
fn every_pixel_is_within_the_stated_bound_of_the_exact_sum() {
    let sizes = [
        (64, 64, 9),
        (37, 53, 16),
        (100, 3, 7),
        (5, 8, 16),
        (1, 1, 5),
        (1, 90, 6),
        (128, 96, 2),
        (16, 17, 16),
    ];
    for (width, height, size) in sizes {
        let image = noise(width, height);
        let out = resize(&image, size, &scalar());
        for v in 0..size {
            let (rows, row_taps) = triangle(height, size, v);
            for h in 0..size {
                let (columns, column_taps) = triangle(width, size, h);
                let mut sum = 0;
                for (y, &row) in rows.iter().enumerate() {
                    for (x, &column) in columns.iter().enumerate() {
                        sum += row * column * i128::from(image.pixels[y * width + x]);
                    }
                }
                let total = rows.iter().sum::<i128>() * columns.iter().sum::<i128>();
                let error = (i128::from(out[v * size + h]) * total - sum).abs();
                // 1/2 + 1/512 + 255·(T + U)/2^17
                let bound = 65_536 + 256 + 255 * (row_taps + column_taps);
                assert!(error << 17 <= bound * total, "{width}x{height} to {size}, pixel ({v}, {h})");
            }
        }
    }
}

#[test]
fn constants_stay_and_an_image_of_the_size_stays() {
    for size in [1, 2, 7, 64, 224] {
        let image = noise(size, size);
        assert_eq!(resize(&image, size, &scalar()), image.pixels);
    }
    for value in [0, 1, 127, 254, 255] {
        for (width, height) in [(1, 1), (300, 7), (7, 300), (1024, 1024), (4096, 1)] {
            let image = Gray { width, height, pixels: vec![value; width * height] };
            assert!(resize(&image, 64, &scalar()).iter().all(|&pixel| pixel == value), "{value}");
        }
    }
}

#[test]
fn a_resizer_keeps_nothing_of_the_last_image() {
    let mut reused = Resizer::new(16);
    for (width, height) in [(40, 30), (30, 40), (30, 20), (16, 16), (40, 30), (2, 3)] {
        let image = noise(width, height);
        let mut out = vec![0; 256];
        reused.resize(&image, &mut out, &scalar());
        assert_eq!(out, resize(&image, 16, &scalar()), "{width}x{height}");
    }
}

#[test]
fn the_pixels_are_the_same_everywhere() {
    let golden = [
        (1024, 1024, 224, "4ab1c1e771da13d7"),
        (1024, 1024, 128, "75ba2b01e958f870"),
        (1024, 1024, 64, "a864cf33a724ae04"),
        (3000, 3000, 64, "7529a89679ef026f"),
        (1, 1, 64, "a1d8e952ebca8e3b"),
        (1, 5000, 64, "d0c55298a865eef3"),
        (5000, 1, 64, "553df7a0adb5b8e4"),
        (50, 70, 224, "3eead4b5350af88b"),
    ];
    for (width, height, size, hash) in golden {
        let image = noise(width, height);
        for isa in Isa::present() {
            let out = resize(&image, size, &Cpu::new(isa, 1).unwrap());
            let found: String = Sha256::digest(&out).iter().take(8).map(|b| format!("{b:02x}")).collect();
            assert_eq!(found, hash, "{width}x{height} to {size} with {isa}");
        }
    }
}
