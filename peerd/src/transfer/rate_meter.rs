//! Bytes a second, over the last seconds.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::time::{Duration, Instant};

/// Length of one count.
const SLOT: Duration = Duration::from_millis(250);
/// How many counts make the rate: 4 s. Shorter, and the figure jumps; longer, and it lags behind what a user sees.
const SLOTS: usize = 16;

/// Counts bytes, and tells their rate over the last 4 s.
#[derive(Debug, Clone, Default)]
pub(crate) struct RateMeter {
    /// Bytes of each slot; the slot with number `n` is at `n % SLOTS`.
    slots: [u64; SLOTS],
    /// When slot 0 began, and the number of the newest slot. `None` before the first byte.
    newest: Option<(Instant, u64)>,
    total: u64,
}

impl RateMeter {
    /// Counts `bytes`.
    pub(crate) fn add(&mut self, bytes: u64, now: Instant) {
        self.advance_to(now);
        let (_, newest) = *self.newest.get_or_insert((now, 0));
        let at = slot_of(newest);
        self.slots[at] = self.slots[at].saturating_add(bytes);
        self.total = self.total.saturating_add(bytes);
    }

    /// Counts what another meter counted, at the time at which that did.
    pub(crate) fn merge(&mut self, other: &Self) {
        let Some((other_began, last)) = other.newest else { return };
        let mut rest = other.total;
        for number in last.saturating_sub(SLOTS as u64 - 1)..=last {
            let bytes = other.slots[slot_of(number)];
            rest = rest.saturating_sub(bytes);
            if bytes > 0 {
                self.add_earlier(bytes, other_began + SLOT * u32::try_from(number).unwrap_or(u32::MAX));
            }
        }
        self.total = self.total.saturating_add(rest);
    }

    /// Counts `bytes` of a moment that may be past.
    fn add_earlier(&mut self, bytes: u64, at: Instant) {
        self.advance_to(at);
        let (began, newest) = *self.newest.get_or_insert((at, 0));
        let number = at.saturating_duration_since(began).as_millis() / SLOT.as_millis();
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        if newest.saturating_sub(number) < SLOTS as u64 {
            let at = slot_of(number);
            self.slots[at] = self.slots[at].saturating_add(bytes);
        }
        self.total = self.total.saturating_add(bytes);
    }

    /// All bytes counted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes a second up to `now`.
    pub(crate) fn rate(&mut self, now: Instant) -> u64 {
        self.advance_to(now);
        let Some((began, newest)) = self.newest else { return 0 };
        // The oldest slot began this long ago; at first, the meter itself did.
        let oldest = newest.saturating_sub(SLOTS as u64 - 1);
        let span = now.saturating_duration_since(began).saturating_sub(SLOT * u32::try_from(oldest).unwrap_or(u32::MAX));
        let bytes: u64 = self.slots.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes));
        let millis = u64::try_from(span.max(SLOT).as_millis()).unwrap_or(u64::MAX);
        bytes.saturating_mul(1000) / millis
    }

    /// Empties the slots that passed without a byte.
    fn advance_to(&mut self, now: Instant) {
        let Some((began, newest)) = &mut self.newest else { return };
        let current = now.saturating_duration_since(*began).as_millis() / SLOT.as_millis();
        let current = u64::try_from(current).unwrap_or(u64::MAX).max(*newest);
        let passed = (current - *newest).min(SLOTS as u64);
        for step in 0..passed {
            self.slots[slot_of(current - step)] = 0;
        }
        *newest = current;
    }
}

fn slot_of(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut meter, start) = (RateMeter::default(), Instant::now());
        assert_eq!(meter.rate(start), 0);
        let at = |millis: u64| start + Duration::from_millis(millis);
        // 1,000 bytes each 100 ms, for 10 s.
        for step in 0..100 {
            meter.add(1_000, at(step * 100));
        }
        let rate = meter.rate(at(9_950));
        assert!((9_500..=10_500).contains(&rate), "{rate}");
        // Nothing for 2 s: half of what counts is gone. Nothing for 5 s: all of it.
        let rate = meter.rate(at(12_000));
        assert!((4_000..=6_000).contains(&rate), "{rate}");
        assert_eq!(meter.rate(at(15_000)), 0);
        assert_eq!(meter.total(), 100_000);
        meter.add(1_000, at(15_000));
        assert!((200..=300).contains(&meter.rate(at(15_000))), "{}", meter.rate(at(15_000)));
    }

    #[test]
    fn many_short_transfers_have_one_rate() {
        let (mut all, start) = (RateMeter::default(), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        // A transfer of 1,000 bytes each 100 ms, each counted a second after it ended.
        for step in 0..100 {
            let mut one = RateMeter::default();
            one.add(1_000, at(step * 100));
            all.rate(at(step * 100 + 1_000));
            all.merge(&one);
        }
        let rate = all.rate(at(10_900));
        assert!((6_500..=8_500).contains(&rate), "of four seconds, three are counted yet: {rate}");
        assert_eq!(all.total(), 100_000);
        assert_eq!(all.rate(at(20_000)), 0);
        let mut old = RateMeter::default();
        old.add(1_000, start);
        all.merge(&old);
        assert_eq!((all.rate(at(20_000)), all.total()), (0, 101_000));
    }

    #[test]
    fn the_first_second_is_not_averaged_over_four() {
        let (mut meter, start) = (RateMeter::default(), Instant::now());
        meter.add(1_000, start);
        assert_eq!(meter.rate(start + Duration::from_secs(1)), 1_000);
    }
}
