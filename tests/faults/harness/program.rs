//! The program, started with a limit on its time; what it said and how it ended.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The file of the program under test.
pub(crate) fn kinone() -> &'static str {
    env!("CARGO_BIN_EXE_kinone")
}

/// The limit on the time of anything that is started.
const LIMIT: Duration = Duration::from_secs(60);

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    what: String,
}

/// A program that was started.
pub(crate) struct Program {
    pub(crate) child: Child,
    started: Instant,
    what: String,
    output: Vec<JoinHandle<String>>,
}

impl Program {
    /// Starts a command, with its output kept where the command does not say otherwise.
    pub(crate) fn start(command: &mut Command) -> Program {
        let what = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let reading = |stream: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut stream) = stream {
                    stream.read_to_end(&mut bytes).unwrap();
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
        let stderr = child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
        let output = vec![reading(stdout), reading(stderr)];
        Program { child, started: Instant::now(), what, output }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
    }

    /// Waits until `is_so`, while the program runs; whether it came true.
    pub(crate) fn wait_until(&mut self, is_so: impl Fn() -> bool) -> bool {
        loop {
            if is_so() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return is_so();
            }
            assert!(self.started.elapsed() < LIMIT, "nothing happens: {}", self.what);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end, which must be no crash.
    pub(crate) fn end(self) -> Ended {
        let ended = self.end_in_any_way();
        ended.is_no_crash();
        ended
    }

    /// Waits for its end. One that hangs is killed, and the test fails.
    pub(crate) fn end_in_any_way(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > LIMIT {
                self.child.kill().unwrap();
                panic!("still running after {LIMIT:?}: {}", self.what);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = self.started.elapsed();
        let mut output = self.output.into_iter().map(|thread| thread.join().unwrap());
        let (stdout, stderr) = (output.next().unwrap(), output.next().unwrap());
        Ended { status, stdout, stderr, took, what: self.what }
    }
}

impl Ended {
    /// Of the command, its output kept.
    pub(crate) fn of(command: &mut Command) -> Ended {
        Program::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())).end()
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether SIGKILL ended it, or a tool that ran it died of the same.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(9) || self.status.code() == Some(128 + 9)
    }

    /// It must have succeeded and said nothing on the standard error.
    pub(crate) fn succeeded(self) -> Ended {
        assert!(self.status.success() && self.stderr.is_empty(), "{self}");
        self
    }

    /// It must have ended with this code and one line that holds all `words`.
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Ended {
        assert_eq!(self.code(), Some(code), "{self}");
        assert!(self.stderr.starts_with("kinone: ") && self.stderr.ends_with('\n'), "{self}");
        assert_eq!(self.stderr.lines().count(), 1, "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in: {self}");
        }
        self
    }

    /// No panic, no abort, no core dump, whatever else happened.
    fn is_no_crash(&self) {
        for text in ["panicked", "stack backtrace", "RUST_BACKTRACE", "overflowed its stack"] {
            assert!(!self.stderr.contains(text) && !self.stdout.contains(text), "a panic: {self}");
        }
        // SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
        let died_of = self.status.signal().unwrap_or(0);
        assert!(![4, 6, 7, 8, 11].contains(&died_of) && !self.status.core_dumped(), "a crash: {self}");
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.what, self.status)?;
        write!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Whether a program of this name is here.
pub(crate) fn is_here(name: impl AsRef<OsStr>) -> bool {
    let status =
        Command::new("sh").arg("-c").arg("command -v \"$0\"").arg(name).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Why a program cannot be run as somebody else, where that is so.
pub(crate) fn not_root() -> Option<&'static str> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    (!is_root || !is_here("setpriv")).then_some("a program can be run as another user by root alone")
}

/// The beginning of a command that runs the program as a user of this number, who owns the place from here on.
pub(crate) fn as_user(place: &super::Place, user: u32) -> Vec<String> {
    static PROGRAM: std::sync::OnceLock<super::Place> = std::sync::OnceLock::new();
    let public = PROGRAM.get_or_init(|| {
        let public = super::Place::new();
        std::fs::copy(kinone(), public.path("kinone")).unwrap();
        std::fs::set_permissions(public.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
        public
    });
    let owned = Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(place.path(".")).status();
    assert!(owned.unwrap().success());
    let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()];
    let program = public.path("kinone").display().to_string();
    [&["setpriv".to_owned()][..], &ids, &[program]].concat()
}
