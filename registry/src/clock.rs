//! The clocks of the registry.

use crate::table::{Now, RunningTime};
use p2pdi::platform;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn uptime_ms() -> u64 {
    millis(platform::uptime())
}

/// Reads all clocks: the one that leases run by, the one that also counts pauses, and the wall clock.
pub(crate) struct Clock {
    running: RunningTime,
}

impl Clock {
    /// Starts at 0. `ttl_ms`: the shortest lease.
    pub(crate) fn start(ttl_ms: u64) -> Self {
        Self { running: RunningTime::start(uptime_ms(), ttl_ms) }
    }

    /// How often to call [`Clock::now`] at least.
    pub(crate) fn check_interval(&self) -> Duration {
        Duration::from_millis(self.running.check_interval_ms())
    }

    /// The present time, and how long the process was paused before it, in milliseconds.
    pub(crate) fn now(&mut self) -> (Now, u64) {
        let uptime_ms = uptime_ms();
        let (mono_ms, paused_ms) = self.running.check(uptime_ms);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Now { mono_ms, uptime_ms, wall_ms: millis(wall) }, paused_ms)
    }
}
