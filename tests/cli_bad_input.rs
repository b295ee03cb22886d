//! Whatever is wrong with what the program is given: one clear line, a non-zero exit code, nothing left behind.

mod common;

use common::{Place, TINY, printed};
use std::fs;
use std::process::Stdio;

/// A tiny run that would be made, but for what `more` gets wrong.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--run-dir", "new"], &TINY[..], more].concat()
}

#[test]
fn settings_that_no_run_can_have() {
    let place = Place::new();
    for (words, arguments) in [
        (&["unknown model", "resnet99", "resnet18"][..], &["--model", "resnet99"][..]),
        (&["lr = NaN", "above 0"], &["--lr", "nan"]),
        (&["lr = inf", "above 0"], &["--lr", "inf"]),
        (&["lr = -1", "above 0"], &["--lr=-1"]),
        (&["batch-size = 0", "at least 2"], &["--batch-size", "0"]),
        (&["momentum = 1", "below 1"], &["--momentum", "1"]),
        (&["weight-decay = -1", "at least 0"], &["--weight-decay=-1"]),
        (&["clip-norm = NaN", "at least 0"], &["--clip-norm", "nan"]),
        (&["lr = 1e-99", "above 0"], &["--lr", "1e-99"]),
        (&["threads", "at least 1"], &["--threads", "0"]),
        (&["threads = 1000000", "at most"], &["--threads", "1000000"]),
        (&["'many'", "--threads"], &["--threads", "many"]),
        (&["'sdg'", "--optimizer", "sgd, nesterov, adam", "--help"], &["--optimizer", "sdg"]),
        (&["--rate", "--help"], &["--rate", "1"]),
        (&["--images", "--data-dir", "--help"], &["--data-dir", "d"]),
    ] {
        place.refuses(2, words, &train(arguments));
    }
    for (words, arguments) in [
        (&["epochs = 0", "at least 1"][..], &["train", "--epochs", "0"][..]),
        (&["image-size = 8", "32 to 1024"], &["train", "--image-size", "8"]),
        (&["images = 5", "at least 100"], &["train", "--images", "5"]),
        (&["--csv-file", "--help"], &["train", "--image-dir", "d"]),
        (&["--run-dir <R>", "--help"], &["evaluate"]),
        (&["--run-dir <R>", "--help"], &["export-onnx"]),
        (&["--image-path <F>", "--help"], &["predict", "--run-dir", "r"]),
        (&["--out-dir <D>", "--help"], &["synth"]),
        (&["number of images is 0"], &["synth", "--out-dir", "d", "--images", "0"]),
        (&["no operator `reluu`", "relu, "], &["gradcheck", "reluu"]),
        (&["'fly'", "--help"], &["fly"]),
        (&["'all'", "train, validation or test"], &["evaluate", "--run-dir", "r", "--split", "all"]),
    ] {
        place.refuses(2, words, arguments);
    }
    let mut command = place.command(&["gradcheck", "relu"]);
    command.env("KINONE_ISA", "nonsense");
    place.is_refused(2, &["KINONE_ISA=nonsense", "scalar"], command);
}

#[test]
fn configuration_files() {
    let place = Place::new();
    place.refuses(2, &["no.toml"], &train(&["--config", "no.toml"]));
    for (words, text) in [
        (&["line 2", "`lrr`", "`lr`"][..], "seed = 1\nlrr = 1e-3\n"),
        (&["line 1", "\"many\""], "epochs = \"many\"\n"),
        (&["line 3"], "seed = 1\n\nepochs = = 2\n"),
        (&["line 2", "duplicate"], "seed = 1\nseed = 2\n"),
        (&["image_dir", "csv_file"], "csv_file = \"d.csv\"\n"),
        (&["momentum = 7"], "momentum = 7\n"),
        (&["path", "empty"], "data_dir = \"\"\n"),
    ] {
        fs::write(place.path("kinone.toml"), text).unwrap();
        // No flag says what the file is to say.
        let alone = ["train", "--run-dir", "new", "--image-size", "32", "--config", "kinone.toml"];
        place.refuses(2, words, &alone);
    }
    fs::write(place.path("kinone.toml"), b"model = \"\xff\"\n").unwrap();
    place.refuses(2, &["kinone.toml", "UTF-8"], &train(&["--config", "kinone.toml"]));
}

