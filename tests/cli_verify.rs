//! Records that can be proved: honest ones are, on every instruction set; of others the right place is named.

#![cfg(unix)]

mod common;

use common::{Place, SMALL, printed};
use kinone::core::array::Array;
use kinone::kernels::{Cpu, Isa};
use kinone::nn::state::Value;
use kinone::runs::checkpoint::Checkpoint;
use kinone::runs::hash;
use std::fs;
use std::sync::Arc;

/// A run of two epochs of ten steps each in `run`, with checkpoints every fourth step.
fn recorded() -> Place {
    let place = Place::new();
    let more = ["--epochs=2", "--run-dir=run", "--checkpoint-every=4", "--keep-every=4"];
    place.succeeds(&[&SMALL[..], &more].concat());
    place
}

const VERIFY: [&str; 3] = ["verify", "--run-dir=run", "--threads=1"];

/// `verify` must refuse with these words while the file is changed; it is restored.
fn refused_with(place: &Place, name: &str, change: impl FnOnce(&mut Vec<u8>), words: &[&str]) {
    let path = place.path(name);
    let kept = fs::read(&path).unwrap();
    let mut bytes = kept.clone();
    change(&mut bytes);
    assert!(bytes != kept, "{name} was not changed");
    fs::write(&path, bytes).unwrap();
    place.refuses(1, words, &VERIFY);
    fs::write(&path, kept).unwrap();
}

/// One text for another, which must be there.
fn replace(from: &'static str, to: &'static str) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        *bytes = text.replacen(from, to, 1).into_bytes();
    }
}

#[test]
fn an_honest_run_is_proved_on_every_instruction_set_in_a_fresh_process() {
    let place = recorded();
    for isa in Isa::present() {
        let mut command = place.command(&VERIFY);
        let said = printed(command.env("KINONE_ISA", isa.name()).output().unwrap(), &VERIFY);
        let words = "21 links and 6 checkpoints are sound; 20 steps made again with equal bits, among them 1 to 20; \
             the weights, scores and summary of its end follow from them";
        assert_eq!(said.trim(), words, "{isa}");
    }
    place.succeeds(&["verify", "--run-dir=run", "--from=10", "--to=12"]);
    for (from, to) in [("9", "99"), ("5", "2"), ("0", "3")] {
        let (words, from, to) = (format!("{from} to {to}"), format!("--from={from}"), format!("--to={to}"));
        place.refuses(2, &["steps 1 to 20", &words], &["verify", "--run-dir=run", &from, &to]);
    }
    fs::rename(place.path("run/chain.jsonl"), place.path("chain")).unwrap();
    place.refuses(4, &["chain.jsonl"], &VERIFY);
    place.refuses(4, &["chain.jsonl"], &["diff", "run", "run"]);
}

#[test]
fn one_flipped_bit_in_a_checkpoint_names_its_step_and_tensor() {
    let place = recorded();
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let words = ["step 8: ", "step_00000008.safetensors", "damaged: tensor `optimizer."];
    refused_with(&place, "run/checkpoints/step_00000008.safetensors", flip, &words);
    place.succeeds(&VERIFY);
}

/// The same by somebody who makes all hashes anew: the steps from there do not follow, and the first operator
/// that shows it is named with both hashes.
#[test]
fn one_flipped_bit_under_new_hashes_names_the_step_and_the_operator() {
    let place = recorded();
    let path = place.path("run/checkpoints/step_00000004.safetensors");
    let mut checkpoint = Checkpoint::load(&Cpu::current(), &path).unwrap();
    let name = "model.layer2.0.conv1.weight";
    let Value::F32(array) = &checkpoint.tensors[name] else { panic!("numbers") };
    let mut array = Array::clone(array);
    array.data_mut()[0] = f32::from_bits(array.data()[0].to_bits() ^ 1 << 22);
    checkpoint.tensors.insert(name.to_owned(), Value::F32(Arc::new(array)));
    checkpoint.save(&Cpu::current(), &path).unwrap();
    place.refuses(1, &["step 4: ", "tensor `model.layer2.0.conv1.weight` of the checkpoint"], &VERIFY);
    let operator = "the first operator that differs: forward conv2d, output 0 (with layer2.0.conv1.weight)";
    let words = ["step 5: loss is recorded", operator, "recorded", "found"];
    place.refuses(1, &words, &["verify", "--run-dir=run", "--from=5", "--to=6"]);
}

