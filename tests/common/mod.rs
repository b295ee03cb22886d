//! A folder in which the program runs, as a person would run it.

#![allow(dead_code, reason = "each file of tests uses its part")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The settings of a run that takes seconds.
pub(crate) const TINY: [&str; 6] = ["--images", "120", "--image-size", "32", "--epochs", "1"];

/// A small network on few images, in a fraction of a second: ten steps an epoch.
pub(crate) const SMALL: [&str; 7] = [
    "train",
    "--json",
    "--model=resnet10w8",
    "--images=100",
    "--image-size=32",
    "--batch-size=8",
    "--threads=1",
];

/// An empty folder, and the program in it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinone"));
        command.current_dir(self.0.path()).env_remove("KINONE_ISA").stdin(Stdio::null()).args(arguments);
        command
    }

    /// The program, which minds signals even where whoever started the tests ignores them: a shell does so for what it
    /// runs in the background, and `nohup`.
    pub(crate) fn minding_signals(&self, arguments: &[&str]) -> Command {
        if !cfg!(target_os = "linux") {
            return self.command(arguments);
        }
        let plain = self.command(arguments);
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,HUP").arg(plain.get_program()).args(plain.get_args());
        command.current_dir(self.0.path()).env_remove("KINONE_ISA").stdin(Stdio::null());
        command
    }

    /// What the program printed; it must succeed, and say nothing on the standard error.
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        printed(self.command(arguments).output().unwrap(), arguments)
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeeds(arguments)).unwrap()
    }

    /// The program must end with this code and one line that holds all `words`, and change no file.
    pub(crate) fn refuses(&self, code: i32, words: &[&str], arguments: &[&str]) {
        self.is_refused(code, words, self.command(arguments));
    }

    pub(crate) fn is_refused(&self, code: i32, words: &[&str], mut command: Command) {
        let before = self.files();
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let case = format!("{command:?}\n{said}");
        assert_eq!(output.status.code(), Some(code), "{case}");
        assert!(said.starts_with("kinone: ") && said.ends_with('\n'), "{case}");
        assert_eq!(said.lines().count(), 1, "{case}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{case}");
        for word in words {
            assert!(said.contains(word), "no `{word}` in: {case}");
        }
        assert_eq!(self.files(), before, "{case}");
    }

    /// Every path below the folder.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        collect(self.0.path(), &mut found);
        found
    }
}

pub(crate) fn printed(output: Output, arguments: &[&str]) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{arguments:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn collect(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, found);
        }
        found.insert(path);
    }
}
