//! A model being written: inputs, weights, nodes, and one output.

use crate::proto;
use kinone_core::array::Array;
use kinone_core::onnx::{Attribute, Constant, Fragment, Node, Numbers};
use kinone_core::shape::Shape;
use kinone_files::FileError;
use prost::Message;
use std::path::Path;

/// The version of the file format.
pub const IR_VERSION: i64 = 8;
/// The version of the set of operators.
pub const OPSET: i64 = 17;

/// The extent of one dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Always this.
    Fixed(usize),
    /// Any, the same wherever this name stands: the batch.
    Free(&'static str),
}

impl Extent {
    /// Every extent as it is.
    pub fn fixed(shape: &[usize]) -> Vec<Extent> {
        shape.iter().map(|extent| Extent::Fixed(*extent)).collect()
    }

    /// The first extent free under `name`, the others as they are.
    pub fn batch(name: &'static str, shape: &[usize]) -> Vec<Extent> {
        let mut extents = Extent::fixed(shape);
        if let Some(first) = extents.first_mut() {
            *first = Extent::Free(name);
        }
        extents
    }
}

/// A model as it grows. Names must be unique: the weights bring theirs, a [`Fragment`] makes its own under its
/// prefix.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    proto: proto::GraphProto,
    metadata: Vec<proto::StringStringEntryProto>,
}

impl Graph {
    /// An empty model.
    pub fn new(name: impl Into<String>) -> Graph {
        let proto = proto::GraphProto { name: name.into(), ..Default::default() };
        Graph { proto, metadata: Vec::new() }
    }

    /// An input of f32.
    pub fn input(&mut self, name: &str, extents: &[Extent]) {
        self.proto.input.push(value_info(name, extents));
    }

    /// Weights of f32, under the name they have in the network.
    ///
    /// # Panics
    /// When the numbers do not fill the shape.
    pub fn weights(&mut self, name: &str, shape: &Shape, numbers: &[f32]) {
        assert_eq!(shape.size(), numbers.len(), "weights `{name}` of shape {shape}");
        self.proto.initializer.push(tensor(
            name,
            shape,
            proto::DataType::Float,
            bytes(numbers, f32::to_le_bytes),
        ));
    }

    /// What an operator wrote.
    pub fn add(&mut self, fragment: Fragment) {
        self.proto.initializer.extend(fragment.constants.into_iter().map(constant));
        self.proto.node.extend(fragment.nodes.into_iter().map(node));
    }

    /// A pair of texts for whoever uses the model: classes, preprocessing, origin.
    pub fn metadata(&mut self, key: &str, value: &str) {
        let entry = proto::StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
        self.metadata.push(entry);
    }

    /// The model whose output is the value called `value`, renamed to `name`.
    pub fn finish(mut self, value: &str, name: &str, extents: &[Extent]) -> Model {
        let made = self.proto.node.iter().any(|node| node.output.iter().any(|output| output == value));
        if made {
            for node in &mut self.proto.node {
                for known in node.input.iter_mut().chain(&mut node.output).filter(|known| *known == value) {
                    name.clone_into(known);
                }
            }
        } else {
            // An input or a weight is the output: inputs keep their names, so it is copied.
            self.proto.node.push(proto::NodeProto {
                input: vec![value.to_owned()],
                output: vec![name.to_owned()],
                name: name.to_owned(),
                op_type: "Identity".to_owned(),
                attribute: Vec::new(),
            });
        }
        self.proto.output.push(value_info(name, extents));
        Model(proto::ModelProto {
            ir_version: IR_VERSION,
            producer_name: "kinone".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.proto),
            opset_import: vec![proto::OperatorSetIdProto { domain: String::new(), version: OPSET }],
            metadata_props: self.metadata,
        })
    }
}

/// A whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model(proto::ModelProto);

impl Model {
    /// The messages it consists of.
    pub fn proto(&self) -> &proto::ModelProto {
        &self.0
    }

    /// Turns the inputs from `first` on into weights of these values.
    pub(crate) fn fix_inputs(&mut self, first: usize, values: &[Array]) {
        let Some(graph) = &mut self.0.graph else { return };
        for (input, value) in graph.input.drain(first..).zip(values) {
            let bytes = bytes(value.data(), f32::to_le_bytes);
            graph.initializer.push(tensor(&input.name, value.shape(), proto::DataType::Float, bytes));
        }
    }

    /// The content of its file: a pure function of the model, so that equal weights give equal files.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// The system refused; what was there before still is.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        kinone_files::write(path, &self.to_bytes())
    }
}

