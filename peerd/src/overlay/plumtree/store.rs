//! Recent broadcasts, stored for neighbours that missed them.

use std::{collections::VecDeque, ops::Range, time::Duration};

use bytes::Bytes;
use indexmap::IndexMap;
use p2pdi::v1::Signature;

use super::MessageId;
use crate::overlay::{PeerId, Time};

/// A stored broadcast.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The payload.
    pub payload: Bytes,
    /// The origin's signature, some 100 bytes.
    pub signature: Option<Signature>,
    /// Links it travelled to this peer.
    pub hops: u32,
    /// When its origin sent it, by this peer's clock.
    pub sent_at: Time,
    /// The neighbour that sent it; `None`: this peer is the origin.
    pub from: Option<PeerId>,
}

/// Broadcasts in the order of arrival, bounded in number and size.
#[derive(Debug)]
pub struct Store {
    broadcasts: IndexMap<MessageId, Stored>,
    /// By arrival.
    order: VecDeque<(Time, MessageId)>,
    bytes: usize,
    max_count: usize,
    max_bytes: usize,
}

impl Store {
    /// Stores at most `max_count` broadcasts, with payloads of `max_bytes` bytes in total.
    pub fn new(max_count: usize, max_bytes: usize) -> Self {
        Self { broadcasts: IndexMap::new(), order: VecDeque::new(), bytes: 0, max_count, max_bytes }
    }

    /// Number of broadcasts.
    pub fn len(&self) -> usize {
        self.broadcasts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.broadcasts.is_empty()
    }

    /// A broadcast.
    pub fn get(&self, id: &MessageId) -> Option<&Stored> {
        self.broadcasts.get(id)
    }

    /// The broadcasts that arrived within a time range, oldest first.
    pub fn arrived(&self, within: Range<Time>) -> impl Iterator<Item = MessageId> {
        let index = |then: Time| self.order.partition_point(|(at, _)| *at < then);
        self.order.range(index(within.start)..index(within.end.max(within.start))).map(|(_, id)| *id)
    }

    /// How long a broadcast stays before the limits push it out, going by the oldest; `None` if the store is less than three quarters full.
    pub fn effective_retention(&self, now: Time) -> Option<Duration> {
        let room = self.broadcasts.len() < self.max_count / 4 * 3 && self.bytes < self.max_bytes / 4 * 3;
        let oldest = self.order.front().filter(|_| !room);
        oldest.map(|(at, _)| now.saturating_sub(*at))
    }

    /// Adds a broadcast that arrived `now`; drops the oldest ones if a limit is exceeded.
    pub fn insert(&mut self, id: MessageId, stored: Stored, now: Time) {
        self.bytes += stored.payload.len();
        if let Some(old) = self.broadcasts.insert(id, stored) {
            self.bytes -= old.payload.len();
        } else {
            self.order.push_back((now, id));
        }
        while self.broadcasts.len() > self.max_count || self.bytes > self.max_bytes {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    /// Drops the broadcasts that arrived before `then`.
    pub fn expire(&mut self, then: Time) {
        while self.order.front().is_some_and(|(at, _)| *at < then) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, id)) = self.order.pop_front() else {
            return false;
        };
        if let Some(old) = self.broadcasts.swap_remove(&id) {
            self.bytes -= old.payload.len();
        }
        true
    }
}
