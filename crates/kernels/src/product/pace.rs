//! How fast this processor's loops are beside each other. It decides which of two ways a product is computed by, where
//! both give the same bits.

use crate::{Cpu, Isa};

/// How much longer a multiply-add takes in the loop of sparse operands, where half of the terms are left out, than in a
/// full tile. The first loads an operand for each, the other one for some. Measured: on Zen 4 (AVX-512) 4/3; on a Xeon
/// with AMX 1.87 in registers of 512 bits, where such a multiply-add begins 1.35 times a cycle and not twice, and about
/// as on Zen 4 in those of 256.
pub(super) fn of_sparse(cpu: &Cpu) -> f64 {
    if cpu.isa() == Isa::Avx512 && is_intel() { 1.87 } else { 4.0 / 3.0 }
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    use raw_cpuid::CpuId;
    use std::sync::OnceLock;
    // To ask is slow in a virtual machine.
    static IS_INTEL: OnceLock<bool> = OnceLock::new();
    *IS_INTEL.get_or_init(|| {
        CpuId::new().get_vendor_info().is_some_and(|vendor| vendor.as_str() == "GenuineIntel")
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}
