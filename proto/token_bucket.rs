//! A token bucket, for rates of frames, bytes, contacts, calls and requests.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::time::Duration;

/// Time since some fixed point, the same for all calls of one bucket.
type Time = Duration;

/// A token bucket whose level may become negative (debt).
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: u32,
    most: u32,
    /// In millionths of a token. Negative: debt.
    level: i64,
    at: Time,
}

const MICRO: i64 = 1_000_000;

impl TokenBucket {
    /// A full bucket that holds the tokens of one second.
    pub fn new(per_second: u32, now: Time) -> Self {
        Self::holding(per_second, per_second, now)
    }

    /// A full bucket that holds `most` tokens.
    pub fn holding(most: u32, per_second: u32, now: Time) -> Self {
        Self { per_second, most, level: i64::from(most) * MICRO, at: now }
    }

    /// Takes a token if there is one; returns whether it did.
    pub fn try_take(&mut self, now: Time) -> bool {
        self.take_or_wait(now).is_ok()
    }

    /// Takes a token if there is one.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn take_or_wait(&mut self, now: Time) -> Result<(), Duration> {
        self.take(0, now);
        if self.level >= MICRO {
            self.level -= MICRO;
            return Ok(());
        }
        let missing = MICRO.abs_diff(self.level);
        Err(Duration::from_micros(missing.div_ceil(u64::from(self.per_second.max(1)))))
    }

    /// From now on it gets so many tokens in a second.
    pub fn set_rate(&mut self, per_second: u32, now: Time) {
        self.take(0, now);
        self.per_second = per_second;
    }

    /// Whether it is as full as a new one at `now`.
    pub fn is_full(&mut self, now: Time) -> bool {
        self.take(0, now);
        self.level == i64::from(self.most) * MICRO
    }

    /// Takes `tokens`, into debt if necessary; returns the time until the debt is paid (zero: none).
    pub fn take(&mut self, tokens: u32, now: Time) -> Duration {
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let full = i64::from(self.most) * MICRO;
        let micros = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
        let gained = micros.saturating_mul(i64::from(self.per_second));
        self.level = self.level.saturating_add(gained).min(full);
        self.level = self.level.saturating_sub(i64::from(tokens) * MICRO);
        if self.level >= 0 {
            return Duration::ZERO;
        }
        let debt = self.level.unsigned_abs();
        Duration::from_micros(debt / u64::from(self.per_second.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate_and_says_how_long_to_wait() {
        let mut bucket = TokenBucket::holding(3, 10, Time::ZERO);
        assert!((0..3).all(|_| bucket.try_take(Time::ZERO)));
        let wait = bucket.take_or_wait(Time::ZERO).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(bucket.take_or_wait(wait).is_ok());
        assert_eq!(bucket.take_or_wait(wait + wait / 2), Err(wait / 2));
        assert!(!bucket.is_full(Duration::from_millis(350)) && bucket.is_full(Duration::from_millis(400)));
    }

    #[test]
    fn no_time_and_no_amount_overflows_a_bucket() {
        let mut bucket = TokenBucket::new(u32::MAX, Time::ZERO);
        for now in [Time::MAX, Time::ZERO, Duration::from_secs(1)] {
            for _ in 0..3 {
                bucket.take(u32::MAX, now);
            }
        }
    }
}
