//! A network as a model: the walk over the graph that a traced forward pass left behind.

use crate::graph::{Extent, Graph, Model};
use kinone_core::graph::Node;
use kinone_core::onnx::{Fragment, Unsupported, Value};
use kinone_core::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The name of the free first extent of every input and of the output: images a batch.
pub const BATCH: &str = "N";

/// A forward pass in which everything was recorded: inputs and weights are variables.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// The name of the network.
    pub name: &'a str,
    /// The inputs; the first extent of each is the batch's and stays free.
    pub inputs: &'a [(&'a str, &'a Tensor)],
    /// The weights and statistics under their names; those that the output does not depend on are left out.
    pub weights: &'a [(String, Tensor)],
    /// The output.
    pub output: (&'a str, &'a Tensor),
}

/// Why a network cannot be exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The output was not recorded.
    #[error(
        "export: the output depends on no recorded value; trace the network with its weights as variables"
    )]
    NotRecorded,
    /// A value on the way was not recorded, so the model would lack it.
    #[error("export: input {input} of `{operator}` was not recorded; make it a variable before the trace")]
    Constant {
        /// The operator.
        operator: &'static str,
        /// Which of its inputs, from 0.
        input: usize,
    },
    /// A recorded variable has no name.
    #[error("export: a variable of shape {0} is neither an input nor a named weight")]
    Unnamed(String),
    /// Two values share a name.
    #[error("export: the name `{0}` stands for two values")]
    Twice(String),
    /// A part of the network was recorded as one piece.
    #[error("export: a checkpoint hides the operators inside it; trace the network without checkpoints")]
    Checkpoint,
    /// An operator has no form in ONNX.
    #[error("export: `{operator}`: {reason}")]
    Operator {
        /// The operator.
        operator: &'static str,
        /// Why not.
        reason: Unsupported,
    },
}

/// The model of a traced network. Its nodes are called after the weights they use
/// (`layer1.0.conv1/Conv_0`), or after their operator and place in the order of recording.
///
/// # Errors
/// Something on the way from the inputs to the output has no name or no form in ONNX.
pub fn export(trace: &Trace, metadata: &[(&str, String)]) -> Result<Model, ExportError> {
    let (output_name, output) = trace.output;
    let end = output.node().ok_or(ExportError::NotRecorded)?;
    let mut graph = Graph::new(trace.name);
    let mut names = Names::default();
    for (name, input) in trace.inputs {
        names.claim(name)?;
        graph.input(name, &Extent::batch(BATCH, input.shape()));
        if let Some(node) = input.node() {
            names.values.insert(node.id(), (*name).to_owned());
        }
    }
    let weights = by_record(trace.weights);
    names.claim(output_name)?;
    for (id, node) in reached(end, &names) {
        if node.is_leaf() {
            let unnamed = || ExportError::Unnamed(node.shape().to_string());
            let (name, tensor) = weights.get(&id).ok_or_else(unnamed)?;
            names.claim(name)?;
            names.values.insert(id, (*name).to_owned());
            graph.weights(name, tensor.shape(), tensor.data());
        } else {
            let fragment = write(&node, &weights, &mut names)?;
            graph.add(fragment);
        }
    }
    for (key, value) in metadata {
        graph.metadata(key, value);
    }
    let extents = match trace.inputs {
        [(_, input), ..] if input.shape().first() == output.shape().first() => {
            Extent::batch(BATCH, output.shape())
        }
        _ => Extent::fixed(output.shape()),
    };
    Ok(graph.finish(&names.values[&end.id()], output_name, &extents))
}

type Weights<'a> = BTreeMap<u64, (&'a str, &'a Tensor)>;

fn by_record(weights: &[(String, Tensor)]) -> Weights<'_> {
    weights.iter().filter_map(|(name, tensor)| Some((tensor.node()?.id(), (name.as_str(), tensor)))).collect()
}

/// Every record between the named inputs and `end`, by number: parents before children.
fn reached(end: &Arc<Node>, inputs: &Names) -> BTreeMap<u64, Arc<Node>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![Arc::clone(end)];
    while let Some(node) = pending.pop() {
        if !found.contains_key(&node.id()) && !inputs.values.contains_key(&node.id()) {
            pending.extend(node.parents().iter().flatten().cloned());
            found.insert(node.id(), node);
        }
    }
    found
}

#[derive(Debug, Default)]
struct Names {
    /// The name of every value written so far, by the number of its record.
    values: BTreeMap<u64, String>,
    taken: BTreeSet<String>,
    /// Operators written so far.
    count: usize,
}

impl Names {
    fn claim(&mut self, name: &str) -> Result<(), ExportError> {
        match self.taken.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(ExportError::Twice(name.to_owned())),
        }
    }

    /// `layer1.0.conv1` for an operator on `layer1.0.conv1.weight`; `relu_3` without weights of its own.
    fn prefix(&mut self, operator: &str, weight: Option<&str>) -> String {
        let module = weight.and_then(|name| name.rsplit_once('.')).map(|(module, _)| module.to_owned());
        let mut prefix = module.unwrap_or_else(|| format!("{operator}_{}", self.count));
        while !self.taken.insert(prefix.clone()) {
            prefix = format!("{prefix}_{}", self.count);
        }
        self.count += 1;
        prefix
    }
}

