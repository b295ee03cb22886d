//! The real NIH files, where `shared/data` lies beside the checkout; without them these tests say so and pass.

use flate2::read::GzDecoder;
use kinone_kernels::{Cpu, Isa};
use kinone_xray::directory::find_csv;
use kinone_xray::{
    Classes, DataError, Dataset, FINDINGS, Lists, Loader, NO_FINDING, Options, Part, Preprocessing, Split,
    Table, read_png,
};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Label counts of the 2020 file: all, train_val list, test list.
const COUNTS: [(&str, [usize; 3]); 15] = [
    ("Atelectasis", [11_559, 8_280, 3_279]),
    ("Cardiomegaly", [2_776, 1_707, 1_069]),
    ("Effusion", [13_317, 8_659, 4_658]),
    ("Infiltration", [19_894, 13_782, 6_112]),
    ("Mass", [5_782, 4_034, 1_748]),
    ("Nodule", [6_331, 4_708, 1_623]),
    ("Pneumonia", [1_431, 876, 555]),
    ("Pneumothorax", [5_302, 2_637, 2_665]),
    ("Consolidation", [4_667, 2_852, 1_815]),
    ("Edema", [2_303, 1_378, 925]),
    ("Emphysema", [2_516, 1_423, 1_093]),
    ("Fibrosis", [1_686, 1_251, 435]),
    ("Pleural_Thickening", [3_385, 2_242, 1_143]),
    ("Hernia", [227, 141, 86]),
    ("No Finding", [60_361, 50_500, 9_861]),
];

fn real() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/nih");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {}; the real NIH files are not here", path.display());
    None
}

fn label_file(real: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let file = std::fs::File::open(real.join("Data_Entry_2017_v2020.csv.gz")).unwrap();
    GzDecoder::new(file).read_to_end(&mut text).unwrap();
    text
}

fn two_threads() -> Cpu {
    Cpu::new(Isa::Scalar, 2).unwrap()
}

#[test]
fn the_real_label_file_has_the_published_counts_and_no_patient_is_in_two_parts() {
    let Some(real) = real() else { return };
    let table = Table::read(&find_csv(&real).unwrap()).unwrap();
    assert_eq!(table.sha256, "dc1d2df67fdc1c5a7601d48699cda2b13dc2c4841488b4183dcf04884dbaca11");
    assert_eq!((table.rows.len(), table.repeated), (112_120, 0));
    let lists = Lists::find(&real).unwrap().unwrap();
    assert!(lists.are_official());
    let split = Split::of(&table, Some(&lists), 42).unwrap();
    assert_eq!(split.description, "official lists; validation: 1/8 of the train_val patients, seed 42");

    let mut found = [[0; 3]; 15];
    for (row, part) in table.rows.iter().zip(&split.parts) {
        for (class, counts) in found.iter_mut().enumerate() {
            let has = usize::from(row.findings.has(class));
            counts[0] += has;
            counts[1] += has * usize::from(*part != Some(Part::Test));
            counts[2] += has * usize::from(*part == Some(Part::Test));
        }
    }
    for (class, (name, counts)) in COUNTS.into_iter().enumerate() {
        assert_eq!(*FINDINGS.get(class).unwrap_or(&NO_FINDING), name);
        assert_eq!(found[class], counts, "{name}");
    }

    let patients = Part::ALL.map(|part| {
        let mut patients: Vec<u32> = split.rows(part).map(|row| table.rows[row].patient).collect();
        patients.sort_unstable();
        patients.dedup();
        patients
    });
    let images = Part::ALL.map(|part| split.rows(part).count());
    assert_eq!((images[0] + images[1], images[2]), (86_524, 25_596));
    assert_eq!(patients.each_ref().map(Vec::len), [28_008 - 3_501, 3_501, 2_797]);
    let mut all = patients.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 30_805, "a patient is in two parts");
}

#[test]
fn the_2017_form_of_the_file_gives_the_same_table() {
    let Some(real) = real() else { return };
    let text = String::from_utf8(label_file(&real)).unwrap();
    let modern = Table::parse(Path::new("v2020"), text.as_bytes()).unwrap();
    let mut old = String::from("\u{feff}");
    for (number, line) in text.lines().enumerate() {
        let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
        if number > 0 {
            fields[4] = format!("{:0>3}Y", fields[4]);
        }
        old.push_str(&fields.join(","));
        old.push_str(",\r\n");
    }
    let old = Table::parse(Path::new("v2017"), old.as_bytes()).unwrap();
    assert_eq!(old.rows, modern.rows);
    assert!(modern.rows.iter().all(|row| row.sex.is_some() && row.view.is_some()));
    assert!(modern.rows.iter().all(|row| row.follow_up.is_some() && row.age.is_some()));
}

#[test]
fn the_real_images_load_with_the_rest_missing() {
    let Some(real) = real() else { return };
    let mut options = Options { size: 32, classes: Classes::WithNoFinding, ..Options::default() };
    let refused = Dataset::from_directory(&real, &options, &two_threads(), &|_, _| {}).unwrap_err();
    assert!(matches!(refused, DataError::Missing { count: 111_960, rows: 112_120, .. }), "{refused}");
    assert!(refused.to_string().contains("00000001_000.png, 00000001_001.png"), "{refused}");

    options.allow_missing = true;
    let data_2 = Dataset::from_directory(&real, &options, &two_threads(), &|_, _| {}).unwrap();
    let report = data_2.report();
    assert_eq!(report.images[0] + report.images[1], 140);
    assert_eq!((report.images[2], report.patients[2]), (20, 20));
    assert_eq!((report.missing.count, report.without_row, report.unlisted), (111_960, 0, 0));
    assert_eq!(data_2.entries().len(), 160);

    let preprocessing = data_2.preprocessing().unwrap();
    let loader = Loader::new(&data_2, Part::Test, &preprocessing, 8).unwrap();
    let batches: Vec<_> = loader.eval().collect();
    assert_eq!(batches.iter().map(|batch| batch.indices.len()).collect::<Vec<_>>(), [8, 8, 4]);
    // Prediction of one file sees what evaluation saw.
    for (k, &index) in batches[0].indices.iter().enumerate() {
        let path = real.join("images").join(&data_2.entries()[index].image);
        let one = preprocessing.read(&path, &two_threads()).unwrap();
        assert_eq!(one, batches[0].images[k * 32 * 32..(k + 1) * 32 * 32]);
    }
}

#[test]
fn real_images_decode_at_full_size_with_their_rgba_files_gray() {
    let Some(real) = real() else { return };
    let cpu = two_threads();
    let preprocessing = Preprocessing { size: 64, channels: 1, mean: 0.5, std: 0.25 };
    let (mut rgba, mut seen) = (0, 0);
    for entry in std::fs::read_dir(real.join("images")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        // Byte 25 of a PNG file is the colour type; 6 is RGBA.
        if bytes[25] == 6 {
            rgba += 1;
            let gray = read_png(&path).unwrap();
            assert_eq!((gray.width, gray.height), (1024, 1024));
            let mut decoder = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
            let mut raw = vec![0; decoder.output_buffer_size().unwrap()];
            decoder.next_frame(&mut raw).unwrap();
            assert!(raw.chunks_exact(4).zip(&gray.pixels).all(|(rgba, &gray)| rgba[..3] == [gray; 3]));
            assert_eq!(preprocessing.read(&path, &cpu).unwrap().len(), 64 * 64);
        }
        seen += 1;
    }
    assert_eq!((seen, rgba), (160, 3));
}
