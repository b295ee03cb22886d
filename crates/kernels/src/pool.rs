//! The worker threads: a fixed number, started once.

use crate::denormals::flushing_register;
use crate::perturb;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

/// A fixed set of threads that run one body together.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

type Body = *const (dyn Fn(usize) + Sync);

struct Shared {
    work: Mutex<Work>,
    start: Condvar,
    finish: Condvar,
    /// The round being worked on; spinning threads watch it without taking the lock.
    round: AtomicUsize,
    unfinished: AtomicUsize,
    /// Whether the caller sleeps until the others are done.
    awaited: AtomicBool,
    /// How often a waiting thread looks again before it sleeps: [`SPINS`], or not at all where there are more threads
    /// than cores, since it would take the core from one that has work.
    spins: usize,
}

struct Work {
    round: usize,
    /// Threads that sleep until the next round: to wake nobody would cost a call to the system.
    sleeping: usize,
    body: Option<SendBody>,
    stop: bool,
    panic: Option<Box<dyn Any + Send>>,
}

#[derive(Clone, Copy)]
struct SendBody(Body);
// SAFETY: the body is `Sync`, and `Pool::run` keeps it alive until every worker is done with it.
unsafe impl Send for SendBody {}

/// How often a waiting thread looks again before it sleeps: about a millisecond (28 cycles a look, measured on a Xeon
/// with AMX), longer than what one thread does alone between two kernels. To wake a thread took 25 to 100
/// microseconds there.
const SPINS: usize = 100_000;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` threads, the caller of [`Pool::run`] being one of them.
    ///
    /// Where the system refuses to start a thread the pool has fewer: results do not depend on it.
    ///
    /// # Errors
    /// Denormals are flushed to zero on one of the threads, the caller's included: by which register.
    pub fn new(threads: usize) -> Result<Pool, &'static str> {
        if let Some(register) = flushing_register() {
            return Err(register);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (tell, told) = mpsc::channel();
        let shared = Arc::new(Shared {
            work: Mutex::new(Work { round: 0, sleeping: 0, body: None, stop: false, panic: None }),
            start: Condvar::new(),
            finish: Condvar::new(),
            round: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            spins: if threads <= cores { SPINS } else { 0 },
        });
        let mut workers = Vec::new();
        for index in 1..threads.max(1) {
            let (shared, tell) = (Arc::clone(&shared), tell.clone());
            let builder = std::thread::Builder::new().name(format!("kinone-{index}"));
            let serve = move || {
                // Nobody listens any more where another thread flushes.
                let _ = tell.send(flushing_register());
                drop(tell);
                shared.serve(index);
            };
            match builder.spawn(serve) {
                Ok(worker) => workers.push(worker),
                Err(_) => break,
            }
        }
        drop(tell);
        let pool = Pool { shared, workers, turn: Mutex::new(()) };
        match told.iter().find_map(|flushing| flushing) {
            Some(register) => Err(register),
            None => Ok(pool),
        }
    }

    /// The number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Whether the calling thread is at work for a pool.
    pub(crate) fn is_inside() -> bool {
        INSIDE.get()
    }

    /// Calls `body(i)` for every `i` in `0..threads()`, each on its own thread, and returns when all are done.
    ///
    /// Called from inside a body it runs every `i` on the calling thread, in order.
    ///
    /// # Panics
    /// Passes on the panic of a body.
    pub fn run(&self, body: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || Pool::is_inside() {
            for index in 0..self.threads() {
                body(index);
            }
            return;
        }
        let _turn = lock(&self.turn);
        // SAFETY: only the lifetime changes. The pointer is used between here and the wait below, which
        // does not return, by panic either, before every worker has let go of it.
        let body_pointer: Body = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), Body>(body) };
        let sleeping = {
            let mut work = lock(&self.shared.work);
            work.body = Some(SendBody(body_pointer));
            work.round = work.round.wrapping_add(1);
            self.shared.unfinished.store(self.workers.len(), Ordering::Relaxed);
            self.shared.round.store(work.round, Ordering::Release);
            work.sleeping
        };
        if sleeping > 0 {
            self.shared.start.notify_all();
        }
        INSIDE.set(true);
        let own = catch_unwind(AssertUnwindSafe(|| {
            perturb::delay();
            body(0);
        }));
        INSIDE.set(false);
        let mut spins = 0;
        while self.shared.unfinished.load(Ordering::Acquire) != 0 && spins < self.shared.spins {
            std::hint::spin_loop();
            spins += 1;
        }
        let mut work = lock(&self.shared.work);
        if self.shared.unfinished.load(Ordering::Acquire) != 0 {
            // Sequentially consistent: of the last worker and this thread one sees what the other wrote.
            self.shared.awaited.store(true, Ordering::SeqCst);
            while self.shared.unfinished.load(Ordering::SeqCst) != 0 {
                work = self.shared.finish.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
            self.shared.awaited.store(false, Ordering::Relaxed);
        }
        work.body = None;
        let theirs = work.panic.take();
        drop(work);
        if let Err(panic) = own {
            // Two at once would end the process.
            std::mem::forget(theirs);
            resume_unwind(panic);
        }
        if let Some(panic) = theirs {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    fn serve(&self, index: usize) {
        INSIDE.set(true);
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.round.load(Ordering::Acquire) == seen && spins < self.spins {
                std::hint::spin_loop();
                spins += 1;
            }
            let body = {
                let mut work = lock(&self.work);
                while work.round == seen && !work.stop {
                    work.sleeping += 1;
                    work = self.start.wait(work).unwrap_or_else(PoisonError::into_inner);
                    work.sleeping -= 1;
                }
                if work.stop {
                    return;
                }
                seen = work.round;
                work.body
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                perturb::delay();
                if let Some(SendBody(body)) = body {
                    // SAFETY: `run` keeps the body alive until `unfinished` reaches zero, below.
                    unsafe { (*body)(index) }
                }
            }));
            if let Err(panic) = outcome {
                match &mut lock(&self.work).panic {
                    first @ None => *first = Some(panic),
                    // To drop it could panic too, and then nobody would hear of this worker's end.
                    Some(_) => std::mem::forget(panic),
                }
            }
            let last = self.unfinished.fetch_sub(1, Ordering::SeqCst) == 1;
            if last && self.awaited.load(Ordering::SeqCst) {
                // Whoever set it under the lock sleeps by now.
                drop(lock(&self.work));
                self.finish.notify_one();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut work = lock(&self.shared.work);
            work.stop = true;
            work.round = work.round.wrapping_add(1);
            self.shared.round.store(work.round, Ordering::Release);
            self.shared.start.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches what its bodies throw, so joining cannot fail.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_runs_once_in_every_round() {
        let pool = Pool::new(5).unwrap();
        let counts: Vec<AtomicUsize> = (0..5).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..1000 {
            pool.run(&|index| {
                counts[index].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1000));
    }

    #[test]
    fn a_nested_run_stays_on_its_thread() {
        let pool = Pool::new(3).unwrap();
        let count = AtomicUsize::new(0);
        pool.run(&|_| {
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.load(Ordering::Relaxed), 9);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3).unwrap();
        for thrower in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|index| assert!(index != thrower, "thrown"));
            }));
            assert!(caught.is_err());
        }
        pool.run(&|_| {});
    }

    #[test]
    fn panics_of_all_threads_whose_messages_panic_too_reach_the_caller_as_one() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("a message that panics");
            }
        }
        let pool = Pool::new(3).unwrap();
        for thrower in 0..2 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|index| {
                    if index >= thrower {
                        std::panic::panic_any(Bomb);
                    }
                });
            }));
            std::mem::forget(caught.unwrap_err().downcast::<Bomb>().unwrap());
        }
        pool.run(&|_| {});
    }
}
