//! An optimizer's state as named values, for a checkpoint.

use super::Optimizer;
use crate::state::{Dictionary, Parameter, StateError, Value};
use kinone_core::array::Array;
use std::sync::Arc;

/// The name of a parameter's moment: `exp_avg.fc.weight`.
fn moment_name(moment: &str, parameter: &str) -> String {
    format!("{moment}.{parameter}")
}

impl Optimizer {
    /// The moments of every parameter, as `exp_avg.fc.weight`; empty before the first step.
    pub fn moments(&self, parameters: &[(String, Parameter)]) -> Dictionary {
        let mut moments = Dictionary::new();
        for ((name, _), arrays) in parameters.iter().zip(&self.moments) {
            for (moment, array) in self.rule.moments().iter().zip(arrays) {
                moments.insert(moment_name(moment, name), Value::F32(Arc::new(array.clone())));
            }
        }
        moments
    }

    /// Goes back to where `steps` were made and these were the moments.
    ///
    /// # Errors
    /// They are the moments of another rule or model; nothing was changed.
    pub fn restore(
        &mut self,
        steps: u64,
        parameters: &[(String, Parameter)],
        moments: &Dictionary,
    ) -> Result<(), StateError> {
        let kinds = if steps == 0 { &[] } else { self.rule.moments() };
        let mut wanted = Vec::new();
        for (name, parameter) in parameters {
            for moment in kinds {
                wanted.push((moment_name(moment, name), parameter.tensor().shape().clone()));
            }
        }
        let missing: Vec<String> = wanted
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !moments.contains_key(*name))
            .cloned()
            .collect();
        let known = |name: &&String| wanted.iter().any(|(known, _)| known == *name);
        let unknown: Vec<String> = moments.keys().filter(|name| !known(name)).cloned().collect();
        if !missing.is_empty() || !unknown.is_empty() {
            return Err(StateError::Names { missing, unknown });
        }
        let mut arrays = Vec::new();
        for (name, expected) in wanted {
            match &moments[&name] {
                Value::F32(array) if *array.shape() == expected => arrays.push(Array::clone(array)),
                other => return Err(StateError::Shape { name, expected, found: other.shape() }),
            }
        }
        self.steps = steps;
        self.moments = match kinds.len() {
            0 => Vec::new(),
            each => arrays.chunks(each).map(<[Array]>::to_vec).collect(),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::optim::{Optimizer, Rule};
    use crate::state::Parameter;
    use kinone_core::array::Array;

    /// Steps `steps` of one parameter, whose gradient changes.
    fn advance(optimizer: &mut Optimizer, parameters: &[(String, Parameter)], steps: std::ops::Range<u16>) {
        for step in steps {
            let x = parameters[0].1.tensor();
            let slope = Array::full([3], 0.25 + f32::from(step));
            let adjoints = x.mul(&x).unwrap().backward_from(slope, &[]).unwrap();
            drop(x);
            optimizer.update(parameters, &adjoints, 0.01);
        }
    }

    #[test]
    fn a_restored_optimizer_goes_on_with_the_same_bits() {
        let sgd = |momentum| Rule::Sgd { momentum, nesterov: false, weight_decay: 0.1 };
        let other = Rule::RmsProp { alpha: 0.9, eps: 1e-8, weight_decay: 0.0, momentum: 0.5 };
        for rule in [Rule::adam(), sgd(0.9), sgd(0.0)] {
            let new = || vec![("x".to_owned(), Parameter::new(Array::full([3], 1.0)))];
            let (whole, parts) = (new(), new());
            advance(&mut Optimizer::new(rule), &whole, 0..4);
            let mut first = Optimizer::new(rule);
            advance(&mut first, &parts, 0..2);
            let mut second = Optimizer::new(rule);
            second.restore(first.steps(), &parts, &first.moments(&parts)).unwrap();
            advance(&mut second, &parts, 2..4);
            assert_eq!(whole[0].1.tensor().data(), parts[0].1.tensor().data(), "{rule:?}");
            // The moments of one rule are not those of another.
            assert!(Optimizer::new(other).restore(4, &parts, &second.moments(&parts)).is_err());
        }
    }
}
