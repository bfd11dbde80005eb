//! How many times a peer registered in the last 30 days.

/// Days counted, today included.
pub(super) const WINDOW_DAYS: u32 = 30;
/// One day, in milliseconds.
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A sliding-window count with one bucket per day. A peer that registers on one day needs no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registrations {
    /// Latest day with a registration, in days since 1970.
    day: u32,
    /// Registrations on that day.
    count: u32,
    /// Earlier days of the window and their counts, oldest first; days without one are left out.
    earlier: Box<[(u32, u32)]>,
}

fn day_of(wall_ms: u64) -> u32 {
    u32::try_from(wall_ms / DAY_MS).unwrap_or(u32::MAX)
}

/// Whether `day` is one of the 30 days that end with `today`, or later.
fn is_within(day: u32, today: u32) -> bool {
    today.saturating_sub(day) < WINDOW_DAYS
}

impl Registrations {
    /// Counts one more, now. When the clock has gone back, it counts on the latest day seen.
    pub fn add(&mut self, wall_ms: u64) {
        let today = day_of(wall_ms);
        if today <= self.day && self.count > 0 {
            self.count = self.count.saturating_add(1);
            return;
        }
        if self.count > 0 {
            let latest = (self.day, self.count);
            let kept = self.earlier.iter().copied().chain([latest]);
            self.earlier = kept.filter(|(day, _)| is_within(*day, today)).collect();
        }
        (self.day, self.count) = (today, 1);
    }

    /// Registrations in the 30 days that end now.
    pub fn count(&self, wall_ms: u64) -> u32 {
        let today = day_of(wall_ms);
        let within = self.days().filter(|(day, _)| is_within(*day, today));
        within.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Days since 1970 and their counts, oldest first, as stored.
    pub fn days(&self) -> impl Iterator<Item = (u32, u32)> {
        self.earlier.iter().copied().chain((self.count > 0).then_some((self.day, self.count)))
    }

    /// From what [`Registrations::days`] gave.
    pub fn from_days(days: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut earlier: Vec<_> = days.into_iter().collect();
        let (day, count) = earlier.pop().unwrap_or_default();
        Self { day, count, earlier: earlier.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_count_for_thirty_days() {
        let mut all = Registrations::default();
        for day in [100, 100, 101, 120] {
            all.add(day * DAY_MS + 5);
        }
        assert_eq!(all.count(120 * DAY_MS), 4);
        assert_eq!(all.count(129 * DAY_MS), 4);
        assert_eq!(all.count(130 * DAY_MS), 2);
        assert_eq!(all.count(131 * DAY_MS), 1);
        assert_eq!(all.count(150 * DAY_MS), 0);
        assert_eq!(Registrations::from_days(all.days()), all);
    }

    #[test]
    fn days_outside_the_window_are_dropped() {
        let mut all = Registrations::default();
        for day in 0..1000 {
            all.add(day * DAY_MS);
            assert!(all.days().count() <= 30);
        }
        assert_eq!(all.count(999 * DAY_MS), 30);
    }

    #[test]
    fn registrations_still_count_after_the_clock_goes_back() {
        let mut all = Registrations::default();
        all.add(50 * DAY_MS);
        all.add(20 * DAY_MS);
        assert_eq!(all.count(20 * DAY_MS), 2);
    }
}
