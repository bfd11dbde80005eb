//! What a table holds.

use super::{
    addresses::Addresses, brake::Brake, change_log::ChangeLog, deadlines::Deadlines, moment::Now, record::Records,
    settings::Settings, shard::Kept, view,
};
use p2pdi::v1::PeerRecord;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers for status pages and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Peers with a lease.
    pub active: usize,
    /// Peers that left or whose lease ran out, kept for [`super::FORGET_AFTER_MS`].
    pub inactive: usize,
    /// Observers: callers that only query.
    pub observers: usize,
    /// The change counter.
    pub revision: u64,
    /// Changes that the store has not answered yet.
    pub in_flight: usize,
    /// Peers whose lease ran out with many others at once, and is held.
    pub suspects: usize,
}

/// The lease table. See the module.
pub struct Table {
    pub(super) settings: Settings,
    pub(super) records: Records,
    pub(super) deadlines: Deadlines,
    /// Slots of active peers in no order, for random samples.
    pub(super) active: Vec<u32>,
    /// Active peers by the revision of their last change.
    pub(super) changed: BTreeMap<u64, u32>,
    /// Inactive peers by the revision at which they became so: the oldest come first.
    pub(super) inactive: BTreeMap<u64, u32>,
    pub(super) observers: usize,
    pub(super) addresses: Addresses,
    /// Changes that the store has not answered yet.
    pub(super) in_flight: usize,
    /// How many of them remove a record.
    pub(super) removing: usize,
    /// Revision of the latest change applied.
    pub(super) revision: u64,
    /// All records are being read again, in no order: the revision stays until that is done.
    pub(super) reloading: bool,
    /// Deltas since an earlier revision than this are not complete: what they should report has been removed.
    pub(super) compacted_revision: u64,
    /// Shards whose leases this table ends.
    pub(super) kept: Kept,
    /// Slots of leases that were extended, for the registries that keep them.
    pub(super) extended: Vec<u32>,
    /// Leases that are held beyond their end.
    pub(super) suspects: BTreeSet<u32>,
    /// Those that another registry holds, which keeps them.
    pub(super) suspected_elsewhere: BTreeSet<u32>,
    pub(super) brake: Brake,
    /// The latest changes, for those who watch.
    pub(super) log: ChangeLog,
    pub(super) rng: StdRng,
    /// Key of the page tokens' authentication codes.
    pub(super) token_key: [u8; 32],
}

impl Table {
    /// An empty table. `seed` keys its hashes and page tokens, and feeds its random choices.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let (name_key, cookie_key, token_key) = (rng.random(), rng.random(), rng.random());
        Self {
            settings,
            records: Records::new(name_key, cookie_key),
            deadlines: Deadlines::default(),
            active: Vec::new(),
            changed: BTreeMap::new(),
            inactive: BTreeMap::new(),
            observers: 0,
            addresses: Addresses::default(),
            in_flight: 0,
            removing: 0,
            revision: 1,
            reloading: false,
            compacted_revision: 1,
            kept: Kept::ALL,
            extended: Vec::new(),
            suspects: BTreeSet::new(),
            suspected_elsewhere: BTreeSet::new(),
            brake: Brake::default(),
            log: ChangeLog::default(),
            rng,
            token_key,
        }
    }

    /// Page tokens of every table with this key are the same.
    pub fn set_token_key(&mut self, key: [u8; 32]) {
        self.token_key = key;
    }

    /// Other limits from now on. Leases that exist stay.
    pub fn set_limits(&mut self, max_peers: u32, max_peers_per_address: u32) {
        self.settings.max_peers = max_peers;
        self.settings.max_peers_per_address = max_peers_per_address;
    }

    /// Most records.
    pub fn max_peers(&self) -> u32 {
        self.settings.max_peers
    }

    /// Numbers for status pages and metrics.
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.active.len(),
            inactive: self.inactive.len(),
            observers: self.observers,
            revision: self.revision,
            in_flight: self.in_flight,
            suspects: self.suspects.len(),
        }
    }

    /// Names of records with a change that the store has not answered yet, `limit` at most.
    pub fn unwritten(&self, limit: usize) -> Vec<&str> {
        let slots = 0..u32::try_from(self.records.slots()).unwrap_or(u32::MAX);
        let in_flight = slots.filter_map(|slot| self.records.get(slot)).filter(|record| record.is_in_flight());
        in_flight.map(|record| record.peer.strings.name()).take(limit).collect()
    }

    /// The change counter.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Peers whose last change has a revision in `from..=until`, in the order of the revisions: revision and slot.
    pub(super) fn changes(&self, from: u64, until: u64) -> impl Iterator<Item = (u64, u32)> {
        let until = until.max(from);
        let mut changed = self.changed.range(from..=until).peekable();
        let mut inactive = self.inactive.range(from..=until).peekable();
        std::iter::from_fn(move || {
            let is_active = match (changed.peek(), inactive.peek()) {
                (Some((changed, _)), Some((inactive, _))) => changed < inactive,
                (changed, _) => changed.is_some(),
            };
            let next = if is_active { changed.next() } else { inactive.next() };
            next.map(|(revision, slot)| (*revision, *slot))
        })
    }

    /// Up to `limit` active peers, for the status page.
    pub fn some_active(&self, limit: usize, now: Now) -> Vec<PeerRecord> {
        self.active.iter().take(limit).filter_map(|slot| self.records.get(*slot)).map(|record| view::peer(record, now)).collect()
    }

    /// The peers that registered or left last, at most `limit`, in the order of these changes.
    pub fn latest_changes(&self, limit: usize, now: Now) -> Vec<PeerRecord> {
        let newest =
            |index: &BTreeMap<u64, u32>| index.iter().rev().take(limit).map(|(at, slot)| (*at, *slot)).collect::<Vec<_>>();
        let mut slots = newest(&self.changed);
        slots.extend(newest(&self.inactive));
        slots.sort_unstable_by_key(|(revision, _)| *revision);
        let latest = slots.split_off(slots.len().saturating_sub(limit));
        latest.iter().filter_map(|(_, slot)| self.records.get(*slot)).map(|record| view::peer(record, now)).collect()
    }
}
