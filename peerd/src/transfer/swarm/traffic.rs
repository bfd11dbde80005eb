//! Bytes of one document, by the peer they come from or go to.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::transfer::rate_meter::RateMeter;
use p2pdi::id::PeerId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Most peers whose bytes are counted apart; those of further ones count in the sums only.
const PEERS_MAX: usize = 256;

/// Byte counts of a swarm. Shared by all of its streams.
#[derive(Debug)]
pub(crate) struct Traffic(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    received: RateMeter,
    sent: RateMeter,
    by_peer: BTreeMap<PeerId, PeerCounts>,
}

#[derive(Debug)]
struct PeerCounts {
    received: RateMeter,
    sent: RateMeter,
    requests: u32,
    last_byte: Option<Instant>,
}

/// The counts of one peer, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Bytes.
    pub(crate) received: u64,
    /// Bytes.
    pub(crate) sent: u64,
    /// Bytes a second.
    pub(crate) receive_rate: u64,
    /// Bytes a second.
    pub(crate) send_rate: u64,
    /// Requests sent to it that are not answered in full.
    pub(crate) requests: u32,
    /// Since its last byte.
    pub(crate) idle: Option<Duration>,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Counts { received: RateMeter::default(), sent: RateMeter::default(), by_peer: BTreeMap::new() }))
    }

    /// Bytes arrived from a peer.
    pub(crate) fn received(&self, from: Option<PeerId>, bytes: u64, now: Instant) {
        let mut counts = self.lock();
        counts.received.add(bytes, now);
        if let Some(peer) = counts.peer(from) {
            peer.received.add(bytes, now);
            peer.last_byte = Some(now);
        }
    }

    /// Bytes went to a peer.
    pub(crate) fn sent(&self, to: Option<PeerId>, bytes: u64, now: Instant) {
        let mut counts = self.lock();
        counts.sent.add(bytes, now);
        if let Some(peer) = counts.peer(to) {
            peer.sent.add(bytes, now);
        }
    }

    /// Requests at a peer that are not answered in full.
    pub(crate) fn set_requests(&self, at: Option<PeerId>, requests: u32) {
        if let Some(peer) = self.lock().peer(at) {
            peer.requests = requests;
        }
    }

    /// Bytes a second that go to a peer.
    pub(crate) fn upload_rate(&self, to: PeerId, now: Instant) -> u64 {
        self.lock().by_peer.get_mut(&to).map_or(0, |peer| peer.sent.rate(now))
    }

    /// The counts of one peer.
    pub(crate) fn of(&self, peer: PeerId, now: Instant) -> Totals {
        let mut counts = self.lock();
        counts.by_peer.get_mut(&peer).map_or_else(Totals::default, |peer| Totals {
            received: peer.received.total(),
            sent: peer.sent.total(),
            receive_rate: peer.received.rate(now),
            send_rate: peer.sent.rate(now),
            requests: peer.requests,
            idle: peer.last_byte.map(|at| now.saturating_duration_since(at)),
        })
    }

    /// The counts of all peers.
    pub(crate) fn sum(&self, now: Instant) -> Totals {
        let mut counts = self.lock();
        Totals {
            received: counts.received.total(),
            sent: counts.sent.total(),
            receive_rate: counts.received.rate(now),
            send_rate: counts.sent.rate(now),
            ..Totals::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn peer(&mut self, id: Option<PeerId>) -> Option<&mut PeerCounts> {
        let id = id?;
        if self.by_peer.len() >= PEERS_MAX && !self.by_peer.contains_key(&id) {
            return None;
        }
        let new = || PeerCounts { received: RateMeter::default(), sent: RateMeter::default(), requests: 0, last_byte: None };
        Some(self.by_peer.entry(id).or_insert_with(new))
    }
}