#[test]
fn data_directories() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    fs::write(place.path("file"), "text").unwrap();
    let on = |directory| ["train", "--run-dir", "new", "--image-size", "32", "--data-dir", directory];
    place.refuses(3, &["nowhere is not a directory", "give the folder"], &on("nowhere"));
    place.refuses(3, &["file is not a directory"], &on("file"));
    place.refuses(3, &["empty holds no label file", "Data_Entry_2017.csv"], &on("empty"));
    place.refuses(2, &["file: not a directory"], &["synth", "--out-dir", "file"]);

    place.succeeds(&["synth", "--out-dir", "d", "--images", "100", "--size", "32"]);
    place.refuses(2, &["d is not empty", "new or an empty"], &["synth", "--out-dir", "d"]);
    let csv = place.path("d/Data_Entry_2017.csv");
    let text = fs::read_to_string(&csv).unwrap();
    let first = text.lines().nth(1).unwrap();
    let (image, rest) = first.split_once(',').unwrap();
    let label = rest.split(',').next().unwrap();
    let with = |changed: String| fs::write(&csv, changed).unwrap();

    with(text.replace("Finding Labels", "Labels"));
    place.refuses(3, &["Data_Entry_2017.csv", "no column 'Finding Labels'", "rename"], &on("d"));
    with(text.replacen(&format!("{image},{label}"), &format!("{image},Scurvy"), 1));
    place.refuses(3, &["Data_Entry_2017.csv, row 2", "Scurvy", "known"], &on("d"));
    with(String::new());
    place.refuses(3, &["Data_Entry_2017.csv"], &on("d"));
    with(text.clone());

    let png = place.path("d/images").join(image);
    let bytes = fs::read(&png).unwrap();
    for bad in [&bytes[..bytes.len() / 2], &bytes[..20], b"", b"no image"] {
        fs::write(&png, bad).unwrap();
        place.refuses(3, &[image], &on("d"));
    }
    fs::remove_file(&png).unwrap();
    place.refuses(3, &["1 of 100 images", image, "--allow-missing"], &on("d"));
    for line in fs::read_to_string(place.path("d/train_val_list.txt")).unwrap().lines() {
        // The first is gone already.
        let _ = fs::remove_file(place.path("d/images").join(line));
    }
    let none = [&on("d")[..], &["--allow-missing"]].concat();
    place.refuses(3, &["train part", "0 images", "use more data"], &none);
    fs::remove_dir_all(place.path("d/images")).unwrap();
    place.refuses(3, &["d holds no PNG image", "put the radiographs there"], &on("d"));
}

#[test]
fn runs_and_weights() {
    let place = Place::new();
    let garbage = place.path("garbage");
    fs::write(&garbage, "no weights ".repeat(100)).unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    place.refuses(4, &["no_weights"], &train(&["--load-checkpoint", "no_weights"]));
    place.refuses(4, &["garbage", "not a weights file"], &train(&["--load-checkpoint", "garbage"]));
    for run in ["empty", "nowhere", "garbage"] {
        let words = [run, "is not a run directory", "give one that train made"];
        place.refuses(2, &words, &["evaluate", "--run-dir", run]);
        place.refuses(2, &words, &["predict", "--run-dir", run, "--image-path", "x.png"]);
        place.refuses(2, &words, &["export-onnx", "--run-dir", run]);
    }

    place.succeeds(&[&["train", "--run-dir", "run"], &TINY[..]].concat());
    place.refuses(
        2,
        &["run already holds a run", "--run-dir"],
        &["train", "--run-dir", "run", "--data-dir", "nowhere"],
    );
    let best = "run/checkpoints/best.safetensors";
    let other = ["--model", "resnet34", "--load-checkpoint", best];
    place.refuses(4, &[best, "resnet18", "resnet34"], &train(&other));
    let classes = ["--no-finding", "--load-checkpoint", best];
    place.refuses(4, &[best, "14 classes", "15"], &train(&classes));

    let nowhere = ["export-onnx", "--run-dir", "run", "--output-filename", "nowhere/model.onnx"];
    place.refuses(2, &["cannot write", "nowhere/model.onnx"], &nowhere);
    fs::write(place.path("text.png"), "no image\n").unwrap();
    for (path, words) in [("text.png", "PNG"), ("no.png", "cannot read"), ("empty", "empty")] {
        place.refuses(3, &[path, words], &["predict", "--run-dir", "run", "--image-path", path]);
    }

    let bytes = fs::read(place.path(best)).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [&flipped[..], &bytes[..bytes.len() / 2]] {
        fs::write(place.path(best), bad).unwrap();
        place.refuses(4, &[best], &["evaluate", "--run-dir", "run"]);
    }
    fs::remove_file(place.path(best)).unwrap();
    place.refuses(4, &[best], &["evaluate", "--run-dir", "run"]);
    fs::write(place.path("run/config.toml"), "contract = 1\n").unwrap();
    place.refuses(2, &["run/config.toml", "model"], &["evaluate", "--run-dir", "run"]);
}

