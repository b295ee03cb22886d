//! Label files and lists, sound and broken.

use kinone_xray::directory::find_csv;
use kinone_xray::{DataError, Lists, Part, Sex, Split, Table, View};
use std::io::Write as _;
use std::path::Path;

const HEADER: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View \
                      Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]";

fn parse(text: impl AsRef<[u8]>) -> Result<Table, DataError> {
    Table::parse(Path::new("labels.csv"), text.as_ref())
}

/// The message of a failure, which is one line and names the file.
fn failure(text: impl AsRef<[u8]>) -> String {
    let message = parse(text).unwrap_err().to_string();
    assert!(
        message.starts_with("labels.csv") && !message.contains('\n') && message.len() < 1000,
        "{message}"
    );
    message
}

fn row(image: &str, labels: &str, patient: &str) -> String {
    format!("{image},{labels},0,{patient},58,M,PA,2682,2749,0.143,0.143")
}

/// A file of the header and two rows with these lines ends.
fn two(end: &str) -> String {
    [HEADER, &row("b.png", "Mass|Nodule", "2"), &row("a.png", "No Finding", "1"), ""].join(end)
}

#[test]
fn marks_line_ends_quotes_order_and_further_columns_change_nothing() {
    let rows = parse(two("\n")).unwrap().rows;
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].image.as_str(), rows[0].number, rows[1].number), ("a.png", 3, 2));
    assert_eq!(rows[1].findings.to_string(), "Mass|Nodule");
    assert_eq!(
        (rows[1].age, rows[1].sex, rows[1].view),
        (Some(58), Some(Sex::Male), Some(View::PosteroAnterior))
    );
    let same = [
        two("\r\n"),
        two("\r"),
        two("\n").trim_end().to_owned(),
        format!("\u{feff}{}", two("\n")),
        two(",\n").trim_end_matches(",\n").to_owned() + ",",
        two("\n").replace("Mass|Nodule", "\"Mass|Nodule\"").replace(",PA,", ",\"PA\","),
        two("\n").replace("Patient Gender", "Patient Sex").replace("Image Index", " image index "),
    ];
    for text in same {
        assert_eq!(parse(&text).unwrap().rows, rows, "{text:?}");
    }
    let moved = "Note,Patient ID,Finding Labels,Patient Age,Image Index,View Position,Patient Gender,Follow-up #\n\
                 \"a, \"\"b\"\"\nc\",2,Nodule|Mass,058Y,b.png,PA,M,0\n,1,no finding,58,a.png,PA,M,0";
    assert_eq!(parse(moved).unwrap().rows, rows);
}

