//! The define-by-run graph and reverse-mode differentiation (Linnainmaa, 1970; Speelpenning, 1980).
//!
//! Every recorded result has a [`Node`] whose number is larger than its parents'. Taking the largest number
//! out of an ordered map, again and again, is a reverse topological walk; the map is the accumulator of the
//! adjoints; and contributions are added in the order in which the walk meets them. No recursion, no set of
//! visited nodes, one short loop: [`Tensor::backward_from`], in `graph/backward.rs`. Here stands what the walk
//! meets.

mod backward;

pub use backward::{Adjoints, BackwardError};

use crate::array::Array;
use crate::operator::{Primitive, View};
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, compute};
use kinone_kernels::Cpu;
use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How one recorded value came to be.
#[derive(Debug)]
pub struct Node {
    id: u64,
    origin: Origin,
    parents: Parents,
    shape: Shape,
}

/// `None` for an input that was not recorded.
type Parents = Vec<Option<Arc<Node>>>;

#[derive(Debug)]
enum Origin {
    Leaf,
    Operation { operator: Arc<dyn Primitive>, saved: Mutex<Option<SavedValues>> },
    Checkpoint(Mutex<Option<Recomputation>>),
}

/// What a node keeps for its gradient: what the operator's `SAVES` declares, and the shapes.
#[derive(Debug)]
pub(crate) struct SavedValues {
    pub(crate) shapes: Vec<Shape>,
    pub(crate) inputs: Vec<Option<Kept>>,
    pub(crate) output: Option<Arc<Array>>,
    pub(crate) auxiliaries: Vec<Arc<Array>>,
}

/// An input that a gradient reads.
#[derive(Debug)]
pub(crate) enum Kept {
    /// The numbers.
    Value(Arc<Array>),
    /// The record of their making, from which they are computed again ([`Tensor::recomputed`]).
    Record(Arc<Node>),
}

impl SavedValues {
    /// The first that was kept as a record.
    fn record(&self) -> Option<Arc<Node>> {
        self.inputs.iter().flatten().find_map(|kept| match kept {
            Kept::Value(_) => None,
            Kept::Record(node) => Some(Arc::clone(node)),
        })
    }

    /// Puts numbers where their record stands: in as many places as it does.
    fn put(&mut self, record: &Arc<Node>, value: &Arc<Array>) {
        for kept in self.inputs.iter_mut().flatten() {
            if matches!(kept, Kept::Record(node) if Arc::ptr_eq(node, record)) {
                *kept = Kept::Value(Arc::clone(value));
            }
        }
    }

    /// Computes again what was kept as a record.
    fn resolve(&mut self, cpu: &Cpu) -> Result<(), BackwardError> {
        while let Some(record) = self.record() {
            self.put(&record, &record.compute_again(cpu)?);
        }
        Ok(())
    }

    /// The inputs of which the numbers are here.
    fn views(&self) -> Vec<Option<View<'_, f32>>> {
        let inputs = self.inputs.iter().map(|input| match input {
            Some(Kept::Value(array)) => Some(array.view()),
            Some(Kept::Record(_)) | None => None,
        });
        inputs.collect()
    }
}

type Body = dyn Fn(&[Tensor]) -> Result<Tensor, ShapeError> + Send + Sync;

struct Recomputation {
    inputs: Vec<Tensor>,
    body: Box<Body>,
}

