//! Sizes, rates and times as people read them.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use bytesize::ByteSize;
use prost_types::{Duration as ProtoDuration, Timestamp};
use std::time::{Duration, SystemTime};

/// `27.4 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    ByteSize(count).display().iec().to_string()
}

/// `from fff-b (127.0.0.1:7801): 27.4 KiB, failed: it sent wrong bytes`: what a holder did.
pub(crate) fn holder(source: &str, sent: u64, faults: u64, first_fault: &str) -> String {
    // Transient faults, too, after which it was asked again.
    let failed = match faults {
        0 => String::new(),
        1 => format!(", failed: {first_fault}"),
        times => format!(", failed {times} times, first: {first_fault}"),
    };
    format!("from {source}: {}{failed}", bytes(sent))
}

/// `1.2 GiB/s`.
pub(crate) fn rate(count: u64, elapsed: Duration) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "three digits are shown"
    )]
    let per_second = (count as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
    format!("{}/s", bytes(per_second))
}

/// `3.21 ms`, `1.5 s`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 120.0 {
        format!("{seconds:.2} s")
    } else {
        humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
    }
}

/// A time this much in the future is one that just passed: a server's present time comes in whole seconds, and clocks are corrected.
const CLOCK_CORRECTION_MAX: Duration = Duration::from_secs(60);

/// `12s ago`, at the time `now` by the clock that `at` is from. `unknown` for a time that cannot be.
pub(crate) fn ago(at: Option<Timestamp>, now: SystemTime) -> String {
    let passed = at.and_then(|at| SystemTime::try_from(at).ok()).and_then(|at| match now.duration_since(at) {
        Ok(passed) => Some(passed),
        Err(ahead) => (ahead.duration() <= CLOCK_CORRECTION_MAX).then_some(Duration::ZERO),
    });
    passed.map_or_else(|| "unknown".to_owned(), |passed| format!("{} ago", whole_seconds(passed)))
}

/// `59m 3s`: how long it is from `now` until `at`; `None`: it has passed.
pub(crate) fn until(at: Option<Timestamp>, now: SystemTime) -> Option<String> {
    let at = SystemTime::try_from(at?).ok()?;
    Some(whole_seconds(at.duration_since(now).ok()?))
}

/// `2026-11-28T10:00:00Z`, of a time in seconds since 1970.
pub(crate) fn date(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.map_or_else(|| "-".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// `29s`.
pub(crate) fn proto_span(duration: Option<ProtoDuration>) -> String {
    duration.and_then(|given| Duration::try_from(given).ok()).map_or_else(|| "-".to_owned(), whole_seconds)
}

fn whole_seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_by_the_clock_of_the_server_and_impossible_ones_are_unknown() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| Some(Timestamp { seconds, nanos: 500_000_000 });
        for (at, expected) in [
            (at(999_987), "12s ago"),
            (at(1_000_000), "0s ago"),
            (at(1_000_059), "0s ago"),
            (at(1_000_061), "unknown"),
            (at(i64::MAX), "unknown"),
            (None, "unknown"),
        ] {
            assert_eq!(ago(at, now), expected, "{at:?}");
        }
    }
}
