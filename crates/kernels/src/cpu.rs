//! Which instruction set runs the kernels, and on how many threads.
//!
//! A [`Cpu`] is proof: its constructor asked the processor, so holding one with [`Isa::Avx512`] makes it
//! sound to run AVX-512 code. Nothing a `Cpu` chooses can change a result, only its speed.

use crate::pool::Pool;
use crate::shares::Shares;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, OnceLock, RwLock};

/// An instruction set for which kernels exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// No vector instructions assumed; the fused multiply-add is done in software. Exact and slow.
    Scalar,
    /// aarch64 with 4 lanes of f32.
    Neon,
    /// x86-64 with AVX2 and FMA: 8 lanes of f32.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL: 16 lanes of f32.
    Avx512,
}

impl Isa {
    /// Every instruction set Kinone knows, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// The name used by `KINONE_ISA` and in every record.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// Whether this processor has it.
    pub fn is_present(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_present()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[allow(unreachable_patterns, reason = "which arms remain depends on the architecture")]
            _ => false,
        }
    }

    /// Every instruction set of this processor, slowest first.
    pub fn present() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_present()).collect()
    }

    /// The set asked for by the environment variable `KINONE_ISA`, otherwise the widest present.
    ///
    /// # Errors
    /// The variable names an unknown set, or one that this processor lacks.
    pub fn selected() -> Result<Isa, CpuError> {
        match std::env::var("KINONE_ISA") {
            Ok(name) if !name.is_empty() => {
                let isa: Isa = name.parse()?;
                if isa.is_present() { Ok(isa) } else { Err(CpuError::Absent(isa)) }
            }
            Err(std::env::VarError::NotUnicode(_)) => Err(CpuError::Unknown("(not UTF-8)".into())),
            _ => Ok(Isa::present().pop().unwrap_or(Isa::Scalar)),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = CpuError;
    fn from_str(name: &str) -> Result<Isa, CpuError> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| CpuError::Unknown(name.to_owned()))
    }
}

/// Why no [`Cpu`] can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuError {
    /// No such instruction set.
    Unknown(String),
    /// This processor does not have it.
    Absent(Isa),
    /// The number of threads is zero.
    NoThreads,
    /// Denormal numbers are flushed to zero on a thread, so results would differ from other machines: by this
    /// register.
    Flushing(&'static str),
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = || Isa::present().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
        match self {
            CpuError::Unknown(name) => {
                write!(f, "KINONE_ISA={name}: no such instruction set; this machine has {}", present())
            }
            CpuError::Absent(isa) => {
                write!(f, "KINONE_ISA={isa}: this processor lacks it; this machine has {}", present())
            }
            CpuError::NoThreads => f.write_str("the number of threads must be at least 1"),
            CpuError::Flushing(register) => write!(
                f,
                "{register} is set to flush denormal numbers to zero on a thread (FTZ or DAZ, perhaps by a library \
                 built with fast-math); remove what sets it"
            ),
        }
    }
}

impl std::error::Error for CpuError {}

/// A plain loop to be compiled once for each instruction set.
///
/// Mark `run` as `#[inline(always)]` and keep the whole loop inside it or in functions that are
/// `#[inline(always)]` too: what is inlined into the instruction set's own function is compiled with it.
/// Closures are not; write a struct.
pub trait Task {
    /// What the loop returns.
    type Output;
    /// The loop.
    fn run(self) -> Self::Output;
}

/// The instruction set and the worker threads that kernels run on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cpu {
    isa: Isa,
    pool: Arc<Pool>,
    fuses: bool,
}

static DEFAULT: OnceLock<RwLock<Cpu>> = OnceLock::new();
thread_local! {
    static SCOPED: RefCell<Vec<Cpu>> = const { RefCell::new(Vec::new()) };
}

impl Cpu {
    /// Kernels for `isa` on `threads` threads, the caller's included.
    ///
    /// # Errors
    /// The processor lacks `isa`, `threads` is zero, or denormals are flushed on one of the threads.
    pub fn new(isa: Isa, threads: usize) -> Result<Cpu, CpuError> {
        if threads == 0 {
            return Err(CpuError::NoThreads);
        }
        if !isa.is_present() {
            return Err(CpuError::Absent(isa));
        }
        let pool = Pool::new(threads).map_err(CpuError::Flushing)?;
        Ok(Cpu { isa, pool: Arc::new(pool), fuses: true })
    }

