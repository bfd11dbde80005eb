//! How many bytes a second are sent, over the last seconds.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Bytes per second over the last one to two windows.
#[derive(Debug)]
pub(crate) struct Rate {
    started: Instant,
    /// Number of the window being counted, its bytes, and those of the one before.
    window: AtomicU64,
    current: AtomicU64,
    previous: AtomicU64,
}

/// A window of [`Rate`]: long enough to smooth, short enough to follow.
const RATE_WINDOW: Duration = Duration::from_secs(5);

impl Rate {
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, window: AtomicU64::new(0), current: AtomicU64::new(0), previous: AtomicU64::new(0) }
    }

    /// Counts race by a chunk at a window's edge, which an average forgives.
    fn roll(&self, now: Instant) {
        let window = now.duration_since(self.started).as_secs() / RATE_WINDOW.as_secs();
        // A thread that was delayed since it read the clock must not turn the window back.
        let last = self.window.fetch_max(window, Ordering::Relaxed);
        if last < window {
            let counted = self.current.swap(0, Ordering::Relaxed);
            self.previous.store(if window == last + 1 { counted } else { 0 }, Ordering::Relaxed);
        }
    }

    pub(crate) fn add(&self, bytes: u64, now: Instant) {
        self.roll(now);
        self.current.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn per_second(&self, now: Instant) -> u64 {
        self.roll(now);
        let full = self.previous.load(Ordering::Relaxed);
        let current = self.current.load(Ordering::Relaxed);
        full.max(current) / RATE_WINDOW.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_thread_does_not_discard_a_window() {
        let started = Instant::now();
        let rate = Rate::new(started);
        rate.add(5_000, started);
        rate.add(10_000, started + RATE_WINDOW);
        rate.add(500, started);
        assert_eq!(rate.per_second(started + RATE_WINDOW), 10_500 / RATE_WINDOW.as_secs());
    }
}
