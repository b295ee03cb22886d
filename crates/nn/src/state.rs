//! What a module remembers: parameters, which learn; statistics and counters, which are observed.
//!
//! All three are handles: a clone refers to the same state.

use crate::module::Module;
use kinone_core::array::Array;
use kinone_core::shape::Shape;
use kinone_core::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Numbers that an optimizer changes.
#[derive(Clone, Debug)]
pub struct Parameter(Arc<Mutex<Tensor>>);

impl Parameter {
    /// A parameter with this initial value.
    pub fn new(value: Array) -> Parameter {
        Parameter(Arc::new(Mutex::new(Tensor::variable(value))))
    }

    fn lock(&self) -> MutexGuard<'_, Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value as a variable; the same variable until the end of the parameter's life.
    pub fn tensor(&self) -> Tensor {
        self.lock().clone()
    }

    /// Changes the numbers in place (or a copy, while a graph still holds them).
    pub fn modify<R>(&self, change: impl FnOnce(&mut [f32]) -> R) -> R {
        match self.lock().modify() {
            Some(values) => change(values),
            None => unreachable!("a parameter is a variable"),
        }
    }
}

/// Numbers that a module observes: the running mean and variance of a batch normalization.
#[derive(Clone, Debug)]
pub struct Statistic(Parameter);

impl Statistic {
    /// A statistic with this initial value.
    pub fn new(value: Array) -> Statistic {
        Statistic(Parameter::new(value))
    }

    /// The value, as a variable that a trace can name; a [`Pass`](crate::Pass) detaches it otherwise.
    pub fn tensor(&self) -> Tensor {
        self.0.tensor()
    }

    /// Changes the numbers.
    pub fn modify<R>(&self, change: impl FnOnce(&mut [f32]) -> R) -> R {
        self.0.modify(change)
    }
}

/// A whole number that a module counts: the batches a batch normalization has seen.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<Mutex<i64>>);

impl Counter {
    /// The count.
    pub fn get(&self) -> i64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the count.
    pub fn set(&self, count: i64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = count;
    }
}

/// One piece of a module's state, by handle.
#[derive(Clone, Debug)]
pub enum State {
    /// What learns.
    Parameter(Parameter),
    /// What is observed.
    Statistic(Statistic),
    /// What is counted.
    Counter(Counter),
}

/// One value of a state dictionary.
#[derive(Clone, Debug)]
pub enum Value {
    /// Numbers.
    F32(Arc<Array>),
    /// A count; its shape is that of one number.
    I64(i64),
}

impl Value {
    /// The shape.
    pub fn shape(&self) -> Shape {
        match self {
            Value::F32(array) => array.shape().clone(),
            Value::I64(_) => Shape::scalar(),
        }
    }

    /// The bytes, little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Value::F32(array) => array.data().iter().flat_map(|x| x.to_le_bytes()).collect(),
            Value::I64(count) => count.to_le_bytes().to_vec(),
        }
    }
}

impl State {
    /// A copy of what it holds now.
    pub fn value(&self) -> Value {
        match self {
            State::Parameter(parameter) => Value::F32(Arc::clone(parameter.tensor().value())),
            State::Statistic(statistic) => Value::F32(Arc::clone(statistic.tensor().value())),
            State::Counter(counter) => Value::I64(counter.get()),
        }
    }

    fn set(&self, value: &Value) {
        match (self, value) {
            (State::Parameter(p), Value::F32(array)) => p.modify(|data| data.copy_from_slice(array.data())),
            (State::Statistic(s), Value::F32(array)) => s.modify(|data| data.copy_from_slice(array.data())),
            (State::Counter(counter), Value::I64(count)) => counter.set(*count),
            _ => unreachable!("kinds are compared before anything is set"),
        }
    }
}

/// A module's state by name, in the byte order of the names.
pub type Dictionary = BTreeMap<String, Value>;

