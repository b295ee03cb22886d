//! One execution of an operator over any scalar, with its memory in the open.

use crate::case::Case;
use crate::operator::{Operator, Output, Saved, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::Shape;
use kinone_kernels::Cpu;

/// The shapes a case produces.
pub(super) fn produced<O: Operator>(case: &Case<O>, shapes: &[Shape]) -> Shapes {
    let borrowed: Vec<&Shape> = shapes.iter().collect();
    match case.operator.shape(&borrowed) {
        Ok(shapes) => shapes,
        Err(error) => panic!("the case `{}` does not fit its operator: {error}", case.name),
    }
}

/// Numbers that start `offset` elements after an allocation's start, so that alignment is whatever it is.
#[derive(Clone, Debug)]
pub(super) struct Placed<F> {
    data: Vec<F>,
    offset: usize,
}

impl<F: Copy> Placed<F> {
    pub(super) fn new(values: &[F], offset: usize, filler: F) -> Placed<F> {
        let mut data = vec![filler; offset];
        data.extend_from_slice(values);
        Placed { data, offset }
    }
}

impl<F> std::ops::Deref for Placed<F> {
    type Target = [F];
    fn deref(&self) -> &[F] {
        &self.data[self.offset..]
    }
}

impl<F> std::ops::DerefMut for Placed<F> {
    fn deref_mut(&mut self) -> &mut [F] {
        &mut self.data[self.offset..]
    }
}

/// Inputs, and what an operator made of them.
#[derive(Debug)]
pub(super) struct Run<F> {
    shapes: Vec<Shape>,
    produced: Shapes,
    inputs: Vec<Placed<F>>,
    pub(super) value: Placed<F>,
    pub(super) auxiliaries: Vec<Placed<F>>,
    offset: usize,
    rubbish: F,
}

impl<F: Real> Run<F> {
    /// Runs `go` on inputs and outputs placed `offset` elements off, the outputs full of `rubbish`.
    pub(super) fn new<O: Operator>(
        operator: &O,
        shapes: &[Shape],
        inputs: &[Vec<F>],
        (offset, rubbish): (usize, F),
        go: impl FnOnce(&[View<F>], &mut Output<F>),
    ) -> Run<F> {
        let borrowed: Vec<&Shape> = shapes.iter().collect();
        let produced = match operator.shape(&borrowed) {
            Ok(produced) => produced,
            Err(error) => panic!("{error}"),
        };
        let empty = |shape: &Shape| Placed::new(&vec![rubbish; shape.size()], offset, rubbish);
        let mut run = Run {
            shapes: shapes.to_vec(),
            inputs: inputs.iter().map(|input| Placed::new(input, offset, rubbish)).collect(),
            value: empty(&produced.value),
            auxiliaries: produced.auxiliaries.iter().map(empty).collect(),
            produced,
            offset,
            rubbish,
        };
        let views: Vec<View<F>> = run.shapes.iter().zip(&run.inputs).map(|(s, x)| View::new(s, x)).collect();
        let auxiliaries = run.auxiliaries.iter_mut().map(|placed| &mut **placed).collect();
        let mut output = Output { shape: &run.produced.value, value: &mut run.value, auxiliaries };
        go(&views, &mut output);
        run
    }

    /// Runs the definition.
    pub(super) fn of_loop<O: Operator>(operator: &O, shapes: &[Shape], inputs: Vec<Vec<F>>) -> Run<F> {
        Run::new(operator, shapes, &inputs, (0, F::of(f64::NAN)), |x, y| operator.forward(x, y))
    }

    /// The gradients that `go` writes for the wanted inputs.
    pub(super) fn vjp<O: Operator>(
        &self,
        cotangent: &[F],
        wanted: &[bool],
        go: impl FnOnce(&Saved<F>, View<F>, &mut [Slot<F>]),
    ) -> Vec<Option<Placed<F>>> {
        let kept =
            |k: usize| O::SAVES.inputs.contains(&k).then(|| View::new(&self.shapes[k], &self.inputs[k]));
        let auxiliaries = self.produced.auxiliaries.iter().zip(&self.auxiliaries);
        let saved = Saved::new(
            O::DOC.name,
            &self.shapes,
            (0..self.shapes.len()).map(kept).collect(),
            O::SAVES.output.then(|| View::new(&self.produced.value, &self.value)),
            auxiliaries.filter(|_| O::SAVES.auxiliaries).map(|(s, a)| View::new(s, a)).collect(),
        );
        let mut gradients: Vec<Option<Placed<F>>> = wanted
            .iter()
            .zip(&self.shapes)
            .map(|(wanted, shape)| {
                wanted.then(|| Placed::new(&vec![self.rubbish; shape.size()], self.offset, self.rubbish))
            })
            .collect();
        let cotangent = Placed::new(cotangent, self.offset, self.rubbish);
        let mut slots: Vec<Slot<F>> =
            gradients.iter_mut().map(|slot| slot.as_mut().map(|placed| &mut **placed)).collect();
        go(&saved, View::new(&self.produced.value, &cotangent), &mut slots);
        gradients
    }

    /// The gradients by the definition.
    pub(super) fn vjp_loop<O: Operator>(
        &self,
        operator: &O,
        cotangent: &[F],
        wanted: &[bool],
    ) -> Vec<Option<Placed<F>>> {
        self.vjp::<O>(cotangent, wanted, |saved, dy, dx| operator.vjp(saved, dy, dx))
    }
}

impl Run<f32> {
    /// The gradients by the schedule that writes that of input `over` over the cotangent, which may be a sum of two that
    /// the operator adds.
    pub(super) fn vjp_over<O: Operator>(
        &self,
        operator: &O,
        cpu: &Cpu,
        (cotangent, more): (&[f32], Option<&[f32]>),
        wanted: &[bool],
        over: usize,
    ) -> Vec<Option<Placed<f32>>> {
        let mut place = Placed::new(cotangent, self.offset, self.rubbish);
        let mut others = wanted.to_vec();
        others[over] = false;
        let more = more.map(|more| Placed::new(more, self.offset, self.rubbish));
        let mut gradients = self.vjp::<O>(cotangent, &others, |saved, _, dx| match &more {
            Some(more) => operator.vjp_over_sum(cpu, saved, &mut place, more, dx),
            None => operator.vjp_over(cpu, saved, &mut place, dx),
        });
        gradients[over] = Some(place);
        gradients
    }
}