#[test]
fn ages_are_years_and_implausible_ones_unknown() {
    let cases = [
        ("58", Some(58)),
        ("058Y", Some(58)),
        ("011M", Some(0)),
        ("013M", Some(1)),
        ("003D", Some(0)),
        ("414", None),
        ("", None),
        ("x", None),
        ("Y", None),
        ("-1", None),
    ];
    for (text, age) in cases {
        let table = parse(two("\n").replace(",58,", &format!(",{text},"))).unwrap();
        assert_eq!(table.rows[0].age, age, "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_row() {
    let bad = |from: &str, to: &str| failure(two("\n").replace(from, to));
    assert!(bad("Mass|Nodule", "Infiltrate").contains("row 2"));
    assert!(bad("Mass|Nodule", "Infiltrate").contains("'Infiltration'"));
    assert!(bad("No Finding", "").contains("row 3"));
    assert!(bad("Mass|Nodule", "Mass|").contains("empty label"));
    assert!(bad("Mass|Nodule", "No Finding|Mass").contains("row 2"));
    assert!(bad("0,2,58", "0,two,58").contains("'two'"));
    assert!(bad("0,2,58", "0,-2,58").contains("row 2"));
    assert!(bad("0,1,58,M,PA,2682,2749,0.143,0.143", "0,1,58").contains("5 fields where the header has 11"));
    assert!(bad("0.143\n", "0.143,extra\n").contains("12 fields"));
    let mut bytes = two("\n").into_bytes();
    let at = two("\n").find("a.png").unwrap();
    bytes[at] = 0xff;
    assert!(failure(&bytes).contains("row 3") && failure(&bytes).contains("UTF-8"));
}

#[test]
fn a_missing_column_lists_what_is_there_and_what_is_needed() {
    let message = failure(two("\n").replace("Finding Labels", "Labels"));
    for part in ["no column 'Finding Labels'", "'Labels'", "'Patient ID'", "'Image Index'"] {
        assert!(message.contains(part), "{message}");
    }
    failure("<html><body>not found</body></html>");
    failure(vec![0xff; 1000]);
}

#[test]
fn files_without_rows_and_open_quotes_are_errors() {
    assert!(failure("").contains("empty"));
    assert!(failure("\n\n").contains("empty"));
    assert!(failure(HEADER).contains("no row"));
    assert!(failure("\"Image Index").contains("labels.csv"));
    // In the last column the quote would swallow every later row.
    let open = two("\n").replacen("0.143\n", "\"0.143\n", 1);
    assert!(failure(open).contains("row 2 (the header is row 1): a quote is not closed"));
    let long = two("\n") + "\"" + &"x".repeat(10 << 20);
    assert!(failure(long).contains("row 4 (the header is row 1): longer than 65536 bytes"));
    let line = two("\n") + &"x".repeat(10 << 20);
    assert!(failure(line).contains("row 4 (the header is row 1): longer than 65536 bytes"));
}

#[test]
fn names_that_leave_the_folder_are_errors() {
    let long = "x".repeat(4096);
    for name in
        ["../a.png", "/etc/passwd", "a\0.png", "a\\b.png", "http://x/a.png", "", ".", "..", "a/b", &long]
    {
        assert!(failure(two("\n").replace("a.png", name)).contains("row 3"), "{name}");
    }
}

#[test]
fn repeated_rows_count_once_and_contradictions_are_errors() {
    let table = parse(two("\n") + &row("a.png", "No Finding", "1") + "\n").unwrap();
    assert_eq!((table.rows.len(), table.repeated, table.rows[0].number), (2, 1, 3));
    for other in [row("a.png", "Mass", "1"), row("a.png", "No Finding", "7")] {
        let message = failure(two("\n") + &other);
        assert!(message.contains("row 4") && message.contains("row 3"), "{message}");
    }
}

/// A table of `patients` patients with `images` images each.
fn table(patients: usize, images: usize) -> Table {
    let mut text = format!("{HEADER}\n");
    for patient in 1..=patients {
        for image in 0..images {
            text += &row(&format!("{patient:08}_{image:03}.png"), "No Finding", &patient.to_string());
            text.push('\n');
        }
    }
    parse(text).unwrap()
}

fn lists(train_val: &[&str], test: &[&str]) -> Result<Lists, DataError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train_val_list.txt"), train_val.join("\n")).unwrap();
    std::fs::write(folder.path().join("test_list.txt"), test.join("\r\n")).unwrap();
    Lists::find(folder.path()).map(Option::unwrap)
}

#[test]
fn no_patient_is_in_two_parts_and_shares_are_exact() {
    for (patients, shares) in
        [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1]), (10, [7, 1, 2]), (257, [181, 25, 51])]
    {
        let table = table(patients, 3);
        for seed in [0, 42] {
            let split = Split::of(&table, None, seed).unwrap();
            let of = |part| {
                let mut found: Vec<u32> = split.rows(part).map(|row| table.rows[row].patient).collect();
                assert_eq!(found.len() % 3, 0, "a patient is in two parts");
                found.dedup();
                found.len()
            };
            assert_eq!(Part::ALL.map(of), shares, "{patients} patients");
            assert_eq!(
                split.description,
                format!("by patient, 70 % train, 10 % validation, 20 % test, seed {seed}")
            );
        }
    }
    let table = table(257, 1);
    assert_ne!(Split::of(&table, None, 1).unwrap(), Split::of(&table, None, 2).unwrap());
}

