//! From a directory or a source to batches.

use kinone_core::rng::Stream;
use kinone_kernels::{Cpu, Isa};
use kinone_xray::{
    Classes, DataError, Dataset, Findings, Loader, Options, Part, Preprocessing, Record, Sex, Source, View,
    write_nih_directory,
};
use std::fs;
use std::path::Path;

/// Noise with three images a patient, given out from the last name to the first.
struct Noise {
    count: usize,
}

impl Source for Noise {
    fn description(&self) -> String {
        format!("noise, {} images", self.count)
    }
    fn count(&self) -> usize {
        self.count
    }
    fn size(&self) -> usize {
        24
    }
    fn record(&self, index: usize) -> Record {
        let k = (self.count - 1 - index) as u32;
        Record {
            patient: 1 + k / 3,
            follow_up: k % 3,
            age: 40 + (k % 50) as u16,
            sex: if k.is_multiple_of(2) { Sex::Female } else { Sex::Male },
            view: if k.is_multiple_of(5) { View::AnteroPosterior } else { View::PosteroAnterior },
            findings: Findings::from_bits((k * 37 % (1 << 14)) as u16 & 0x2041).unwrap(),
        }
    }
    fn pixels(&self, index: usize) -> Vec<u8> {
        let stream = Stream::new(1, "noise").at(0, index as u64);
        (0..24 * 24).map(|k| stream.bits(k) as u8).collect()
    }
}

fn cpu(threads: usize) -> Cpu {
    Cpu::new(Isa::Scalar, threads).unwrap()
}

fn options() -> Options {
    Options { size: 16, ..Options::default() }
}

fn load(directory: &Path, options: &Options) -> Result<Dataset, DataError> {
    Dataset::from_directory(directory, options, &cpu(2), &|_, _| {})
}

/// A directory with 30 images of 10 patients.
fn directory() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_nih_directory(folder.path(), &Noise { count: 30 }, 42, &cpu(2), &|_, _| {}).unwrap();
    folder
}

fn all_pixels(data: &Dataset) -> Vec<u8> {
    (0..data.entries().len()).flat_map(|k| data.pixels(k).to_vec()).collect()
}

#[test]
fn a_written_source_comes_back_from_its_directory() {
    let folder = directory();
    let read = load(folder.path(), &options()).unwrap();
    let made = Dataset::from_source(&Noise { count: 30 }, &options(), &cpu(2), &|_, _| {}).unwrap();
    assert_eq!(all_pixels(&read), all_pixels(&made));
    for (read, made) in read.entries().iter().zip(made.entries()) {
        assert_eq!((&read.image, read.patient, read.findings), (&made.image, made.patient, made.findings));
        assert_eq!(read.part == Part::Test, made.part == Part::Test);
    }
    assert_eq!((read.report().images[2], read.report().patients[2]), (6, 2));
    assert_eq!(read.report().images.iter().sum::<usize>(), 30);
    assert_eq!(made.report().origin, "noise, 30 images");
    assert!(read.entries().is_sorted_by_key(|entry| entry.image.clone()));
    // Nothing but the four things is there, and a second writing refuses to mix with them.
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["Data_Entry_2017.csv", "images", "test_list.txt", "train_val_list.txt"]);
    assert_eq!(fs::read_dir(folder.path().join("images")).unwrap().count(), 30);
    let again = write_nih_directory(folder.path(), &Noise { count: 3 }, 42, &cpu(1), &|_, _| {});
    assert!(matches!(again, Err(DataError::NotEmpty { .. })));
}

#[test]
fn threads_and_the_order_of_rows_and_folders_change_nothing() {
    let folder = directory();
    let path = folder.path();
    let expected = load(path, &options()).unwrap();
    for threads in [1, 2, 3, 7] {
        let data = Dataset::from_directory(path, &options(), &cpu(threads), &|_, _| {}).unwrap();
        assert_eq!(all_pixels(&data), all_pixels(&expected));
        assert_eq!(data.entries(), expected.entries());
    }
    let text = fs::read_to_string(path.join("Data_Entry_2017.csv")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].reverse();
    fs::write(path.join("Data_Entry_2017.csv"), lines.join("\n")).unwrap();
    // As the archives unpack: two folders, one with a folder inside.
    fs::create_dir_all(path.join("images_002/images")).unwrap();
    fs::rename(path.join("images"), path.join("images_001")).unwrap();
    for entry in expected.entries().iter().step_by(2) {
        fs::rename(
            path.join("images_001").join(&entry.image),
            path.join("images_002/images").join(&entry.image),
        )
        .unwrap();
    }
    let data = load(path, &options()).unwrap();
    assert_eq!(data.entries(), expected.entries());
    assert_eq!(all_pixels(&data), all_pixels(&expected));
    assert_eq!(data.preprocessing().unwrap(), expected.preprocessing().unwrap());
}

