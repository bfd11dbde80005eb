//! The other peers, as the registry last listed them.

use p2pdi::{contact::Contact, log_limit::LogLimit, name::PeerName, v1};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::watch;

/// Most entries accepted in one listing, and most peers kept: protects against a registry that lists more peers than its count.
pub(super) const LISTED_MAX: usize = 2_000;

/// The known peers. Cheap to clone.
#[derive(Clone)]
pub struct KnownPeers {
    peers: Arc<RwLock<BTreeMap<PeerName, Contact>>>,
    changed: Arc<watch::Sender<()>>,
    sampled: Arc<AtomicBool>,
    log: Arc<LogLimit>,
}

impl Default for KnownPeers {
    fn default() -> Self {
        Self { peers: Arc::default(), changed: Arc::default(), sampled: Arc::default(), log: Arc::new(LogLimit::new(1)) }
    }
}

/// One listing of the registry, all its pages together.
#[derive(Default)]
pub(super) struct Listing {
    /// It replaces all known peers.
    pub(super) start_over: bool,
    /// It is a random sample.
    pub(super) sample: bool,
    pub(super) peers: Vec<v1::PeerRecord>,
    pub(super) gone: Vec<v1::PeerGone>,
}

impl KnownPeers {
    /// The peer of this name.
    pub fn find(&self, name: &PeerName) -> Option<Contact> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All known peers, by name.
    pub fn all(&self) -> Vec<Contact> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many peers are known.
    pub fn len(&self) -> usize {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no peer is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every active peer is listed. If not, this is a random sample, and a peer that is not in it may be active as well.
    pub fn are_all(&self) -> bool {
        !self.sampled.load(Ordering::Relaxed)
    }

    /// Notifies of each change: a peer joined, left or moved.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Applies a listing.
    pub(super) fn update(&self, listing: Listing) {
        if !listing.start_over && listing.peers.is_empty() && listing.gone.is_empty() {
            return;
        }
        self.sampled.store(listing.sample, Ordering::Relaxed);
        let (listed, invalid): (Vec<_>, Vec<_>) = listing.peers.iter().map(Contact::try_from).partition(Result::is_ok);
        if let Some(Err(error)) = invalid.first()
            && let Some(line) = self.log.line()
        {
            let (count, suppressed) = (invalid.len(), line.suppressed);
            tracing::warn!(count, first = %error, suppressed, "ignoring invalid peers in the registry's listing");
        }
        let changed = {
            let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
            let mut next = if listing.start_over { BTreeMap::new() } else { peers.clone() };
            for gone in &listing.gone {
                if let Ok(name) = gone.name.parse() {
                    next.remove::<PeerName>(&name);
                }
            }
            for peer in listed.into_iter().flatten() {
                let name = peer.name().clone();
                if next.len() < LISTED_MAX || next.contains_key(&name) {
                    next.insert(name, peer);
                }
            }
            let changed = next != *peers;
            *peers = next;
            changed
        };
        if changed {
            self.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, port: u16) -> v1::PeerRecord {
        v1::PeerRecord { id: vec![1; 16].into(), name: name.into(), endpoint: format!("127.0.0.1:{port}"), ..Default::default() }
    }

    #[test]
    fn deltas_are_applied_and_a_listing_that_starts_over_replaces_all_peers() {
        let known = KnownPeers::default();
        known.update(Listing {
            start_over: true,
            peers: vec![record("a", 1), record("B", 2), record("no good", 3)],
            ..Default::default()
        });
        assert_eq!(known.len(), 2);
        let gone = v1::PeerGone { name: "A".into(), ..Default::default() };
        known.update(Listing { peers: vec![record("b", 4)], gone: vec![gone], ..Default::default() });
        assert_eq!(known.find(&"b".parse().unwrap()).unwrap().endpoint().port(), 4);
        assert_eq!(known.len(), 1);
        let changes = known.changes();
        known.update(Listing::default());
        assert!(!changes.has_changed().unwrap());
        known.update(Listing { start_over: true, ..Default::default() });
        assert!(known.is_empty() && changes.has_changed().unwrap());
    }

    #[test]
    fn a_sample_is_not_taken_for_all_peers_and_the_number_of_peers_is_bounded() {
        let known = KnownPeers::default();
        known.update(Listing { start_over: true, sample: true, peers: vec![record("a", 1)], ..Default::default() });
        assert!(!known.are_all());
        let many = (0..=LISTED_MAX).map(|n| record(&format!("p{n}"), 1)).collect();
        known.update(Listing { start_over: true, peers: many, ..Default::default() });
        assert!(known.are_all());
        assert_eq!(known.len(), LISTED_MAX);
    }
}
