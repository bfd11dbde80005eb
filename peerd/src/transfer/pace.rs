//! A limit on bytes per second, shared by all streams. Pure.

use std::time::{Duration, Instant};

/// How much may be sent at once after a pause, as time at the limit's rate: short enough that the rate holds within a second,
/// long enough that a timer's grain does not cost throughput.
const BURST: Duration = Duration::from_millis(100);

/// A token bucket that lends: a send is always allowed, and tells how long to wait before the next (generic cell rate
/// algorithm, ITU-T I.371).
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When all that was sent is paid for.
    paid_at: Instant,
}

impl Pace {
    /// A limit of `bytes_per_second`, at least 1.
    pub fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: now }
    }

    /// Counts `bytes` as sent and returns how long the sender waits first.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = self.paid_at.max(earliest);
        #[expect(clippy::cast_precision_loss, reason = "a nanosecond in a year of sending")]
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.paid_at = begin + cost;
        begin.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_sender_gets_the_rate_and_no_more() {
        let start = Instant::now();
        let (mut pace, mut now) = (Pace::new(1_000_000, start), start);
        for _ in 0..100 {
            now += pace.take(50_000, now);
        }
        let took = now - start;
        assert!(took >= Duration::from_millis(4_800) && took <= Duration::from_millis(5_000), "{took:?}");
    }

    #[test]
    fn a_pause_earns_only_a_short_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000_000, start);
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.take(100_000, later), Duration::ZERO);
        assert_eq!(pace.take(100_000, later), Duration::ZERO);
        assert_eq!(pace.take(1, later), Duration::from_millis(100));
    }
}