/// Why a dictionary does not fit a module. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Names differ.
    #[error("the weights are of another model: {} missing ({}), {} unknown ({})",
        missing.len(), few(missing), unknown.len(), few(unknown))]
    Names {
        /// Names the model has and the dictionary lacks.
        missing: Vec<String>,
        /// Names the dictionary has and the model lacks.
        unknown: Vec<String>,
    },
    /// A tensor has another shape or kind.
    #[error(
        "the weights are of another model: `{name}` has shape {found} in the file, {expected} in the model"
    )]
    Shape {
        /// Which tensor.
        name: String,
        /// The module's shape.
        expected: Shape,
        /// The dictionary's shape.
        found: Shape,
    },
}

fn few(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one, .., last] if names.len() > 2 => format!("`{one}` … `{last}`"),
        _ => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// Every piece of state of `module` with its full name, in the module's order.
pub fn named(module: &dyn Module) -> Vec<(String, State)> {
    let mut named = Vec::new();
    module.visit(&mut Visitor { prefix: String::new(), found: &mut named });
    named
}

/// The parameters of `module` with their full names, in the module's order.
pub fn parameters(module: &dyn Module) -> Vec<(String, Parameter)> {
    let only = |(name, state)| match state {
        State::Parameter(parameter) => Some((name, parameter)),
        State::Statistic(_) | State::Counter(_) => None,
    };
    named(module).into_iter().filter_map(only).collect()
}

/// The parameters and statistics of `module` as the variables that a traced [`Pass`](crate::Pass) computes with.
pub fn variables(module: &dyn Module) -> Vec<(String, Tensor)> {
    let variable = |(name, state)| match state {
        State::Parameter(parameter) => Some((name, parameter.tensor())),
        State::Statistic(statistic) => Some((name, statistic.tensor())),
        State::Counter(_) => None,
    };
    named(module).into_iter().filter_map(variable).collect()
}

/// A copy of the whole state.
pub fn dictionary(module: &dyn Module) -> Dictionary {
    named(module).into_iter().map(|(name, state)| (name, state.value())).collect()
}

/// Replaces the whole state: every name must be there, no other, with equal shapes.
///
/// # Errors
/// The dictionary is of another model; nothing was changed.
pub fn load(module: &dyn Module, dictionary: &Dictionary) -> Result<(), StateError> {
    let named = named(module);
    let missing: Vec<String> =
        named.iter().map(|(name, _)| name).filter(|name| !dictionary.contains_key(*name)).cloned().collect();
    let known = |name: &&String| named.iter().any(|(known, _)| known == *name);
    let unknown: Vec<String> = dictionary.keys().filter(|name| !known(name)).cloned().collect();
    if !missing.is_empty() || !unknown.is_empty() {
        return Err(StateError::Names { missing, unknown });
    }
    for (name, state) in &named {
        let (expected, found) = (state.value(), &dictionary[name]);
        let same_kind =
            matches!((&expected, found), (Value::F32(_), Value::F32(_)) | (Value::I64(_), Value::I64(_)));
        if expected.shape() != found.shape() || !same_kind {
            let (expected, found) = (expected.shape(), found.shape());
            return Err(StateError::Shape { name: name.clone(), expected, found });
        }
    }
    for (name, state) in &named {
        state.set(&dictionary[name]);
    }
    Ok(())
}

/// Collects state under dotted names: `layer1.0.conv1.weight`.
#[derive(Debug)]
pub struct Visitor<'a> {
    prefix: String,
    found: &'a mut Vec<(String, State)>,
}

impl Visitor<'_> {
    fn push(&mut self, name: &str, state: State) {
        self.found.push((format!("{}{name}", self.prefix), state));
    }

    /// A parameter of this module.
    pub fn parameter(&mut self, name: &str, parameter: &Parameter) {
        self.push(name, State::Parameter(parameter.clone()));
    }

    /// A statistic of this module.
    pub fn statistic(&mut self, name: &str, statistic: &Statistic) {
        self.push(name, State::Statistic(statistic.clone()));
    }

    /// A counter of this module.
    pub fn counter(&mut self, name: &str, counter: &Counter) {
        self.push(name, State::Counter(counter.clone()));
    }

    /// A module inside this one.
    pub fn module(&mut self, name: &str, module: &dyn Module) {
        module.visit(&mut Visitor { prefix: format!("{}{name}.", self.prefix), found: self.found });
    }
}
