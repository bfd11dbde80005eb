//! Which member searches for a holder by other ways: one at a time.

use super::limits::{INTERVAL_MS, SEARCH_AGAIN_MS, SEARCH_MS, SEARCH_PAUSE_MAX_MS, SEARCH_PAUSE_MS};

/// The search of one swarm.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The member that searches, and until when it does so alone.
    searcher: Option<(u32, u64)>,
    /// The latest one.
    last: Option<u32>,
    /// Searches in a row that found nobody, or were not reported in time.
    failures: u32,
    /// No search begins before.
    not_before_ms: u64,
}

impl Search {
    /// Searches in a row that found nobody.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// A member reports holders. That ends the search if it was the one to search. Others report as well, and may invent what they report.
    pub(super) fn found(&mut self, member: u32, now_ms: u64) {
        if self.searcher.is_some_and(|(searcher, _)| searcher == member) {
            self.searcher = None;
            self.failures = 0;
            self.not_before_ms = now_ms + SEARCH_AGAIN_MS;
        }
    }

    /// A member says that it found nobody. That counts if it was the one to search, also when its time was over.
    pub(super) fn found_nobody(&mut self, member: u32, now_ms: u64) {
        if self.searcher.is_some_and(|(searcher, _)| searcher == member) {
            self.searcher = None;
            self.fail(now_ms, 0);
        }
    }

    /// A member left. If it was the one to search, another one may begin at once.
    pub(super) fn left(&mut self, member: u32) {
        if self.searcher.is_some_and(|(searcher, _)| searcher == member) {
            self.searcher = None;
        }
        // Its slot may be another member's next.
        self.last = self.last.filter(|last| *last != member);
    }

    /// Whether this member is to search. The one that does so is told again, in case the answer was lost. Where others wait too, the one
    /// that searched last leaves them an interval to announce themselves: it may be one that invents what it reports.
    pub(super) fn assign(&mut self, member: u32, others_wait: bool, now_ms: u64) -> bool {
        if let Some((searcher, until_ms)) = self.searcher {
            if now_ms < until_ms {
                return searcher == member;
            }
            self.searcher = None;
            // The first one that is late may have died: another begins at once.
            self.fail(now_ms, 1);
        }
        let is_last = others_wait && self.last == Some(member);
        if now_ms < self.not_before_ms + if is_last { INTERVAL_MS } else { 0 } {
            return false;
        }
        self.last = Some(member);
        self.searcher = Some((member, now_ms + SEARCH_MS));
        true
    }

    /// The first `free` failures in a row cause no pause.
    fn fail(&mut self, now_ms: u64, free: u32) {
        self.failures = self.failures.saturating_add(1);
        if let Some(doublings) = self.failures.checked_sub(free + 1) {
            self.not_before_ms = now_ms + (SEARCH_PAUSE_MS << doublings.min(16)).min(SEARCH_PAUSE_MAX_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_searches_at_a_time_and_another_follows_when_it_is_late() {
        let mut search = Search::default();
        assert!(search.assign(1, false, 0) && search.assign(1, false, 10) && !search.assign(2, false, 10));
        assert!(!search.assign(2, false, SEARCH_MS - 1));
        assert!(search.assign(2, false, SEARCH_MS) && !search.assign(1, false, SEARCH_MS));
        // The second one that is late leads to a pause.
        assert!(!search.assign(3, false, 2 * SEARCH_MS));
        assert!(search.assign(3, false, 2 * SEARCH_MS + 2 * SEARCH_PAUSE_MS));
    }

    #[test]
    fn searches_that_find_nobody_become_rarer_and_one_that_finds_somebody_resets_that() {
        let (mut search, mut now_ms, mut pauses) = (Search::default(), 0, Vec::new());
        for _ in 0..7 {
            let began_ms = now_ms;
            while !search.assign(1, false, now_ms) {
                now_ms += 100;
            }
            pauses.push(now_ms - began_ms);
            search.found_nobody(2, now_ms);
            search.found_nobody(1, now_ms);
        }
        assert_eq!(pauses, [0, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000]);
        now_ms += SEARCH_PAUSE_MAX_MS;
        assert!(search.assign(1, false, now_ms));
        search.found(3, now_ms);
        assert_eq!(search.failures(), 7, "it was not the one to search");
        search.found(1, now_ms);
        assert_eq!(search.failures(), 0);
        assert!(!search.assign(1, false, now_ms) && search.assign(1, false, now_ms + SEARCH_AGAIN_MS));
    }

    #[test]
    fn a_searcher_that_leaves_is_replaced_at_once() {
        let mut search = Search::default();
        assert!(search.assign(1, false, 0));
        search.left(1);
        assert!(search.assign(2, false, 1));
    }

    #[test]
    fn the_last_searcher_leaves_the_others_time_if_there_are_any() {
        let mut search = Search::default();
        assert!(search.assign(1, true, 0));
        search.found(1, 0);
        let again_ms = SEARCH_AGAIN_MS + INTERVAL_MS;
        assert!(!search.assign(1, true, SEARCH_AGAIN_MS) && !search.assign(1, true, again_ms - 1));
        assert!(search.assign(2, true, SEARCH_AGAIN_MS));
        search.left(2);
        assert!(search.assign(1, true, again_ms));
    }
}