#[test]
fn one_edited_link_names_its_step() {
    let place = recorded();
    let edit = replace("\"step\":5,\"epoch\":1", "\"step\":5,\"epoch\":2");
    refused_with(&place, "run/chain.jsonl", edit, &["chain.jsonl, line 6 (step 5)", "was changed"]);
    place.succeeds(&VERIFY);
}

#[test]
fn one_changed_learning_rate_names_its_step() {
    let place = recorded();
    let config = replace("lr = 0.001", "lr = 0.002");
    refused_with(&place, "run/config.toml", config, &["from step 1 on", "lr 0.001 -> 0.002"]);
    let log = replace("\"lr\":0.001", "\"lr\":0.002");
    refused_with(&place, "run/log.jsonl", log, &["step 1: ", "lr is recorded as 3a83126f"]);
    // In the link of step 7, with every hash behind it made anew, in the checkpoints too: making the step again
    // finds it, and that the computation was another.
    let path = place.path("run/chain.jsonl");
    let mut prev = "0".repeat(64);
    let mut hashes = Vec::new();
    let mut chain = String::new();
    for (step, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
        let (open, _) = line.split_once(",\"prev\":").unwrap();
        let mut open = open.to_owned();
        if step == 7 {
            open = open.replace("\"lr\":\"3a83126f\"", "\"lr\":\"3b03126f\"");
            assert!(line != open);
        }
        open += &format!(",\"prev\":\"{prev}\"");
        prev = hash::bytes(open.as_bytes());
        chain += &format!("{open},\"hash\":\"{prev}\"}}\n");
        hashes.push(prev.clone());
    }
    fs::write(&path, chain).unwrap();
    for step in [8_usize, 10, 12, 16, 20] {
        let path = place.path(&format!("run/checkpoints/step_{step:08}.safetensors"));
        let mut checkpoint = Checkpoint::load(&Cpu::current(), &path).unwrap();
        checkpoint.header.link.clone_from(&hashes[step]);
        checkpoint.save(&Cpu::current(), &path).unwrap();
    }
    let words = ["step 7: ", "log.jsonl and the chain differ: lr is recorded as 3b03126f"];
    place.refuses(1, &words, &VERIFY);
    fs::remove_file(place.path("run/summary.json")).unwrap();
    let log = fs::read_to_string(place.path("run/log.jsonl")).unwrap();
    let row = log.lines().find(|line| line.contains("\"step\":7,")).unwrap();
    // The double that 3b03126f is.
    let forged = row.replace("\"lr\":0.001", "\"lr\":0.002");
    fs::write(place.path("run/log.jsonl"), log.replace(row, &forged)).unwrap();
    let words = ["step 7: lr is recorded as 3b03126f, was found to be 3a83126f"];
    place.refuses(1, &words, &VERIFY);
}

