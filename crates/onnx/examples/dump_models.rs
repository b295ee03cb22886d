//! Writes every operator that ONNX expresses as a model, and a network, with inputs and outputs, for replay in
//! another runtime: `dump_models FOLDER`, then `oracle/onnx_check.py FOLDER`.

#[path = "../tests/common/mod.rs"]
mod common;

use common::Attempt;
use kinone_onnx::ReplayError;
use kinone_onnx::manifest::{self, Refused};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: dump_models FOLDER")?;
    let (mut replays, mut refused) = (Vec::new(), Vec::new());
    let (mut all, mut expressed) = (BTreeSet::new(), BTreeSet::new());
    for Attempt { operator, case, replay } in common::operators() {
        all.insert(operator);
        match replay {
            Ok(replay) => {
                expressed.insert(operator);
                replays.push(replay);
            }
            Err(ReplayError::Unsupported(reason)) => {
                refused.push(Refused { name: format!("{operator}: {case}"), reason: reason.0 });
            }
            Err(error) => return Err(error.into()),
        }
    }
    replays.push(common::network()?);
    manifest::write(Path::new(&folder), &replays, refused)?;
    println!("{} of {} operators have a form in ONNX", expressed.len(), all.len());
    Ok(())
}
