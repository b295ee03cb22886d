//! Whether a thread loses denormal numbers. Every thread has a register that decides it.

/// The register that flushes denormal numbers to zero on this thread, as operands or as results; `None` where none
/// does, as it should be.
pub(crate) fn flushing_register() -> Option<&'static str> {
    let (register, flushes) = control();
    (flushes || loses_denormals()).then_some(register)
}

/// MXCSR: bit 15 flushes results (FTZ), bit 6 operands (DAZ); Intel, Software Developer's Manual, volume 1, 10.2.3.
#[cfg(target_arch = "x86_64")]
fn control() -> (&'static str, bool) {
    let mut mxcsr = 0_u32;
    // SAFETY: the instruction writes four bytes, which are those of the variable.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
    }
    ("MXCSR", mxcsr & (1 << 15 | 1 << 6) != 0)
}

/// FPCR: bit 24 flushes both (FZ); Arm, Architecture Reference Manual, C5.2.8.
#[cfg(target_arch = "aarch64")]
fn control() -> (&'static str, bool) {
    let fpcr: u64;
    // SAFETY: the instruction reads a register that every program may read.
    unsafe {
        std::arch::asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags));
    }
    ("FPCR", fpcr & 1 << 24 != 0)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn control() -> (&'static str, bool) {
    ("the floating-point control register", false)
}

/// The same by what becomes of numbers.
fn loses_denormals() -> bool {
    use std::hint::black_box;
    let operand = black_box(f32::from_bits(1)) * black_box(1.0e30) == 0.0;
    let result = black_box(f32::MIN_POSITIVE) * black_box(0.5) == 0.0;
    operand || result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denormals_are_kept_on_a_thread_as_it_begins() {
        assert_eq!(flushing_register(), None);
        std::thread::spawn(|| assert_eq!(flushing_register(), None)).join().unwrap();
    }

    /// The register and the numbers agree on each of the two bits.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_bit_is_seen() {
        for bit in [1_u32 << 15, 1 << 6] {
            let seen = std::thread::spawn(move || {
                let changed = 0x1f80 | bit;
                // SAFETY: the instruction reads four bytes of ours; no exception is unmasked, and the thread ends.
                unsafe {
                    std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const changed, options(nostack));
                }
                (control().1, loses_denormals(), flushing_register())
            });
            assert_eq!(seen.join().unwrap(), (true, true, Some("MXCSR")));
        }
    }
}
