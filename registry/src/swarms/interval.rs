//! When a member announces itself again.

use super::limits::{
    ANNOUNCES_PER_SECOND, INTERVAL_FIRST_MS, INTERVAL_MAX_MS, INTERVAL_MS, INTERVAL_QUICK_MS, INTERVAL_WAITING_MS, OTHERS_ENOUGH,
    SWARM_ANNOUNCES_PER_SECOND,
};

/// What the interval depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Situation {
    /// Members of the swarm.
    pub(super) members: usize,
    /// Memberships of the registry.
    pub(super) memberships: usize,
    /// Announces of this member, this one included.
    pub(super) announces: u32,
    /// Others named to it.
    pub(super) named: usize,
    /// It has nothing yet.
    pub(super) had_nothing: bool,
    /// It has the whole.
    pub(super) is_whole: bool,
    /// A holder of the whole is known.
    pub(super) whole_known: bool,
    /// Searches in a row that found nobody.
    pub(super) failed_searches: u32,
}

/// The longest interval, in milliseconds; the answer has jitter below it.
pub(super) fn interval_ms(situation: Situation) -> u64 {
    let per_second = |count: usize, rate: u64| count as u64 * 1_000 / rate;
    let usual = per_second(situation.members, SWARM_ANNOUNCES_PER_SECOND).clamp(INTERVAL_MS, INTERVAL_MAX_MS);
    let quick = |doublings: u32| (INTERVAL_QUICK_MS << doublings.min(16)).min(usual);
    let announced = situation.announces.saturating_sub(1);
    let interval = if situation.is_whole {
        // It only has to stay listed: who wants it asks it.
        INTERVAL_MAX_MS
    } else if !situation.whole_known && situation.had_nothing {
        (INTERVAL_WAITING_MS << announced.min(16)).min(quick(situation.failed_searches))
    } else if situation.named < OTHERS_ENOUGH {
        quick(announced)
    } else if announced == 0 {
        INTERVAL_FIRST_MS
    } else {
        usual
    };
    interval.max(per_second(situation.memberships, ANNOUNCES_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lacks_others_or_a_holder_announces_soon_and_the_rest_rarely() {
        let usual = Situation { members: 30, memberships: 30, announces: 3, named: 20, whole_known: true, ..Default::default() };
        assert_eq!(interval_ms(usual), INTERVAL_MS);
        assert_eq!(interval_ms(Situation { announces: 1, ..usual }), INTERVAL_FIRST_MS);
        let lonely = |announces| interval_ms(Situation { named: 2, members: 3, announces, ..usual });
        assert_eq!([1, 2, 3, 4, 5].map(lonely), [2_000, 4_000, 8_000, 15_000, 15_000]);
        let waiting = |announces, failed_searches| {
            let waits = Situation { whole_known: false, had_nothing: true, members: 5_000, ..usual };
            interval_ms(Situation { announces, failed_searches, ..waits })
        };
        assert_eq!([1, 2, 3, 4, 5].map(|announces| waiting(announces, 0)), [200, 400, 800, 1_600, 2_000]);
        assert_eq!([0, 1, 2, 9].map(|failed_searches| waiting(20, failed_searches)), [2_000, 4_000, 8_000, 60_000]);
        assert_eq!(interval_ms(Situation { is_whole: true, ..usual }), INTERVAL_MAX_MS);
    }

    #[test]
    fn the_interval_grows_with_the_swarm_and_with_the_registry() {
        let of = |members, memberships| {
            let known = Situation { announces: 3, named: 20, whole_known: true, ..Default::default() };
            interval_ms(Situation { members, memberships, ..known })
        };
        assert_eq!([of(750, 750), of(1_500, 1_500), of(90_000, 90_000)], [15_000, 30_000, 60_000]);
        assert_eq!(of(10, 1_000_000), 200_000);
    }
}
