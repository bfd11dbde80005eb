//! Pauses between tries.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::time::Duration;

/// Pause after the first failure.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest pause: a registry that is back is found again within it.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Exponential backoff with full jitter above one half ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(PAUSE_FIRST, PAUSE_MAX)
    }
}

impl Backoff {
    /// Pauses from `first` on, doubled up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The pause after one more failure; `random` is in 0..1.
    pub fn next(&mut self, random: f64) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(10)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + random / 2.0)
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_small_again_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next(1.0)).collect();
        assert_eq!(pauses[0], PAUSE_FIRST);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[19], PAUSE_MAX);
        backoff.reset();
        assert_eq!(backoff.next(0.0), PAUSE_FIRST / 2);
    }
}
