//! Command lines and configuration files with mistakes in them.

use crate::harness::{Fault, Place, is_full, sample};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;

/// The program must refuse this with exit code 2 and these words, and make or change nothing.
fn refused<A: AsRef<OsStr>>(place: &Place, words: &[&str], arguments: &[A]) {
    let before = place.outside();
    place.run(arguments).failed(2, words);
    assert!(place.outside() == before && !place.path("run").exists(), "something was written");
}

/// The flags of a command, as its help lists them.
fn flags(place: &Place, command: &str) -> BTreeSet<String> {
    let help = place.run(&[command, "--help"]).succeeded().stdout;
    let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

const COMMANDS: [&str; 8] =
    ["train", "evaluate", "predict", "export-onnx", "verify", "diff", "synth", "gradcheck"];

#[test]
fn fault_i01_mistyped_flags() {
    let fault = Fault::new("I01");
    let place = Place::new();
    let mut cases = Vec::new();
    for command in COMMANDS {
        for flag in flags(&place, command) {
            let letters: Vec<char> = flag.chars().collect();
            let last = letters[letters.len() - 1];
            cases.push((command, format!("{flag}{last}"), flag.clone()));
            if letters.len() >= 6 {
                let mut swapped = letters.clone();
                swapped.swap(3, 4);
                cases.push((command, swapped.iter().collect(), flag.clone()));
                cases.push((command, letters[..letters.len() - 1].iter().collect(), flag.clone()));
                cases.push((command, flag[..2].to_owned() + &flag[2..].replace('-', "_"), flag));
            }
        }
        let (first, rest) = command.split_at(1);
        cases.push(("", format!("{first}{first}{rest}"), command.to_owned()));
    }
    // What is a flag after all, or was no change, is no mistake.
    let known: BTreeSet<String> = COMMANDS.iter().flat_map(|command| flags(&place, command)).collect();
    cases.retain(|(_, typed, _)| !known.contains(typed));
    let tried = sample(cases, 60);
    for (command, typed, meant) in &tried {
        let arguments: Vec<&str> = [*command, typed].into_iter().filter(|word| !word.is_empty()).collect();
        // `--too` is as near to nothing as to `--to`.
        let nearest = if meant.len() <= 4 { "" } else { meant.as_str() };
        refused(&place, &[typed, nearest], &arguments);
    }
    for strange in ["--learning-speed", "-q", "fly"] {
        refused(&place, &[&strange[..2], "--help"], &["train", strange, "1"]);
    }
    fault.survived(
        tried.len() + 3,
        "every flag of every command with a letter doubled, dropped, two exchanged, dashes replaced: the one meant is named",
    );
}

/// Every flag of a number, and which of the values below it may have.
const NUMBERS: &[(&str, &[&str])] = &[
    ("--lr", &[]),
    ("--batch-size", &[]),
    ("--epochs", &[]),
    ("--threads", &[]),
    ("--images", &[]),
    ("--image-size", &[]),
    ("--accumulate", &[]),
    ("--momentum", &["0", "-0"]),
    ("--weight-decay", &["0", "-0"]),
    ("--clip-norm", &["0", "-0"]),
    ("--ema", &["0", "-0"]),
    ("--warmup-steps", &["0"]),
    ("--patience", &["0"]),
    ("--hash-every", &["0"]),
    ("--seed", &["0"]),
    ("--checkpoint-every", &["0"]),
    ("--keep-every", &["0"]),
];

#[test]
fn fault_i02_numbers_out_of_range() {
    let fault = Fault::new("I02");
    let place = Place::new();
    let values = ["0", "-0", "-1", "nan", "-nan", "inf", "-inf", "1e999", "18446744073709551616", "", "1,5"];
    let ranges = ["give a", "at least", "at most", "above", "32 to 1024", "may have", "0 and below 1"];
    let real = |flag: &str| ["--lr", "--momentum", "--weight-decay", "--clip-norm", "--ema"].contains(&flag);
    let mut tried = 0;
    for (flag, allowed) in NUMBERS {
        for value in values.iter().filter(|value| !allowed.contains(value)) {
            // As a double, 2^64 is a number like others.
            if *value == "18446744073709551616" && real(flag) {
                continue;
            }
            let ended = place.run(&["train", "--run-dir", "run", flag, value]).failed(2, &[]);
            let name = flag.trim_start_matches('-');
            assert!(ended.stderr.contains(name), "{ended}");
            assert!(ranges.iter().any(|range| ended.stderr.contains(range)), "no range: {ended}");
            // A double is shown as the number it is.
            let shown = ended.stderr.to_lowercase();
            assert!(shown.contains(value.trim_start_matches('-')), "no value: {ended}");
            tried += 1;
        }
    }
    assert!(!place.path("run").exists());
    fault.survived(tried, "every flag of a number with 0, -0, -1, nan, inf, 1e999, 2^64, nothing, 1,5");
}

#[test]
fn fault_i03_contradicting_flags() {
    let fault = Fault::new("I03");
    let place = Place::new();
    let pairs: &[(&[&str], &str)] = &[
        (&["train", "--data-dir", "d", "--images", "100"], "--images"),
        (&["train", "--data-dir", "d", "--image-dir", "i"], "--image-dir"),
        (&["train", "--data-dir", "d", "--csv-file", "f"], "--csv-file"),
        (&["train", "--image-dir", "i"], "--csv-file"),
        (&["train", "--csv-file", "f"], "--image-dir"),
        (&["train", "--images", "100", "--image-dir", "i", "--csv-file", "f"], "--images"),
        (&["train", "--resume", "r", "--run-dir", "s"], "--run-dir"),
        (&["train", "--resume", "r", "--load-checkpoint", "w"], "--load-checkpoint"),
        (&["train", "--override"], "--resume"),
        (&["train", "--seed", "1", "--seed", "2"], "--seed"),
        (&["verify", "--run-dir", "r", "--from", "1", "--sample", "1%"], "--sample"),
        (&["verify", "--run-dir", "r", "--sample", "1%", "--to", "2"], "--sample"),
        (&["train", "extra"], "extra"),
    ];
    for (arguments, word) in pairs {
        refused(&place, &[word], arguments);
        let mut turned = arguments.to_vec();
        if let [_, a, b, c, d] = arguments {
            turned = vec![arguments[0], c, d, a, b];
        }
        refused(&place, &["--"], &turned);
    }
    // What a file says of the data and what flags say, too.
    let from_file: &[(&[u8], &[&str], i32, &str)] = &[
        (b"data_dir = \"d\"\nimages = 100\n", &[], 2, "images is for the built-in set"),
        (b"allow_missing = true\n", &[], 2, "allow_missing is for images in files"),
        (b"", &["--allow-missing"], 2, "allow_missing is for images in files"),
        (b"data_dir = \"d\"\nimage_dir = \"i\"\ncsv_file = \"f\"\n", &[], 2, "name either data_dir"),
        (b"load_checkpoint = \"w\"\n", &["--resume", "r"], 2, "leave out load_checkpoint"),
        (b"", &["--run-dir", "s", "--override"], 2, "--resume"),
        // Flags go before the file, where there is no contradiction.
        (b"images = 100\n", &["--data-dir", "nowhere"], 3, "nowhere"),
        (
            b"data_dir = \"nowhere\"\nallow_missing = true\n",
            &["--images", "100", "--image-size", "1"],
            2,
            "image-size",
        ),
    ];
    for (text, flags, code, word) in from_file {
        place.write("kinone.toml", text);
        let arguments = [&["train", "--config", "kinone.toml"], *flags].concat();
        let before = place.outside();
        place.run(&arguments).failed(*code, &[word]);
        assert!(place.outside() == before, "{arguments:?}: something was written");
    }
    fault.survived(
        2 * pairs.len() + from_file.len(),
        "every pair of flags of which one excludes or needs the other, in both orders, and of settings in a file",
    );
}

/// A file that says every setting.
const SETTINGS: &str = "\
images = 100
model = \"resnet10w8\"
image_size = 32
epochs = 2
batch_size = 8
lr = 1e-3
optimizer = \"adam\"
no_finding = false
seed = 7
";

#[test]
fn fault_i04_mistakes_in_a_configuration_file() {
    let fault = Fault::new("I04");
    let place = Place::new();
    let arguments = ["train", "--run-dir", "run", "--config", "kinone.toml"];
    let cases: &[(&[u8], &[&str])] = &[
        (b"seed = 1\nlrr = 1e-3\n", &["line 2, column 1", "`lrr`", "`lr`"]),
        (b"seed = 1\n  seed = 2\n", &["line 2, column 3", "duplicate"]),
        (b"epochs = \"many\"\n", &["line 1, column 10", "many"]),
        (b"epochs = 1.5\n", &["line 1, column 10", "1.5"]),
        (b"epochs = -1\n", &["line 1, column 10", "-1"]),
        (b"seed = 18446744073709551616\n", &["line 1, column 8"]),
        (b"lr = [1]\n", &["line 1, column 6"]),
        (b"optimizer = \"sdg\"\n", &["line 1, column 13", "`sdg`", "`sgd`"]),
        (b"lr = 1e-3,\nseed = 1\n", &["line 1, column 10"]),
        (b"seed = 1\n\nepochs = = 2\n", &["line 3, column 10"]),
        (b"seed =", &["line 1, column 7"]),
        (b"model = \"resnet10", &["line 1, column"]),
        (b"[train]\nseed = 1\n", &["line 1, column 2", "`train`"]),
        (b"{\"seed\": 1}", &["line 1, column 1"]),
        (b"seed = 1\nmodel = \"\xff\"\n", &["line 2, column 10", "UTF-8"]),
        (b"\xff\xfes\0e\0", &["line 1, column 1", "UTF-8"]),
        (b"seed = 1\0\n", &["line 1, column 8"]),
    ];
    for (text, words) in cases {
        place.write("kinone.toml", text);
        refused(&place, &[&["kinone.toml"], *words].concat(), &arguments);
    }
    place.write("kinone.toml", b"data_dir = \"a\\u0000b\"\n");
    place.run(&arguments).failed(3, &["a\\u{0}b is not a directory"]);
    // The byte order mark is none of TOML's mistakes: with one or without, the file says the same.
    for text in ["\u{feff}seed = 1\nlrr = 1\n", "seed = 1\r\nlrr = 1\r\n"] {
        place.write("kinone.toml", text.as_bytes());
        refused(&place, &["line 2, column 1", "`lrr`"], &arguments);
    }
    // Cut anywhere, a file says less or is refused; nothing else.
    let lengths = sample(0..SETTINGS.len(), 30);
    let with_data = [&arguments[..], &["--data-dir", "nowhere"]].concat();
    for length in &lengths {
        place.write("kinone.toml", &SETTINGS.as_bytes()[..*length]);
        let ended = place.run(&with_data);
        match ended.code() {
            Some(3) => assert!(ended.stderr.contains("nowhere"), "{ended}"),
            // What is cut in the middle of a word or number may be a value that is out of range.
            _ => assert!(
                ended.code() == Some(2)
                    && (ended.stderr.contains("kinone.toml: line")
                        || ["at least", "32 to 1024", "unknown model"]
                            .iter()
                            .any(|w| ended.stderr.contains(w))),
                "length {length}: {ended}"
            ),
        }
    }
    let huge = File::create(place.path("kinone.toml")).unwrap();
    huge.set_len(if is_full() { 1 << 30 } else { 1 << 24 }).unwrap();
    place.run(&arguments).failed(2, &["kinone.toml", "larger than 1048576 bytes"]);
    huge.set_len(0).unwrap();
    std::fs::remove_file(place.path("kinone.toml")).unwrap();
    refused(&place, &["kinone.toml"], &arguments);
    std::fs::create_dir(place.path("kinone.toml")).unwrap();
    refused(&place, &["kinone.toml"], &arguments);
    assert!(!place.path("run").exists());
    fault
        .verdict("E, but for the byte order mark: S", "TOML 1.1 lets a file begin with one, so it is skipped")
        .survived(
            cases.len() + 3 + lengths.len() + 3,
            "unknown, repeated, ill-typed, cut, encoded wrong, 1 GiB: line and column, exit code 2",
        );
}

#[test]
fn fault_i05_names_of_runs() {
    let fault = Fault::new("I05");
    let place = Place::new();
    place.write("other", b"somebody's");
    let long = "n".repeat(300);
    let nested = format!("new/{long}/deeper");
    for (name, words) in [
        ("", &["--run-dir", "give a path"][..]),
        (".", &[". holds other files", "--run-dir"]),
        ("..", &[".. holds other files", "--run-dir"]),
        ("/", &["/ holds other files", "--run-dir"]),
        (&long, &["name", "--run-dir"]),
        (&nested, &["name of 300 bytes", "--run-dir"]),
        ("other/run", &["other/run", "Not a directory"]),
    ] {
        refused(&place, words, &["train", "--data-dir", "nowhere", "--run-dir", name]);
    }
    refused(&place, &["-r"], &["train", "--run-dir", "-rf"]);
    refused(&place, &["-rf", "./"], &["train", "--run-dir=-rf"]);
    // A path is a name: a folder below another is made with it.
    let tiny = crate::harness::small(&["--run-dir", "./a/-b"]);
    place.json(&tiny);
    assert!(place.path("a/-b/summary.json").is_file());
    fault
        .verdict(
            "E, but for a/b: S",
            "--run-dir takes a path, so folders above it are made; NUL cannot be passed at all",
        )
        .survived(10, "empty, folders with other things in them, 300 bytes, a leading dash, below a file");
}
