//! Records in slots, found by name and by cookie.

use super::{peer::Peer, shard::shard_of_name};
use crate::hash_index::HashIndex;
use p2pdi::{cookie::CookieHash, v1::Load};
use std::num::NonZeroU64;

/// The state of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordState {
    /// Its first registration is in flight; it is not shown yet.
    Joining,
    /// It has a lease.
    Active,
    /// It left, or its lease ran out.
    Inactive,
    /// It has a lease, is not stored and cannot be dialled.
    Observer,
}

/// A peer, with what is not stored.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) peer: Peer,
    /// End of the lease, by the monotonic clock; of an inactive record: until then its name is reserved for its cookie.
    pub(super) deadline_ms: u64,
    /// Revision of the latest change; 0: none was stored.
    pub(super) revision: u64,
    /// Revision at which the labels last changed.
    pub(super) labels_revision: u64,
    pub(super) index_version: u64,
    pub(super) documents: u64,
    /// When this process last saw a call of the peer, in milliseconds of uptime; `None`: the peer was loaded.
    pub(super) called_uptime_ms: Option<NonZeroU64>,
    pub(super) load: Load,
    /// Tick at which the deadline is checked again; 0: none.
    pub(super) scheduled_tick: u32,
    /// Index in the table's list of active peers.
    pub(super) active_index: u32,
    pub(super) state: RecordState,
    /// Shard of its name.
    pub(super) shard: u8,
    /// Whether this registry keeps the lease; otherwise another one ends it.
    pub(super) kept: bool,
    /// Whether it is in `Table::extended`.
    pub(super) extended: bool,
    /// Whether `load` was reported.
    pub(super) load_reported: bool,
    /// Of an observer: whether the other registries were asked for its name.
    pub(super) claimed: bool,
    /// Of an observer: whether its certificate carries its name.
    pub(super) owned: bool,
    /// The change that was decided, and that the store has not answered yet: 1 + the revision it was decided on.
    in_flight: Option<NonZeroU64>,
}

impl Record {
    /// A record whose lease this registry keeps.
    pub(super) fn new(peer: Peer, state: RecordState) -> Self {
        Self {
            shard: shard_of_name(peer.strings.name()),
            kept: true,
            extended: false,
            peer,
            deadline_ms: 0,
            revision: 0,
            labels_revision: 0,
            index_version: 0,
            documents: 0,
            called_uptime_ms: None,
            load: Load::default(),
            scheduled_tick: 0,
            active_index: 0,
            state,
            load_reported: false,
            claimed: false,
            owned: false,
            in_flight: None,
        }
    }

    /// Whether a change was decided that the store has not answered yet.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Holds the record for a change decided on its present revision.
    pub(super) fn begin_change(&mut self) {
        self.in_flight = NonZeroU64::new(self.revision.saturating_add(1));
    }

    /// Ends the change decided on `expected_revision`. Says whether it is the one that holds the record: the record may have been
    /// removed since, and registered anew.
    pub(super) fn end_change(&mut self, expected_revision: u64) -> bool {
        let is_own = self.in_flight == NonZeroU64::new(expected_revision.saturating_add(1));
        if is_own {
            self.in_flight = None;
        }
        is_own
    }

    pub(super) fn is_observer(&self) -> bool {
        self.state == RecordState::Observer
    }

    /// Until when nobody else may have the name, by the monotonic clock. A peer's name stays reserved for `name_hold_ms` after its lease.
    pub(super) fn reserved_until_ms(&self, name_hold_ms: u64) -> u64 {
        match self.state {
            RecordState::Joining => 0,
            RecordState::Active => self.deadline_ms.saturating_add(name_hold_ms),
            RecordState::Inactive | RecordState::Observer => self.deadline_ms,
        }
    }

    /// Whether it has a lease that has not run out. Of one that another registry keeps only that one knows: it is over when that is stored.
    pub(super) fn is_live(&self, mono_ms: u64) -> bool {
        matches!(self.state, RecordState::Active | RecordState::Observer) && (!self.kept || self.deadline_ms > mono_ms)
    }
}

/// Records in slots, found by name and by cookie. A record keeps its slot, so slots are a stable order for pages.
pub(super) struct Records {
    slots: Vec<Option<Record>>,
    free: Vec<u32>,
    by_name: HashIndex,
    by_cookie: HashIndex,
    /// Callers choose names. Without a secret key they could choose names that collide.
    name_key: [u8; 32],
    /// Callers may propose cookies. Without a secret factor they could search for some whose hashes collide.
    cookie_factor: u64,
}

impl Records {
    pub(super) fn new(name_key: [u8; 32], cookie_key: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_name: HashIndex::default(),
            by_cookie: HashIndex::default(),
            name_key,
            cookie_factor: cookie_key | 1,
        }
    }

    /// Multiply-shift hashing: a cookie's hash is random already, so this needs only the secret.
    fn cookie_hash(&self, cookie: &CookieHash) -> u32 {
        let [a, b, c, d, e, f, g, h, ..] = *cookie.as_bytes();
        let product = u64::from_le_bytes([a, b, c, d, e, f, g, h]).wrapping_mul(self.cookie_factor);
        u32::try_from(product >> 32).unwrap_or_default()
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots, used or not.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Record> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Record> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    fn name_hash(&self, name: &str) -> u32 {
        let mut hasher = blake3::Hasher::new_keyed(&self.name_key);
        let mut lower = [0; p2pdi::name::NAME_MAX_BYTES];
        let lower = &mut lower[..name.len().min(p2pdi::name::NAME_MAX_BYTES)];
        for (to, from) in lower.iter_mut().zip(name.bytes()) {
            *to = from.to_ascii_lowercase();
        }
        let hash = *hasher.update(lower).finalize().as_bytes();
        u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
    }

    /// The slots of the peer and of the observer with this name, compared without case.
    pub(super) fn by_name(&self, name: &str) -> (Option<u32>, Option<u32>) {
        let hash = self.name_hash(name);
        let find = |observer| {
            let is_it = |r: &Record| r.is_observer() == observer && r.peer.strings.name().eq_ignore_ascii_case(name);
            self.by_name.slots(hash).find(|slot| self.get(*slot).is_some_and(is_it))
        };
        (find(false), find(true))
    }

    pub(super) fn by_cookie(&self, cookie: &CookieHash) -> Option<u32> {
        self.by_cookie.slots(self.cookie_hash(cookie)).find(|slot| self.get(*slot).is_some_and(|r| r.peer.cookie == *cookie))
    }

    /// Puts `record` into a free slot and indexes its name. Its cookie is indexed by [`Records::index_cookie`].
    pub(super) fn insert(&mut self, record: Record) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(None);
                slot
            }
        };
        self.fill(slot, record);
        Some(slot)
    }

    fn fill(&mut self, slot: u32, record: Record) {
        let hash = self.name_hash(record.peer.strings.name());
        self.slots[slot as usize] = Some(record);
        self.by_name.insert(hash, slot);
    }

    pub(super) fn index_cookie(&mut self, slot: u32, cookie: &CookieHash) {
        self.by_cookie.insert(self.cookie_hash(cookie), slot);
    }

    pub(super) fn unindex_cookie(&mut self, slot: u32, cookie: &CookieHash) {
        self.by_cookie.remove(self.cookie_hash(cookie), slot);
    }

    /// Empties `slot`.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Record> {
        let record = self.slots.get_mut(slot as usize)?.take()?;
        let hash = self.name_hash(record.peer.strings.name());
        self.by_name.remove(hash, slot);
        self.unindex_cookie(slot, &record.peer.cookie);
        self.free.push(slot);
        Some(record)
    }
}