/// Each file that lies beside the chain is held against it.
#[test]
fn files_that_are_gone_emptied_or_of_another_run_are_named() {
    let place = recorded();
    let words = ["step 1: ", "log.jsonl has no row of it"];
    refused_with(&place, "run/log.jsonl", |bytes| bytes.clear(), &words);
    let noise = |bytes: &mut Vec<u8>| *bytes = b"\x07noise\n".repeat(9);
    refused_with(&place, "run/log.jsonl", noise, &["log.jsonl, line 1", "no JSON object"]);
    let row =
        replace("\"event\":\"step\",\"epoch\":1,\"step\":3", "\"event\":\"step\",\"epoch\":1,\"step\":4");
    refused_with(&place, "run/log.jsonl", row, &["step 3: ", "a row of step 4 in its place"]);
    refused_with(&place, "run/data.index", |bytes| bytes[0] ^= 1, &["data.index", "hashes to"]);
    let index = fs::read(place.path("run/data.index")).unwrap();
    fs::remove_file(place.path("run/data.index")).unwrap();
    place.refuses(1, &["data.index"], &VERIFY);
    fs::write(place.path("run/data.index"), index).unwrap();

    let train = ["train", "--json", "--model=resnet10w8", "--images=100", "--image-size=32", "--epochs=1"];
    place.succeeds(&[&train[..], &["--run-dir=other", "--seed=3"]].concat());
    for name in ["best", "last"] {
        let file = format!("checkpoints/{name}.safetensors");
        let other = fs::read(place.path(&format!("other/{file}"))).unwrap();
        let words = [&file[..], "weights_sha256 is recorded as"];
        refused_with(&place, &format!("run/{file}"), |bytes| *bytes = other, &words);
    }
    place.succeeds(&VERIFY);
}

/// Another last digit for the number after `name`, wherever that stands.
fn another(name: &str) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| {
        let start =
            bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() + name.len();
        let is_end = |byte: &u8| !byte.is_ascii_digit() && !b" .-e".contains(byte);
        let end = start + bytes[start..].iter().position(is_end).unwrap() - 1;
        bytes[end] = if bytes[end] == b'1' { b'2' } else { b'1' };
    }
}

