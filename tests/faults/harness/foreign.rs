//! Programs that were built otherwise than the tests: for another processor, by another compiler, with other
//! settings. `cargo xtask faults` builds them and says in `KINONE_FAULTS_PROGRAMS` where they lie.

use super::program::is_here;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Those whose names begin with this.
pub(crate) fn programs(kind: &str) -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("KINONE_FAULTS_PROGRAMS") else { return Vec::new() };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| name(path).starts_with(kind)).collect();
    found.sort();
    found
}

/// The name of a program's file.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A command that runs it in `folder`, in an emulator where it is for another processor.
pub(crate) fn command(program: &Path, folder: &Path) -> Command {
    let emulated = name(program).contains("aarch64");
    let mut command = if emulated { Command::new("qemu-aarch64") } else { Command::new(program) };
    if emulated {
        command.args(["-L", "/usr/aarch64-linux-gnu"]).arg(program);
    }
    command.current_dir(folder).env_remove("KINONE_ISA");
    command
}

/// An x86-64 processor with neither AVX nor FMA, if there is an emulator of one.
pub(crate) fn oldest_x86(folder: &Path) -> Option<Command> {
    if !cfg!(target_arch = "x86_64") || !is_here("qemu-x86_64") {
        return None;
    }
    let mut command = Command::new("qemu-x86_64");
    command.args(["-cpu", "qemu64"]).arg(super::kinone()).current_dir(folder).env_remove("KINONE_ISA");
    Some(command)
}
