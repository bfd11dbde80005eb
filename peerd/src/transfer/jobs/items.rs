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
    time::{Duration, Instant, SystemTime},
};

/// Pauses before a document is tried again for which nobody delivered, or which had no room: a holder that returns is found within the
/// longest, if nothing announces it before.
const RETRY: Policy = Policy { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
/// A document that waits is not tried again before this time, whatever announces a holder.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Most failed documents that are listed.
const FAILED_LISTED_MAX: usize = 100;

/// What tells documents apart: the name without regard to case, or what else selects it.
pub(super) type Key = Box<str>;

/// A document to fetch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) selector: DocumentSelector,
    /// The name in the share; `None`: the name that it is found by.
    pub(super) save_as: Option<DocumentName>,
    /// For display.
    pub(super) label: String,
    /// Bytes; 0: not known yet.
    pub(super) size: u64,
    /// Holders known before the fetch.
    pub(super) holders: Vec<Source>,
    /// Modification time of the original.
    pub(super) modified: Option<SystemTime>,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the share, of this size.
    Present(u64),
    /// Nobody delivers it now.
    NoHolder(String),
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
        match self.all.get_mut(&key) {
            Some(item) if matches!(item.state, State::Running) => return,
            Some(item) if item.target.selector == target.selector && !matches!(item.state, State::Present(_)) => {
                item.target.holders = target.holders;
                return;
            }
            _ => {}
        }
        self.replace(key, Some(Item { target, state: State::Ready, waits: 0, without_holder: None }));
    }

    /// Records how far a document is that needs no fetch.
    pub(super) fn settle(&mut self, key: Key, target: Target, outcome: Outcome, now: Instant) {
        if self.all.get(&key).is_some_and(|item| matches!(item.state, State::Running)) {
            return;
        }
        self.replace(key.clone(), Some(Item { target, state: State::Ready, waits: 0, without_holder: None }));
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
                (item.waits, item.without_holder) = (0, None);
                State::Present(size)
            }
            Outcome::Failed(why) => State::Failed(why),
            Outcome::NoHolder(why) => {
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
mod tests {
    use super::*;

    fn target(name: &str, size: u64) -> Target {
        let name = DocumentName::parse(name).unwrap();
        Target {
            selector: DocumentSelector::Name(name.clone()),
            label: name.to_string(),
            save_as: Some(name),
            size,
            holders: Vec::new(),
            modified: None,
        }
    }

    fn items(names: &[&str]) -> Items {
        let mut items = Items::default();
        names.iter().for_each(|name| items.want((*name).into(), target(name, 10)));
        items
    }

    #[test]
    fn documents_are_taken_in_order_and_counted() {
        let (mut items, now) = (items(&["b", "a", "c"]), Instant::now());
        let started: Vec<_> = std::iter::from_fn(|| items.start(|key, _| &**key != "c")).map(|(key, _)| key).collect();
        assert_eq!(started, ["a".into(), "b".into()]);
        assert_eq!((items.running(), items.ended(), items.bytes()), (2, false, 30));
        items.finish(&"a".into(), Outcome::Present(12), now, None);
        items.finish(&"b".into(), Outcome::Failed("no".into()), now, None);
        assert_eq!((items.present(), items.present_bytes(), items.failed(), items.bytes()), (1, 12, 1, 32));
        assert_eq!(items.failures()[0].why, "no");
        items.retain(|key| &**key != "c");
        assert!(items.ended() && items.len() == 2);
        // What is there or failed is taken up again if it is wanted anew.
        items.want("a".into(), target("a", 10));
        assert_eq!((items.present(), items.bytes()), (0, 20));
    }

    #[test]
    fn a_document_without_holder_is_tried_again_later_and_later_until_patience_ends() {
        let (mut items, start) = (items(&["a"]), Instant::now());
        let patience = Some(Duration::from_secs(100));
        let (mut now, mut pauses) = (start, Vec::new());
        while items.failed() == 0 {
            items.start(|_, _| true).unwrap();
            items.finish(&"a".into(), Outcome::NoHolder("nobody".into()), now, patience);
            if let Some(next) = items.next_wake() {
                assert_eq!(items.longest_wait(), Some(("nobody".into(), start)));
                pauses.push((next - now).as_secs());
                items.wake(now);
                assert!(items.start(|_, _| true).is_none());
                now = next;
                items.wake(now);
            }
        }
        assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 30]);
        assert!((100..131).contains(&(now - start).as_secs()));
        assert!(items.failures()[0].why.contains("waited 100 s"), "{:?}", items.failures());
    }

    #[test]
    fn news_of_a_holder_shorten_the_pause() {
        let (mut items, now) = (items(&["a"]), Instant::now());
        for _ in 0..5 {
            items.start(|_, _| true).unwrap();
            items.finish(&"a".into(), Outcome::NoHolder("nobody".into()), now, None);
            items.wake(items.next_wake().unwrap());
        }
        items.start(|_, _| true).unwrap();
        items.finish(&"a".into(), Outcome::NoRoom("full".into()), now, None);
        assert!(items.next_wake().unwrap() > now + RETRY_MIN);
        items.wake_early(false, now);
        assert_eq!(items.next_wake(), Some(now + RETRY_MIN));
    }

    #[test]
    fn news_of_room_shorten_the_pauses_of_those_that_wait_for_it() {
        let (mut items, now) = (items(&["a", "b"]), Instant::now());
        for _ in 0..5 {
            items.start(|_, _| true).unwrap();
            items.start(|_, _| true).unwrap();
            assert!(!items.wait_for_room());
            items.finish(&"a".into(), Outcome::NoRoom("full".into()), now, None);
            items.finish(&"b".into(), Outcome::NoHolder("nobody".into()), now, None);
            assert!(items.wait_for_room());
            items.wake(now + RETRY.longest);
        }
        assert!(!items.wait_for_room());
        items.start(|key, _| &**key == "a").unwrap();
        items.start(|_, _| true).unwrap();
        items.finish(&"a".into(), Outcome::NoRoom("full".into()), now, None);
        items.finish(&"b".into(), Outcome::NoHolder("nobody".into()), now, None);
        items.wake_early(true, now);
        assert_eq!(items.next_wake(), Some(now + RETRY_MIN));
        items.wake(now + RETRY_MIN);
        assert_eq!((items.waiting(), items.wait_for_room()), (1, false));
    }
}
