//! When a certificate is renewed.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::backoff::Policy;
use std::time::{Duration, SystemTime};

/// Longest pause between two attempts: of a certificate for a day, 48 attempts fit after the first that failed.
const RETRY_LONGEST: Duration = Duration::from_secs(10 * 60);
/// Pause after the first failed attempt.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Of a short-lived certificate: at least this many attempts fit in its life.
const RETRIES_IN_LIFE: u32 = 20;
/// Renewals are spread over this part of the life before two thirds of it have passed, so that peers that joined together do not renew
/// together.
const SPREAD_PARTS: u32 = 12;

/// When to renew a certificate that is valid between these times: when two thirds of its life have passed, or a little before.
/// `random` is in `0.0..1.0`.
pub fn renewal_at(not_before: SystemTime, not_after: SystemTime, random: f64) -> SystemTime {
    let life = life(not_before, not_after);
    not_before + life * 2 / 3 - (life / SPREAD_PARTS).mul_f64(random)
}

/// The pauses between attempts to renew a certificate with this life.
pub fn retries(not_before: SystemTime, not_after: SystemTime) -> Policy {
    let longest = RETRY_LONGEST.min(life(not_before, not_after) / RETRIES_IN_LIFE);
    Policy { first: RETRY_FIRST.min(longest), longest }
}

fn life(not_before: SystemTime, not_after: SystemTime) -> Duration {
    not_after.duration_since(not_before).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_of_its_life_have_passed_or_a_little_before() {
        let (from, to) = (UNIX_EPOCH + DAY, UNIX_EPOCH + 2 * DAY);
        assert_eq!(renewal_at(from, to, 0.0), from + Duration::from_secs(16 * 60 * 60));
        assert_eq!(renewal_at(from, to, 1.0), from + Duration::from_secs(14 * 60 * 60));
        assert_eq!(renewal_at(to, from, 0.5), to, "of a life that cannot be, at once");
    }

    #[test]
    fn many_attempts_fit_in_what_is_left_of_any_life() {
        for life in [Duration::from_secs(6), Duration::from_secs(600), DAY, 30 * DAY] {
            let policy = retries(UNIX_EPOCH, UNIX_EPOCH + life);
            assert!(policy.longest <= life / RETRIES_IN_LIFE && policy.longest <= RETRY_LONGEST, "{policy:?}");
            assert!(policy.first <= policy.longest && !policy.first.is_zero());
        }
    }
}
