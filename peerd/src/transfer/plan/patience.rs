//! How long a holder that fails is asked again.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::backoff::Policy;
use std::time::{Duration, Instant};

/// Failures in a row, without a verified piece between them, before a holder is dropped.
const FAILURES_MIN: u32 = 4;
/// How long a holder may fail before it is dropped: one that cannot be reached is probably gone.
const MAX_FAILING: Duration = Duration::from_secs(3);
/// The same for a holder that answers that it is busy or restarting: its uploads end, and it comes back.
const MAX_FAILING_BUSY: Duration = Duration::from_secs(30);
/// Pause before the second try of the same holder; doubles with each further try.
const RETRY: Policy = Policy { first: Duration::from_millis(200), longest: Duration::from_secs(3) };

/// The failures of one holder in a row.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    /// Since when it fails, and until when it is not asked.
    failing: Option<(Instant, Instant)>,
    busy: bool,
    /// How often it fell silent, and until when it is not asked because of that.
    silences: u32,
    silent: Option<Instant>,
}

impl Patience {
    /// Until when the holder is not asked.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.failing.map(|(_, until)| until).max(self.silent)
    }

    /// A verified piece came from the holder.
    pub(super) fn progressed(&mut self) {
        *self = Self::default();
    }

    /// The holder sends nothing, for the first time (`again` is false) or still. It is not dropped: it may have been stopped for a while.
    pub(super) fn silent(&mut self, again: bool, now: Instant) {
        self.silences += u32::from(!again);
        self.silent = Some(now + RETRY.pause(self.silences));
    }

    /// The holder, which failed, says that it may be asked again at that time.
    pub(super) fn not_before(&mut self, time: Instant) {
        if let Some((_, until)) = &mut self.failing {
            *until = time.max(*until);
        }
    }

    /// The holder failed; returns whether that was once too often. Failures within a pause are those of one connection: one failure.
    pub(super) fn failed(&mut self, busy: bool, now: Instant) -> bool {
        self.busy |= busy;
        let since = self.failing.map_or(now, |(since, _)| since);
        if self.failing.is_some_and(|(_, until)| now < until) {
            return false;
        }
        self.failing = Some((since, now + RETRY.pause(self.failures)));
        self.failures += 1;
        let max = if self.busy { MAX_FAILING_BUSY } else { MAX_FAILING };
        self.failures >= FAILURES_MIN && now.saturating_duration_since(since) >= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with each try until it is dropped; returns how long that took, and how often it was tried.
    fn dropped_after(busy: bool) -> (Duration, u32) {
        let begun = Instant::now();
        let (mut patience, mut now, mut tries) = (Patience::default(), begun, 1);
        while !patience.failed(busy, now) {
            now = patience.paused_until().unwrap();
            tries += 1;
        }
        (now - begun, tries)
    }

    #[test]
    fn a_holder_that_says_when_is_not_asked_before() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        assert!(!patience.failed(true, now));
        let told = now + Duration::from_secs(5);
        patience.not_before(told);
        assert_eq!(patience.paused_until(), Some(told));
        patience.not_before(now);
        assert_eq!(patience.paused_until(), Some(told));
    }

    #[test]
    fn a_busy_holder_is_tried_longer_than_an_unreachable_one() {
        let (absent, tries) = dropped_after(false);
        assert!(
            absent >= MAX_FAILING && absent <= MAX_FAILING + RETRY.longest && tries >= FAILURES_MIN,
            "{absent:?}, {tries} tries"
        );
        let (busy, tries) = dropped_after(true);
        assert!(busy >= MAX_FAILING_BUSY && busy <= MAX_FAILING_BUSY + RETRY.longest && tries < 20, "{busy:?}, {tries} tries");
    }

    #[test]
    fn requests_that_end_with_one_connection_are_one_failure() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        for _ in 0..20 {
            assert!(!patience.failed(false, now));
        }
        assert_eq!(patience.paused_until(), Some(now + RETRY.first));
        patience.progressed();
        assert_eq!(patience.paused_until(), None);
    }
}
