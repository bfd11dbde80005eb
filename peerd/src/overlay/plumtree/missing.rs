//! Broadcasts that others have and this peer has not: whom to ask, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    MessageId,
    config::{Config, MAX_HOLDERS, MAX_IDS, MAX_MISSING, MAX_PULLS, MAX_PULLS_IN_FLIGHT},
};
use crate::overlay::{PeerId, Time};

#[derive(Debug)]
struct Wanted {
    /// In the order they advertised it; the first is asked next.
    holders: Vec<PeerId>,
    since: Time,
    due: Time,
    pulls: usize,
    /// Who was asked last, and when.
    asked: Option<(PeerId, Time)>,
    /// From before there was a link to a holder: to be had, but no reason to change the tree.
    backlog: bool,
}

/// Ids to ask one holder for.
#[derive(Debug, PartialEq, Eq)]
pub struct Pull {
    /// Whom to ask.
    pub holder: PeerId,
    /// What for.
    pub ids: Vec<MessageId>,
    /// Whether the holder is to push from now on: the tree has a gap here.
    pub push: bool,
}

/// What [`Missing::tick`] finds.
#[derive(Debug, Default)]
pub struct Due {
    /// Ids to ask for.
    pub pulls: Vec<Pull>,
    /// Peers that advertised what they did not give, once for each id.
    pub broken: Vec<PeerId>,
    /// Ids given up.
    pub forgotten: usize,
}

/// All missing broadcasts, in a bound.
#[derive(Debug)]
pub struct Missing {
    wanted: BTreeMap<MessageId, Wanted>,
    due: BTreeSet<(Time, MessageId)>,
    /// When each holder last gave something that was wanted.
    gave: BTreeMap<PeerId, Time>,
    lateness: Lateness,
    retry: Duration,
}

impl Missing {
    /// Nothing is missing yet.
    pub fn new(config: &Config) -> Self {
        Self {
            wanted: BTreeMap::new(),
            due: BTreeSet::new(),
            gave: BTreeMap::new(),
            lateness: Lateness::new(config),
            retry: config.graft_retry,
        }
    }

    /// How many are missing.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// `holder` has a broadcast that this peer has not.
    pub fn advertised(&mut self, id: MessageId, holder: PeerId, backlog: bool, now: Time) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            if wanted.holders.len() < MAX_HOLDERS && !wanted.holders.contains(&holder) {
                wanted.holders.push(holder);
            }
            return;
        }
        if self.wanted.len() >= MAX_MISSING {
            return;
        }
        let wait = if backlog { Duration::ZERO } else { self.lateness.wait() };
        let wanted = Wanted { holders: vec![holder], since: now, due: now + wait, pulls: 0, asked: None, backlog };
        self.due.insert((wanted.due, id));
        self.wanted.insert(id, wanted);
    }

    /// It came from `giver`; `along_tree` if by itself, whether or not it had been pulled elsewhere meanwhile.
    pub fn arrived(&mut self, id: &MessageId, giver: PeerId, along_tree: bool, now: Time) {
        let Some(wanted) = self.wanted.remove(id) else {
            // Before any advert: the tree is as fast as can be.
            self.lateness.observe(Duration::ZERO);
            return;
        };
        self.due.remove(&(wanted.due, *id));
        if wanted.asked.is_some() {
            self.gave.insert(giver, now);
        }
        if along_tree && !wanted.backlog {
            self.lateness.observe(now.saturating_sub(wanted.since));
        }
    }

    /// A holder is gone.
    pub fn down(&mut self, peer: PeerId) {
        self.gave.remove(&peer);
        let due = &mut self.due;
        self.wanted.retain(|id, wanted| {
            wanted.holders.retain(|holder| *holder != peer);
            let keep = !wanted.holders.is_empty();
            if !keep {
                due.remove(&(wanted.due, *id));
            }
            keep
        });
    }

    /// What to ask for, and what to give up.
    pub fn tick(&mut self, now: Time) -> Due {
        let mut found = Due::default();
        let mut pulls: BTreeMap<(PeerId, bool), Vec<MessageId>> = BTreeMap::new();
        let mut asked = 0;
        while let Some((due, id)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let Some(wanted) = self.wanted.get_mut(&id) else {
                continue;
            };
            if let Some((holder, at)) = wanted.asked
                && self.gave.get(&holder).is_some_and(|gave| *gave >= at)
            {
                // It gives what it can at a time (`MAX_GRAFT_BYTES`), and this one's turn has not come.
                wanted.pulls = wanted.pulls.saturating_sub(1);
            }
            wanted.asked = None;
            if wanted.pulls >= MAX_PULLS.min(2 * wanted.holders.len()) {
                found.broken.append(&mut wanted.holders);
                found.forgotten += 1;
                self.wanted.remove(&id);
                continue;
            }
            wanted.due = now + self.retry;
            self.due.insert((wanted.due, id));
            if asked >= MAX_PULLS_IN_FLIGHT {
                continue;
            }
            asked += 1;
            wanted.pulls += 1;
            let holder = wanted.holders[0];
            wanted.holders.rotate_left(1);
            wanted.asked = Some((holder, now));
            pulls.entry((holder, !wanted.backlog)).or_default().push(id);
        }
        for ((holder, push), ids) in pulls {
            for ids in ids.chunks(MAX_IDS) {
                let ids = ids.to_vec();
                found.pulls.push(Pull { holder, ids, push });
            }
        }
        found
    }

    /// When [`Missing::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }
}

