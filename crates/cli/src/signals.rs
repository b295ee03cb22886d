//! Signals that ask the program to end: the first finishes the step and saves, the second ends at once.

/// The signal that came, if one did; handlers are installed once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP from here on, but for those that whoever started the program had it ignore:
    /// `nohup`, or a shell in the background. A second one ends the process with 128 + its number,
    /// as the first would have without this.
    #[cfg(unix)]
    pub(crate) fn catch() -> std::io::Result<Signals> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        use signal_hook::flag;
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;

        let signals = Signals::default();
        let came = Arc::new(AtomicBool::new(false));
        let ignored = ignored();
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0)
        {
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

/// The signals that this process ignores, signal n as bit n - 1, as Linux tells; none elsewhere.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

/// Lets a limit on the size of files be the error of the write that meets it, and not the end of the process.
pub(crate) fn survive_file_limit() -> std::io::Result<()> {
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default())?;
    Ok(())
}