fn bytes<T: Copy, const N: usize>(numbers: &[T], little_endian: fn(T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| little_endian(*number)).collect()
}

fn tensor(name: &str, shape: &[usize], kind: proto::DataType, raw_data: Vec<u8>) -> proto::TensorProto {
    let dims = shape.iter().map(|extent| *extent as i64).collect();
    proto::TensorProto { dims, data_type: kind.into(), name: name.to_owned(), raw_data }
}

fn constant(Constant { name, shape, numbers }: Constant) -> proto::TensorProto {
    match numbers {
        Numbers::F32(numbers) => {
            tensor(&name, &shape, proto::DataType::Float, bytes(&numbers, f32::to_le_bytes))
        }
        Numbers::I64(numbers) => {
            tensor(&name, &shape, proto::DataType::Int64, bytes(&numbers, i64::to_le_bytes))
        }
    }
}

fn node(Node { op_type, inputs, output, attributes }: Node) -> proto::NodeProto {
    proto::NodeProto {
        input: inputs,
        name: output.clone(),
        output: vec![output],
        op_type,
        attribute: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
    }
}

fn attribute(name: String, value: Attribute) -> proto::AttributeProto {
    let mut written = proto::AttributeProto { name, ..Default::default() };
    let kind = match value {
        Attribute::Int(i) => {
            written.i = i;
            proto::AttributeType::Int
        }
        Attribute::Ints(ints) => {
            written.ints = ints;
            proto::AttributeType::Ints
        }
        Attribute::Float(f) => {
            written.f = f;
            proto::AttributeType::Float
        }
        Attribute::Text(text) => {
            written.s = text.into_bytes();
            proto::AttributeType::String
        }
    };
    written.set_type(kind);
    written
}

fn value_info(name: &str, extents: &[Extent]) -> proto::ValueInfoProto {
    let dimension = |extent: &Extent| proto::Dimension {
        value: Some(match extent {
            Extent::Fixed(extent) => proto::DimensionValue::DimValue(*extent as i64),
            Extent::Free(name) => proto::DimensionValue::DimParam((*name).to_owned()),
        }),
    };
    let shape = proto::TensorShapeProto { dim: extents.iter().map(dimension).collect() };
    let tensor = proto::TensorTypeProto { elem_type: proto::DataType::Float.into(), shape: Some(shape) };
    proto::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(proto::TypeProto { tensor_type: Some(tensor) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb;

    /// Read back by messages that were generated from the format's own description.
    #[test]
    fn every_kind_of_attribute_and_constant_arrives() {
        let mut fragment = Fragment::new("part");
        let (floats, whole) = (fragment.floats([1, 2], &[0.5, -0.0]), fragment.integers(&[-1, i64::MAX]));
        let attributes = [
            ("int", Attribute::Int(-3)),
            ("ints", Attribute::Ints(vec![1, -1])),
            ("float", Attribute::Float(0.0)),
            ("text", Attribute::Text("constant".to_owned())),
        ];
        let value = fragment.node("Made", &[&floats, "", &whole], &attributes);
        let mut graph = Graph::new("test");
        graph.add(fragment);
        let bytes = graph.finish(&value, "y", &Extent::batch("N", &[4, 2])).to_bytes();

        let graph = pb::ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let node = &graph.node[0];
        assert_eq!(node.input, [floats.as_str(), "", whole.as_str()]);
        assert_eq!((node.op_type.as_str(), node.output[0].as_str()), ("Made", "y"));
        let [int, ints, float, text] = &node.attribute[..] else { panic!("{:?}", node.attribute) };
        assert_eq!((int.r#type(), int.i), (pb::attribute_proto::AttributeType::Int, -3));
        assert_eq!((ints.r#type(), &ints.ints), (pb::attribute_proto::AttributeType::Ints, &vec![1, -1]));
        assert_eq!((float.r#type(), float.f.to_bits()), (pb::attribute_proto::AttributeType::Float, 0));
        assert_eq!(
            (text.r#type(), &text.s[..]),
            (pb::attribute_proto::AttributeType::String, &b"constant"[..])
        );
        let [f, i] = &graph.initializer[..] else { panic!("{:?}", graph.initializer) };
        assert_eq!((f.data_type, &f.dims[..], f.raw_data.len()), (1, &[1, 2][..], 8));
        assert_eq!((i.data_type, &i.dims[..]), (7, &[2][..]));
        assert_eq!(i.raw_data[..], [(-1_i64).to_le_bytes(), i64::MAX.to_le_bytes()].concat());
    }
}