/// How much later than the first advert a broadcast comes along the tree, so that nothing is pulled
/// that is about to be pushed.
///
/// Each sender's path through the tree has its own length, so a mean with its deviation (as in RFC 6298)
/// comes out too short for most of them: the simulator showed 8 % of the payloads pulled for nothing.
/// What is held instead is the peak, which slowly sinks.
#[derive(Debug)]
struct Lateness {
    peak: Duration,
    min: Duration,
    max: Duration,
}

/// The peak sinks by this part of itself with each broadcast: to a half in 177. A guess.
const SINK: u32 = 256;
/// The wait, in peaks. A guess.
const MARGIN: u32 = 2;

impl Lateness {
    fn new(config: &Config) -> Self {
        Self { peak: config.graft_first / MARGIN, min: config.graft_min, max: config.graft_max }
    }

    fn observe(&mut self, late: Duration) {
        self.peak = late.max(self.peak - self.peak / SINK);
    }

    fn wait(&self) -> Duration {
        (self.peak.min(self.max) * MARGIN).clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_that_gives_a_part_at_a_time_is_asked_until_it_has_given_all() {
        let config = Config::default();
        let (mut missing, holder) = (Missing::new(&config), PeerId::from_u128(1));
        let id = |sequence| MessageId { origin: PeerId::from_u128(9), incarnation: 1, sequence };
        let mut now = Time::from_secs(1);
        for sequence in 0..200 {
            missing.advertised(id(sequence), holder, true, now);
        }
        let mut given = 0;
        for _ in 0..100 {
            let due = missing.tick(now);
            assert_eq!((due.forgotten, due.broken.len()), (0, 0), "after {given}");
            for wanted in due.pulls.iter().flat_map(|pull| &pull.ids).take(17) {
                now += Duration::from_millis(1);
                missing.arrived(wanted, holder, false, now);
                given += 1;
            }
            now += config.graft_retry;
        }
        assert_eq!((given, missing.len()), (200, 0));
    }

    #[test]
    fn a_holder_that_gives_nothing_is_asked_twice_and_named() {
        let config = Config::default();
        let (mut missing, holder) = (Missing::new(&config), PeerId::from_u128(1));
        missing.advertised(MessageId { origin: holder, incarnation: 1, sequence: 1 }, holder, true, Time::ZERO);
        let mut now = Time::ZERO;
        let mut pulls = 0;
        while !missing.is_empty() {
            now += config.graft_retry;
            let due = missing.tick(now);
            pulls += due.pulls.len();
            assert!(due.forgotten == 0 || due.broken == [holder]);
        }
        assert_eq!(pulls, 2);
    }
}
