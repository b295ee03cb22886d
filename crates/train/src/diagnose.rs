//! Where a number that is not finite begins.

use kinone_core::watch::{Phase, Seen, watching};
use kinone_kernels::Cpu;
use kinone_nn::state::Parameter;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The names of parameters by the numbers of their variables.
pub(crate) type Names = BTreeMap<u64, String>;

/// The names of these parameters.
pub(crate) fn names(parameters: &[(String, Parameter)]) -> Names {
    let named =
        |(name, parameter): &(String, Parameter)| Some((parameter.tensor().node()?.id(), name.clone()));
    parameters.iter().filter_map(named).collect()
}

/// The parameters among an operator's inputs: what tells one convolution from another.
pub(crate) fn parameters_of(seen: &Seen, names: &Names) -> Vec<String> {
    seen.inputs.iter().flatten().filter_map(|id| names.get(id).cloned()).collect()
}

/// The first parameter that is not finite, and its first such value.
pub(crate) fn overflow(parameters: &[(String, Parameter)]) -> Option<String> {
    let cpu = Cpu::current();
    parameters.iter().find_map(|(name, parameter)| {
        let tensor = parameter.tensor();
        // Every step asks: without a branch for each number the loop is vectorised.
        let are_finite = |values: &[f32]| values.iter().fold(true, |all, x| all & x.is_finite());
        let found = AtomicBool::new(false);
        cpu.for_ranges(tensor.data().len(), 16_384, |range| {
            if !are_finite(&tensor.data()[range]) {
                found.store(true, Ordering::Relaxed);
            }
        });
        if !found.into_inner() {
            return None;
        }
        let (index, value) = tensor.data().iter().enumerate().find(|(_, x)| !x.is_finite())?;
        Some(format!("the parameter {name} is {value} at index {index}"))
    })
}

/// The largest number among the parameters, and the first parameter that holds it.
pub(crate) fn largest(parameters: &[(String, Parameter)]) -> String {
    let (mut largest, mut of) = (0.0_f32, "none");
    for (name, parameter) in parameters {
        let most = parameter
            .tensor()
            .data()
            .iter()
            .fold(0.0_f32, |most, x| if x.abs() > most { x.abs() } else { most });
        if most > largest {
            (largest, of) = (most, name);
        }
    }
    format!("the largest weight is {largest:e}, in {of}")
}

/// The first operator in the order of the forward run whose output is not finite.
pub(crate) fn forward<R>(parameters: &[(String, Parameter)], run: impl FnOnce() -> R) -> Option<String> {
    first(Phase::Forward, parameters, run)
}

/// The first operator in the order of the backward walk that contributes something not finite, and to what.
pub(crate) fn backward<R>(parameters: &[(String, Parameter)], walk: impl FnOnce() -> R) -> Option<String> {
    first(Phase::Backward, parameters, walk)
}

fn first<R>(phase: Phase, parameters: &[(String, Parameter)], run: impl FnOnce() -> R) -> Option<String> {
    let found = Rc::new(RefCell::new(None));
    let (note, names) = (Rc::clone(&found), names(parameters));
    let (mut number, mut before) = (0_usize, None);
    let watcher = move |seen: &Seen| {
        if seen.phase != phase {
            return;
        }
        number += usize::from(seen.part == 0 || phase == Phase::Backward);
        let with = parameters_of(seen, &names);
        let mut note = note.borrow_mut();
        if note.is_none() && !seen.values.iter().all(|x| x.is_finite()) {
            let value = seen.values.iter().find(|x| !x.is_finite()).copied().unwrap_or_default();
            let place = match (with.is_empty(), &before) {
                (true, Some(before)) => format!("after {before}"),
                _ => format!("with {}", with.join(", ")),
            };
            let to = seen.inputs.get(seen.part).copied().flatten().and_then(|id| names.get(&id));
            let what = match (phase, to) {
                (Phase::Forward, _) => "in the output of".to_owned(),
                (Phase::Backward, Some(parameter)) => format!("in the gradient of {parameter} from"),
                (Phase::Backward, None) => format!("in the gradient of input {} from", seen.part),
            };
            let way = if phase == Phase::Forward { "forward" } else { "backward" };
            *note = Some(format!("{what} {} ({value}; {place}; number {number} {way})", seen.operator));
        }
        if !with.is_empty() {
            before = Some(with.join(", "));
        }
    };
    watching(watcher, run);
    found.take()
}
