//! Writing down what every operator makes in a step.

use crate::diagnose::{names, parameters_of};
use kinone_core::watch::{Phase, Seen, watching};
use kinone_kernels::Cpu;
use kinone_nn::state::Parameter;
use kinone_runs::hash;
use kinone_runs::transcript::Entry;
use std::cell::RefCell;
use std::rc::Rc;

/// Runs `step` and hashes what each operator makes, forward and backward, in order.
pub(crate) fn transcribed<R>(
    parameters: &[(String, Parameter)],
    step: impl FnOnce() -> R,
) -> (R, Vec<Entry>) {
    let entries = Rc::new(RefCell::new(Vec::new()));
    let (note, names, cpu) = (Rc::clone(&entries), names(parameters), Cpu::current());
    let watcher = move |seen: &Seen| {
        let phase = if seen.phase == Phase::Forward { "forward" } else { "backward" };
        note.borrow_mut().push(Entry {
            phase: phase.to_owned(),
            operator: seen.operator.to_owned(),
            with: parameters_of(seen, &names),
            part: seen.part,
            sha256: hash::hex(&hash::numbers(&cpu, seen.values)),
        });
    };
    let result = watching(watcher, step);
    (result, entries.take())
}
