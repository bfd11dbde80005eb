//! How fast one holder sends.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::config::MESSAGE_MAX_BYTES;
use std::time::{Duration, Instant};

/// Shorter samples say little: several messages can be in one packet.
const SAMPLE_MIN: Duration = Duration::from_millis(20);
/// Longest sample, and slowest average: bounds what a path with a long delay can do to them.
const SAMPLE_MAX: Duration = Duration::from_millis(500);
/// The rate follows a change within this time (exponential average), or within half of the holder's delay if that is longer.
const SMOOTHING: Duration = Duration::from_millis(100);
/// A smaller delay is forgotten after this time: routes change.
const DELAY_VALID: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
struct Delay {
    time: Duration,
    at: Instant,
    /// Of the first request: the stream may have been open already, or the connection not yet. Any better sample replaces it.
    is_first: bool,
}

/// Rate and delay of one holder. Only time in which something was requested counts.
#[derive(Debug, Default)]
pub(super) struct Meter {
    rate: Option<f64>,
    delay: Option<Delay>,
    /// Since when bytes are expected without a sample.
    since: Option<Instant>,
    bytes: u64,
    time: Duration,
    /// Whether the last sample was clearly above the average.
    grows: bool,
}

impl Meter {
    /// Bytes a second; `None` until enough arrived.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// The same, but no more than the present silence allows.
    pub(super) fn rate_at(&self, now: Instant) -> Option<f64> {
        let silence = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)).as_secs_f64();
        let most = (self.bytes + MESSAGE_MAX_BYTES) as f64 / (self.time.as_secs_f64() + silence).max(1e-3);
        self.rate.map(|rate| rate.min(most))
    }

    /// Whether the rate still grows.
    pub(super) fn grows(&self) -> bool {
        self.grows
    }

    /// The smallest time from a request to its answer, seen lately.
    pub(super) fn delay(&self) -> Option<Duration> {
        self.delay.map(|delay| delay.time)
    }

    /// The holder answered something else after this time. Any better sample replaces it.
    pub(super) fn answered(&mut self, time: Duration, now: Instant) {
        self.delay.get_or_insert(Delay { time, at: now, is_first: true });
    }

    /// An answer began. `alone`: no other answer delayed this one.
    pub(super) fn began(&mut self, sent: Instant, alone: bool, now: Instant) {
        self.since.get_or_insert(now);
        let time = now.saturating_duration_since(sent);
        let keep = self.delay.is_some_and(|delay| {
            let is_valid = !delay.is_first && now.saturating_duration_since(delay.at) < DELAY_VALID;
            time > delay.time && (!alone || is_valid)
        });
        if !keep {
            self.delay = Some(Delay { time, at: now, is_first: self.delay.is_none() });
        }
    }

    /// Bytes arrived.
    pub(super) fn arrived(&mut self, bytes: u64, now: Instant) {
        let Some(since) = self.since.replace(now) else { return };
        self.bytes += bytes;
        self.time += now.saturating_duration_since(since);
        // A stream that its window limits sends in bursts, one in each delay.
        let delay = self.delay().unwrap_or_default();
        if self.time < delay.clamp(SAMPLE_MIN, SAMPLE_MAX) {
            return;
        }
        let sample = self.bytes as f64 / self.time.as_secs_f64();
        let smoothing = (delay / 2).max(SMOOTHING).min(SAMPLE_MAX);
        let weight = 1.0 - (-self.time.as_secs_f64() / smoothing.as_secs_f64()).exp();
        let rate = self.rate.map_or(sample, |rate| rate + weight * (sample - rate));
        self.grows = self.rate.is_none_or(|before| sample > 1.1 * before);
        (self.rate, self.bytes, self.time) = (Some(rate), 0, Duration::ZERO);
    }

    /// Nothing is requested any more.
    pub(super) fn idle(&mut self) {
        self.since = None;
    }
}
