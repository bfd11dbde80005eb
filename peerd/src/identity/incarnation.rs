//! The rules of incarnation numbers.
//!
//! Each start of a peer is one incarnation. Its number is larger than that of every earlier one: the time of the start, in milliseconds
//! since 1970, or one more than the last number if the clock was set back. Peers order broadcasts of one origin by it, so a forged
//! number above all that the origin will ever use would silence it. Numbers too far ahead of the clock are therefore rejected.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::time::Duration;

/// How far an incarnation may be ahead of the clock of its receiver. A guess: clocks are wrong by hours, or by a time zone,
/// hardly ever by a year. A peer whose incarnation was forged this far ahead can still continue above it.
pub const MAX_INCARNATION_AHEAD: Duration = Duration::from_secs(366 * 24 * 3_600);
/// How far apart the clocks of two peers may be if both are kept right. A guess: one wrong time zone; synchronised clocks differ by
/// less than a second. A number forged by more than [`MAX_INCARNATION_AHEAD`] silences its origin for no longer than this.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(3_600);
/// A clock below this, in milliseconds since 1970 (2025-01-01), is not set: this constant was written later.
pub const EARLIEST_PLAUSIBLE_CLOCK: u64 = 1_735_689_600_000;
/// Incarnations end here, so that there is always a number above.
const MAX_INCARNATION: u64 = u64::MAX / 2;

/// The incarnation that starts when the clock shows `clock` milliseconds since 1970, after the incarnation `last`.
///
/// A `last` that no other peer would accept is ignored.
pub fn next(last: Option<u64>, clock: u64) -> u64 {
    last.filter(|last| *last < continuation_limit(clock)).map_or(clock, |last| clock.max(last + 1))
}

/// The highest incarnation of another peer that is accepted when the clock shows `clock` milliseconds since 1970.
pub fn highest_accepted(clock: u64) -> u64 {
    highest(clock, MAX_INCARNATION_AHEAD)
}

/// The limit up to which a peer continues above a number forged in its own name. It is [`MAX_CLOCK_SKEW`] above
/// [`highest_accepted`], because the clocks of peers that accepted the number may be ahead of this one. Above it, no peer accepts
/// the number, nor the one after it.
pub fn continuation_limit(clock: u64) -> u64 {
    highest(clock, MAX_INCARNATION_AHEAD + MAX_CLOCK_SKEW)
}

/// A peer whose own clock is not set does not judge others by it.
fn highest(clock: u64, ahead: Duration) -> u64 {
    if clock < EARLIEST_PLAUSIBLE_CLOCK {
        return MAX_INCARNATION;
    }
    clock.saturating_add(millis(ahead)).min(MAX_INCARNATION)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some time in 2026.
    const TODAY: u64 = 1_780_000_000_000;

    #[test]
    fn an_incarnation_is_above_the_last_one_even_if_the_clock_was_set_back() {
        assert_eq!(next(None, TODAY), TODAY);
        assert_eq!(next(Some(TODAY - 1), TODAY), TODAY);
        assert_eq!(next(Some(TODAY), TODAY), TODAY + 1);
        assert_eq!(next(Some(TODAY + 5_000), TODAY), TODAY + 5_001);
        assert_eq!(next(Some(TODAY), 0), TODAY + 1, "a clock that is not set");
    }

    #[test]
    fn a_last_incarnation_that_no_peer_accepts_is_ignored() {
        assert_eq!(next(Some(u64::MAX), TODAY), TODAY);
        assert_eq!(next(Some(continuation_limit(TODAY)), TODAY), TODAY);
        assert_eq!(next(Some(continuation_limit(TODAY) - 1), TODAY), continuation_limit(TODAY));
    }

    #[test]
    fn others_accept_the_incarnation_of_a_peer_that_continues_with_a_slow_clock() {
        assert!(highest_accepted(TODAY) < continuation_limit(TODAY - 3_000));
        assert_eq!(highest_accepted(TODAY) - TODAY, 366 * 24 * 3_600_000);
        assert_eq!(highest_accepted(u64::MAX), MAX_INCARNATION);
    }

    #[test]
    fn a_clock_that_is_not_set_limits_no_incarnation() {
        assert_eq!(highest_accepted(EARLIEST_PLAUSIBLE_CLOCK - 1), MAX_INCARNATION);
        assert!(highest_accepted(EARLIEST_PLAUSIBLE_CLOCK) < MAX_INCARNATION);
    }
}
