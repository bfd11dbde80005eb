//! Missing broadcasts: which holder to pull them from, and when.
//!
//! The number of pulls in flight from a holder starts small and grows by one with each answer, so that a slow link is not filled
//! with duplicates, and a holder that answers nothing delays no other. The answer to a pull queues behind all earlier messages of
//! the holder; while the holder sends broadcasts at all, the pull is not repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    MessageId, PullDelay,
    config::{
        Config, INITIAL_PULL_WINDOW, MAX_ANSWER_DELAY, MAX_HOLDERS, MAX_IDS, MAX_MISSING, MAX_PULLS, MAX_PULLS_IN_FLIGHT,
        MAX_PULLS_PER_HOLDER,
    },
};
use crate::overlay::{PeerId, Time};

#[derive(Debug)]
struct InFlight {
    holder: PeerId,
    at: Time,
    /// Counts all pulls; a holder answers in this order.
    number: u64,
}

#[derive(Debug)]
struct MissingBroadcast {
    /// The first one is asked next.
    holders: Vec<PeerId>,
    /// The first advert.
    since: Time,
    /// No holder stores it after this time.
    until: Time,
    /// When to pull it, or when the pull in flight expires.
    due: Time,
    pulls: usize,
    in_flight: Option<InFlight>,
    /// Sent before the link to the holder was up: it is pulled, but does not change the tree.
    backlog: bool,
}

#[derive(Debug)]
struct Holder {
    /// Broadcasts to pull from it.
    ready: BTreeSet<(Time, MessageId)>,
    /// Broadcasts that it was asked for.
    in_flight: BTreeSet<(Time, MessageId)>,
    /// Most pulls in flight.
    window: usize,
    /// When it last sent a broadcast.
    last_given: Option<Time>,
    /// Highest number of a pull that it answered.
    last_answered: u64,
}

impl Holder {
    fn new() -> Self {
        Self {
            ready: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            window: INITIAL_PULL_WINDOW,
            last_given: None,
            last_answered: 0,
        }
    }
}

/// A GRAFT to send to one holder.
#[derive(Debug, PartialEq, Eq)]
pub struct Pull {
    /// The receiver.
    pub holder: PeerId,
    /// The broadcasts to ask for.
    pub ids: Vec<MessageId>,
    /// Whether the link becomes eager: the tree has a gap here.
    pub push: bool,
}

/// Result of [`Missing::tick`].
#[derive(Debug, Default)]
pub struct Due {
    /// Grafts to send.
    pub pulls: Vec<Pull>,
    /// Peers that did not send what they advertised, once for each id.
    pub broken_promises: Vec<PeerId>,
    /// Number of broadcasts given up.
    pub forgotten: usize,
}

/// The missing broadcasts, at most [`MAX_MISSING`].
#[derive(Debug)]
pub struct Missing {
    wanted: BTreeMap<MessageId, MissingBroadcast>,
    /// Peers that advertised a missing broadcast. A broadcast that has not been pulled is `ready` at its first
    /// holder, one that has been is `in_flight` at the holder that was asked.
    holders: BTreeMap<PeerId, Holder>,
    pulls_in_flight: usize,
    pulls: u64,
    /// Which holder is asked first (round robin).
    next_turn: usize,
    pull_delay: PullDelay,
    retry: Duration,
    retention: Duration,
}

impl Missing {
    /// No missing broadcasts.
    pub fn new(config: &Config) -> Self {
        Self {
            wanted: BTreeMap::new(),
            holders: BTreeMap::new(),
            pulls_in_flight: 0,
            pulls: 0,
            next_turn: 0,
            pull_delay: PullDelay::new(config),
            retry: config.graft_retry,
            retention: config.retention,
        }
    }

