//! The words in which an operator writes itself as ONNX (opset 17). The file format is another room's.

use crate::shape::Shape;

/// An input of an operator, as the graph being written knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its name in the graph.
    pub name: String,
    /// Its shape in the run that is written down.
    pub shape: Shape,
}

/// An attribute of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// A number.
    Float(f32),
    /// A text.
    Text(String),
}

impl Attribute {
    /// Whole numbers from sizes.
    pub fn sizes(sizes: &[usize]) -> Attribute {
        Attribute::Ints(sizes.iter().map(|size| *size as i64).collect())
    }
}

/// A node: an operator of ONNX applied to named values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operator: `Conv`.
    pub op_type: String,
    /// The names of its inputs; an empty name is an optional input left out.
    pub inputs: Vec<String>,
    /// The name of its output.
    pub output: String,
    /// Its attributes.
    pub attributes: Vec<(String, Attribute)>,
}

/// The numbers of a constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// FLOAT
    F32(Vec<f32>),
    /// INT64
    I64(Vec<i64>),
}

/// A named constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Its name in the graph.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// Its numbers.
    pub numbers: Numbers,
}

/// Why ONNX cannot express an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ONNX cannot express it: {0}")]
pub struct Unsupported(pub String);

/// The nodes and constants that stand for one operator, under names that begin with its place in the graph.
#[derive(Clone, Debug)]
pub struct Fragment {
    prefix: String,
    /// The nodes in order.
    pub nodes: Vec<Node>,
    /// The constants they use.
    pub constants: Vec<Constant>,
}

impl Fragment {
    /// An empty fragment whose values are called `prefix/…`.
    pub fn new(prefix: impl Into<String>) -> Fragment {
        Fragment { prefix: prefix.into(), nodes: Vec::new(), constants: Vec::new() }
    }

    /// Adds a node and returns the name of its output.
    pub fn node(&mut self, op_type: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let output = format!("{}/{op_type}_{}", self.prefix, self.nodes.len());
        self.nodes.push(Node {
            op_type: op_type.to_owned(),
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: output.clone(),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        });
        output
    }

    fn constant(&mut self, shape: Shape, numbers: Numbers) -> String {
        let name = format!("{}/constant_{}", self.prefix, self.constants.len());
        self.constants.push(Constant { name: name.clone(), shape, numbers });
        name
    }

    /// Adds a constant of f32 and returns its name.
    pub fn floats(&mut self, shape: impl Into<Shape>, numbers: &[f32]) -> String {
        self.constant(shape.into(), Numbers::F32(numbers.to_vec()))
    }

    /// Adds one number and returns its name.
    pub fn scalar(&mut self, number: f32) -> String {
        self.floats(Shape::scalar(), &[number])
    }

    /// Adds a vector of whole numbers and returns its name.
    pub fn integers(&mut self, numbers: &[i64]) -> String {
        self.constant(Shape::from([numbers.len()]), Numbers::I64(numbers.to_vec()))
    }
}
