use super::*;
use crate::config::tests::example as config;
use kinone_core::array::Array;
use std::fs;
use std::sync::Arc;

/// A small checkpoint, not saved yet.
pub(crate) fn example() -> Checkpoint {
    let array = |values: &[f32]| Value::F32(Arc::new(Array::new([values.len()], values).unwrap()));
    let tensors = Dictionary::from([
        ("model.a".to_owned(), array(&[1.0, -0.0, f32::MIN_POSITIVE / 2.0, 3.5])),
        ("model.b".to_owned(), array(&[0.1, 0.2, 0.3, 0.4])),
        ("model.bn.num_batches_tracked".to_owned(), Value::I64(7)),
    ]);
    let header = Header {
        format: FORMAT,
        contract: CONTRACT,
        version: "0.0.0".to_owned(),
        started: "20260131_142233".to_owned(),
        config: config(),
        data_sha256: "d".repeat(64),
        classes: vec!["Mass".to_owned()],
        image_size: 32,
        pixel_mean: 0.1,
        pixel_std: 0.3,
        progress: Progress { step: 12, loss_sum: 0.1 + 0.2, ..Progress::start() },
        link: UNKNOWN.to_owned(),
        state_sha256: String::new(),
        tensors: BTreeMap::new(),
        sha256: String::new(),
    };
    Checkpoint { header, tensors }
}

fn saved() -> (tempfile::TempDir, PathBuf, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step_00000012.safetensors");
    let mut checkpoint = example();
    checkpoint.save(&Cpu::current(), &path).unwrap();
    (folder, path, checkpoint)
}

#[test]
fn what_was_saved_comes_back_bit_for_bit() {
    let (_folder, path, checkpoint) = saved();
    let loaded = Checkpoint::load(&Cpu::current(), &path).unwrap();
    assert_eq!(loaded.header, checkpoint.header);
    assert_eq!(loaded.header.progress.plateau_best, f64::INFINITY);
    let bytes = |tensors: &Dictionary| -> Vec<Vec<u8>> { tensors.values().map(Value::bytes).collect() };
    assert_eq!(bytes(&loaded.tensors), bytes(&checkpoint.tensors));
}

/// A bit of every byte of the file, header and data: never loaded.
#[test]
fn every_flipped_bit_is_found() {
    let (_folder, path, _) = saved();
    let good = fs::read(&path).unwrap();
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 1 << (byte % 8);
        fs::write(&path, bad).unwrap();
        assert!(Checkpoint::load(&Cpu::current(), &path).is_err(), "byte {byte}");
    }
}

#[test]
fn every_cut_and_every_tail_is_found() {
    let (_folder, path, _) = saved();
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        let error = Checkpoint::load(&Cpu::current(), &path).unwrap_err().to_string();
        assert!(error.contains("step_00000012") && error.contains("damaged"), "{length}: {error}");
    }
    for tail in [&b"x"[..], b"\0", &good] {
        fs::write(&path, [&good, tail].concat()).unwrap();
        assert!(Checkpoint::load(&Cpu::current(), &path).is_err());
    }
}

/// Two tensors of one shape, their bytes exchanged: the bytes are all there, under the wrong names.
#[test]
fn exchanged_tensors_are_found_by_name() {
    let (_folder, path, checkpoint) = saved();
    let mut bytes = fs::read(&path).unwrap();
    let find = |bytes: &[u8], name: &str| {
        let wanted = checkpoint.tensors[name].bytes();
        bytes.windows(wanted.len()).position(|window| window == wanted).unwrap()
    };
    let (a, b) = (find(&bytes, "model.a"), find(&bytes, "model.b"));
    for k in 0..16 {
        bytes.swap(a + k, b + k);
    }
    fs::write(&path, bytes).unwrap();
    let error = Checkpoint::load(&Cpu::current(), &path).unwrap_err().to_string();
    assert!(error.contains("`model.a`"), "{error}");
}

#[test]
fn a_number_that_is_not_finite_is_never_written() {
    let (_folder, path, mut checkpoint) = saved();
    let before = fs::read(&path).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let array = Array::new([2], &[1.0, bad]).unwrap();
        checkpoint.tensors.insert("model.b".to_owned(), Value::F32(Arc::new(array)));
        let error = checkpoint.save(&Cpu::current(), &path).unwrap_err();
        assert!(matches!(&error, CheckpointError::NotFinite { tensor } if tensor == "model.b"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn other_rules_are_named_both() {
    let (_folder, path, _) = saved();
    for (what, change) in [
        ("contract 9", (|header: &mut Header| header.contract = 9) as fn(&mut Header)),
        ("format 9", |header| header.format = 9),
    ] {
        let mut checkpoint = example();
        change(&mut checkpoint.header);
        checkpoint.save(&Cpu::current(), &path).unwrap();
        let error = Checkpoint::load(&Cpu::current(), &path).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, CheckpointError::Version { .. }), "{said}");
        assert!(said.contains(what) && said.contains(&format!("{} 1;", &what[..what.len() - 2])), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_a_pipe_and_a_folder_are_refused() {
    let (folder, path, _) = saved();
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink(&path, at("link")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    for name in ["link", "folder", "pipe"] {
        let error = Checkpoint::load(&Cpu::current(), &at(name)).unwrap_err();
        assert!(matches!(error, CheckpointError::File(_)), "{error}");
    }
}