impl fmt::Debug for Recomputation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recomputation").field("inputs", &self.inputs.len()).finish()
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Node {
    fn new(origin: Origin, parents: Parents, shape: Shape) -> Arc<Node> {
        Arc::new(Node { id: NEXT.fetch_add(1, Ordering::Relaxed), origin, parents, shape })
    }

    pub(crate) fn leaf(shape: Shape) -> Arc<Node> {
        Node::new(Origin::Leaf, Vec::new(), shape)
    }

    pub(crate) fn operation(
        operator: Arc<dyn Primitive>,
        parents: Parents,
        saved: SavedValues,
        shape: Shape,
    ) -> Arc<Node> {
        Node::new(Origin::Operation { operator, saved: Mutex::new(Some(saved)) }, parents, shape)
    }

    /// A number that grows with every node: larger than every parent's.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The operator; `None` for a variable and for a checkpoint.
    pub fn operator(&self) -> Option<&Arc<dyn Primitive>> {
        match &self.origin {
            Origin::Operation { operator, .. } => Some(operator),
            Origin::Leaf | Origin::Checkpoint(_) => None,
        }
    }

    /// Whether this is a variable.
    pub fn is_leaf(&self) -> bool {
        matches!(self.origin, Origin::Leaf)
    }

    /// The records of the inputs; `None` for an input that was not recorded.
    pub fn parents(&self) -> &[Option<Arc<Node>>] {
        &self.parents
    }

    /// The shape of the value.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether the record keeps every input, so that the value can be computed again.
    pub(crate) fn keeps_all_inputs(&self) -> bool {
        let count = self.parents.len();
        self.operator().is_some_and(|operator| (0..count).all(|k| operator.saves().inputs.contains(&k)))
    }

    /// The value of an operation that keeps all inputs. Where these are records they are computed first, and theirs
    /// before them: a stack of nodes, however long the chain.
    fn compute_again(self: &Arc<Node>, cpu: &Cpu) -> Result<Arc<Array>, BackwardError> {
        let mut wanted = vec![Arc::clone(self)];
        let mut computed: Option<(Arc<Node>, Arc<Array>)> = None;
        while let Some(node) = wanted.pop() {
            let Origin::Operation { operator, saved } = &node.origin else {
                unreachable!("only operations are computed again")
            };
            let mut saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
            let saved = saved.as_mut().ok_or(BackwardError::Freed(operator.name()))?;
            if let Some((record, value)) = computed.take() {
                saved.put(&record, &value);
            }
            if let Some(record) = saved.record() {
                wanted.extend([Arc::clone(&node), record]);
                continue;
            }
            let inputs: Vec<View<f32>> = saved.views().into_iter().flatten().collect();
            let (value, _) = compute(cpu, operator.as_ref(), &inputs)
                .map_err(|error| BackwardError::Recomputation(error.to_string()))?;
            computed = Some((Arc::clone(&node), Arc::new(value)));
        }
        match computed {
            Some((_, value)) => Ok(value),
            None => unreachable!("the last node is computed"),
        }
    }
}

thread_local! {
    /// Parents and origins of nodes that go while this thread drops one; `None` while it drops none.
    static PENDING: RefCell<Option<Vec<(Parents, Origin)>>> = const { RefCell::new(None) };
}

/// A derived drop would recurse along the chain of parents, or of what the bodies of checkpoints captured, and overflow the
/// stack on a deep graph. Here the first node dropped drops all: the others leave to it what they refer to.
impl Drop for Node {
    fn drop(&mut self) {
        struct Done;
        impl Drop for Done {
            fn drop(&mut self) {
                // Where a drop panicked the rest goes too.
                drop(PENDING.take());
            }
        }
        let own = (std::mem::take(&mut self.parents), std::mem::replace(&mut self.origin, Origin::Leaf));
        // A thread that ends has no list any more: then they are dropped here, one within the other.
        let is_first = PENDING.try_with(|pending| {
            let mut pending = pending.borrow_mut();
            let is_first = pending.is_none();
            pending.get_or_insert_default().push(own);
            is_first
        });
        if is_first == Ok(true) {
            let _done = Done;
            while let Some(next) = PENDING.with_borrow_mut(|pending| pending.as_mut()?.pop()) {
                drop(next);
            }
        }
    }
}

/// The result of `body` on `inputs`, of whose inner values nothing is kept: backward runs `body` again
/// (Griewank and Walther, "Revolve", 2000; Chen et al., 2016).
///
/// `body` must be a pure function of `inputs` and of the tensors it captured; values, adjoints and the
/// order of their sums are then, bit for bit, those without the checkpoint.
///
/// # Errors
/// Those of `body`.
pub fn checkpoint(
    inputs: &[&Tensor],
    body: impl Fn(&[Tensor]) -> Result<Tensor, ShapeError> + Send + Sync + 'static,
) -> Result<Tensor, ShapeError> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    let result = body(&inputs)?;
    if result.node().is_none() {
        return Ok(result);
    }
    let value = Arc::clone(result.value());
    drop(result);
    let parents = inputs.iter().map(|input| input.node().cloned()).collect();
    let shape = value.shape().clone();
    let kept = Recomputation { inputs, body: Box::new(body) };
    let node = Node::new(Origin::Checkpoint(Mutex::new(Some(kept))), parents, shape);
    Ok(Tensor::recorded(value, Some(node)))
}