    /// Number of missing broadcasts.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether none is missing.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// `holder` advertises a broadcast of that `age` that this peer does not have.
    ///
    /// A holder that advertises it again after a pull will not send it in answer to that pull: the answer reached its limit.
    pub fn advertised(&mut self, id: MessageId, age: Duration, holder: PeerId, backlog: bool, now: Time) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            if let Some(asked) = wanted.in_flight.take_if(|asked| asked.holder == holder) {
                wanted.pulls = wanted.pulls.saturating_sub(1);
                wanted.holders.retain(|other| *other != holder);
                wanted.holders.insert(0, holder);
                let before = std::mem::replace(&mut wanted.due, now);
                self.pulls_in_flight -= 1;
                if let Some(holder) = self.holders.get_mut(&holder) {
                    holder.last_given = Some(now);
                    holder.last_answered = holder.last_answered.max(asked.number);
                    holder.in_flight.remove(&(before, id));
                    holder.ready.insert((now, id));
                }
            } else {
                self.one_more_holder(id, holder);
            }
            return;
        }
        if self.wanted.len() >= MAX_MISSING && !self.make_room(holder) {
            return;
        }
        let wait = if backlog { Duration::ZERO } else { self.pull_delay.wait() };
        let (due, until) = (now + wait, now + self.retention.saturating_sub(age));
        let wanted = MissingBroadcast { holders: vec![holder], since: now, until, due, pulls: 0, in_flight: None, backlog };
        self.wanted.insert(id, wanted);
        self.holders.entry(holder).or_insert_with(Holder::new).ready.insert((due, id));
    }

    /// Adds a holder; it comes first if fewer broadcasts are ready at it.
    fn one_more_holder(&mut self, id: MessageId, holder: PeerId) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        if wanted.holders.len() >= MAX_HOLDERS || wanted.holders.contains(&holder) {
            return;
        }
        let to_ask = |peer: &PeerId| self.holders.get(peer).map_or(0, |holder| holder.ready.len());
        let first = wanted.holders.first().filter(|_| wanted.in_flight.is_none()).copied();
        match first.filter(|first| to_ask(first) > to_ask(&holder) + 1) {
            Some(first) => {
                wanted.holders.insert(0, holder);
                if let Some(first) = self.holders.get_mut(&first) {
                    first.ready.remove(&(wanted.due, id));
                }
                self.holders.entry(holder).or_insert_with(Holder::new).ready.insert((wanted.due, id));
            }
            None => wanted.holders.push(holder),
        }
    }

    /// Forgets the last ready broadcast of the holder with the most, unless that holder is `advertiser`.
    fn make_room(&mut self, advertiser: PeerId) -> bool {
        let Some((peer, fullest)) = self.holders.iter_mut().max_by_key(|(_, holder)| holder.ready.len()) else {
            return false;
        };
        if *peer == advertiser {
            return false;
        }
        let last = fullest.ready.pop_last();
        last.is_some_and(|(_, id)| self.wanted.remove(&id).is_some())
    }

    /// `holder` sent a broadcast, missing or not: its link is not blocked.
    pub fn gave(&mut self, holder: PeerId, now: Time) {
        if let Some(holder) = self.holders.get_mut(&holder) {
            holder.last_given = Some(now);
        }
    }

    /// A broadcast arrived from `giver`; `along_tree` if it was pushed, whether or not it had been pulled elsewhere.
    pub fn arrived(&mut self, id: &MessageId, giver: PeerId, along_tree: bool, now: Time) {
        let Some(wanted) = self.wanted.remove(id) else {
            // It arrived before any advert: no delay.
            self.pull_delay.observe(Duration::ZERO);
            return;
        };
        self.take_out(id, &wanted);
        if let Some(asked) = wanted.in_flight
            && asked.holder == giver
            && let Some(holder) = self.holders.get_mut(&giver)
        {
            holder.window = (holder.window + 1).min(MAX_PULLS_PER_HOLDER);
            holder.last_answered = holder.last_answered.max(asked.number);
        }
        if along_tree && !wanted.backlog {
            self.pull_delay.observe(now.saturating_sub(wanted.since));
        }
    }

    /// Removes a broadcast from the list of the holder that is, or would be, asked for it.
    fn take_out(&mut self, id: &MessageId, wanted: &MissingBroadcast) {
        let at = (wanted.due, *id);
        match &wanted.in_flight {
            Some(asked) => {
                self.pulls_in_flight -= 1;
                if let Some(holder) = self.holders.get_mut(&asked.holder) {
                    holder.in_flight.remove(&at);
                }
            }
            None => {
                if let Some(holder) = wanted.holders.first().and_then(|first| self.holders.get_mut(first)) {
                    holder.ready.remove(&at);
                }
            }
        }
    }

    /// The link to a holder ended.
    pub fn down(&mut self, peer: PeerId) {
        let gone = self.holders.remove(&peer).unwrap_or_else(Holder::new);
        if self.wanted.is_empty() {
            return;
        }
        self.pulls_in_flight -= gone.in_flight.len();
        let orphaned: BTreeSet<MessageId> = gone.ready.iter().chain(&gone.in_flight).map(|(_, id)| *id).collect();
        let holders = &mut self.holders;
        self.wanted.retain(|id, wanted| {
            wanted.holders.retain(|holder| *holder != peer);
            if orphaned.contains(id) {
                wanted.in_flight = None;
                if let Some(first) = wanted.holders.first() {
                    holders.entry(*first).or_insert_with(Holder::new).ready.insert((wanted.due, *id));
                }
            }
            !wanted.holders.is_empty()
        });
    }

    /// The pulls to send, and the broadcasts to give up.
    pub fn tick(&mut self, now: Time) -> Due {
        let mut found = Due::default();
        self.expire_pulls(now, &mut found);
        let mut pulls: BTreeMap<(PeerId, bool), Vec<MessageId>> = BTreeMap::new();
        let mut peers: Vec<PeerId> = self.holders.keys().copied().collect();
        let count = peers.len().max(1);
        peers.rotate_left(self.next_turn % count);
        self.next_turn = (self.next_turn + 1) % count;
        while !peers.is_empty() {
            peers.retain(|peer| {
                let next = self.next_for(*peer, now, &mut found);
                if let Some((id, push)) = next {
                    pulls.entry((*peer, push)).or_default().push(id);
                }
                next.is_some()
            });
        }
        for ((holder, push), ids) in pulls {
            for ids in ids.chunks(MAX_IDS) {
                let ids = ids.to_vec();
                found.pulls.push(Pull { holder, ids, push });
            }
        }
        found
    }

    /// Ends pulls without an answer; the broadcast is then ready at the next holder, or given up.
    fn expire_pulls(&mut self, now: Time, found: &mut Due) {
        let late = |holder: &Holder| holder.in_flight.iter().take_while(|(due, _)| *due <= now).copied().collect::<Vec<_>>();
        let late: Vec<(Time, MessageId)> = self.holders.values().flat_map(late).collect();
        for (due, id) in late {
            let Some(wanted) = self.wanted.get_mut(&id) else { continue };
            let Some(asked) = &wanted.in_flight else { continue };
            let Some(holder) = self.holders.get_mut(&asked.holder) else { continue };
            holder.in_flight.remove(&(due, id));
            let skipped = asked.number < holder.last_answered;
            let quiet_limit = 2 * wait(self.retry, wanted.pulls, wanted.holders.len());
            let giving = holder.last_given.is_some_and(|gave| now < gave + quiet_limit);
            if giving && !skipped && now < asked.at + MAX_ANSWER_DELAY {
                wanted.due = now + self.retry;
                holder.in_flight.insert((wanted.due, id));
                continue;
            }
            if !skipped {
                holder.window = INITIAL_PULL_WINDOW;
            }
            self.pulls_in_flight -= 1;
            wanted.in_flight = None;
            // Before all broadcasts that have not been pulled yet, which may be many.
            wanted.due = wanted.since;
            if wanted.pulls >= MAX_PULLS.min(2 * wanted.holders.len()) {
                found.broken_promises.append(&mut wanted.holders);
                found.forgotten += 1;
                self.wanted.remove(&id);
            } else if let Some(next) = wanted.holders.first() {
                self.holders.entry(*next).or_insert_with(Holder::new).ready.insert((wanted.due, id));
            }
        }
    }

    /// The next broadcast to pull from `peer`, and whether the link becomes eager.
    fn next_for(&mut self, peer: PeerId, now: Time, found: &mut Due) -> Option<(MessageId, bool)> {
        let holder = self.holders.get_mut(&peer)?;
        loop {
            let (due, id) = holder.ready.first().copied()?;
            if due > now || holder.in_flight.len() >= holder.window || self.pulls_in_flight >= MAX_PULLS_IN_FLIGHT {
                return None;
            }
            holder.ready.pop_first();
            let Some(wanted) = self.wanted.get_mut(&id) else { continue };
            if wanted.until <= now {
                found.forgotten += 1;
                self.wanted.remove(&id);
                continue;
            }
            self.pulls_in_flight += 1;
            self.pulls += 1;
            wanted.pulls += 1;
            wanted.due = now + wait(self.retry, wanted.pulls, wanted.holders.len());
            wanted.in_flight = Some(InFlight { holder: peer, at: now, number: self.pulls });
            wanted.holders.rotate_left(1);
            holder.in_flight.insert((wanted.due, id));
            return Some((id, !wanted.backlog));
        }
    }

    /// When [`Missing::tick`] is next due.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.wanted.is_empty() {
            return None;
        }
        let full = self.pulls_in_flight >= MAX_PULLS_IN_FLIGHT;
        let next = |holder: &Holder| {
            let ready = holder.ready.first().filter(|_| !full && holder.in_flight.len() < holder.window);
            [ready, holder.in_flight.first()].into_iter().flatten().map(|(due, _)| *due).min()
        };
        self.holders.values().filter_map(next).min()
    }
}

/// Timeout of a pull: doubles each time that all holders have been asked.
fn wait(retry: Duration, pulls: usize, holders: usize) -> Duration {
    let rounds = pulls.saturating_sub(1) / holders.max(1);
    retry * (1 << rounds.min(MAX_PULLS))
}

#[cfg(test)]
mod tests;