/// Scores, losses, and what the weights say of themselves.
#[test]
fn what_a_run_came_to_is_held_against_what_is_made_again() {
    let place = recorded();
    let summary = "run/summary.json";
    for name in ["test_auroc_macro", "train_loss", "best_epoch", "parameters", "seed"] {
        let text = format!("\"{name}\":");
        refused_with(
            &place,
            summary,
            another(&text),
            &["step 20: ", "summary.json", name, "was found to be"],
        );
    }
    let log = "run/log.jsonl";
    for name in ["train_loss", "val_loss"] {
        let text = format!("\"{name}\":");
        refused_with(&place, log, another(&text), &["step 10: log.jsonl: ", name, "was found to be"]);
    }
    // Of a header no digit can be changed, neither for `verify` nor for what uses the weights.
    let best = "run/checkpoints/best.safetensors";
    let words = ["best.safetensors", "its header does not have the hash it states"];
    refused_with(&place, best, another(r#"pixel_mean\":"#), &words);
    let kept = fs::read(place.path(best)).unwrap();
    let mut bytes = kept.clone();
    another(r#"pixel_mean\":"#)(&mut bytes);
    fs::write(place.path(best), bytes).unwrap();
    place.refuses(4, &words, &["evaluate", "--run-dir=run", "--threads=1"]);
    fs::write(place.path(best), kept).unwrap();
    place.succeeds(&VERIFY);
    // Without checkpoints of steps the weights are held against what was made again.
    for entry in fs::read_dir(place.path("run/checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("step_") {
            fs::remove_file(path).unwrap();
        }
    }
    place.succeeds(&VERIFY);
    let more = ["--epochs=2", "--run-dir=other", "--seed=3"];
    place.succeeds(&[&SMALL[..], &more].concat());
    for name in ["best", "last"] {
        let file = format!("checkpoints/{name}.safetensors");
        let other = fs::read(place.path("other").join(&file)).unwrap();
        let words = [&file[..], "weights_sha256 is recorded as"];
        refused_with(&place, &format!("run/{file}"), |bytes| *bytes = other, &words);
    }
}

/// Checkpoints under right hashes that say something else than the run did.
#[test]
fn what_a_checkpoint_says_is_held_against_the_chain_and_what_is_made_again() {
    let place = recorded();
    let path = place.path("run/checkpoints/step_00000008.safetensors");
    let kept = fs::read(&path).unwrap();
    let forge = |change: &dyn Fn(&mut Checkpoint), words: &[&str]| {
        let mut checkpoint = Checkpoint::load(&Cpu::current(), &path).unwrap();
        change(&mut checkpoint);
        checkpoint.save(&Cpu::current(), &path).unwrap();
        place.refuses(1, words, &VERIFY);
        fs::write(&path, &kept).unwrap();
    };
    let chain = ["step 8: ", "and the chain differ: "];
    forge(&|c| c.header.config.lr = 0.5, &[&chain[..], &["lr is recorded as"]].concat());
    forge(&|c| c.header.data_sha256 = "0".repeat(64), &[&chain[..], &["the hash of the data"]].concat());
    let made = ["step 8: ", "does not say how far the run had come"];
    forge(&|c| c.header.progress.loss_sum += 1.0, &made);
    forge(&|c| c.header.progress.epoch_steps = 0, &made);
    forge(&|c| c.header.pixel_mean += 0.5, &["step 8: ", "images were prepared so"]);
    forge(&|c| c.header.classes[0] = "Hernia".to_owned(), &["step 8: ", "images were prepared so"]);
    place.succeeds(&VERIFY);
}

/// A chain whose hashes are right and whose settings no run can have.
#[test]
fn settings_in_the_chain_that_no_run_can_have_are_refused() {
    let place = recorded();
    let forged = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let (open, _) = text.lines().next().unwrap().split_once(",\"hash\":").unwrap();
            let forged = open.replacen(from, to, 1);
            assert!(forged != open, "{from}");
            *bytes = format!("{forged},\"hash\":\"{}\"}}\n", hash::bytes(forged.as_bytes())).into_bytes();
        }
    };
    let chain = "run/chain.jsonl";
    let words = ["step 0: the chain's settings are none of a run: ", "`data` is missing, or a stranger"];
    refused_with(&place, chain, forged("\"ema\":", "\"data\":\"x\",\"ema\":"), &words);
    let words = ["step 0: ", "accumulate = 0: at least 1 batch a step is needed"];
    refused_with(&place, chain, forged("\"accumulate\":1", "\"accumulate\":0"), &words);
    let words = ["step 0: the header's seed is 43, that of its settings 42"];
    refused_with(&place, chain, forged("},\"seed\":42", "},\"seed\":43"), &words);
    place.succeeds(&VERIFY);
}

#[test]
fn two_runs_part_where_they_do() {
    let place = recorded();
    place.succeeds(&[&SMALL[..], &["--epochs=2", "--run-dir=other", "--lr=0.01"]].concat());
    let output = place.command(&["diff", "run", "other"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the headers differ: lr 0.001 -> 0.01"), "{said}");
    assert!(said.contains("they part in step 1: lr 3a83126f (0.001) -> 3c23d70a (0.01)"), "{said}");
}

/// Of a longer run one step in a hundred is made again, each time others.
#[test]
fn a_sample_of_one_percent_of_a_longer_run_is_proved() {
    let place = Place::new();
    let more = ["--epochs=30", "--run-dir=run", "--checkpoint-every=0", "--keep-every=10"];
    place.succeeds(&[&SMALL[..], &more].concat());
    let mut stretches = std::collections::BTreeSet::new();
    for isa in Isa::present() {
        for _ in 0..2 {
            let arguments = ["verify", "--run-dir=run", "--sample=1%", "--threads=1"];
            let mut command = place.command(&arguments);
            let said = printed(command.env("KINONE_ISA", isa.name()).output().unwrap(), &arguments);
            // The rest of the way from the checkpoint before is made too; here stretches begin at checkpoints.
            assert!(said.contains("301 links and 30 checkpoints are sound; 3 steps made again"), "{said}");
            stretches.insert(said);
        }
    }
    // That all six are one has a chance of one in 30^5.
    assert!(stretches.len() > 1, "{stretches:?}");
}
