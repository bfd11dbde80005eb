//! When to announce, and what to do with an answer.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::holders::source::Source;
use rand::{Rng, RngExt as _};
use std::time::Duration;

/// Bounds of the interval that a tracker may set; a value outside is clamped.
const INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10 * 60));
/// Shortest time between an announce and an early one: who wants more others has them for this long at least.
const EARLY: Duration = Duration::from_secs(5);
/// The same if nobody who is known is of use: somebody should search soon.
const EARLY_STARVED: Duration = Duration::from_secs(1);
/// Pause after an announce that was not answered; it doubles with each further one, up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);
/// Longest such pause: what a restart of the registry takes.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Pause after the tracker refused: it has no room, and others must leave first.
const REFUSED: Duration = Duration::from_secs(60);
/// Pause after there was no tracker: an old registry may be replaced.
const NO_TRACKER: Duration = Duration::from_secs(5 * 60);
/// Shortest time between two own searches without a tracker; it doubles while nobody is found, up to [`SEARCH_MAX`].
const SEARCH: Duration = Duration::from_secs(5);
/// Longest such pause: someone who comes with the document should be found soon, and a search asks many peers.
const SEARCH_MAX: Duration = Duration::from_secs(120);
/// Shortest pause given out, in thousandths of the longest: peers that begin together spread out.
const JITTER_FROM: u32 = 700;
/// Most holders that are reported.
pub(super) const REPORTED_MAX: usize = 8;

/// What happens to the announces of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The tracker answered.
    Answered {
        /// When to announce again.
        interval: Duration,
        /// This peer is to search.
        search: bool,
        /// Others that it named.
        others: usize,
    },
    /// The tracker did not answer, or refused.
    Failed(TrackerFailure),
    /// The search ended; it found these holders.
    Found(Vec<Source>),
    /// This peer has so many verified bytes.
    Had(u64),
    /// More others are wanted.
    WantMore {
        /// Nobody who is known has what is missing.
        starved: bool,
    },
    /// A holder that the search found is of no use: it does not answer, does not have the document, or sends wrong bytes.
    Useless(Source),
    /// The time that the last action named has come.
    Time,
}

/// Why an announce failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackerFailure {
    /// There is none.
    NoTracker,
    /// It refuses this membership.
    Refused,
    /// It did not answer.
    Unavailable,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Announce, and report the answer as an event.
    Announce {
        /// Verified bytes that this peer has.
        had: u64,
        /// Holders to report.
        holders: Vec<Source>,
        /// A search found nobody.
        searched: bool,
        /// Nobody who is known has what is missing.
        starved: bool,
    },
    /// Search for holders by other ways, and report what was found as an event.
    Search,
}

/// The announces of one document. Times are since an arbitrary moment.
#[derive(Debug)]
pub struct Decisions {
    size: u64,
    had: u64,
    /// When to announce next; `None` while an announce is on its way.
    announce_at: Option<Duration>,
    announced_at: Option<Duration>,
    /// What the last announce said.
    announced_had: u64,
    /// Announces in a row that were not answered.
    failures: u32,
    /// Why the tracker cannot be relied on now.
    failure: Option<TrackerFailure>,
    searching: bool,
    /// Own searches in a row that found nobody.
    vain_searches: u32,
    /// No own search begins before.
    search_at: Duration,
    /// The last search found nobody, and the tracker does not know yet.
    searched: bool,
    /// Nobody who is known has what is missing, and the tracker does not know yet.
    starved: bool,
    /// Holders that the search found.
    found: Vec<Source>,
    /// Nobody is known to ask, or more are wanted.
    want_more: bool,
    /// If nobody who was found is of use, the next search begins at once. Once only until bytes arrive: who is found again and again and
    /// is of no use does not make searches more frequent.
    may_hurry: bool,
}

impl Decisions {
    /// The announces of a document of which this peer has `had` verified bytes. The first one is due now. `found`: whole holders that were
    /// found before.
    pub fn new(size: u64, had: u64, mut found: Vec<Source>, now: Duration) -> Self {
        found.truncate(REPORTED_MAX);
        Self {
            size,
            had,
            announce_at: Some(now),
            announced_at: None,
            announced_had: had,
            failures: 0,
            failure: None,
            searching: false,
            vain_searches: 0,
            search_at: now,
            searched: false,
            starved: false,
            found,
            want_more: had < size,
            may_hurry: true,
        }
    }

