//! Looking on while a graph is made and walked: what each operator made, in order.
//!
//! For finding where something begins, a number that is not finite or a bit that differs. A watcher sees and
//! changes nothing, and without one an operator costs one look at a flag of the thread.

use std::cell::RefCell;

/// Which way the numbers flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Values.
    Forward,
    /// Adjoints.
    Backward,
}

/// What one operator made.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Forward: an output. Backward: a contribution to the adjoint of an input.
    pub phase: Phase,
    /// The operator.
    pub operator: &'static str,
    /// The numbers of the recorded inputs' nodes; `None` for an input that is not recorded.
    pub inputs: &'a [Option<u64>],
    /// Forward: 0 for the value, then the auxiliary outputs. Backward: which input.
    pub part: usize,
    /// The numbers.
    pub values: &'a [f32],
}

type Watcher = Box<dyn FnMut(&Seen)>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Runs `body`, showing `watcher` what every operator makes on this thread.
pub fn watching<R>(watcher: impl FnMut(&Seen) + 'static, body: impl FnOnce() -> R) -> R {
    struct Leave(Option<Watcher>);
    impl Drop for Leave {
        fn drop(&mut self) {
            let before = self.0.take();
            WATCHER.with_borrow_mut(|slot| *slot = before);
        }
    }
    let _leave = Leave(WATCHER.with_borrow_mut(|slot| slot.replace(Box::new(watcher))));
    body()
}

/// Whether somebody looks on.
pub(crate) fn is_watched() -> bool {
    WATCHER.with_borrow(Option::is_some)
}

/// Shows `seen` to whoever looks on.
pub(crate) fn show(seen: &Seen) {
    // Taken out while it looks, so that a watcher may itself compute.
    let Some(mut watcher) = WATCHER.with_borrow_mut(Option::take) else { return };
    watcher(seen);
    WATCHER.with_borrow_mut(|slot| *slot = Some(watcher));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Array;
    use crate::tensor::Tensor;
    use std::rc::Rc;

    #[test]
    fn operators_are_seen_in_order_forward_and_backward() {
        let x = Tensor::variable(Array::new([2], &[3.0, -1.0]).unwrap());
        let id = x.node().map(|node| node.id());
        let seen = Rc::new(RefCell::new(Vec::new()));
        let note = Rc::clone(&seen);
        let watcher = move |s: &Seen| {
            note.borrow_mut().push((s.phase, s.operator, s.inputs[0], s.part, s.values.to_vec()));
        };
        let y = watching(watcher, || {
            let y = x.relu().unwrap();
            y.backward_from(Array::full([2], 2.0), &[]).unwrap();
            y
        });
        // Nobody looks on any more.
        y.relu().unwrap();
        let expected = [
            (Phase::Forward, "relu", id, 0, vec![3.0, 0.0]),
            (Phase::Backward, "relu", id, 0, vec![2.0, 0.0]),
        ];
        assert_eq!(*seen.borrow(), expected);
    }
}