#[test]
fn progress_counts_every_image_once_in_order() {
    let seen = std::sync::Mutex::new(Vec::new());
    Dataset::from_source(&Noise { count: 30 }, &options(), &cpu(3), &|done, all| {
        seen.lock().unwrap().push((done, all));
    })
    .unwrap();
    assert!(seen.into_inner().unwrap().into_iter().eq((1..=30).map(|k| (k, 30))));
}

#[test]
fn missing_and_surplus_images_are_counted() {
    let folder = directory();
    let images = folder.path().join("images");
    fs::remove_file(images.join("00000001_000.png")).unwrap();
    fs::remove_file(images.join("00000003_002.png")).unwrap();
    fs::copy(images.join("00000002_000.png"), images.join("surplus.PNG")).unwrap();
    let refused = load(folder.path(), &options()).unwrap_err();
    assert!(
        matches!(&refused, DataError::Missing { count: 2, rows: 30, first, .. }
        if first == &["00000001_000.png", "00000003_002.png"]),
        "{refused}"
    );
    let data = load(folder.path(), &Options { allow_missing: true, ..options() }).unwrap();
    assert_eq!((data.report().missing.count, data.report().without_row, data.entries().len()), (2, 1, 28));
    assert_eq!(data.report().missing.sha256.len(), 64);
}

#[test]
fn the_first_bad_image_by_name_is_the_error_and_can_be_skipped() {
    let folder = directory();
    let whole = load(folder.path(), &options()).unwrap();
    let images = folder.path().join("images");
    for name in ["00000009_001.png", "00000004_001.png"] {
        let bytes = fs::read(images.join(name)).unwrap();
        fs::write(images.join(name), &bytes[..bytes.len() / 2]).unwrap();
    }
    for threads in [1, 3] {
        let error =
            Dataset::from_directory(folder.path(), &options(), &cpu(threads), &|_, _| {}).unwrap_err();
        assert!(error.to_string().contains("00000004_001.png"), "{error}");
    }
    let data = load(folder.path(), &Options { skip_bad: true, ..options() }).unwrap();
    assert_eq!(data.report().bad.first, ["00000004_001.png", "00000009_001.png"]);
    assert!(data.report().first_bad.as_ref().unwrap().contains("00000004_001.png"));
    assert_eq!(data.entries().len(), 28);
    for (k, entry) in data.entries().iter().enumerate() {
        let before = whole.entries().iter().position(|other| other.image == entry.image).unwrap();
        assert_eq!(data.pixels(k), whole.pixels(before), "{}", entry.image);
    }
}

#[test]
fn a_part_loaded_alone_is_the_part_of_the_whole() {
    let folder = directory();
    let whole = load(folder.path(), &options()).unwrap();
    let test = load(folder.path(), &Options { parts: vec![Part::Test], ..options() }).unwrap();
    assert_eq!(test.entries().len(), whole.part(Part::Test).len());
    for (k, &index) in whole.part(Part::Test).iter().enumerate() {
        assert_eq!(test.entries()[k], whole.entries()[index]);
        assert_eq!(test.pixels(k), whole.pixels(index));
    }
    assert!(matches!(test.preprocessing(), Err(DataError::TooFew { .. })));
}

#[test]
fn directories_that_hold_no_data_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let failure = |path: &Path| load(path, &options()).unwrap_err();
    assert!(matches!(failure(&folder.path().join("absent")), DataError::NotADirectory { .. }));
    assert!(matches!(failure(folder.path()), DataError::NoCsv { .. }));
    fs::write(folder.path().join("metadata.csv"), "x").unwrap();
    assert!(matches!(failure(folder.path()), DataError::NoImages { .. }));
    let twice = directory();
    let name = "00000002_000.png";
    fs::copy(twice.path().join("images").join(name), twice.path().join(name)).unwrap();
    assert!(matches!(failure(twice.path()), DataError::TwoImages { .. }));
    let small = Options { size: 0, ..options() };
    assert!(matches!(load(twice.path(), &small), Err(DataError::Value { .. })));
}