    /// When [`Event::Time`] is due; `None`: something else comes first.
    pub fn next(&self) -> Option<Duration> {
        let search = self.may_search().then_some(self.search_at);
        self.announce_at.into_iter().chain(search).min()
    }

    /// Takes an event; says what to do.
    pub fn handle(&mut self, event: Event, now: Duration, rng: &mut impl Rng) -> Vec<Action> {
        match event {
            Event::Answered { interval, search, others } => {
                (self.failures, self.failure) = (0, None);
                self.announce_at = Some(now + interval.clamp(INTERVAL_BOUNDS.0, INTERVAL_BOUNDS.1));
                self.want_more &= others == 0;
                if search && !self.searching && !self.is_whole() {
                    self.searching = true;
                    return vec![Action::Search];
                }
            }
            Event::Failed(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(failure);
                let pause = match failure {
                    TrackerFailure::NoTracker => NO_TRACKER,
                    TrackerFailure::Refused => REFUSED,
                    TrackerFailure::Unavailable => doubled(RETRY, self.failures - 1, RETRY_MAX),
                };
                self.announce_at = Some(now + jittered(pause, rng));
            }
            Event::Found(found) => {
                self.searching = false;
                self.searched = found.is_empty();
                if found.is_empty() {
                    self.search_at = now + jittered(doubled(SEARCH, self.vain_searches, SEARCH_MAX), rng);
                    self.vain_searches = self.vain_searches.saturating_add(1);
                } else {
                    self.search_at = now + jittered(SEARCH, rng);
                    self.vain_searches = 0;
                    self.want_more = false;
                    for source in found {
                        if self.found.len() < REPORTED_MAX && !self.found.contains(&source) {
                            self.found.push(source);
                        }
                    }
                }
                // All others wait for this.
                if self.failure.is_none() {
                    self.announce_by(now);
                }
            }
            Event::Had(had) => {
                self.may_hurry |= had > self.had;
                self.starved &= had == self.had;
                self.had = had;
                // That there is one more holder of the whole, others should know soon.
                if self.is_whole() && self.announced_had < self.size && self.failure.is_none() {
                    self.announce_early(EARLY, now);
                }
            }
            Event::WantMore { starved } => {
                self.want_more = true;
                self.starved = starved;
                if self.failure.is_none() {
                    self.announce_early(if starved { EARLY_STARVED } else { EARLY }, now);
                }
            }
            Event::Useless(source) => {
                let before = self.found.len();
                self.found.retain(|found| *found != source);
                if self.found.is_empty() && before > 0 && std::mem::take(&mut self.may_hurry) {
                    (self.want_more, self.search_at) = (true, self.search_at.min(now));
                }
            }
            Event::Time => {}
        }
        self.due(now)
    }

    /// Holders that the search found, which are repeated in each announce.
    pub fn reported(&self) -> &[Source] {
        &self.found
    }

    fn is_whole(&self) -> bool {
        self.had >= self.size
    }

    /// Whether this peer searches without being told to: it has no tracker to tell it, and wants more.
    fn may_search(&self) -> bool {
        self.failure.is_some() && self.want_more && !self.searching && !self.is_whole()
    }

    fn due(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.announce_at.is_some_and(|at| at <= now) {
            (self.announce_at, self.announced_at, self.announced_had) = (None, Some(now), self.had);
            let (searched, starved) = (std::mem::take(&mut self.searched), std::mem::take(&mut self.starved));
            actions.push(Action::Announce { had: self.had, holders: self.found.clone(), searched, starved });
        }
        if self.may_search() && self.search_at <= now {
            self.searching = true;
            actions.push(Action::Search);
        }
        actions
    }

    /// Announces no later than `at`, unless an announce is on its way.
    fn announce_by(&mut self, at: Duration) {
        if let Some(due) = &mut self.announce_at {
            *due = at.min(*due);
        }
    }

    fn announce_early(&mut self, after: Duration, now: Duration) {
        let earliest = self.announced_at.map_or(now, |at| at + after);
        self.announce_by(earliest.max(now));
    }
}

