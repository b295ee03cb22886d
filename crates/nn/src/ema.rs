//! The exponential moving average of the weights (Polyak and Juditsky, 1992; as in Tarvainen and Valpola,
//! NeurIPS 2017): smoother than the weights themselves, and often better.

use crate::state::{Dictionary, Parameter, StateError, Value};
use kinone_core::array::Array;
use kinone_kernels::{Cpu, Task};
use std::sync::Arc;

/// An average of every parameter. It begins as the parameters and after each step becomes
/// `e = fma(1 − decay, w − e, e)`, with `1 − decay` computed in f64 and rounded to f32 once.
#[derive(Debug)]
pub struct Ema {
    rate: f32,
    averages: Vec<Array>,
}

impl Ema {
    /// An average that keeps `decay` of itself a step, at the parameters as they are now.
    pub fn new(decay: f64, parameters: &[(String, Parameter)]) -> Ema {
        let averages = parameters.iter().map(|(_, p)| Array::clone(p.tensor().value())).collect();
        Ema { rate: (1.0 - decay) as f32, averages }
    }

    /// Takes in the parameters after a step.
    pub fn update(&mut self, parameters: &[(String, Parameter)]) {
        let cpu = Cpu::current();
        for ((_, parameter), average) in parameters.iter().zip(&mut self.averages) {
            let weights = parameter.tensor();
            cpu.for_slices(weights.data().len(), 16_384, &mut [Some(average.data_mut())], |offset, parts| {
                for part in parts.iter_mut().flatten() {
                    let weights = &weights.data()[offset..offset + part.len()];
                    cpu.vectorize(Approach { rate: self.rate, average: part, weights });
                }
            });
        }
    }

    /// The averages under the names of the parameters.
    pub fn dictionary(&self, parameters: &[(String, Parameter)]) -> Dictionary {
        let named = |((name, _), average): (&(String, Parameter), &Array)| {
            (name.clone(), Value::F32(Arc::new(average.clone())))
        };
        parameters.iter().zip(&self.averages).map(named).collect()
    }

    /// Goes back to these averages.
    ///
    /// # Errors
    /// They are of another model; nothing was changed.
    pub fn restore(
        &mut self,
        parameters: &[(String, Parameter)],
        averages: &Dictionary,
    ) -> Result<(), StateError> {
        let mut restored = Vec::new();
        for ((name, _), average) in parameters.iter().zip(&self.averages) {
            match averages.get(name) {
                Some(Value::F32(found)) if found.shape() == average.shape() => {
                    restored.push(Array::clone(found));
                }
                Some(other) => {
                    let (expected, found) = (average.shape().clone(), other.shape());
                    return Err(StateError::Shape { name: name.clone(), expected, found });
                }
                None => return Err(StateError::Names { missing: vec![name.clone()], unknown: Vec::new() }),
            }
        }
        self.averages = restored;
        Ok(())
    }
}

struct Approach<'a> {
    rate: f32,
    average: &'a mut [f32],
    weights: &'a [f32],
}

impl Task for Approach<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (e, w) in self.average.iter_mut().zip(self.weights) {
            *e = self.rate.mul_add(w - *e, *e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_follows_by_its_formula_and_comes_back() {
        let parameter = Parameter::new(Array::full([2], 1.0));
        let named = vec![("w".to_owned(), parameter.clone())];
        let mut ema = Ema::new(0.75, &named);
        parameter.modify(|w| w.copy_from_slice(&[3.0, -1.0]));
        ema.update(&named);
        let kept = ema.dictionary(&named);
        let Value::F32(average) = &kept["w"] else { panic!("numbers") };
        // 1 + (3 − 1)/4 and 1 + (−1 − 1)/4.
        assert_eq!(average.data(), [1.5, 0.5]);
        let mut again = Ema::new(0.75, &named);
        again.restore(&named, &kept).unwrap();
        for ema in [&mut ema, &mut again] {
            ema.update(&named);
        }
        let bytes = |ema: &Ema| ema.dictionary(&named)["w"].bytes();
        assert_eq!(bytes(&ema), bytes(&again));
        assert!(again.restore(&named, &Dictionary::new()).is_err());
    }
}