#[test]
fn normalization_is_the_exact_mean_and_deviation_and_survives_json() {
    let pixels = [[0_u8, 255, 10, 3], [7, 7, 200, 1]];
    let found = Preprocessing::of_pixels(2, pixels.iter().map(|p| &p[..])).unwrap();
    // Σu = 483, Σu² = 105,233, N = 8: N·Q − S² = 608,575.
    assert_eq!(found.mean.to_bits(), ((483.0 / 2040.0) as f32).to_bits());
    assert_eq!(found.std.to_bits(), ((608_575_f64.sqrt() / 2040.0) as f32).to_bits());
    for (u, x) in found.table().into_iter().enumerate() {
        let exact = (u as f64 / 255.0 - f64::from(found.mean)) / f64::from(found.std);
        assert_eq!(x.to_bits(), (exact as f32).to_bits());
    }
    let stream = Stream::new(2, "json");
    for k in 0..1000 {
        let [mean, std] =
            [stream.bits(2 * k), stream.bits(2 * k + 1)].map(|bits| f32::from_bits(bits & 0x7f7f_ffff));
        let json = serde_json::to_string(&Preprocessing { mean, std, ..found }).unwrap();
        let back: Preprocessing = serde_json::from_str(&json).unwrap();
        assert_eq!((back.mean.to_bits(), back.std.to_bits()), (mean.to_bits(), std.to_bits()));
    }
    let blank = Preprocessing::of_pixels(2, [&[9_u8; 4][..]]).unwrap_err();
    assert!(matches!(blank, DataError::Blank { value: 9 }));
}

#[test]
fn batches_are_a_function_of_seed_and_epoch() {
    let options = Options { classes: Classes::WithNoFinding, ..options() };
    let data = Dataset::from_source(&Noise { count: 60 }, &options, &cpu(2), &|_, _| {}).unwrap();
    let train = data.part(Part::Train);
    assert_eq!(train.len(), 42);
    let preprocessing = data.preprocessing().unwrap();
    let table = preprocessing.table();
    let loader = |size| Loader::new(&data, Part::Train, &preprocessing, size).unwrap();
    let order =
        |seed, epoch| loader(8).train(seed, epoch).flat_map(|batch| batch.indices).collect::<Vec<_>>();
    let expected: Vec<usize> =
        Stream::new(7, "shuffle").at(3, 0).permutation(42).into_iter().map(|k| train[k]).collect();
    assert_eq!(order(7, 3), expected);
    assert_ne!(order(7, 3), order(7, 4));
    assert_ne!(order(7, 3), order(8, 3));

    for batch in loader(8).train(7, 3).chain(loader(8).eval()) {
        assert_eq!(
            (batch.images.len(), batch.targets.len()),
            (batch.indices.len() * 256, batch.indices.len() * 15)
        );
        for (k, &index) in batch.indices.iter().enumerate() {
            let image = &batch.images[k * 256..(k + 1) * 256];
            assert!(image.iter().zip(data.pixels(index)).all(|(x, &u)| *x == table[usize::from(u)]));
            let mut targets = [0.0; 15];
            data.entries()[index].findings.write_targets(&mut targets);
            assert_eq!(batch.targets[k * 15..(k + 1) * 15], targets);
        }
    }
    // 42 = 5·8 + 2 = 41 + 1 = 2·21: a last batch of one is left out of training, unless all are of one.
    let sizes = |size| loader(size).train(7, 0).map(|batch| batch.indices.len()).collect::<Vec<_>>();
    assert_eq!(sizes(8), [8, 8, 8, 8, 8, 2]);
    assert_eq!(sizes(41), [41]);
    assert_eq!(sizes(100), [42]);
    assert_eq!(sizes(1), [1; 42]);
    let evaluated: Vec<usize> = loader(41).eval().flat_map(|batch| batch.indices).collect();
    assert_eq!(evaluated, train);
    for size in [1, 8, 41, 42, 100] {
        assert_eq!(loader(size).train_batches(), loader(size).train(0, 0).count());
        assert_eq!(loader(size).eval_batches(), loader(size).eval().count());
    }
    assert!(matches!(Loader::new(&data, Part::Train, &preprocessing, 0), Err(DataError::Value { .. })));
    let other = Preprocessing { size: 32, ..preprocessing };
    assert!(matches!(Loader::new(&data, Part::Train, &other, 8), Err(DataError::Value { .. })));
}