fn doubled(pause: Duration, doublings: u32, max: Duration) -> Duration {
    pause.saturating_mul(1 << doublings.min(16)).min(max)
}

fn jittered(pause: Duration, rng: &mut impl Rng) -> Duration {
    pause * rng.random_range(JITTER_FROM..=1000) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    const SIZE: u64 = 100;

    struct World {
        decisions: Decisions,
        rng: StdRng,
        now: Duration,
    }

    fn world(had: u64) -> World {
        World {
            decisions: Decisions::new(SIZE, had, Vec::new(), Duration::ZERO),
            rng: StdRng::seed_from_u64(1),
            now: Duration::ZERO,
        }
    }

    impl World {
        fn tell(&mut self, event: Event) -> Vec<Action> {
            self.decisions.handle(event, self.now, &mut self.rng)
        }

        fn answer(&mut self, search: bool, others: usize) -> Vec<Action> {
            self.tell(Event::Answered { interval: Duration::from_secs(15), search, others })
        }

        /// Goes on to the next time, and says how long that took.
        fn wait(&mut self) -> (Duration, Vec<Action>) {
            let next = self.decisions.next().unwrap();
            let waited = next.saturating_sub(self.now);
            self.now = self.now.max(next);
            (waited, self.tell(Event::Time))
        }
    }

    fn source(port: u16) -> Source {
        Source::new(None, format!("10.0.0.1:{port}").parse().unwrap())
    }

    fn announce(had: u64, holders: &[Source], searched: bool) -> Action {
        Action::Announce { had, holders: holders.to_vec(), searched, starved: false }
    }

    #[test]
    fn it_announces_first_and_searches_only_when_told_to() {
        let mut world = world(0);
        assert_eq!(world.wait(), (Duration::ZERO, vec![announce(0, &[], false)]));
        assert_eq!(world.decisions.next(), None, "one announce at a time");
        assert_eq!(world.answer(false, 0), []);
        assert_eq!(world.wait(), (Duration::from_secs(15), vec![announce(0, &[], false)]));
        assert_eq!(world.answer(true, 0), [Action::Search]);
        assert_eq!(world.tell(Event::Found(vec![])), [announce(0, &[], true)]);
        assert_eq!(world.answer(true, 0), [Action::Search]);
        let found = [source(1), source(2)];
        assert_eq!(world.tell(Event::Found(found.to_vec())), [announce(0, &found, false)]);
        assert_eq!(world.answer(false, 0), []);
        // Repeated while it is of use.
        assert_eq!(world.tell(Event::Useless(source(1))), []);
        assert_eq!(world.wait(), (Duration::from_secs(15), vec![announce(0, &found[1..], false)]));
    }

    #[test]
    fn holders_that_were_found_before_are_reported_from_the_first_announce_on() {
        let before = [source(1), source(2)];
        let decisions = Decisions::new(SIZE, 0, before.to_vec(), Duration::ZERO);
        let mut world = World { decisions, ..world(0) };
        assert_eq!(world.wait().1, [announce(0, &before, false)]);
        assert_eq!(world.answer(false, 0), []);
        assert_eq!(world.tell(Event::Useless(source(1))), []);
        assert_eq!(world.wait().1, [announce(0, &before[1..], false)]);
    }

    #[test]
    fn early_announces_are_bounded() {
        let mut world = world(0);
        world.wait();
        assert_eq!(world.answer(false, 20), []);
        world.now += Duration::from_secs(1);
        assert_eq!(world.tell(Event::WantMore { starved: false }), []);
        assert_eq!(world.tell(Event::WantMore { starved: false }), []);
        assert_eq!(world.wait(), (Duration::from_secs(4), vec![announce(0, &[], false)]));
        assert_eq!(world.tell(Event::WantMore { starved: false }), [], "one is on its way");
        world.answer(false, 20);
        world.now += Duration::from_secs(14);
        assert_eq!(world.tell(Event::WantMore { starved: false }), [announce(0, &[], false)]);
        world.answer(false, 20);
        world.now += Duration::from_secs(10);
        assert_eq!(world.tell(Event::Had(50)), []);
        assert_eq!(world.tell(Event::Had(SIZE)), [announce(SIZE, &[], false)], "others learn soon that it has the whole");
        assert_eq!(world.answer(true, 0), [], "who has the whole does not search");
        assert_eq!(world.wait(), (Duration::from_secs(15), vec![announce(SIZE, &[], false)]), "it goes on");
    }

    #[test]
    fn who_knows_nobody_of_use_says_so_within_a_second_unless_bytes_came_meanwhile() {
        let mut world = world(10);
        world.wait();
        world.answer(false, 20);
        let starved = Action::Announce { had: 10, holders: vec![], searched: false, starved: true };
        assert_eq!(world.tell(Event::WantMore { starved: true }), []);
        assert_eq!(world.wait(), (EARLY_STARVED, vec![starved]));
        assert_eq!(world.answer(true, 20), [Action::Search]);
        assert_eq!(world.tell(Event::WantMore { starved: true }), []);
        assert_eq!(world.tell(Event::Had(20)), []);
        assert_eq!(world.wait().1, [announce(20, &[], false)]);
    }

    #[test]
    fn without_a_tracker_it_searches_itself_ever_more_rarely_and_stops_when_it_has_found_enough() {
        for failure in [TrackerFailure::NoTracker, TrackerFailure::Refused, TrackerFailure::Unavailable] {
            let mut world = world(0);
            world.wait();
            assert_eq!(world.tell(Event::Failed(failure)), [Action::Search]);
            let (mut searches, mut announces) = (0, 0);
            assert_eq!(world.tell(Event::Found(vec![])), []);
            while world.now < Duration::from_secs(300) {
                for action in world.wait().1 {
                    match action {
                        Action::Announce { .. } => {
                            announces += 1;
                            assert_eq!(world.tell(Event::Failed(failure)), []);
                        }
                        Action::Search => {
                            searches += 1;
                            assert_eq!(world.tell(Event::Found(vec![])), []);
                        }
                    }
                }
            }
            assert!((5..=10).contains(&searches), "{failure:?}: {searches}");
            assert!(announces <= 20, "{failure:?}: {announces}");
            while !world.wait().1.contains(&Action::Search) {
                world.tell(Event::Failed(failure));
            }
            world.tell(Event::Found(vec![source(1)]));
            let known = |world: &World| !world.decisions.may_search();
            assert!(known(&world));
            world.tell(Event::WantMore { starved: false });
            assert!(!known(&world));
        }
    }

    #[test]
    fn without_a_tracker_the_next_search_begins_at_once_if_nobody_found_is_of_use_but_once_only() {
        let mut world = world(0);
        world.wait();
        assert_eq!(world.tell(Event::Failed(TrackerFailure::NoTracker)), [Action::Search]);
        assert_eq!(world.tell(Event::Found(vec![source(1), source(2)])), []);
        assert_eq!(world.tell(Event::Useless(source(1))), [], "the other one may be");
        assert_eq!(world.tell(Event::Useless(source(2))), [Action::Search]);
        assert_eq!(world.tell(Event::Found(vec![source(1)])), []);
        assert_eq!(world.tell(Event::Useless(source(1))), []);
        world.tell(Event::WantMore { starved: false });
        let (waited, actions) = world.wait();
        assert!(waited >= SEARCH * JITTER_FROM / 1000 && actions == [Action::Search], "{waited:?}");
        assert_eq!(world.tell(Event::Found(vec![source(1)])), []);
        // A fetch that goes on is as good as a new one.
        assert_eq!(world.tell(Event::Had(10)), []);
        assert_eq!(world.tell(Event::Useless(source(1))), [Action::Search]);
    }

    #[test]
    fn a_registry_that_comes_back_is_told_soon_and_of_what_was_found() {
        let mut world = world(10);
        world.wait();
        assert_eq!(world.tell(Event::Failed(TrackerFailure::Unavailable)), [Action::Search]);
        assert_eq!(world.tell(Event::Found(vec![source(3)])), []);
        let (waited, actions) = world.wait();
        assert!((700..=1_000).contains(&waited.as_millis()), "{waited:?}");
        assert_eq!(actions, [announce(10, &[source(3)], false)]);
        assert_eq!(world.answer(false, 20), []);
    }
}
