//! How long writes may take.

use std::time::Duration;

/// How long calls wait for the store.
#[derive(Debug, Clone)]
pub(crate) struct WriteTimeouts {
    /// How long a call waits until its change is in a batch.
    pub(crate) queue: Duration,
    /// How long a call waits for the commit of its change. A sync that takes longer hangs rather than being slow.
    pub(crate) commit: Duration,
    /// How long a stop waits for what is being written, after the last call has been answered.
    pub(crate) stop: Duration,
    /// A commit that takes longer makes the registry unready.
    pub(crate) slow_commit: Duration,
}

impl Default for WriteTimeouts {
    fn default() -> Self {
        Self {
            // Clients' deadlines are about as long.
            queue: Duration::from_secs(10),
            commit: Duration::from_secs(10),
            // As long as a call would have waited. With the grace period it is less than the 30 s that Kubernetes gives a stop.
            stop: Duration::from_secs(10),
            // A slow disk needs a tenth of it.
            slow_commit: Duration::from_secs(3),
        }
    }
}
