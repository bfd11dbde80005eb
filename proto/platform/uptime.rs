//! A clock that also counts while the machine is suspended.

use std::time::Duration;

/// Time since some fixed moment before the start of the process. It never goes back, and on Linux it goes on while the machine is
/// suspended (`CLOCK_BOOTTIME`, clock_gettime(2)). [`std::time::Instant`] stands still then, and so does this where the system has no
/// other clock.
pub fn uptime() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither is ever negative.
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
    #[cfg(not(target_os = "linux"))]
    portable::uptime()
}

/// The same with the standard library only.
#[cfg(any(test, not(target_os = "linux")))]
mod portable {
    use std::{
        sync::LazyLock,
        time::{Duration, Instant},
    };

    static FIRST_CALL: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn uptime() -> Duration {
        FIRST_CALL.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_goes_on_at_the_pace_of_time() {
        for uptime in [uptime, portable::uptime] {
            let (began, started) = (uptime(), Instant::now());
            while started.elapsed() < Duration::from_millis(20) {
                std::hint::spin_loop();
            }
            let passed = uptime() - began;
            assert!(passed >= Duration::from_millis(20) && passed <= started.elapsed() + Duration::from_millis(1), "{passed:?}");
        }
    }
}
