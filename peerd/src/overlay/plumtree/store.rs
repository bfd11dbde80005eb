//! The broadcasts kept for those that missed them.

use std::{collections::VecDeque, ops::Range, time::Duration};

use bytes::Bytes;
use indexmap::IndexMap;

use super::MessageId;
use crate::overlay::{PeerId, Time};

/// A broadcast as this peer has it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What was broadcast.
    pub payload: Bytes,
    /// Links it travelled to get here.
    pub hops: u32,
    /// When its origin sent it, by this peer's clock.
    pub born: Time,
    /// Who brought it; `None` if it is this peer's own.
    pub from: Option<PeerId>,
}

/// Broadcasts, oldest first, within a number and a size.
#[derive(Debug)]
pub struct Store {
    kept: IndexMap<MessageId, Kept>,
    /// By arrival.
    order: VecDeque<(Time, MessageId)>,
    bytes: usize,
    max_count: usize,
    max_bytes: usize,
}

impl Store {
    /// Keeps at most `max_count` broadcasts with payloads of `max_bytes` together.
    pub fn new(max_count: usize, max_bytes: usize) -> Self {
        Self { kept: IndexMap::new(), order: VecDeque::new(), bytes: 0, max_count, max_bytes }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// One of them.
    pub fn get(&self, id: &MessageId) -> Option<&Kept> {
        self.kept.get(id)
    }

    /// Those that arrived within a time, oldest first.
    pub fn arrived(&self, within: Range<Time>) -> impl Iterator<Item = MessageId> {
        let place = |then: Time| self.order.partition_point(|(at, _)| *at < then);
        self.order.range(place(within.start)..place(within.end.max(within.start))).map(|(_, id)| *id)
    }

    /// How long one is kept now, as far as the limits go; `None` if there is much room.
    pub fn keeps_for(&self, now: Time) -> Option<Duration> {
        let room = self.kept.len() < self.max_count / 4 * 3 && self.bytes < self.max_bytes / 4 * 3;
        let oldest = self.order.front().filter(|_| !room);
        oldest.map(|(at, _)| now.saturating_sub(*at))
    }

    /// Adds one that arrived `now`, in the place of the oldest where there is no room.
    pub fn insert(&mut self, id: MessageId, kept: Kept, now: Time) {
        self.bytes += kept.payload.len();
        if let Some(old) = self.kept.insert(id, kept) {
            self.bytes -= old.payload.len();
        } else {
            self.order.push_back((now, id));
        }
        while self.kept.len() > self.max_count || self.bytes > self.max_bytes {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    /// Drops what arrived before `then`.
    pub fn expire(&mut self, then: Time) {
        while self.order.front().is_some_and(|(at, _)| *at < then) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, id)) = self.order.pop_front() else {
            return false;
        };
        if let Some(old) = self.kept.swap_remove(&id) {
            self.bytes -= old.payload.len();
        }
        true
    }
}
