//! Exponential backoff: how long to wait before a retry.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::time::Duration;

/// The first and the longest pause of a client that reconnects to a server: a registry, a bootnode, the multicast socket.
pub const RECONNECT: Policy = Policy { first: Duration::from_millis(250), longest: PAUSE_MAX };
/// Longest pause of [`RECONNECT`]: a server that is back is found again within it.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The pause before a call is made again that a server asked to wait with, for so long: up to half as long again, so that those who were told
/// the same do not come back together. `random` is in `0.0..1.0`.
pub fn pause_after(asked: Duration, random: f64) -> Duration {
    asked.mul_f64(1.0 + random / 2.0)
}

/// How pauses grow: the first one, doubled after each further failure, up to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Policy {
    /// The pause after one more failure, where `earlier` failures came before it. Without jitter.
    pub fn pause(self, earlier: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(earlier)).min(self.longest)
    }

    /// The same pause with jitter, so that clients that failed together do not retry together: between one half of it and all of it
    /// ("equal jitter" in "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). `random` is in `0.0..1.0`.
    pub fn pause_with_jitter(self, earlier: u32, random: f64) -> Duration {
        self.pause(earlier).mul_f64(0.5 + random / 2.0)
    }

    /// Counts failures, starting with none.
    pub fn start(self) -> Backoff {
        Backoff { policy: self, failures: 0 }
    }
}

/// The failures in a row of one thing that is retried. [`Backoff::default`] follows [`RECONNECT`].
#[derive(Debug)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        RECONNECT.start()
    }
}

impl Backoff {
    /// Counts a failure and returns the pause before the next try, with jitter. `random` is in `0.0..1.0`.
    pub fn next(&mut self, random: f64) -> Duration {
        let pause = self.policy.pause_with_jitter(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// A try succeeded: the next failure is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next(1.0)).collect();
        assert_eq!(pauses[..3], [RECONNECT.first, RECONNECT.first * 2, RECONNECT.first * 4]);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[19], PAUSE_MAX);
        backoff.reset();
        assert_eq!(backoff.next(0.0), RECONNECT.first / 2);
    }

    #[test]
    fn any_number_of_failures_has_a_pause() {
        let policy = Policy { first: Duration::from_secs(1 << 40), longest: Duration::MAX };
        assert!(policy.pause(u32::MAX) <= policy.longest);
        assert_eq!(RECONNECT.pause(u32::MAX), RECONNECT.longest);
    }
}