/// What cannot be written is not called written.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure() {
    let place = Place::new();
    let mut command = place.command(&["gradcheck", "relu", "--json"]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    place.is_refused(5, &["cannot write to the standard output"], command);
}

/// A run that leaves the numbers ends there: its log says how far it came, and there is no summary.
#[test]
fn a_run_that_diverges() {
    let place = Place::new();
    let train = ["train", "--run-dir", "run", "--images", "120", "--image-size", "32", "--lr", "1e30"];
    let output = place.command(&train).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(7), 1), "{said}");
    assert!(
        said.starts_with(
            "kinone: step 2: the loss is NaN, so nothing was updated; it begins in the output of"
        ) && said.contains("lower --lr"),
        "{said}"
    );
    let log = fs::read_to_string(place.path("run/log.jsonl")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let [_, _, why] = lines[..] else { panic!("{log}") };
    assert!(why.contains("\"event\":\"error\",\"step\":1,") && why.contains("the loss is NaN"), "{log}");
    let console = fs::read_to_string(place.path("run/console.log")).unwrap();
    assert!(console.ends_with(&said), "{console}");
    assert!(!place.path("run/summary.json").exists());
}

/// Weights that an update makes too large end the run there: the parameter is named, no checkpoint of them is kept, and
/// the chain is sound.
#[test]
fn an_update_that_overflows() {
    let place = Place::new();
    let train = |more: &[&str]| {
        let one_step = ["train", "--images=100", "--image-size=32", "--batch-size=100", "--model=resnet10w8"];
        let output = place.command(&[&one_step[..], more].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(7), 1), "{said}");
        said
    };
    let said = train(&["--run-dir=run", "--lr=1e38", "--checkpoint-every=1"]);
    let words = ["kinone: step 1: after the update the parameter ", "inf at index", "lower --lr"];
    assert!(words.into_iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(fs::read_dir(place.path("run/checkpoints")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(place.path("run/chain.jsonl")).unwrap().lines().count(), 1);
    // Finite, but too large for the validation images: the largest is named.
    let said = train(&["--run-dir=other", "--lr=1e30"]);
    let words = [
        "step 1: after the update the validation images have no scores",
        "the largest weight is",
        "lower --lr",
    ];
    assert!(words.into_iter().all(|word| said.contains(word)), "{said}");
    assert!(!place.path("other/checkpoints/newest").exists());
}

/// Whoever reads may leave: nothing panics, and the work is done.
#[test]
fn a_closed_pipe_is_no_failure() {
    let place = Place::new();
    let train = [&["train", "--run-dir", "run"], &TINY[..]].concat();
    for arguments in
        [&["gradcheck", "relu"][..], &["gradcheck", "relu", "--json"], &["train", "--help"], &train]
    {
        let mut child =
            place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        printed(child.wait_with_output().unwrap(), arguments);
    }
    assert!(place.path("run/summary.json").is_file());
}
