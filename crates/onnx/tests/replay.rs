//! What tract, an independent runtime, computes from Kinone's models is what Kinone computes.

mod common;

use common::{Attempt, worst};
use kinone_onnx::ReplayError;
use kinone_onnx::single::RELATIVE;
use tract_onnx::prelude::*;

/// Operators whose parameters tract takes only from inside the model, as they are in every exported network.
const WEIGHTS_INSIDE: &[(&str, &str)] =
    &[("batch_norm2d_eval", "tract folds the parameters into one factor")];

/// Operators of ONNX that tract has not. `oracle/onnx_check.py` replays them in onnxruntime.
const UNKNOWN_TO_TRACT: &[(&str, &str)] = &[("cross_entropy_with_logits", "SoftmaxCrossEntropyLoss")];

#[test]
fn every_operator_that_onnx_expresses_agrees() {
    let (mut agreed, mut failures) = (0, Vec::new());
    for Attempt { operator, case, replay } in common::operators() {
        let replay = match replay {
            Ok(replay) => replay,
            Err(ReplayError::Unsupported(reason)) => {
                println!("{operator}: {case}: {reason}");
                continue;
            }
            Err(ReplayError::Shape(error)) => panic!("{case}: {error}"),
        };
        let inside = WEIGHTS_INSIDE.iter().any(|(name, _)| *name == operator);
        let replay = if inside { replay.with_weights_inside() } else { replay };
        let unknown = UNKNOWN_TO_TRACT.iter().find(|(name, _)| *name == operator);
        match worst(&replay) {
            Err(error) if unknown.is_some_and(|(_, op_type)| format!("{error:#}").contains(op_type)) => {}
            Ok(_) if unknown.is_some() => failures.push(format!("{operator}: tract knows it now")),
            Ok(difference) if difference <= RELATIVE => agreed += 1,
            Ok(difference) => failures.push(format!("{}: differs by {difference:.2e}", replay.name)),
            Err(error) => failures.push(format!("{}: {error:#}", replay.name)),
        }
    }
    assert!(failures.is_empty(), "{agreed} agree, these do not:\n{}", failures.join("\n"));
    assert!(agreed > 0);
    println!("{agreed} models agree");
}

#[test]
fn an_exported_network_agrees_for_any_number_of_images() {
    let replay = common::network().unwrap();
    let difference = worst(&replay).unwrap();
    assert!(difference <= RELATIVE, "differs by {difference:.2e}");
}

/// Another program's reading of the file finds what was written, under the names a reader expects.
#[test]
fn an_exported_network_says_what_it_is() {
    let replay = common::network().unwrap();
    let bytes = replay.model.to_bytes();
    assert_eq!(bytes, common::network().unwrap().model.to_bytes(), "the same network gives another file");
    let read = tract_onnx::onnx().proto_model_for_read(&mut bytes.as_slice()).unwrap();
    assert_eq!((read.ir_version, read.opset_import[0].version), (8, 17));
    let metadata: Vec<(&str, &str)> =
        read.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    assert_eq!(metadata, [("classes", "Mass,Nodule"), ("contract", "1")]);
    let graph = read.graph.unwrap();
    assert_eq!((graph.input[0].name.as_str(), graph.output[0].name.as_str()), ("images", "logits"));
    assert_eq!(graph.input.len(), 1);
    let names: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    for name in ["conv1.weight", "layer1.0.bn1.running_var", "layer2.0.downsample.0.weight", "fc.bias"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    // 62 parameters, 40 statistics, and the shape of the flattening.
    assert_eq!(names.len(), 62 + 40 + 1);
    assert!(graph.node.iter().any(|node| node.name == "layer1.0.conv1/Conv_0"));
}
