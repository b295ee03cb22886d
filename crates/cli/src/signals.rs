//! Signals that ask the program to end: the first finishes the step and saves, the second ends at once.

/// The signal that came, if one did; handlers are installed once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP from here on. A second one ends the process with 128 + its number,
    /// as the first would have without this.
    #[cfg(unix)]
    pub(crate) fn catch() -> std::io::Result<Signals> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        use signal_hook::flag;
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;

        let signals = Signals::default();
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds nothing yet, the second finds the first.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&came))?;
            flag::register(signal, Arc::clone(&came))?;
            flag::register_usize(signal, Arc::clone(&signals.0), signal as usize)?;
        }
        Ok(signals)
    }

    /// Elsewhere nothing is caught: what the system does is done, and the last checkpoint stays.
    #[cfg(not(unix))]
    pub(crate) fn catch() -> std::io::Result<Signals> {
        Ok(Signals::default())
    }

    /// The signal that came.
    pub(crate) fn came(&self) -> Option<i32> {
        let signal = self.0.load(std::sync::atomic::Ordering::Relaxed);
        (signal != 0).then_some(signal as i32)
    }
}

/// Lets a limit on the size of files be the error of the write that meets it, and not the end of the process.
pub(crate) fn survive_file_limit() -> std::io::Result<()> {
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default())?;
    Ok(())
}
