//! The clock that leases run by: time during which the registry could answer calls.

use super::settings::KEEPALIVES_PER_TTL;

/// Longest time between two checks of the clock, for a long ttl. A registry that has nothing to do wakes once in it.
const CHECK_INTERVAL_MAX_MS: u64 = 1_000;
/// Checks that fit between two KeepAlives of a peer, so that a pause is noticed before it costs a peer more than one of them.
const CHECKS_PER_KEEPALIVE: u64 = 4;
/// A clock that was checked this many intervals late was not checked because the process did not run. A loaded machine delays a check
/// by less; one that delays it by more answers no calls either.
const LATE_INTERVALS: u64 = 2;

/// A monotonic clock without the time in which the process was stopped or its machine suspended. Nobody could send a KeepAlive then, so
/// it counts for no lease.
///
/// Check it with [`RunningTime::check`] at least every [`RunningTime::check_interval_ms`]: a longer gap is taken for a pause.
#[derive(Debug, Clone)]
pub struct RunningTime {
    check_interval_ms: u64,
    /// The latest check, in milliseconds of uptime.
    checked_ms: u64,
    /// Uptime at the start, and all pauses since.
    left_out_ms: u64,
}

impl RunningTime {
    /// Starts at 0. `uptime_ms`: milliseconds of a clock that also counts while the process is stopped and the machine suspended.
    /// `ttl_ms`: the shortest lease.
    pub fn start(uptime_ms: u64, ttl_ms: u64) -> Self {
        let check_interval_ms = (ttl_ms / KEEPALIVES_PER_TTL / CHECKS_PER_KEEPALIVE).clamp(1, CHECK_INTERVAL_MAX_MS);
        Self { check_interval_ms, checked_ms: uptime_ms, left_out_ms: uptime_ms }
    }

    /// How often to check the clock, in milliseconds.
    pub fn check_interval_ms(&self) -> u64 {
        self.check_interval_ms
    }

    /// Reads the clock at `uptime_ms`. Gives the running time in milliseconds, and how long the process was paused since the check
    /// before: 0, or more than [`RunningTime::check_interval_ms`].
    pub fn check(&mut self, uptime_ms: u64) -> (u64, u64) {
        let uptime_ms = uptime_ms.max(self.checked_ms);
        let gap_ms = uptime_ms - self.checked_ms;
        self.checked_ms = uptime_ms;
        let paused_ms = if gap_ms > LATE_INTERVALS * self.check_interval_ms { gap_ms } else { 0 };
        self.left_out_ms += paused_ms;
        (uptime_ms - self.left_out_ms, paused_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gaps_that_a_running_process_does_not_have_are_left_out() {
        let mut clock = RunningTime::start(5_000, 30_000);
        assert_eq!(clock.check_interval_ms(), 1_000);
        for (uptime_ms, expected) in [
            (5_000, (0, 0)),
            (6_000, (1_000, 0)),
            // A check that is a little late.
            (7_900, (2_900, 0)),
            (47_900, (2_900, 40_000)),
            (48_000, (3_000, 0)),
            // A clock never goes back; one that does anyway stands still.
            (40_000, (3_000, 0)),
            (49_000, (4_000, 0)),
            (49_000 + 86_400_000, (4_000, 86_400_000)),
        ] {
            assert_eq!(clock.check(uptime_ms), expected, "at {uptime_ms}");
        }
    }

    #[test]
    fn a_pause_that_is_not_noticed_costs_a_peer_less_than_one_keep_alive() {
        for ttl_ms in [1_000, 2_500, 10_000, 30_000, 24 * 60 * 60 * 1_000] {
            let clock = RunningTime::start(0, ttl_ms);
            assert!(LATE_INTERVALS * clock.check_interval_ms() < ttl_ms / KEEPALIVES_PER_TTL, "{ttl_ms}");
        }
    }
}
