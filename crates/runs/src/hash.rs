//! Hashes of numbers: SHA-256 in leaves, so that every thread takes part.
//!
//! The hash of an array is the SHA-256 of the hashes of its leaves, each of 65,536 numbers (the last may be
//! shorter), as little-endian bytes with every NaN as 0x7fc00000. The hash of a named value is that of its
//! name, type, shape and array. The hash of a dictionary is that of its names and their hashes.

use kinone_kernels::Cpu;
use kinone_nn::state::{Dictionary, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Numbers of a leaf.
const LEAF: usize = 65_536;

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of bytes, in hexadecimal digits.
pub fn bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Adds numbers to a hash as little-endian bytes, every NaN as 0x7fc00000.
pub(crate) fn update(hash: &mut Sha256, numbers: &[f32]) {
    // A few numbers at a time: one at a time costs more than the hash.
    let mut bytes = [0; 4096];
    for numbers in numbers.chunks(bytes.len() / 4) {
        for (x, four) in numbers.iter().zip(bytes.as_chunks_mut::<4>().0) {
            *four = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }.to_le_bytes();
        }
        hash.update(&bytes[..numbers.len() * 4]);
    }
}

/// The hash of an array's numbers.
pub fn numbers(cpu: &Cpu, numbers: &[f32]) -> [u8; 32] {
    let leaf = |k: usize| {
        let mut hash = Sha256::new();
        update(&mut hash, &numbers[k * LEAF..numbers.len().min((k + 1) * LEAF)]);
        hash.finalize()
    };
    let count = numbers.len().div_ceil(LEAF);
    let mut root = Sha256::new();
    if count < 2 || cpu.threads() == 1 {
        (0..count).for_each(|k| root.update(leaf(k)));
        return root.finalize().into();
    }
    let leaves = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    cpu.on_every_thread(|_| {
        loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            if k >= count {
                break;
            }
            let hash = leaf(k);
            leaves.lock().unwrap_or_else(PoisonError::into_inner).insert(k, hash);
        }
    });
    let leaves = leaves.into_inner().unwrap_or_else(PoisonError::into_inner);
    leaves.values().for_each(|hash| root.update(hash));
    root.finalize().into()
}

/// The hash of a value under its name.
pub fn value(cpu: &Cpu, name: &str, value: &Value) -> String {
    let mut hash = Sha256::new();
    let kind = match value {
        Value::F32(_) => "f32",
        Value::I64(_) => "i64",
    };
    hash.update(format!("{name}\0{kind}{}\0", value.shape()));
    match value {
        Value::F32(array) => hash.update(numbers(cpu, array.data())),
        Value::I64(count) => hash.update(count.to_le_bytes()),
    }
    hex(&hash.finalize())
}

/// The hash of every value of a dictionary.
pub fn values(cpu: &Cpu, dictionary: &Dictionary) -> BTreeMap<String, String> {
    dictionary.iter().map(|(name, found)| (name.clone(), value(cpu, name, found))).collect()
}

/// The hash of a dictionary from those of its values.
pub fn root(values: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for (name, value) in values {
        hash.update(format!("{name}\0{value}\n"));
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinone_core::array::Array;
    use std::sync::Arc;

    #[test]
    fn the_number_of_threads_does_not_matter_and_every_bit_does() {
        let (one, three) = (Cpu::detect().unwrap(), Cpu::detect().unwrap());
        let one = Cpu::new(one.isa(), 1).unwrap();
        let three = Cpu::new(three.isa(), 3).unwrap();
        let mut data = vec![0.5; 3 * LEAF + 5];
        let hash = numbers(&one, &data);
        assert_eq!(numbers(&three, &data), hash);
        for k in [0, LEAF - 1, LEAF, 3 * LEAF + 4] {
            let before = data[k];
            data[k] = f32::from_bits(before.to_bits() ^ 1);
            assert_ne!(numbers(&three, &data), hash, "{k}");
            data[k] = before;
        }
        assert_ne!(numbers(&one, &data[1..]), hash);
        assert_eq!(numbers(&one, &[f32::NAN]), numbers(&one, &[-f32::NAN]));
    }

    #[test]
    fn a_value_is_its_name_its_type_its_shape_and_its_numbers() {
        let cpu = Cpu::current();
        let array = |shape: [usize; 2]| Value::F32(Arc::new(Array::full(shape, 1.0)));
        let hashes = [
            value(&cpu, "a", &array([2, 3])),
            value(&cpu, "b", &array([2, 3])),
            value(&cpu, "a", &array([3, 2])),
            value(&cpu, "a", &Value::I64(1)),
        ];
        for (k, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..k].contains(hash), "{k}");
        }
    }
}
