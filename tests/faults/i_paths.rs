//! Where things are read and written, and to whom the program speaks.

use crate::harness::{Fault, Place, Whole, is_here, sample, small};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

/// The program as a user who may do little, if this one may become him.
fn as_nobody(place: &Place, arguments: &[&str]) -> Option<Command> {
    let mut tool = place.tool("setpriv");
    tool.args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(crate::harness::kinone())
        .args(arguments);
    let mut may = Command::new("setpriv");
    may.args(["--reuid=65534", "--regid=65534", "--clear-groups", crate::harness::kinone(), "--version"]);
    may.output().is_ok_and(|output| output.status.success()).then_some(tool)
}

#[test]
fn fault_i06_places_that_cannot_be_written() {
    let fault = Fault::new("I06");
    let place = Place::new();
    place.write("file", b"text");
    symlink("nothing", place.path("dangling")).unwrap();
    symlink("loop", place.path("loop")).unwrap();
    fs::create_dir(place.path("closed")).unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    fs::create_dir(place.path("open")).unwrap();
    fs::set_permissions(place.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let before = place.outside();
    // Work would fail otherwise: there are no data, no run, and no such number of images.
    let commands: &[&[&str]] = &[
        &["train", "--data-dir", "nowhere", "--run-dir"],
        &["synth", "--images", "0", "--out-dir"],
        &["export-onnx", "--run-dir", "nowhere", "--output-filename", "open/x.onnx", "--replay-dir"],
    ];
    let places = [
        ("file", "not a directory"),
        ("file/below", "Not a directory"),
        ("dangling", "leads nowhere"),
        ("dangling/below", "leads nowhere"),
        ("loop", "symbolic links"),
        ("loop/below", "symbolic links"),
    ];
    let mut tried = 0;
    for command in commands {
        for (name, words) in places {
            place.run(&[command, &[name][..]].concat()).failed(2, &["cannot write in", name, words]);
            tried += 1;
        }
    }
    for (name, words) in [
        ("folder", "folder: a folder; name a file"),
        ("no/such.onnx", "no/such.onnx: no such folder"),
        ("file/x.onnx", "cannot write in file: not a directory"),
    ] {
        place.run(&["export-onnx", "--run-dir", "nowhere", "--output-filename", name]).failed(2, &[words]);
        tried += 1;
    }
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    for command in commands {
        for name in ["closed", "closed/below"] {
            let arguments = [command, &[name][..]].concat();
            let Some(mut command) = as_nobody(&place, &arguments) else {
                let why = "this user may not become another, and may write everywhere";
                return fault.not_tried(why, tried, "all but folders that may not be written");
            };
            crate::harness::Ended::of(&mut command)
                .failed(2, &["cannot write in", name, "Permission denied"]);
            tried += 1;
        }
    }
    assert!(place.outside() == before, "something was written");
    fault.survived(tried, "train, synth, export-onnx into a file, below one, links to nowhere and in a loop, unwritable folders");
}

/// A name under which a run's data and directory lie.
fn named(name: &OsStr, kind: &str) -> OsString {
    let mut all = OsString::from(kind);
    all.push(name);
    all
}

#[test]
fn fault_i07_unusual_paths() {
    let fault = Fault::new("I07");
    let place = Place::new();
    let text = |text: &str| OsString::from(text);
    let plain = trained(&place, &text(""));
    let names = [
        text(" with spaces "),
        text("line\nbreak\ttab"),
        OsString::from_vec(b"\xff\xfe not text".to_vec()),
        text("ünï 木の根"),
        text("'quoted' \"twice\" $HOME `x` \\"),
    ];
    let names = sample(names, 3);
    for name in &names {
        let run = trained(&place, name);
        assert_eq!(run, plain, "{name:?}");
        let run = named(name, "run");
        // What was recorded leads back to the data; and what is said stays on its lines.
        let arguments = [OsStr::new("verify"), OsStr::new("--run-dir"), &run];
        place.run(&arguments).succeeded();
        let arguments = [OsStr::new("evaluate"), OsStr::new("--json"), OsStr::new("--run-dir"), &run];
        place.json(&arguments);
        let missing = named(name, "nowhere");
        let arguments = [OsStr::new("evaluate"), OsStr::new("--run-dir"), &missing];
        place.run(&arguments).failed(2, &["nowhere", "is not a run directory"]);
        let arguments = [OsStr::new("train"), OsStr::new("--json"), OsStr::new("--resume"), &run];
        place.json(&arguments);
    }
    fault.survived(
        4 * names.len(),
        "data and run directory with spaces, line breaks, bytes that are no UTF-8, quotes: equal hash and chain, verified, evaluated, resumed",
    );
}

/// Makes a set and a run of it under names with this in them; the hash of its weights and its chain.
fn trained(place: &Place, name: &OsStr) -> (String, Vec<u8>) {
    let (data, run) = (named(name, "data"), named(name, "run"));
    let arguments = ["synth", "--images=100", "--size=32", "--out-dir"].map(OsStr::new);
    place.run(&[&arguments[..], &[&*data]].concat()).succeeded();
    let arguments = ["train", "--json", "--model=resnet10w8", "--image-size=32", "--epochs=1", "--data-dir"]
        .map(OsStr::new);
    let summary = place.json(&[&arguments[..], &[&*data, OsStr::new("--run-dir"), &*run]].concat());
    let chain = fs::read(place.path(".").join(&run).join("chain.jsonl")).unwrap();
    (summary["weights_sha256"].as_str().unwrap().to_owned(), chain)
}

#[test]
fn fault_i11_no_terminal_or_an_odd_one() {
    let fault = Fault::new("I11");
    let plain = small(&["--run-dir", "run"]).into_iter().filter(|argument| *argument != "--json");
    let words: Vec<String> = plain.map(str::to_owned).collect();
    let line = format!("'{}' {}", crate::harness::kinone(), words.join(" "));
    let pty = |setting: &str| {
        let inside = format!("{setting}; {line}");
        format!("script --quiet --return --command \"{}\" /dev/null < /dev/null", inside.replace('"', "\\\""))
    };
    let mut ways = vec![
        ("no input", format!("{line} <&-")),
        ("nothing at all", format!("{line} <&- >&- 2>&-")),
        ("piped", format!("{line} 2>&1 | cat")),
    ];
    let script = is_here("script");
    if script {
        ways.push(("a terminal without width", pty("stty cols 0 rows 0")));
        ways.push(("a terminal of one column", pty("stty cols 1 rows 1")));
        ways.push(("a dumb terminal", pty("export TERM=dumb")));
        ways.push(("a wide terminal", pty("stty cols 9999")));
    }
    for (way, line) in &ways {
        let place = Place::new();
        let ended = crate::harness::Ended::of(place.tool("sh").arg("-c").arg(line));
        assert!(ended.status.success(), "{way}: {ended}");
        let summary = serde_json::from_slice(&place.read("run/summary.json")).unwrap();
        Whole::get().is_equal(&place, &summary);
        for name in ["config.toml", "console.log", "log.jsonl", "chain.jsonl", "data.index", "summary.json"] {
            let text = place.read(&format!("run/{name}"));
            assert!(
                !text.iter().any(|byte| *byte < b' ' && *byte != b'\n'),
                "{way}: control codes in {name}"
            );
        }
        if way.contains("terminal") && !way.contains("dumb") {
            assert!(ended.stdout.contains("img/s"), "{way}: {ended}");
        }
    }
    let how = "closed, piped, terminals of width 0, 1 and 9999: equal bits, no control codes in any file";
    if script {
        fault.survived(ways.len(), how);
    } else {
        fault.not_tried("the program `script` is missing", ways.len(), "closed and piped streams alone");
    }
}