/// What the operator of `node` writes.
fn write(node: &Arc<Node>, weights: &Weights, names: &mut Names) -> Result<Fragment, ExportError> {
    let operator = node.operator().ok_or(ExportError::Checkpoint)?;
    let mut inputs = Vec::new();
    for (input, parent) in node.parents().iter().enumerate() {
        let constant = ExportError::Constant { operator: operator.name(), input };
        let parent = parent.as_ref().ok_or(constant)?;
        inputs.push(Value { name: names.values[&parent.id()].clone(), shape: parent.shape().clone() });
    }
    let weight = node.parents().iter().flatten().find_map(|parent| weights.get(&parent.id()));
    let mut fragment = Fragment::new(names.prefix(operator.name(), weight.map(|(name, _)| *name)));
    let value = operator
        .onnx(&mut fragment, &inputs)
        .map_err(|reason| ExportError::Operator { operator: operator.name(), reason })?;
    names.values.insert(node.id(), value);
    Ok(fragment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinone_core::array::Array;
    use kinone_core::graph::checkpoint;
    use kinone_core::shape::Shape;

    fn variable(shape: impl Into<Shape>) -> Tensor {
        Tensor::variable(Array::full(shape, 0.5))
    }

    fn go(x: &Tensor, weights: &[(&str, &Tensor)], y: &Tensor) -> Result<Model, ExportError> {
        let weights: Vec<(String, Tensor)> =
            weights.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone())).collect();
        export(&Trace { name: "test", inputs: &[("x", x)], weights: &weights, output: ("y", y) }, &[])
    }

    #[test]
    fn nodes_follow_the_recording_and_are_called_after_their_weights() {
        let (x, w, b, unused) = (variable([2, 3]), variable([3, 3]), variable([3]), variable([7]));
        let h = x.linear(&w, Some(&b)).unwrap().relu().unwrap();
        let y = h.linear(&w, Some(&b)).unwrap().add(&h).unwrap();
        let weights = [("fc.weight", &w), ("fc.bias", &b), ("unused", &unused)];
        let model = go(&x, &weights, &y).unwrap();
        let graph = model.proto().graph.as_ref().unwrap();
        let nodes: Vec<(&str, Vec<&str>)> = graph
            .node
            .iter()
            .map(|node| (node.output[0].as_str(), node.input.iter().map(String::as_str).collect()))
            .collect();
        let expected = [
            ("fc/Gemm_0", vec!["x", "fc.weight", "fc.bias"]),
            ("relu_1/Relu_0", vec!["fc/Gemm_0"]),
            ("fc_2/Gemm_0", vec!["relu_1/Relu_0", "fc.weight", "fc.bias"]),
            ("y", vec!["fc_2/Gemm_0", "relu_1/Relu_0"]),
        ];
        assert_eq!(nodes, expected);
        assert_eq!(graph.initializer.len(), 2);
    }

    #[test]
    fn the_batch_alone_is_free() {
        let x = variable([2, 3]);
        let (logits, sum) = (x.relu().unwrap(), x.reshape([6]).unwrap());
        let extents = |y: &Tensor| {
            let model = go(&x, &[], y).unwrap();
            let graph = model.proto().graph.clone().unwrap();
            [graph.input[0].clone(), graph.output[0].clone()].map(|value| {
                let shape = value.r#type.unwrap().tensor_type.unwrap().shape.unwrap();
                format!("{:?}", shape.dim.into_iter().map(|dim| dim.value.unwrap()).collect::<Vec<_>>())
            })
        };
        let [input, output] = extents(&logits);
        assert_eq!(input, "[DimParam(\"N\"), DimValue(3)]");
        assert_eq!(output, input);
        assert_eq!(extents(&sum)[1], "[DimValue(6)]");
    }

    #[test]
    fn an_input_that_is_the_output_is_copied() {
        let x = variable([2]);
        let model = go(&x, &[], &x).unwrap();
        assert_eq!(model.proto().graph.as_ref().unwrap().node[0].op_type, "Identity");
    }

    #[test]
    fn what_cannot_be_exported_says_why() {
        let (x, w) = (variable([2, 3]), variable([2, 3]));
        let constant = Tensor::constant(Array::full([2, 3], 1.0));
        assert_eq!(go(&x, &[], &constant), Err(ExportError::NotRecorded));
        let y = x.add(&constant).unwrap();
        assert_eq!(go(&x, &[], &y), Err(ExportError::Constant { operator: "add", input: 1 }));
        let y = x.add(&w).unwrap();
        assert_eq!(go(&x, &[], &y), Err(ExportError::Unnamed("[2, 3]".to_owned())));
        assert_eq!(go(&x, &[("x", &w)], &y), Err(ExportError::Twice("x".to_owned())));
        assert_eq!(go(&x, &[("y", &w)], &y), Err(ExportError::Twice("y".to_owned())));
        let y = checkpoint(&[&x], |x| x[0].relu()).unwrap();
        assert_eq!(go(&x, &[], &y), Err(ExportError::Checkpoint));
        let images = variable([1, 1, 5, 5]);
        let y = images.adaptive_avg_pool2d((2, 2)).unwrap();
        let error = go(&images, &[], &y).unwrap_err().to_string();
        assert!(error.starts_with("export: `adaptive_avg_pool2d`: ONNX cannot express it"), "{error}");
    }
}
