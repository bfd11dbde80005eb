//! Polls for a condition, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longest wait in a test. A guess: enough for a machine under load.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two checks: short compared with the start of a process.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Polls `look` until it gives a value.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + WAIT_TIMEOUT;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "timed out after {WAIT_TIMEOUT:?}: {what}");
        thread::park_timeout(POLL_INTERVAL);
    }
}

/// Polls `is_so` until it is true.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || is_so().then_some(()));
}
