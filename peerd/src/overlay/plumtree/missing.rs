//! Broadcasts that others have and this peer has not: whom to ask, and when.
//!
//! Each holder is asked for few at first and for one more with each that it gives, so that a slow link is not filled with what comes
//! twice, and a holder of nothing costs the others nothing. What was asked for waits in the holder's queue behind all
//! that came before; while the holder gives anything at all, it is not asked again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    MessageId, PullDelay,
    config::{
        Config, MAX_ANSWER, MAX_HOLDERS, MAX_IDS, MAX_MISSING, MAX_PULLS, MAX_PULLS_IN_FLIGHT, MAX_PULLS_OF_HOLDER,
        PULLS_AT_FIRST,
    },
};
use crate::overlay::{PeerId, Time};

#[derive(Debug)]
struct Asked {
    holder: PeerId,
    at: Time,
    /// Pulls of all broadcasts, counted: a holder answers in this order.
    number: u64,
}

#[derive(Debug)]
struct Wanted {
    /// The first is asked next.
    holders: Vec<PeerId>,
    since: Time,
    /// No holder keeps it for longer.
    until: Time,
    /// When it is asked for, or given up waiting for.
    due: Time,
    pulls: usize,
    asked: Option<Asked>,
    /// From before there was a link to a holder: to be had, but no reason to change the tree.
    backlog: bool,
}

#[derive(Debug)]
struct Holder {
    /// To be asked of it.
    ready: BTreeSet<(Time, MessageId)>,
    /// Asked of it.
    asked: BTreeSet<(Time, MessageId)>,
    /// Most that are asked of it at once.
    window: usize,
    /// When it last gave anything.
    gave: Option<Time>,
    /// The highest number of a pull that it answered.
    answered: u64,
}

impl Holder {
    fn new() -> Self {
        Self { ready: BTreeSet::new(), asked: BTreeSet::new(), window: PULLS_AT_FIRST, gave: None, answered: 0 }
    }
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
    /// Those who advertised something that was missing. What has not been asked for is `ready` at its first
    /// holder, what has been is `asked` of the one that was.
    holders: BTreeMap<PeerId, Holder>,
    in_flight: usize,
    pulls: u64,
    /// Who is asked first, so that each is in turn.
    turn: usize,
    pull_delay: PullDelay,
    retry: Duration,
    retention: Duration,
}

