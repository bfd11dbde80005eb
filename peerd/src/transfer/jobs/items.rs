//! The documents of a job or a mirror, and how far each is.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::{
    documents::{name_match::name_key, selector::DocumentSelector},
    holders::source::Source,
};
use p2pdi::{backoff::Policy, document::DocumentName, v1::FailedDocument};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::{Duration, Instant, SystemTime},
};

/// Pauses before a document is tried again for which nobody delivered, or which had no room: a holder that returns is found within the
/// longest, if nothing announces it before.
const RETRY: Policy = Policy { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
/// A document that waits is not tried again before this time, whatever announces a holder.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How long a document that a pattern found, and that its holders do not have any more, is searched for by its name: a changed file is hashed
/// before it is offered again. Enough for some 100 GiB.
const GONE_PATIENCE: Duration = Duration::from_secs(120);
/// Most failed documents that are listed.
const FAILED_LISTED_MAX: usize = 100;

/// What tells documents apart: the name in the share, or what else selects it.
pub(super) type Key = Box<str>;

/// A document to fetch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) selector: DocumentSelector,
    /// The name in the share; `None`: the name that it is found by.
    pub(super) save_as: Option<DocumentName>,
    /// For display.
    pub(super) label: String,
    /// The name that a pattern found it by, and that it is searched for by if its content is gone.
    pub(super) found_by: Option<DocumentName>,
    /// Bytes; 0: not known yet.
    pub(super) size: u64,
    /// Holders known before the fetch.
    pub(super) holders: Vec<Source>,
    /// Modification time of the original.
    pub(super) modified: Option<SystemTime>,
    /// A holder lists it as for some only.
    pub(super) restricted: bool,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the share, of this size.
    Present(u64),
    /// Nobody delivers it now.
    NoHolder(String),
    /// Holders said that they do not have it, or not any more. `everywhere`: all that were asked did.
    Gone { why: String, everywhere: bool },
    /// There is no room for it now.
    NoRoom(String),
    /// It cannot be fetched.
    Failed(String),
}

#[derive(Debug)]
struct Item {
    target: Target,
    state: State,
    /// Tries that ended with a wait, in a row.
    waits: u32,
    /// Since when nobody delivers it.
    without_holder: Option<Instant>,
    /// Since when the content is gone that a pattern found, and which one that was.
    gone: Option<(Instant, DocumentSelector)>,
}

impl Target {
    /// Selects what the name that found it means now, instead of the content that is gone, which is returned.
    fn search_again(&mut self) -> DocumentSelector {
        let by_name = self.found_by.clone().map_or_else(|| self.selector.clone(), DocumentSelector::Name);
        (self.size, self.holders) = (0, Vec::new());
        mem::replace(&mut self.selector, by_name)
    }
}

impl Item {
    fn is_gone_for(&self, patience: Duration, now: Instant) -> bool {
        self.gone.as_ref().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= patience)
    }

    fn new(target: Target) -> Self {
        Self { target, state: State::Ready, waits: 0, without_holder: None, gone: None }
    }
}

#[derive(Debug)]
enum State {
    Ready,
    Running,
    Waiting { since: Instant, until: Instant, why: String, for_room: bool },
    Present(u64),
    Failed(String),
}

/// The documents, and counts of them.
#[derive(Debug, Default)]
pub(super) struct Items {
    all: BTreeMap<Key, Item>,
    ready: BTreeSet<Key>,
    waiting: BTreeSet<(Instant, Key)>,
    /// How many of them wait for room.
    for_room: usize,
    failed: BTreeSet<Key>,
    running: usize,
    present: usize,
    bytes: u64,
    present_bytes: u64,
}

impl Items {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn present(&self) -> usize {
        self.present
    }

