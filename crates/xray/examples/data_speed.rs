//! The speed of the way from PNG files to batches, beside the crates `image` and `fast_image_resize`.
//!
//! `data_speed [IMAGES [SIDE [SIZE]]] [--record FILE]`: radiographs of the built-in set, SIDE pixels a side as NIH's
//! are, are written as PNG files, decoded, resized to SIZE and put into batches. One thread, but for the row that says
//! otherwise. `--record` writes the rows to FILE, one JSON object a line.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions};
use image::imageops;
use kinone_kernels::{Cpu, Isa};
use kinone_xray::decode::decode_png;
use kinone_xray::resize::Resizer;
use kinone_xray::synth::Synth;
use kinone_xray::{Dataset, Gray, Loader, Options, Part, write_nih_directory};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Images of a batch.
const BATCH: usize = 32;
/// Spent on each row, at least.
const SECONDS: f64 = 0.5;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("data_speed: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Arguments { images, side, size, record } = Arguments::read()?;
    let (one, all) = (Cpu::new(Isa::selected()?, 1)?, Cpu::detect()?);
    let folder = tempfile::tempdir()?;
    let directory = folder.path().join("nih");
    write_nih_directory(&directory, &Synth::new(42, images, side)?, 42, &all, &|_, _| {})?;
    let files = read_files(&directory.join("images"))?;
    let bytes: usize = files.iter().map(Vec::len).sum();
    let mut table = Table::default();
    println!(
        "{images} images of {side}x{side}, {} kB each, to {size}x{size}; {}",
        bytes / images / 1000,
        one.isa()
    );
    println!("{:<44} {:>10} {:>12}   difference in gray levels", "", "ms/image", "images/s");

    let ours: Vec<Gray> = files.iter().map(|file| decode_png(file)).collect::<Result<_, _>>()?;
    table.row("decode", "kinone", images, None, || files.iter().all(|file| decode_png(file).is_ok()))?;
    let decode = |file: &[u8]| image::load_from_memory(file).map(image::DynamicImage::into_luma8);
    let theirs: Vec<_> = files.iter().map(|file| decode(file)).collect::<Result<_, _>>()?;
    let apart = Difference::of(ours.iter().map(|i| &i.pixels[..]), theirs.iter().map(|i| &i.as_raw()[..]));
    table.row("decode", "image", images, Some(apart), || files.iter().all(|file| decode(file).is_ok()))?;

    let mut resizer = Resizer::new(size);
    let mut small = vec![vec![0; size * size]; images];
    table.row("resize", "kinone", images, None, || {
        ours.iter().zip(&mut small).for_each(|(image, out)| resizer.resize(image, out, &one));
        true
    })?;
    let pixels = |n: usize| u32::try_from(n);
    let (from, to) = (pixels(side)?, pixels(size)?);
    let shrink = |image| imageops::resize(image, to, to, imageops::FilterType::Triangle);
    let shrunk: Vec<_> = theirs.iter().map(shrink).collect();
    let apart = Difference::of(small.iter().map(|i| &i[..]), shrunk.iter().map(|i| &i.as_raw()[..]));
    table.row("resize", "image", images, Some(apart), || {
        theirs.iter().map(shrink).all(|image| image.width() == to)
    })?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let mut fast = fast_image_resize::Resizer::new();
    let mut shrunk: Vec<_> = (0..images).map(|_| Image::new(to, to, PixelType::U8)).collect();
    let mut shrink = |shrunk: &mut [Image]| {
        ours.iter().zip(shrunk).all(|(image, out)| {
            ImageRef::new(from, from, &image.pixels, PixelType::U8)
                .is_ok_and(|image| fast.resize(&image, out, &options).is_ok())
        })
    };
    if !shrink(&mut shrunk) {
        return Err("fast_image_resize refused an image".into());
    }
    let apart = Difference::of(small.iter().map(|i| &i[..]), shrunk.iter().map(Image::buffer));
    table.row("resize", "fast_image_resize", images, Some(apart), || shrink(&mut shrunk))?;

    let options = Options { size, ..Options::default() };
    let load = || Dataset::from_directory(&directory, &options, &all, &|_, _| {});
    let data = load()?;
    let name = format!("load the directory, {} threads", all.threads());
    table.row(&name, "kinone", images, None, || load().is_ok())?;
    let preprocessing = data.preprocessing()?;
    let loader = Loader::new(&data, Part::Train, &preprocessing, BATCH)?;
    let count = loader.train_images();
    table.row("batches from memory", "kinone", count, None, || {
        loader.train(1, 0).map(|batch| batch.indices.len()).sum::<usize>() == count
    })?;
    if let Some(path) = record {
        let run = format!(
            "{{\"images\": {images}, \"side\": {side}, \"size\": {size}, \"kb_per_file\": {}, \"isa\": \"{}\", \
             \"threads\": {}}}\n",
            bytes / images / 1000,
            one.isa(),
            all.threads()
        );
        std::fs::write(&path, run + &table.lines).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

struct Arguments {
    images: usize,
    side: usize,
    size: usize,
    record: Option<String>,
}

impl Arguments {
    fn read() -> Result<Arguments, Box<dyn Error>> {
        let (mut numbers, mut record) = (Vec::new(), None);
        let mut arguments = std::env::args().skip(1);
        while let Some(text) = arguments.next() {
            match text.as_str() {
                "--record" => record = Some(arguments.next().ok_or("--record needs a file")?),
                _ => match text.parse() {
                    Ok(number) if number > 0 && numbers.len() < 3 => numbers.push(number),
                    _ => {
                        return Err(format!(
                            "`{text}`: usage: data_speed [IMAGES [SIDE [SIZE]]] [--record FILE]"
                        )
                        .into());
                    }
                },
            }
        }
        let number = |index: usize, usual| numbers.get(index).copied().unwrap_or(usual);
        Ok(Arguments { images: number(0, 32), side: number(1, 1024), size: number(2, 224), record })
    }
}

/// The contents of all files of a folder, by name.
fn read_files(folder: &Path) -> Result<Vec<Vec<u8>>, std::io::Error> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// How far the gray values of two sets of images lie apart.
struct Difference {
    largest: u8,
    mean: f64,
}

impl Difference {
    fn of<'a>(ours: impl Iterator<Item = &'a [u8]>, theirs: impl Iterator<Item = &'a [u8]>) -> Difference {
        let (mut largest, mut sum, mut count) = (0, 0_u64, 0_u64);
        for (ours, theirs) in ours.zip(theirs) {
            for (a, b) in ours.iter().zip(theirs) {
                let apart = a.abs_diff(*b);
                largest = apart.max(largest);
                sum += u64::from(apart);
                count += 1;
            }
        }
        Difference { largest, mean: sum as f64 / count as f64 }
    }
}

#[derive(Default)]
struct Table {
    /// The rows, one JSON object a line.
    lines: String,
}

impl Table {
    /// Measures `work` on `images` images: the fastest of at least three runs.
    fn row(
        &mut self,
        step: &str,
        library: &str,
        images: usize,
        apart: Option<Difference>,
        mut work: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let (mut best, mut spent, mut runs) = (f64::INFINITY, 0.0, 0);
        while runs < 3 || spent < SECONDS {
            let start = Instant::now();
            if !work() {
                return Err(format!("{step}: {library} failed"));
            }
            let seconds = start.elapsed().as_secs_f64();
            (spent, runs) = (spent + seconds, runs + 1);
            if seconds < best {
                best = seconds;
            }
        }
        let ms = 1e3 * best / images as f64;
        let name = format!("{step}: {library}");
        let shown =
            apart.as_ref().map_or(String::new(), |d| format!("at most {}, mean {:.3}", d.largest, d.mean));
        println!("{name:<44} {ms:>10.3} {:>12.0}   {shown}", 1e3 / ms);
        let apart = apart.map_or(String::new(), |Difference { largest, mean }| {
            format!(", \"largest_difference\": {largest}, \"mean_difference\": {mean:.4}")
        });
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.lines,
            "{{\"step\": \"{step}\", \"library\": \"{library}\", \"ms_per_image\": {ms:.4}, \"images_per_second\": \
             {:.1}{apart}}}",
            1e3 / ms
        );
        Ok(())
    }
}