impl Missing {
    /// Nothing is missing yet.
    pub fn new(config: &Config) -> Self {
        Self {
            wanted: BTreeMap::new(),
            holders: BTreeMap::new(),
            in_flight: 0,
            pulls: 0,
            turn: 0,
            pull_delay: PullDelay::new(config),
            retry: config.graft_retry,
            retention: config.retention,
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

    /// `holder` has a broadcast of that `age`, which this peer has not.
    ///
    /// Who is asked for it and says so again will not give it now: it has given as much as it does at a time.
    pub fn advertised(&mut self, id: MessageId, age: Duration, holder: PeerId, backlog: bool, now: Time) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            if let Some(asked) = wanted.asked.take_if(|asked| asked.holder == holder) {
                wanted.pulls = wanted.pulls.saturating_sub(1);
                wanted.holders.retain(|other| *other != holder);
                wanted.holders.insert(0, holder);
                let before = std::mem::replace(&mut wanted.due, now);
                self.in_flight -= 1;
                if let Some(holder) = self.holders.get_mut(&holder) {
                    holder.gave = Some(now);
                    holder.answered = holder.answered.max(asked.number);
                    holder.asked.remove(&(before, id));
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
        let wanted = Wanted { holders: vec![holder], since: now, until, due, pulls: 0, asked: None, backlog };
        self.wanted.insert(id, wanted);
        self.holders.entry(holder).or_insert_with(Holder::new).ready.insert((due, id));
    }

    /// Whoever has less to be asked for is asked.
    fn one_more_holder(&mut self, id: MessageId, holder: PeerId) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        if wanted.holders.len() >= MAX_HOLDERS || wanted.holders.contains(&holder) {
            return;
        }
        let to_ask = |peer: &PeerId| self.holders.get(peer).map_or(0, |holder| holder.ready.len());
        let first = wanted.holders.first().filter(|_| wanted.asked.is_none()).copied();
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

    /// Forgets what would be asked last of the holder that has most to be asked for, unless that is `advertiser`.
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

    /// `holder` gave something, whether or not it was wanted: its link is not blocked.
    pub fn gave(&mut self, holder: PeerId, now: Time) {
        if let Some(holder) = self.holders.get_mut(&holder) {
            holder.gave = Some(now);
        }
    }

    /// It came from `giver`; `along_tree` if by itself, whether or not it had been pulled elsewhere meanwhile.
    pub fn arrived(&mut self, id: &MessageId, giver: PeerId, along_tree: bool, now: Time) {
        let Some(wanted) = self.wanted.remove(id) else {
            // Before any advert: the tree is as fast as can be.
            self.pull_delay.observe(Duration::ZERO);
            return;
        };
        self.take_out(id, &wanted);
        if let Some(asked) = wanted.asked
            && asked.holder == giver
            && let Some(holder) = self.holders.get_mut(&giver)
        {
            holder.window = (holder.window + 1).min(MAX_PULLS_OF_HOLDER);
            holder.answered = holder.answered.max(asked.number);
        }
        if along_tree && !wanted.backlog {
            self.pull_delay.observe(now.saturating_sub(wanted.since));
        }
    }

    /// Takes a broadcast off the list of whoever is, or was to be, asked for it.
    fn take_out(&mut self, id: &MessageId, wanted: &Wanted) {
        let at = (wanted.due, *id);
        match &wanted.asked {
            Some(asked) => {
                self.in_flight -= 1;
                if let Some(holder) = self.holders.get_mut(&asked.holder) {
                    holder.asked.remove(&at);
                }
            }
            None => {
                if let Some(holder) = wanted.holders.first().and_then(|first| self.holders.get_mut(first)) {
                    holder.ready.remove(&at);
                }
            }
        }
    }

    /// A holder is gone.
    pub fn down(&mut self, peer: PeerId) {
        let gone = self.holders.remove(&peer).unwrap_or_else(Holder::new);
        if self.wanted.is_empty() {
            return;
        }
        self.in_flight -= gone.asked.len();
        let homeless: BTreeSet<MessageId> = gone.ready.iter().chain(&gone.asked).map(|(_, id)| *id).collect();
        let holders = &mut self.holders;
        self.wanted.retain(|id, wanted| {
            wanted.holders.retain(|holder| *holder != peer);
            if homeless.contains(id) {
                wanted.asked = None;
                if let Some(first) = wanted.holders.first() {
                    holders.entry(*first).or_insert_with(Holder::new).ready.insert((wanted.due, *id));
                }
            }
            !wanted.holders.is_empty()
        });
    }

    /// What to ask for, and what to give up.
    pub fn tick(&mut self, now: Time) -> Due {
        let mut found = Due::default();
        self.stop_waiting(now, &mut found);
        let mut pulls: BTreeMap<(PeerId, bool), Vec<MessageId>> = BTreeMap::new();
        let mut peers: Vec<PeerId> = self.holders.keys().copied().collect();
        let places = peers.len().max(1);
        peers.rotate_left(self.turn % places);
        self.turn = (self.turn + 1) % places;
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

    /// Gives up waiting for what was asked for and does not come.
    fn stop_waiting(&mut self, now: Time, found: &mut Due) {
        let late = |holder: &Holder| holder.asked.iter().take_while(|(due, _)| *due <= now).copied().collect::<Vec<_>>();
        let late: Vec<(Time, MessageId)> = self.holders.values().flat_map(late).collect();
        for (due, id) in late {
            let Some(wanted) = self.wanted.get_mut(&id) else { continue };
            let Some(asked) = &wanted.asked else { continue };
            let Some(holder) = self.holders.get_mut(&asked.holder) else { continue };
            holder.asked.remove(&(due, id));
            let passed_over = asked.number < holder.answered;
            let quiet = 2 * wait(self.retry, wanted.pulls, wanted.holders.len());
            let giving = holder.gave.is_some_and(|gave| now < gave + quiet);
            if giving && !passed_over && now < asked.at + MAX_ANSWER {
                wanted.due = now + self.retry;
                holder.asked.insert((wanted.due, id));
                continue;
            }
            if !passed_over {
                holder.window = PULLS_AT_FIRST;
            }
            self.in_flight -= 1;
            wanted.asked = None;
            // Before all that has not been asked for yet, which may be much.
            wanted.due = wanted.since;
            if wanted.pulls >= MAX_PULLS.min(2 * wanted.holders.len()) {
                found.broken.append(&mut wanted.holders);
                found.forgotten += 1;
                self.wanted.remove(&id);
            } else if let Some(next) = wanted.holders.first() {
                self.holders.entry(*next).or_insert_with(Holder::new).ready.insert((wanted.due, id));
            }
        }
    }

    /// The next broadcast to ask `peer` for, and whether it is to push.
    fn next_for(&mut self, peer: PeerId, now: Time, found: &mut Due) -> Option<(MessageId, bool)> {
        let holder = self.holders.get_mut(&peer)?;
        loop {
            let (due, id) = holder.ready.first().copied()?;
            if due > now || holder.asked.len() >= holder.window || self.in_flight >= MAX_PULLS_IN_FLIGHT {
                return None;
            }
            holder.ready.pop_first();
            let Some(wanted) = self.wanted.get_mut(&id) else { continue };
            if wanted.until <= now {
                found.forgotten += 1;
                self.wanted.remove(&id);
                continue;
            }
            self.in_flight += 1;
            self.pulls += 1;
            wanted.pulls += 1;
            wanted.due = now + wait(self.retry, wanted.pulls, wanted.holders.len());
            wanted.asked = Some(Asked { holder: peer, at: now, number: self.pulls });
            wanted.holders.rotate_left(1);
            holder.asked.insert((wanted.due, id));
            return Some((id, !wanted.backlog));
        }
    }

    /// When [`Missing::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.wanted.is_empty() {
            return None;
        }
        let full = self.in_flight >= MAX_PULLS_IN_FLIGHT;
        let next = |holder: &Holder| {
            let ready = holder.ready.first().filter(|_| !full && holder.asked.len() < holder.window);
            [ready, holder.asked.first()].into_iter().flatten().map(|(due, _)| *due).min()
        };
        self.holders.values().filter_map(next).min()
    }
}

/// How long the answer to a pull is waited for: twice as long each time that all holders have been asked.
fn wait(retry: Duration, pulls: usize, holders: usize) -> Duration {
    let rounds = pulls.saturating_sub(1) / holders.max(1);
    retry * (1 << rounds.min(MAX_PULLS))
}

#[cfg(test)]
mod tests;
