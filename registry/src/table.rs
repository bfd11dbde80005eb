//! The lease table: who has which name, until when, and what changed since when.
//!
//! Time and randomness are passed in, nothing here waits, writes or spawns. A Register or Leave comes in two
//! steps, so that nothing shows before it is on disk: `prepare_*` checks it and takes the name, the caller writes the
//! [`Change`] it gives, and [`Table::commit`] or [`Table::abort`] ends it. Until then further changes of that name are
//! answered [`Refusal::Busy`], while its present lease goes on as before.
//!
//! Pure: no I/O, no clock, no randomness of its own.

mod addresses;
mod cursor;
mod deadlines;
mod labels;
mod lease;
mod peer;
mod query;
mod record;
mod register;
mod registrations;
mod restore;
mod view;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use labels::Labels;
pub use lease::Lease;
pub use peer::{PackedStrings, Peer, to_ipv6};
pub use query::{PAGE_MAX, Query};
pub use register::{Change, Prepared, Registration};
pub use registrations::Registrations;
pub use view::duration;

use addresses::Addresses;
use deadlines::Deadlines;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use record::Records;
use std::collections::BTreeMap;

/// How long the record of a peer that left is kept: registrations are counted over as many days.
pub const FORGET_AFTER_MS: u64 = registrations::WINDOW_DAYS as u64 * registrations::DAY_MS;
/// KeepAlives a second that a registry asks for at most: a tenth of what one core answers, so most of it is left for
/// queries and for storms. Past this times ttl/3 peers, the interval grows.
pub const TARGET_KEEPALIVES_PER_SECOND: u64 = 5_000;
/// KeepAlives that fit into one ttl: two may be lost.
pub const KEEPALIVES_PER_TTL: u64 = 3;
/// Revisions reserved on disk ahead of use. After a crash numbering goes on beyond them, so it never goes back.
/// While the disk fails the revision can grow by one expiry per active peer only, so half a block outlasts that.
pub const REVISION_BLOCK: u64 = 1 << 24;
/// Most peers a table can be told to keep.
pub const PEERS_MAX: u32 = 8_000_000;
const _: () = assert!((PEERS_MAX as u64) < REVISION_BLOCK / 2, "expiries alone must not use up a block");

/// One moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; leases run by it.
    pub mono_ms: u64,
    /// Milliseconds since 1970, for people and for the 30 days.
    pub wall_ms: u64,
}

/// What a table allows.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The lease of a small population, in milliseconds.
    pub ttl_ms: u64,
    /// Records kept at most: active peers, those that left, and observers.
    pub max_peers: u32,
    /// Leases that callers from one address may hold at once (one /64 for IPv6); loopback is exempt.
    pub max_peers_per_address: u32,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The name is active elsewhere.
    NameTaken {
        /// The name as its holder spells it.
        name: Box<str>,
        /// What is left of its lease, rounded up.
        retry_after_seconds: u64,
    },
    /// No record has this cookie.
    CookieUnknown,
    /// The lease ran out, or the peer left.
    LeaseExpired,
    /// The table keeps as many active peers as it may.
    Full {
        /// That many.
        max: u32,
    },
    /// Callers from this address hold as many leases as they may.
    AddressFull {
        /// That many.
        max: u32,
    },
    /// A change of this name is being written; try again when it is done.
    Busy,
    /// The page token is not one given for this query.
    PageTokenInvalid,
}

/// Numbers for status pages and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Peers with a lease.
    pub active: usize,
    /// Peers that left or whose lease ran out, remembered for [`FORGET_AFTER_MS`].
    pub inactive: usize,
    /// Callers that only ask.
    pub observers: usize,
    /// The change counter.
    pub revision: u64,
    /// Records that the store does not hold as they are now.
    pub dirty: usize,
}

