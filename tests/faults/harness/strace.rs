//! System calls of the program: listed, and made to fail or to kill it, one at a time.

use super::place::Place;
use super::program::{Ended, Program, is_here};
use std::collections::BTreeMap;
use std::fs;

/// Why nothing can be injected, where that is so.
pub(crate) fn no_strace() -> Option<&'static str> {
    if !is_here("strace") {
        return Some("strace is not installed");
    }
    let place = Place::new();
    let ended = Ended::of(place.tool("strace").args(["-o", "trace", "true"]));
    (!ended.status.success()).then_some("this system lets no process trace another")
}

/// A system call that the program made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// The how manieth of its name, from 1: how strace counts.
    pub(crate) nth: usize,
    /// The line of the trace.
    pub(crate) text: String,
}

impl Call {
    /// Whether it went well.
    pub(crate) fn is_good(&self) -> bool {
        self.text.rsplit(" = ").next().is_some_and(|value| value.starts_with(|c: char| c.is_ascii_digit()))
    }

    pub(crate) fn is_one_of(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }

    /// The step of the checkpoint that it puts in its place.
    pub(crate) fn renames_checkpoint(&self) -> Option<u64> {
        let target = self.text.rsplit_once("checkpoints/step_")?.1;
        let digits = target.split_once(".safetensors\")")?.0;
        if self.name.starts_with("rename") { digits.parse().ok() } else { None }
    }
}

/// What strace is to do: for each expression, the name of a call, when, and the fault.
pub(crate) fn kill(call: &Call) -> Vec<String> {
    vec![format!("inject={}:signal=KILL:when={}", call.name, call.nth)]
}

/// As [`kill`], with another signal.
pub(crate) fn signal(call: &Call, signal: &str) -> Vec<String> {
    vec![format!("inject={}:signal={signal}:when={}", call.name, call.nth)]
}

/// Lets the call fail.
pub(crate) fn fail(call: &Call, error: &str) -> Vec<String> {
    vec![format!("inject={}:error={error}:when={}", call.name, call.nth)]
}

/// Lets every call of these names fail that comes after the first `done` calls of the trace.
pub(crate) fn fail_from_then_on(done: &[Call], names: &[&str], error: &str) -> Vec<String> {
    let next = |name: &str| done.iter().filter(|call| call.name == name).count() + 1;
    names.iter().map(|name| format!("inject={name}:error={error}:when={}+", next(name))).collect()
}

/// Starts a program in a place with faults injected; its trace lies in the other place that is returned.
pub(crate) fn start(place: &Place, program: &[&str], faults: &[String]) -> (Program, Place) {
    let aside = Place::new();
    let mut command = place.tool("strace");
    command.arg("-f").arg("-qq").arg("-o").arg(aside.path("trace"));
    for fault in faults {
        command.arg("-e").arg(fault);
    }
    (Program::start(command.args(program)), aside)
}

/// Runs a program in a place with faults injected: how it ended, and the calls of its first thread.
pub(crate) fn run(place: &Place, program: &[&str], faults: &[String]) -> (Ended, Vec<Call>) {
    let (program, aside) = start(place, program, faults);
    (program.end(), calls(&fs::read_to_string(aside.path("trace")).unwrap_or_default()))
}

/// The calls in a trace that its first process made.
pub(crate) fn calls(trace: &str) -> Vec<Call> {
    let mut counts = BTreeMap::new();
    let mut found = Vec::new();
    let first = trace.split_whitespace().next().unwrap_or_default();
    for line in trace.lines() {
        let Some((pid, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        let name = text.split('(').next().unwrap_or_default();
        if pid != first || name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let nth = counts.entry(name.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        found.push(Call { name: name.to_owned(), nth: *nth, text: text.to_owned() });
    }
    found
}

/// Where in the trace a call was made to fail.
pub(crate) fn injected(calls: &[Call]) -> Option<usize> {
    calls.iter().position(|call| call.text.contains("(INJECTED)"))
}

/// The last step whose checkpoint was renamed and whose folder was flushed: it was committed.
pub(crate) fn committed(calls: &[Call]) -> Option<u64> {
    let mut renamed = None;
    let mut committed = None;
    for call in calls.iter().filter(|call| call.is_good()) {
        if let Some(step) = call.renames_checkpoint() {
            renamed = Some(step);
        } else if call.name == "fsync" && renamed.is_some() {
            committed = renamed.take();
        }
    }
    committed
}
