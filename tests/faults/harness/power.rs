//! A model of a file system that loses its power.
//!
//! What a process did is read from a trace of its system calls. Until a file is flushed, any part of what was
//! written to it may be lost: all, the second half, the first half, or the bytes while the length stays. Until a
//! folder is flushed, any subset of the changes of its names may be lost, those that remain being in order. Folders
//! themselves are taken to exist; that the program flushes their names is seen in the trace elsewhere.

use super::place::Place;
use super::program::Ended;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What the disk may hold after power was lost, and what had been committed by then.
pub(crate) struct Crash {
    pub(crate) files: BTreeMap<String, Blob>,
    pub(crate) committed: Option<u64>,
    pub(crate) what: String,
}

impl Crash {
    /// Puts the files into a place, in which nothing was in `run` before.
    pub(crate) fn restore(&self) -> Place {
        let place = Place::new();
        for folder in ["run", "run/checkpoints", "run/transcripts"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        for (name, blob) in &self.files {
            place.write(name, &blob.bytes);
        }
        place
    }
}

/// The bytes of a file, and their hash.
#[derive(Clone)]
pub(crate) struct Blob {
    bytes: Arc<Vec<u8>>,
    hash: u64,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Blob {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Blob { bytes: Arc::new(bytes), hash: hasher.finish() }
    }
}

/// Runs a program in a place, and gives the trace of all that it wrote.
pub(crate) fn trace(place: &Place, program: &[&str]) -> String {
    let aside = Place::new();
    let mut command = place.tool("strace");
    command.args(["-f", "-qq", "-xx", "-s", "100000000", "-o"]).arg(aside.path("trace")).args([
        "-e",
        "trace=openat,write,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,close,dup2",
    ]);
    let ended = Ended::of(command.args(program));
    assert!(ended.status.success(), "{ended}");
    aside.text("trace")
}

/// A change of the names in a folder.
#[derive(Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

type Names = BTreeMap<String, usize>;

impl Change {
    fn folder(&self) -> &str {
        let (Change::Link(name, _) | Change::Unlink(name) | Change::Rename(_, name)) = self;
        name.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Change::Link(name, file) => drop(names.insert(name.clone(), *file)),
            Change::Unlink(name) => drop(names.remove(name)),
            Change::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

/// A file: what is surely there, and what a reader sees before the power is lost.
struct Inode {
    flushed: Blob,
    seen: Blob,
    /// What may be there after a loss of power.
    states: Vec<Blob>,
}

impl Inode {
    fn new(content: Vec<u8>) -> Inode {
        let blob = Blob::new(content);
        Inode { flushed: blob.clone(), seen: blob.clone(), states: vec![blob] }
    }

    fn write(&mut self, all: Vec<u8>) {
        self.seen = Blob::new(all);
        self.states = self.torn();
    }

    fn flush(&mut self) {
        self.flushed = self.seen.clone();
        self.states = vec![self.seen.clone()];
    }

    fn torn(&self) -> Vec<Blob> {
        let (old, new) = (&self.flushed.bytes, &self.seen.bytes);
        let from = old.iter().zip(new.iter()).take_while(|(a, b)| a == b).count();
        let half = from + (new.len() - from) / 2;
        let first_half = new[..half].to_vec();
        let second_half = [&new[..from], &vec![0; half - from], &new[half..]].concat();
        let zeros = [&new[..from], &vec![0; new.len() - from]].concat();
        let torn = [first_half, second_half, zeros].map(Blob::new);
        [vec![self.flushed.clone(), self.seen.clone()], torn.to_vec()].concat()
    }
}

/// What a number stands for in a process.
#[derive(Clone)]
enum Handle {
    File { inode: usize, position: usize, appends: bool },
    Folder(String),
}

struct Disk {
    root: String,
    inodes: Vec<Inode>,
    names: Names,
    flushed: Names,
    pending: Vec<Change>,
    open: HashMap<String, Handle>,
    renamed: Option<u64>,
    committed: Option<u64>,
}

/// Every state in which the disk may be when power is lost at any moment of the traced program, each once.
pub(crate) fn crashes(before: &Place, committed: Option<u64>, trace: &str) -> Vec<Crash> {
    let mut disk = Disk::of(before, committed);
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for line in trace.lines() {
        if disk.follow(line) {
            disk.states(line, &mut seen, &mut found);
        }
    }
    found
}

impl Disk {
    fn of(place: &Place, committed: Option<u64>) -> Disk {
        let (mut inodes, mut names) = (Vec::new(), Names::new());
        for (path, content) in place.everything() {
            names.insert(path, inodes.len());
            inodes.push(Inode::new(content));
        }
        let root = format!("{}/", place.path("").display().to_string().trim_end_matches('/'));
        let (flushed, pending, open) = (names.clone(), Vec::new(), HashMap::new());
        Disk { root, inodes, names, flushed, pending, open, renamed: None, committed }
    }

    /// Takes a call into account; whether it may have changed what is on the disk.
    fn follow(&mut self, line: &str) -> bool {
        let Some((_, call)) = line.split_once(' ') else { return false };
        let Some((call, value)) = call.trim_start().rsplit_once(" = ") else { return false };
        let Some((name, arguments)) = call.split_once('(') else { return false };
        if value.starts_with('-') || value.starts_with('?') {
            return false;
        }
        let texts: Vec<Vec<u8>> = arguments.split('"').skip(1).step_by(2).map(bytes).collect();
        let path = |k: usize| self.relative(&texts[k]);
        let number = arguments.split([',', ')']).next().unwrap_or_default().to_owned();
        match name {
            "openat" => {
                let Some(path) = path(0) else { return false };
                return self.open(path, arguments, value);
            }
            "close" => drop(self.open.remove(&number)),
            "dup2" => {
                let handle = self.open.get(&number).cloned();
                self.open.extend(handle.map(|handle| (value.trim().to_owned(), handle)));
            }
            "write" => {
                let Some(Handle::File { inode, position, appends }) = self.open.get_mut(&number) else {
                    return false;
                };
                let file = &mut self.inodes[*inode];
                let mut all = Vec::clone(&file.seen.bytes);
                let at = if *appends { all.len() } else { *position };
                let data = &texts[0][..value.trim().parse().unwrap()];
                all.resize(all.len().max(at + data.len()), 0);
                all[at..at + data.len()].copy_from_slice(data);
                *position = at + data.len();
                file.write(all);
            }
            "ftruncate" => {
                let Some(Handle::File { inode, position, .. }) = self.open.get_mut(&number) else {
                    return false;
                };
                let length = arguments.split([',', ')']).nth(1).unwrap().trim().parse().unwrap();
                let file = &mut self.inodes[*inode];
                let mut all = Vec::clone(&file.seen.bytes);
                all.resize(length, 0);
                *position = (*position).min(length);
                file.write(all);
            }
            "fsync" | "fdatasync" => match self.open.get(&number) {
                Some(Handle::File { inode, .. }) => {
                    self.inodes[*inode].flush();
                }
                Some(Handle::Folder(folder)) => {
                    let (done, rest) = self.pending.drain(..).partition(|change| change.folder() == folder);
                    let done: Vec<Change> = done;
                    done.iter().for_each(|change| change.apply(&mut self.flushed));
                    self.pending = rest;
                    self.committed = self.renamed.take().or(self.committed);
                }
                None => return false,
            },
            "rename" | "renameat" | "renameat2" => {
                let (Some(from), Some(to)) = (path(0), path(1)) else { return false };
                let step = to.rsplit_once("step_").and_then(|(_, step)| step.split_once(".safetensors"));
                self.renamed = step.and_then(|(digits, _)| digits.parse().ok()).or(self.renamed);
                self.change(Change::Rename(from, to));
            }
            "unlink" | "unlinkat" => {
                let Some(name) = path(0) else { return false };
                self.change(Change::Unlink(name));
            }
            _ => return false,
        }
        true
    }

    fn open(&mut self, path: String, flags: &str, value: &str) -> bool {
        let known = self.names.get(&path).copied();
        let number = value.split_whitespace().next().unwrap_or_default().to_owned();
        let inode = match known {
            Some(inode) => inode,
            None if flags.contains("O_CREAT") => {
                self.inodes.push(Inode::new(Vec::new()));
                self.change(Change::Link(path, self.inodes.len() - 1));
                self.inodes.len() - 1
            }
            None => {
                self.open.insert(number, Handle::Folder(path));
                return false;
            }
        };
        if flags.contains("O_TRUNC") {
            self.inodes[inode].write(Vec::new());
        }
        let appends = flags.contains("O_APPEND");
        self.open.insert(number, Handle::File { inode, position: 0, appends });
        known.is_none() || flags.contains("O_TRUNC")
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    /// A path below the place, if it is one in `run`.
    fn relative(&self, path: &[u8]) -> Option<String> {
        let path = String::from_utf8(path.to_vec()).ok()?;
        let path = path.strip_prefix(&self.root).unwrap_or(&path);
        (path == "run" || path.starts_with("run/")).then(|| path.to_owned())
    }

    /// Adds every state in which the disk may be now that was not seen before.
    fn states(&self, line: &str, seen: &mut BTreeSet<u64>, found: &mut Vec<Crash>) {
        for kept in subsets(self.pending.len()) {
            let mut names = self.flushed.clone();
            let applied = self.pending.iter().zip(&kept).filter(|(_, kept)| **kept);
            applied.for_each(|(change, _)| change.apply(&mut names));
            let states: Vec<(String, &[Blob])> =
                names.iter().map(|(name, inode)| (name.clone(), &self.inodes[*inode].states[..])).collect();
            let most = states.iter().map(|(_, states)| states.len()).max().unwrap_or(1);
            for k in 0..most {
                let files: BTreeMap<String, Blob> = states
                    .iter()
                    .map(|(name, states)| (name.clone(), states[k.min(states.len() - 1)].clone()))
                    .collect();
                let mut hasher = DefaultHasher::new();
                (self.committed, files.iter().map(|(name, b)| (name, b.hash)).collect::<Vec<_>>())
                    .hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    let call: String = line.chars().take(60).collect();
                    let what = format!("after {call}: names {kept:?}, content {k}");
                    found.push(Crash { files, committed: self.committed, what });
                }
            }
        }
    }
}

/// Which of `count` changes are kept: every subset of few, and of many none, all, one alone, all but one.
fn subsets(count: usize) -> Vec<Vec<bool>> {
    if count <= 4 {
        return (0..1 << count).map(|set: usize| (0..count).map(|k| set >> k & 1 == 1).collect()).collect();
    }
    let one =
        (0..count).flat_map(|one| [true, false].map(|kept| (0..count).map(|k| (k == one) == kept).collect()));
    one.chain([vec![true; count], vec![false; count]]).collect()
}

/// The bytes of a text of the form `\x41\x42`.
fn bytes(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(4).map(|hex| digit(hex[2]) << 4 | digit(hex[3])).collect()
}
