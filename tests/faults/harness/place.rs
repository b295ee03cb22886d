//! A folder with one run in it, and what must hold of the run after every fault.

use super::program::{Ended, Program, kinone};
use kinone::kernels::Cpu;
use kinone::runs::chain;
use kinone::runs::checkpoint::Checkpoint;
use kinone::runs::store::Store;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A run of two epochs of nine steps each, in a fraction of a second.
pub(crate) const TINY: [&str; 9] = [
    "train",
    "--json",
    "--model=resnet10w8",
    "--images=100",
    "--image-size=32",
    "--batch-size=8",
    "--epochs=2",
    "--hash-every=1",
    "--threads=1",
];

/// [`TINY`], with more arguments and with other values, given as `--name=value`.
pub(crate) fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut all = TINY.to_vec();
    for argument in more {
        let name = argument.split_inclusive('=').next().unwrap();
        all.retain(|usual| !name.ends_with('=') || !usual.starts_with(name));
    }
    all.extend(more);
    all
}

/// An empty folder. Runs live in `run` unless the test says otherwise.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    /// A copy of this place as it stands.
    pub(crate) fn copy(&self) -> Place {
        let copy = Place::new();
        let from = self.0.path().join(".");
        let status = Command::new("cp").arg("-a").arg(from).arg(copy.0.path()).status().unwrap();
        assert!(status.success());
        copy
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Any program, started in this place.
    pub(crate) fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env_remove("KINONE_ISA").env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The program with these arguments.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = self.tool(kinone());
        command.args(arguments);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// Starts the program, which minds signals even where whoever started the tests ignores them: a shell does so for
    /// what it runs in the background, and `nohup`.
    pub(crate) fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Program {
        let mut command = self.tool("env");
        Program::start(command.arg("--default-signal=INT,HUP").arg(kinone()).args(arguments))
    }

    /// Runs the program, which must succeed and print JSON.
    pub(crate) fn json<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Value {
        let ended = self.run(arguments).succeeded();
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"))
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    /// The links of the chain of `run`: steps and the header.
    pub(crate) fn links(&self) -> usize {
        fs::read(self.path("run/chain.jsonl")).map_or(0, |text| text.iter().filter(|c| **c == b'\n').count())
    }

    /// The checkpoints of `run`.
    pub(crate) fn store(&self) -> Store {
        Store::new(&self.path("run/checkpoints"))
    }

    /// Every file outside `run`, with its content.
    pub(crate) fn outside(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(self.0.path(), &self.path("run"), &mut found);
        found
    }

    /// Every file below the place, by its path from there.
    pub(crate) fn everything(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(self.0.path(), Path::new(""), &mut found);
        let name = |path: &Path| path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
        found.into_iter().map(|(path, content)| (name(&path), content)).collect()
    }

    /// A run of [`TINY`] as it stood after a step, with the checkpoints of that step, of the one before and of
    /// the first epoch's end.
    pub(crate) fn after_step(step: u64) -> Place {
        Place::with_checkpoints(|kept| [step - 1, step, 10].contains(&kept) && kept <= step)
    }

    /// A run of [`TINY`] as it stood with these checkpoints, and later files besides.
    pub(crate) fn with_checkpoints(is_kept: impl Fn(u64) -> bool) -> Place {
        static EVERY: std::sync::OnceLock<Whole> = std::sync::OnceLock::new();
        let every = EVERY.get_or_init(|| Whole::with(&["--checkpoint-every=1", "--keep-every=1"]));
        let place = every.place.copy();
        fs::remove_file(place.path("run/summary.json")).unwrap();
        let last = place.store().steps().into_iter().filter(|step| is_kept(*step)).max().unwrap();
        for step in place.store().steps().into_iter().filter(|step| !is_kept(*step)) {
            fs::remove_file(place.store().path(step)).unwrap();
        }
        let hint = format!("step_{last:08}.safetensors");
        place.write("run/checkpoints/newest", hint.as_bytes());
        place
    }

    /// The newest sound checkpoint of `run`: its step, and the hash of its state.
    pub(crate) fn newest(&self) -> Option<(u64, String)> {
        let newest = self.store().newest(&Cpu::current()).unwrap()?;
        Some((newest.checkpoint.header.progress.step, newest.checkpoint.header.state_sha256))
    }

    /// Every checkpoint of `run` must load, under its hash.
    pub(crate) fn every_checkpoint_is_sound(&self) {
        for step in self.store().steps() {
            let path = self.store().path(step);
            Checkpoint::load(&Cpu::current(), &path).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// The chain of `run` must be whole up to its newest checkpoint, and leave no stray file beside it.
    pub(crate) fn chain_leads_to_the_newest(&self) {
        let read = chain::read(&self.path("run/chain.jsonl")).unwrap();
        let newest = self.store().newest(&Cpu::current()).unwrap().expect("a checkpoint");
        let link = &newest.checkpoint.header.link;
        assert!(read.links.iter().any(|known| known.hash == *link), "{:?}", read.broken);
    }

    /// Goes on with `run`, which must end as `whole`, an undisturbed run, did: weights, chain, scores; with no
    /// stray file left, and a record that verifies.
    pub(crate) fn resumes_to(&self, whole: &Whole) {
        let summary = self.json(&["train", "--json", "--threads=1", "--resume", "run"]);
        whole.is_equal(self, &summary);
    }

    /// No temporary file lies in `run`.
    pub(crate) fn has_no_leftover(&self) {
        let mut found = BTreeMap::new();
        collect(&self.path("run"), Path::new(""), &mut found);
        let left: Vec<_> =
            found.keys().filter(|path| path.extension().is_some_and(|e| e == "part")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// What an undisturbed run of [`TINY`] comes to.
pub(crate) struct Whole {
    summary: Value,
    chain: Vec<u8>,
    pub(crate) place: Place,
}

impl Whole {
    /// Makes it, with more arguments.
    pub(crate) fn with(more: &[&str]) -> Whole {
        let place = Place::new();
        let summary = place.json(&small(&[&["--run-dir", "run"], more].concat()));
        Whole { summary, chain: place.read("run/chain.jsonl"), place }
    }

    /// That of [`TINY`] alone, made once for all tests.
    pub(crate) fn get() -> &'static Whole {
        static WHOLE: std::sync::OnceLock<Whole> = std::sync::OnceLock::new();
        WHOLE.get_or_init(|| Whole::with(&[]))
    }

    /// The run in `place`, whose summary this is, ended the same.
    pub(crate) fn is_equal(&self, place: &Place, summary: &Value) {
        for field in
            ["weights_sha256", "best_weights_sha256", "chain_sha256", "test_auroc_macro", "best_epoch"]
        {
            assert_eq!(summary[field], self.summary[field], "{field}");
        }
        assert!(place.read("run/chain.jsonl") == self.chain, "the chain differs");
        place.every_checkpoint_is_sound();
        place.has_no_leftover();
        let steps = |text: String| text.lines().filter(|line| line.contains("\"event\":\"step\"")).count();
        assert_eq!(
            steps(place.text("run/log.jsonl")),
            steps(self.place.text("run/log.jsonl")),
            "rows of the log"
        );
    }
}

fn collect(folder: &Path, without: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path == without {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            collect(&path, without, found);
        } else {
            let content = if path.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
            found.insert(path, content);
        }
    }
}