#[test]
fn the_split_of_a_seed_is_pinned() {
    let split = Split::by_patient(&(1..=20).collect::<Vec<_>>(), 42);
    assert_eq!(split.rows(Part::Test).collect::<Vec<_>>(), [4, 17, 18, 19]);
    assert_eq!(split.rows(Part::Validation).collect::<Vec<_>>(), [3, 15]);
}

#[test]
fn lists_rule_and_an_eighth_of_their_patients_validates() {
    let table = table(20, 2);
    let names: Vec<&str> = table.rows.iter().map(|row| row.image.as_str()).collect();
    let lists_16 = lists(&names[..32], &names[32..38]).unwrap();
    assert!(!lists_16.are_official());
    let split = Split::of(&table, Some(&lists_16), 42).unwrap();
    assert!(split.description.starts_with("lists beside the label file (sha256 "), "{}", split.description);
    assert_eq!(split.rows(Part::Test).collect::<Vec<_>>(), (32..38).collect::<Vec<_>>());
    let validation: Vec<u32> = split.rows(Part::Validation).map(|row| table.rows[row].patient).collect();
    assert!(validation.len() == 4 && validation[0] == validation[1] && validation[2] == validation[3]);
    assert_eq!(split.rows(Part::Train).count(), 28);
    assert_eq!(split.parts[38..], [None, None]);
}

#[test]
fn lists_that_contradict_are_errors() {
    let table = table(4, 2);
    let names: Vec<&str> = table.rows.iter().map(|row| row.image.as_str()).collect();
    let failure = |train_val: &[&str], test: &[&str]| {
        let split = lists(train_val, test).and_then(|lists| Split::of(&table, Some(&lists), 42));
        split.unwrap_err().to_string()
    };
    assert!(failure(&names[..4], &["absent.png"]).contains("absent.png, which labels.csv lacks"));
    assert!(failure(&names[..3], &names[3..]).contains("patient 2 is in train_val_list.txt too"));
    assert!(failure(&names[..4], &names[3..]).contains("names 00000002_001.png, as train_val_list.txt does"));
    assert!(failure(&names[..4], &[names[6], names[6]]).contains("twice"));
    assert!(failure(&names[..4], &[]).contains("no image"));
    assert!(failure(&names[..4], &["../x.png"]).contains("line 1"));
    let folder = tempfile::tempdir().unwrap();
    assert!(Lists::find(folder.path()).unwrap().is_none());
    std::fs::write(folder.path().join("test_list.txt"), "a.png").unwrap();
    let message = Lists::find(folder.path()).unwrap_err().to_string();
    assert!(message.contains("train_val_list.txt: missing"), "{message}");
}

#[test]
fn a_compressed_file_is_the_same_table_and_a_cut_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Data_Entry_2017.csv.gz");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(two("\n").as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    std::fs::write(&path, &packed).unwrap();
    assert_eq!(find_csv(folder.path()).unwrap(), path);
    let newer = folder.path().join("Data_Entry_2017_v2020.csv");
    std::fs::write(&newer, two("\n")).unwrap();
    let message = find_csv(folder.path()).unwrap_err().to_string();
    assert!(message.contains("Data_Entry_2017.csv.gz and ") && message.contains("--csv-file"), "{message}");
    std::fs::remove_file(newer).unwrap();
    let (table, plain) = (Table::read(&path).unwrap(), parse(two("\n")).unwrap());
    assert_eq!((table.rows, table.sha256), (plain.rows, plain.sha256));

    std::fs::write(&path, &packed[..packed.len() - 9]).unwrap();
    let message = Table::read(&path).unwrap_err().to_string();
    assert!(
        message.contains("Data_Entry_2017.csv.gz") && message.contains("cannot be unpacked"),
        "{message}"
    );
}
