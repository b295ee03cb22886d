//! The faults that are tried, and what counts as surviving each.
//!
//! | letter | the fault is survived when |
//! |---|---|
//! | S | the run ends with the bits of an undisturbed one |
//! | R | the run, started again, goes on to the undisturbed chain, and no committed step is lost |
//! | E | the program stops with its exit code and one line that says what, where and what to do; nothing is half-written |
//! | N | the save fails aloud, and the older checkpoint is intact |
//!
//! Read by the tests and by `cargo xtask faults`.

/// A fault of the list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Group and number.
    pub(crate) id: &'static str,
    /// The letters of the verdict, see above.
    pub(crate) verdict: &'static str,
    /// What happens to the program.
    pub(crate) title: &'static str,
}

const fn fault(id: &'static str, verdict: &'static str, title: &'static str) -> Fault {
    Fault { id, verdict, title }
}

/// Every fault, in order.
pub(crate) const FAULTS: &[Fault] = &[
    fault("A01", "R", "killed when it enters a system call of a save, each in turn"),
    fault("A02", "N", "the disk is full at a write of a save, each in turn"),
    fault("A03", "E or N", "a run directory on a file system that holds less than two checkpoints"),
    fault("A04", "N", "the flush of a file or folder fails with an input/output error, each in turn"),
    fault("A05", "N", "renaming the checkpoint, or flushing its folder, fails"),
    fault("A06", "N", "the quota is used up; files may not grow beyond a limit"),
    fault("A07", "R", "power lost during a save: unflushed writes dropped, reordered, torn"),
    fault("A08", "E", "a checkpoint cut to every interesting length"),
    fault("A09", "E", "one bit of a checkpoint flipped: each of the header, one in every 4 KiB"),
    fault("A10", "E", "the bytes of two tensors of one shape exchanged"),
    fault("A11", "E", "bytes after the end of a checkpoint"),
    fault("A12", "E", "a checkpoint of another format or another numeric contract"),
    fault("A13", "E", "a checkpoint of another network"),
    fault("A14", "R", "temporary files left by a killed run"),
    fault("A15", "R", "the newest checkpoint removed though the hint still names it"),
    fault("A16", "R", "the hint that names the newest checkpoint is empty, cut or garbage"),
    fault("A17", "E", "the run directory is removed while the run goes on"),
    fault("A18", "N", "the run directory becomes read-only while the run goes on"),
    fault("A19", "E", "a second training starts in the same run directory"),
    fault("A20", "R", "a lock left by a dead process, or from before the machine started"),
    fault("A21", "E", "a run is resumed that is still going on"),
    fault("A22", "E", "a checkpoint's name leads to a link, a pipe or a folder"),
    fault("A23", "E", "a checkpoint that may not be read"),
    fault("A24", "R", "killed between a checkpoint and the next line of log and chain"),
    fault("A25", "R", "killed at each system call while old checkpoints are removed"),
    fault("A26", "R", "one run killed seven times at random moments"),
    fault("B01", "R", "SIGTERM in the middle of a batch"),
    fault("B02", "R", "SIGINT once"),
    fault("B03", "R", "SIGINT twice"),
    fault("B04", "R", "SIGINT and SIGTERM at each system call of a save"),
    fault("B05", "R", "SIGHUP: the terminal is closed"),
    fault("B06", "S", "the reader of the output leaves"),
    fault("B07", "S", "output, messages or log on a full device"),
    fault("B08", "S", "held by SIGSTOP, later let go on"),
    fault("B09", "S", "the wall clock jumps"),
    fault("B10", "E", "less address space than the run needs"),
    fault("B11", "R", "killed for want of memory in the middle of an epoch"),
    fault("B12", "E", "the n-th allocation of a parser fails, each in turn"),
    fault("B13", "S", "no more threads can be made"),
    fault("B14", "S or E", "32 open files at most"),
    fault("B15", "S", "a bare environment, odd locale and time zone, a working directory that is gone"),
    fault("B16", "E", "an instruction set asked for that the processor lacks"),
    fault("B17", "E", "a preloaded library lets denormal numbers be flushed to zero"),
    fault("B18", "S", "the dashboard's thread or port dies"),
    fault("C01", "E", "the loss of a step is not a number"),
    fault("C02", "E", "the gradient of one parameter is infinite"),
    fault("C03", "E", "a learning rate that makes the run diverge"),
    fault("C04", "S", "a finding that every validation image has, or none"),
    fault("C05", "S", "one image in the last batch, under batch normalization"),
    fault("C06", "E or S", "no image, one image, fewer images than a batch"),
    fault("C07", "S", "a constant image, a channel without variance"),
    fault("C08", "S", "logits of a great size in the losses"),
    fault("C09", "S", "weights and moments so small that they are denormal"),
    fault("C10", "S", "negative zero and exact ties where values are compared"),
    fault("C11", "S or E", "settings of zero, and a warm-up longer than the run"),
    fault("C12", "S", "counters that pass 2^32"),
    fault("I01", "E", "an unknown flag, or one mistyped"),
    fault("I02", "E", "a number out of its range, or none at all"),
    fault("I03", "E", "two flags that exclude each other"),
    fault("I04", "E", "a configuration file with a mistake in it"),
    fault("I05", "E", "a name that cannot be a run's"),
    fault("I06", "E", "a place for the output that cannot be written"),
    fault("I07", "S", "paths with spaces, line breaks, bytes that are no UTF-8"),
    fault("I08", "E", "a run resumed under another hyper-parameter"),
    fault("I09", "S or E", "a run resumed by another version of the program or of the contract"),
    fault("I10", "E", "the record of a run edited by hand"),
    fault("I11", "S", "no standard input, no terminal, one without width"),
    fault("I12", "E", "ten thousand images to predict, two hundred of them missing"),
    fault("J01", "S", "another number of threads"),
    fault("J02", "S", "another instruction set"),
    fault("J03", "S", "other sizes of tiles and blocks"),
    fault("J04", "S", "buffers off the cache line"),
    fault("J05", "S", "fresh memory full of zeros, ones or signalling NaN"),
    fault("J06", "S", "random pauses between tasks"),
    fault("J07", "S", "other loaders, other prefetching"),
    fault("J08", "S", "other settings of the compiler"),
    fault("J09", "S", "another compiler, another C library"),
    fault("J10", "S", "more or less logging, more or fewer checkpoints"),
    fault("J11", "S", "stopped and resumed at every step"),
    fault("J12", "S", "resumed on other threads and another instruction set at every checkpoint"),
    fault("J13", "S", "with and without validation, in batches of another size"),
    fault("J14", "S", "the data on another file system, read-only, made in another order"),
    fault("J15", "S", "kernels on random shapes against the plain loop"),
    fault("J16", "S", "a hundred repeats: other addresses, other processes"),
];
