//! The program built otherwise: for another processor, by another compiler, with other settings.

use crate::shell::{cargo, command, install, output, root, run, succeeds};
use std::path::PathBuf;

/// A way to build it.
struct Way {
    /// Its kind, and what it is: `profile-size`.
    name: &'static str,
    /// The faults that are tried with it.
    faults: &'static [&'static str],
    toolchain: Option<&'static str>,
    target: Option<&'static str>,
    /// Debian packages, and a program by which to tell that they are here.
    packages: (&'static [&'static str], &'static str),
    profile: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

const PLAIN: Way = Way {
    name: "",
    faults: &["J08"],
    toolchain: None,
    target: None,
    packages: (&[], ""),
    profile: "release",
    environment: &[],
};

const WAYS: &[Way] = &[
    Way {
        name: "isa-aarch64",
        faults: &["J02", "J12"],
        target: Some("aarch64-unknown-linux-gnu"),
        packages: (&["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"], "aarch64-linux-gnu-gcc"),
        profile: "dev",
        environment: &[("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")],
        ..PLAIN
    },
    Way {
        name: "libc-musl",
        faults: &["J09"],
        target: Some("x86_64-unknown-linux-musl"),
        profile: "dev",
        ..PLAIN
    },
    Way { name: "compiler-1.96.0", faults: &["J09"], toolchain: Some("1.96.0"), profile: "dev", ..PLAIN },
    Way { name: "profile-release", ..PLAIN },
    Way { name: "profile-size", environment: &[("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")], ..PLAIN },
    Way { name: "profile-native", environment: &[("RUSTFLAGS", "-C target-cpu=native")], ..PLAIN },
    Way {
        name: "profile-lto-in-one-unit",
        environment: &[("CARGO_PROFILE_RELEASE_LTO", "fat"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")],
        ..PLAIN
    },
];

/// Where they lie.
pub(super) fn folder() -> PathBuf {
    root().join("target/faults/programs")
}

/// Builds those with which a chosen fault is tried. What cannot be built is said, and recorded as not tried.
pub(super) fn build(is_chosen: impl Fn(&str) -> bool) -> Result<(), String> {
    let folder = folder();
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for way in WAYS.iter().filter(|way| way.faults.iter().any(|id| is_chosen(id))) {
        let program = folder.join(way.name);
        // One of before is not this one.
        let _ = std::fs::remove_file(&program);
        println!("\n== {}", way.name);
        if let Err(reason) = way.build(&program) {
            println!("{} cannot be built here ({reason}): it will be recorded as not tried", way.name);
        }
    }
    if is_chosen("J02") && !succeeds(&mut command("qemu-x86_64", &["--version"])) {
        let _ = install(&["qemu-user"]);
    }
    Ok(())
}

impl Way {
    fn build(&self, program: &std::path::Path) -> Result<(), String> {
        let (packages, tell) = self.packages;
        if !tell.is_empty() && !succeeds(&mut command(tell, &["--version"])) {
            install(packages)?;
        }
        if let Some(toolchain) = self.toolchain {
            run(&mut command("rustup", &["toolchain", "install", toolchain, "--profile", "minimal"]))?;
        }
        if let Some(target) = self.target {
            let installed = output(&mut command("rustup", &["target", "list", "--installed"]))?;
            if !installed.lines().any(|line| line == target) {
                run(&mut command("rustup", &["target", "add", target]))?;
            }
        }
        let place = root().join("target/faults/build");
        let place_name = place.to_string_lossy().into_owned();
        let mut arguments =
            vec!["build", "--profile", self.profile, "--bin", "kinone", "--target-dir", &place_name];
        arguments.extend(self.target.iter().flat_map(|target| ["--target", target]));
        let mut build = match self.toolchain {
            Some(toolchain) => {
                let mut build = command("rustup", &["run", toolchain, "cargo"]);
                // The compiler that builds this program is not the one that is meant.
                build.env_remove("RUSTC").env_remove("CARGO").args(&arguments);
                build
            }
            None => cargo(&arguments),
        };
        build.envs(self.environment.iter().copied());
        // Nobody looks into these with a debugger.
        build.env("CARGO_PROFILE_RELEASE_DEBUG", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
        run(build.env("CARGO_INCREMENTAL", "0"))?;
        let folder = if self.profile == "dev" { "debug" } else { self.profile };
        let built = place.join(self.target.unwrap_or("")).join(folder).join("kinone");
        std::fs::copy(&built, program).map_err(|error| format!("{}: {error}", built.display()))?;
        Ok(())
    }
}