    /// The selected instruction set ([`Isa::selected`]) on every core of the machine.
    ///
    /// # Errors
    /// As [`Cpu::new`] and [`Isa::selected`].
    pub fn detect() -> Result<Cpu, CpuError> {
        Cpu::new(Isa::selected()?, std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The `Cpu` of the innermost [`Cpu::scope`] on this thread, otherwise the process's default.
    ///
    /// # Panics
    /// When nothing was installed and detection fails; a program calls [`Cpu::install`] first and
    /// reports the error itself.
    pub fn current() -> Cpu {
        if let Some(cpu) = SCOPED.with_borrow(|stack| stack.last().cloned()) {
            return cpu;
        }
        let default = DEFAULT.get_or_init(|| match Cpu::detect() {
            Ok(cpu) => RwLock::new(cpu),
            Err(error) => panic!("{error}"),
        });
        default.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Makes this the default of the process.
    pub fn install(self) {
        let default = DEFAULT.get_or_init(|| RwLock::new(self.clone()));
        *default.write().unwrap_or_else(std::sync::PoisonError::into_inner) = self;
    }

    /// Runs `body` with this as the current `Cpu` of the calling thread.
    pub fn scope<R>(&self, body: impl FnOnce() -> R) -> R {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                SCOPED.with_borrow_mut(|stack| stack.pop());
            }
        }
        SCOPED.with_borrow_mut(|stack| stack.push(self.clone()));
        let _leave = Leave;
        body()
    }

    /// The same with one operator after another where one could stand for several: slower and with more memory,
    /// the same bits.
    pub fn unfused(self) -> Cpu {
        Cpu { fuses: false, ..self }
    }

    /// Whether one operator may stand for several.
    pub fn fuses(&self) -> bool {
        self.fuses
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `task` compiled for this instruction set, on the calling thread.
    pub fn vectorize<T: Task>(&self, task: T) -> T::Output {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Cpu` with this `Isa` exists only where `Isa::is_present` saw the features.
            Isa::Avx512 => unsafe { run_avx512(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { run_avx2(task) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon => unsafe { run_neon(task) },
            _ => task.run(),
        }
    }

    /// Calls `body(thread)` once on every thread, `thread` in `0..threads()`, and waits for all.
    pub fn on_every_thread(&self, body: impl Fn(usize) + Sync) {
        self.pool.run(&body);
    }

    /// Cuts `0..len` at multiples of `grain` into ranges, each for one call of `body`.
    ///
    /// Each thread has a share of its own, the first thread the first, and takes it piece by piece, each half of what is
    /// left; then it takes what others have left. So a thread whose core is slower, or is taken away for a while, keeps
    /// nobody waiting, and where nothing disturbs them threads meet what they made themselves. Who computes a result
    /// decides nothing. Short work stays on the calling thread, and so does what is called from inside a body.
    pub fn for_ranges(&self, len: usize, grain: usize, body: impl Fn(Range<usize>) + Sync) {
        let grain = grain.max(1);
        let grain = grain * len.div_ceil(grain).div_ceil(Shares::MOST).max(1);
        let grains = len.div_ceil(grain);
        let parts = self.threads().min(grains);
        if parts <= 1 || Pool::is_inside() {
            if len > 0 {
                body(0..len);
            }
            return;
        }
        let shares = Shares::new(grains, self.threads());
        self.on_every_thread(|thread| {
            while let Some(Range { start, end }) = shares.take(thread) {
                body(start * grain..(end * grain).min(len));
            }
        });
    }

    /// Calls `body(offset, parts)` with disjoint pieces of all `slices` at once, cut at equal offsets.
    ///
    /// All slices that are present have length `len`. Pieces start at multiples of `grain`.
    ///
    /// # Panics
    /// When a present slice has another length.
    pub fn for_slices<T: Send>(
        &self,
        len: usize,
        grain: usize,
        slices: &mut [Option<&mut [T]>],
        body: impl Fn(usize, &mut [Option<&mut [T]>]) + Sync,
    ) {
        assert!(slices.iter().flatten().all(|slice| slice.len() == len), "slices of unequal length");
        let slices: Vec<Option<SharedMut<T>>> =
            slices.iter_mut().map(|slice| slice.as_mut().map(|s| SharedMut::new(s))).collect();
        self.for_ranges(len, grain, |range| {
            let mut parts: Vec<Option<&mut [T]>> = slices
                .iter()
                .map(|slice| {
                    // SAFETY: ranges of one `for_ranges` call are disjoint, and the caller's exclusive
                    // borrows outlive the call.
                    slice.as_ref().map(|s| unsafe { s.slice(range.clone()) })
                })
                .collect();
            body(range.start, &mut parts);
        });
    }
}

/// An exclusive slice that several threads write in disjoint ranges.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    exclusive: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it is only a pointer; `slice` carries the obligation that ranges handed out do not overlap.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        SharedMut { start: slice.as_mut_ptr(), len: slice.len(), exclusive: std::marker::PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where `range` starts, for writing that this borrow does not follow: at most the elements of the range.
    ///
    /// # Panics
    /// When the range leaves the slice.
    #[inline]
    pub(crate) fn pointer(&self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.len, "range outside the slice");
        self.start.wrapping_add(range.start)
    }

    /// Writes `values` to every `step`-th element from `start`.
    ///
    /// # Safety
    /// No other thread touches these elements meanwhile.
    ///
    /// # Panics
    /// When the last of them lies outside the slice.
    #[inline]
    pub(crate) unsafe fn write(&self, start: usize, step: usize, values: &[T])
    where
        T: Copy,
    {
        let Some(last) = values.len().checked_sub(1) else { return };
        assert!(start + last * step < self.len, "writing outside the slice");
        // SAFETY: inside the borrowed slice by the assertion, unaliased by the caller's promise.
        unsafe {
            let to = self.start.add(start);
            if step == 1 {
                std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
            } else {
                for (k, value) in values.iter().enumerate() {
                    *to.add(k * step) = *value;
                }
            }
        }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No two live results may overlap.
    ///
    /// # Panics
    /// When the range leaves the slice.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's obligation, stated above")]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range outside the slice");
        // SAFETY: inside the borrowed slice by the assertion, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn run_avx512<T: Task>(task: T) -> T::Output {
    task.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<T: Task>(task: T) -> T::Output {
    task.run()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn run_neon<T: Task>(task: T) -> T::Output {
    task.run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn ranges_cover_everything_once_at_multiples_of_the_grain() {
        for threads in [1, 2, 3, 7] {
            let cpu = Cpu::new(Isa::Scalar, threads).unwrap();
            for len in [0, 1, 5, 64, 67, 1000] {
                for grain in [1, 4, 16, 2000] {
                    let seen = Mutex::new(Vec::new());
                    cpu.for_ranges(len, grain, |range| seen.lock().unwrap().push(range));
                    let mut seen = seen.into_inner().unwrap();
                    seen.sort_by_key(|range| range.start);
                    let mut next = 0;
                    for range in &seen {
                        assert_eq!(range.start, next);
                        assert_eq!(range.start % grain, 0);
                        next = range.end;
                    }
                    assert_eq!(next, len);
                }
            }
        }
    }

    #[test]
    fn an_unknown_or_absent_set_is_an_error() {
        assert!(matches!("sse9".parse::<Isa>(), Err(CpuError::Unknown(_))));
        for isa in Isa::ALL {
            assert_eq!(Cpu::new(isa, 1).is_ok(), isa.is_present());
        }
        assert_eq!(Cpu::new(Isa::Scalar, 0).unwrap_err(), CpuError::NoThreads);
    }

    #[test]
    fn the_innermost_scope_wins() {
        let one = Cpu::new(Isa::Scalar, 1).unwrap();
        let three = Cpu::new(Isa::Scalar, 3).unwrap();
        one.scope(|| {
            assert_eq!(Cpu::current().threads(), 1);
            three.scope(|| assert_eq!(Cpu::current().threads(), 3));
            assert_eq!(Cpu::current().threads(), 1);
        });
    }
}