/// See the module.
pub struct Table {
    settings: Settings,
    records: Records,
    deadlines: Deadlines,
    /// Slots of active peers in no order, for random samples.
    active: Vec<u32>,
    /// Active peers by the revision of their last change.
    changed: BTreeMap<u64, u32>,
    /// Inactive peers by the revision at which they became so: the oldest first.
    inactive: BTreeMap<u64, u32>,
    observers: usize,
    addresses: Addresses,
    /// Slots whose record on disk differs from the one here, each once.
    dirty: Vec<u32>,
    /// How many of them are on their way to the disk.
    flushing: usize,
    revision: u64,
    /// Deltas from before this revision cannot be told.
    compacted_revision: u64,
    /// Revisions below this are reserved on disk.
    ceiling: u64,
    rng: StdRng,
    token_key: [u8; 32],
}

impl Table {
    /// An empty table. `seed` keys its hashes and page tokens, and feeds its random choices.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let (name_key, token_key) = (rng.random(), rng.random());
        Self {
            settings,
            records: Records::new(name_key),
            deadlines: Deadlines::default(),
            active: Vec::new(),
            changed: BTreeMap::new(),
            inactive: BTreeMap::new(),
            observers: 0,
            addresses: Addresses::default(),
            dirty: Vec::new(),
            flushing: 0,
            revision: 1,
            compacted_revision: 1,
            ceiling: REVISION_BLOCK,
            rng,
            token_key,
        }
    }

    /// Numbers for status pages and metrics.
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.active.len(),
            inactive: self.inactive.len(),
            observers: self.observers,
            revision: self.revision,
            dirty: self.dirty.len() + self.flushing,
        }
    }

    /// The change counter.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Up to `limit` active peers, for the status page.
    pub fn some_active(&self, limit: usize, now: Now) -> Vec<p2pdi::v1::PeerRecord> {
        self.active.iter().take(limit).filter_map(|slot| self.records.get(*slot)).map(|record| view::peer(record, now)).collect()
    }

    /// Takes up to `limit` slots whose record must be written again, each with what the store shall hold there
    /// (`None`: nothing). End it with [`Table::settle_dirty`] before taking more.
    pub fn take_dirty(&mut self, limit: usize) -> Vec<(u32, Option<Peer>)> {
        let from = self.dirty.len().saturating_sub(limit);
        let slots = self.dirty.split_off(from);
        let mut taken = Vec::with_capacity(slots.len());
        for slot in slots {
            match self.records.get_mut(slot) {
                // The change under way writes this slot; if it fails, the slot comes back here.
                Some(record) if record.in_flight => record.dirty = false,
                Some(record) if record.is_observer() => taken.push((slot, None)),
                Some(record) => {
                    (record.dirty, record.flushing) = (false, true);
                    taken.push((slot, Some(record.peer.clone())));
                }
                None => taken.push((slot, None)),
            }
        }
        self.flushing = taken.len();
        taken
    }

    /// Ends what [`Table::take_dirty`] began: `slots` are on disk now, or are to be written again.
    pub fn settle_dirty(&mut self, slots: impl IntoIterator<Item = u32>, on_disk: bool) {
        self.flushing = 0;
        for slot in slots {
            if let Some(record) = self.records.get_mut(slot) {
                record.flushing = false;
            }
            if !on_disk {
                self.mark_dirty(slot);
            }
        }
    }

    fn mark_dirty(&mut self, slot: u32) {
        match self.records.get_mut(slot) {
            Some(record) if record.dirty => {}
            Some(record) => {
                record.dirty = true;
                self.dirty.push(slot);
            }
            // An empty slot has nowhere to note it: at worst its removal is written twice.
            None => self.dirty.push(slot),
        }
    }

    /// The ceiling of revisions to write next, once less than half a block is left.
    pub fn ceiling_wanted(&self) -> Option<u64> {
        (self.ceiling.saturating_sub(self.revision) < REVISION_BLOCK / 2).then(|| self.revision + REVISION_BLOCK)
    }

    /// Notes that revisions below `ceiling` are reserved on disk.
    pub fn ceiling_written(&mut self, ceiling: u64) {
        self.ceiling = ceiling;
    }

    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }
}
