//! A limit on bytes per second, shared by all streams.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::time::{Duration, Instant};

/// How much may be sent at once after a pause, as time at the limit's rate: short enough that the rate holds within a second,
/// long enough that timer resolution does not cost throughput.
const BURST: Duration = Duration::from_millis(100);

/// Smallest piece that [`RateLimit::share_of`] makes: below it the frames around it would weigh more than the limit.
const CHUNK_MIN_BYTES: usize = 4 * 1024;

/// A token bucket that may go into debt: a send is always allowed, and returns how long to wait first (generic cell rate
/// algorithm, ITU-T I.371).
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: u64,
    /// When the bytes sent so far are within the limit.
    paid_at: Instant,
}

impl RateLimit {
    /// A limit of `bytes_per_second`, at least 1.
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: now }
    }

    /// Counts `bytes` as sent and returns how long the sender waits first.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = self.paid_at.max(earliest);
        self.paid_at = begin + self.cost(bytes);
        begin.saturating_duration_since(now)
    }

    /// Uncounts bytes that were not sent.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.paid_at = self.paid_at.checked_sub(self.cost(bytes)).unwrap_or(self.paid_at);
    }

    /// Most bytes of one chunk, at most `chunk`: small enough that the reader does not take the wait for a stall.
    pub(super) fn share_of(&self, chunk: usize) -> usize {
        usize::try_from(self.bytes_per_second / 4).unwrap_or(usize::MAX).clamp(CHUNK_MIN_BYTES.min(chunk), chunk)
    }

    fn cost(&self, bytes: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a nanosecond in a year of sending")]
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_sender_gets_the_rate_and_no_more() {
        let start = Instant::now();
        let (mut rate_limit, mut now) = (RateLimit::new(1_000_000, start), start);
        for _ in 0..100 {
            now += rate_limit.take(50_000, now);
        }
        let took = now - start;
        assert!(took >= Duration::from_millis(4_800) && took <= Duration::from_millis(5_000), "{took:?}");
    }

    #[test]
    fn bytes_that_were_not_sent_do_not_count() {
        let start = Instant::now();
        let mut rate_limit = RateLimit::new(1_000, start);
        for _ in 0..1_000 {
            rate_limit.take(256 * 1024, start);
            rate_limit.give_back(256 * 1024);
        }
        assert_eq!(rate_limit.take(1, start), Duration::ZERO);
        assert_eq!((rate_limit.share_of(256 * 1024), RateLimit::new(1 << 30, start).share_of(9)), (CHUNK_MIN_BYTES, 9));
    }

    #[test]
    fn a_pause_earns_only_a_short_burst() {
        let start = Instant::now();
        let mut rate_limit = RateLimit::new(1_000_000, start);
        let later = start + Duration::from_secs(60);
        assert_eq!(rate_limit.take(100_000, later), Duration::ZERO);
        assert_eq!(rate_limit.take(100_000, later), Duration::ZERO);
        assert_eq!(rate_limit.take(1, later), Duration::from_millis(100));
    }
}
