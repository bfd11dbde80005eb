//! Waiting for something to become true, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longest wait for anything in a test. A machine under load is slow, not broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks: short beside what a process takes to start.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Looks again and again until there is something to see.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        thread::park_timeout(LOOK_INTERVAL);
    }
}

/// Looks again and again until it is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || is_so().then_some(()));
}