    pub(super) fn failed(&self) -> usize {
        self.failed.len()
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of all documents whose size is known.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn present_bytes(&self) -> u64 {
        self.present_bytes
    }

    /// The names, as `name_key` has them, under which documents are in the share or arrive there.
    pub(super) fn names(&self) -> impl Iterator<Item = Box<str>> {
        let held = self.all.values().filter(|item| matches!(item.state, State::Present(_) | State::Running));
        held.filter_map(|item| Some(name_key(item.target.save_as.as_ref()?.as_str()).into()))
    }

    /// The name that a document has in the share.
    pub(super) fn learn_name(&mut self, key: &Key, name: &DocumentName) {
        if let Some(item) = self.all.get_mut(key) {
            item.target.save_as.get_or_insert_with(|| name.clone());
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn ended(&self) -> bool {
        self.present + self.failed.len() == self.all.len()
    }

    /// The failed documents and why, the first by name.
    pub(super) fn failures(&self) -> Vec<FailedDocument> {
        let failure = |key: &Key| {
            let item = self.all.get(key)?;
            let State::Failed(why) = &item.state else { return None };
            Some(FailedDocument { name: item.target.label.clone(), why: why.clone() })
        };
        self.failed.iter().filter_map(failure).take(FAILED_LISTED_MAX).collect()
    }

    /// Why the document waits that waits longest, and since when.
    pub(super) fn longest_wait(&self) -> Option<(String, Instant)> {
        let waiting = self.waiting.iter().filter_map(|(_, key)| self.all.get(key));
        let waits = waiting.filter_map(|item| match &item.state {
            State::Waiting { since, why, .. } => Some((*since, why)),
            _ => None,
        });
        waits.min_by_key(|(since, _)| *since).map(|(since, why)| (why.clone(), since))
    }

    /// Adds a document, or replaces what is known of one that is not being fetched. One with the same target keeps its state.
    pub(super) fn want(&mut self, key: Key, target: Target) {
        let mut gone = None;
        match self.all.get_mut(&key) {
            Some(item) if matches!(item.state, State::Running) => return,
            Some(Item { state: State::Present(_), .. }) | None => {}
            Some(item) if item.target.selector == target.selector => {
                item.target.holders = target.holders;
                return;
            }
            // What is gone may still be listed for a while, and what changes all the time is not tried for ever.
            Some(Item { gone: Some((_, before)), state, .. })
                if *before == target.selector || matches!(state, State::Failed(_)) =>
            {
                return;
            }
            Some(item) => gone = item.gone.take(),
        }
        self.replace(key, Some(Item { gone, ..Item::new(target) }));
    }

    /// Records how far a document is that needs no fetch.
    pub(super) fn settle(&mut self, key: Key, target: Target, outcome: Outcome, now: Instant) {
        if self.all.get(&key).is_some_and(|item| matches!(item.state, State::Running)) {
            return;
        }
        self.replace(key.clone(), Some(Item::new(target)));
        self.finish(&key, outcome, now, None);
    }

    /// Drops the documents that `keep` does not keep, but those being fetched.
    pub(super) fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        let gone: Vec<_> = self
            .all
            .iter()
            .filter(|(key, item)| !keep(key) && !matches!(item.state, State::Running))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.replace(key, None);
        }
    }

    /// Takes the next document to fetch: one that `fits`, by its key and its size.
    pub(super) fn start(&mut self, fits: impl Fn(&Key, u64) -> bool) -> Option<(Key, Target)> {
        let fitting = |key: &&Key| self.all.get(*key).is_some_and(|item| fits(key, item.target.size));
        let key = self.ready.iter().find(fitting)?.clone();
        let target = self.all.get(&key)?.target.clone();
        self.change(&key, State::Running);
        Some((key, target))
    }

    /// Records the end of a try. With `patience`, a document that nobody delivered for that long fails.
    pub(super) fn finish(&mut self, key: &Key, outcome: Outcome, now: Instant, patience: Option<Duration>) {
        let Some(item) = self.all.get_mut(key) else { return };
        let since = match &item.state {
            State::Waiting { since, .. } => *since,
            _ => now,
        };
        let state = match outcome {
            Outcome::Present(size) => {
                (item.waits, item.without_holder, item.gone) = (0, None, None);
                State::Present(size)
            }
            Outcome::Failed(why) => State::Failed(why),
            Outcome::Gone { .. }
                if matches!(item.target, Target { selector: DocumentSelector::Hash(_), found_by: Some(_), .. }) =>
            {
                let since = item.gone.take().map_or(now, |(since, _)| since);
                self.bytes = self.bytes.saturating_sub(item.target.size);
                item.gone = Some((since, item.target.search_again()));
                (item.waits, item.without_holder) = (0, None);
                let why = format!("{} changed since it was listed; searching for what it is now", item.target.label);
                waiting(item, now, why, false, now)
            }
            Outcome::Gone { why, everywhere: true } if item.is_gone_for(GONE_PATIENCE, now) => {
                State::Failed(format!("{why}; it changed or was removed since it was listed"))
            }
            Outcome::NoHolder(why) | Outcome::Gone { why, .. } => {
                let since = *item.without_holder.get_or_insert(now);
                match patience.filter(|patience| now.saturating_duration_since(since) >= *patience) {
                    Some(patience) => State::Failed(format!("{why}; waited {} s for a holder", patience.as_secs())),
                    None => waiting(item, since, why, false, now),
                }
            }
            Outcome::NoRoom(why) => {
                item.without_holder = None;
                waiting(item, since, why, true, now)
            }
        };
        self.change(key, state);
    }

    /// Makes the documents ready whose pause is over, and those that nobody delivered for longer than `patience`.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((until, key)) = self.waiting.first().cloned().filter(|(until, _)| *until <= now) {
            self.waiting.remove(&(until, key.clone()));
            self.change(&key, State::Ready);
        }
    }

    /// Whether a document waits for room.
    pub(super) fn wait_for_room(&self) -> bool {
        self.for_room > 0
    }

    /// Makes documents ready that wait, or only those that wait for room, before their pause is over, but not sooner than in [`RETRY_MIN`].
    pub(super) fn wake_early(&mut self, only_for_room: bool, now: Instant) {
        let due: Vec<_> = self.waiting.iter().map(|(_, key)| key.clone()).collect();
        for key in due {
            let Some(item) = self.all.get(&key) else { continue };
            let State::Waiting { since, until, why, for_room } = &item.state else { continue };
            let soon = (*until).min(now + RETRY_MIN);
            if only_for_room && !for_room || soon == *until {
                continue;
            }
            let state = State::Waiting { since: *since, until: soon, why: why.clone(), for_room: *for_room };
            self.change(&key, state);
        }
    }

    /// When the next pause is over.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Puts a try back that did not end, because its job or the peer stops.
    pub(super) fn put_back(&mut self, key: &Key) {
        self.change(key, State::Ready);
    }

    /// A size that became known during the fetch.
    pub(super) fn learn_size(&mut self, key: &Key, size: u64) {
        if let Some(item) = self.all.get_mut(key)
            && item.target.size != size
        {
            self.bytes = self.bytes.saturating_sub(item.target.size).saturating_add(size);
            item.target.size = size;
        }
    }

    fn change(&mut self, key: &Key, state: State) {
        if let Some(mut item) = self.take(key) {
            item.state = state;
            self.put(key.clone(), item);
        }
    }

    fn replace(&mut self, key: Key, item: Option<Item>) {
        drop(self.take(&key));
        if let Some(item) = item {
            self.put(key, item);
        }
    }

    fn take(&mut self, key: &Key) -> Option<Item> {
        let item = self.all.remove(key)?;
        self.bytes = self.bytes.saturating_sub(item.target.size);
        match &item.state {
            State::Ready => {
                self.ready.remove(key);
            }
            State::Running => self.running -= 1,
            State::Waiting { until, for_room, .. } => {
                self.waiting.remove(&(*until, key.clone()));
                self.for_room -= usize::from(*for_room);
            }
            State::Present(size) => {
                self.present -= 1;
                self.present_bytes = self.present_bytes.saturating_sub(*size);
            }
            State::Failed(_) => {
                self.failed.remove(key);
            }
        }
        Some(item)
    }

    fn put(&mut self, key: Key, mut item: Item) {
        match &item.state {
            State::Ready => {
                self.ready.insert(key.clone());
            }
            State::Running => self.running += 1,
            State::Waiting { until, for_room, .. } => {
                self.waiting.insert((*until, key.clone()));
                self.for_room += usize::from(*for_room);
            }
            State::Present(size) => {
                self.present += 1;
                self.present_bytes = self.present_bytes.saturating_add(*size);
                item.target.size = *size;
            }
            State::Failed(_) => {
                self.failed.insert(key.clone());
            }
        }
        self.bytes = self.bytes.saturating_add(item.target.size);
        self.all.insert(key, item);
    }
}

fn waiting(item: &mut Item, since: Instant, why: String, for_room: bool, now: Instant) -> State {
    let until = now + RETRY.pause(item.waits);
    item.waits = item.waits.saturating_add(1);
    State::Waiting { since, until, why, for_room }
}

#[cfg(test)]
mod tests;
