//! Records in slots, found by name and by cookie.

use super::Peer;
use hashbrown::HashTable;
use p2pdi::{cookie::CookieHash, v1::Load};

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordState {
    /// Its first registration is being written; nobody sees it yet.
    Joining,
    /// It has a lease.
    Active,
    /// It left, or its lease ran out.
    Inactive,
    /// It has a lease and only asks.
    Observer,
}

/// A peer and what is known of it while this process runs.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) peer: Peer,
    /// End of the lease, by the clock that never goes back.
    pub(super) deadline_ms: u64,
    /// Revision of the latest change.
    pub(super) revision: u64,
    /// Revision at which the labels last changed.
    pub(super) labels_revision: u64,
    pub(super) index_version: u64,
    pub(super) load: Load,
    /// Tick at which the deadline is looked at again; 0: none.
    pub(super) scheduled_tick: u32,
    /// Index in the table's list of active peers.
    pub(super) active_index: u32,
    pub(super) state: RecordState,
    /// Whether `load` was reported.
    pub(super) load_reported: bool,
    /// A change is being written.
    pub(super) in_flight: bool,
    /// Listed among those the store holds otherwise.
    pub(super) dirty: bool,
    /// Taken from that list and not on disk yet.
    pub(super) flushing: bool,
}

impl Record {
    pub(super) fn new(peer: Peer, state: RecordState) -> Self {
        Self {
            peer,
            deadline_ms: 0,
            revision: 0,
            labels_revision: 0,
            index_version: 0,
            load: Load::default(),
            scheduled_tick: 0,
            active_index: 0,
            state,
            load_reported: false,
            in_flight: false,
            dirty: false,
            flushing: false,
        }
    }

    pub(super) fn is_observer(&self) -> bool {
        self.state == RecordState::Observer
    }

    /// Whether it has a lease that has not run out.
    pub(super) fn is_live(&self, mono_ms: u64) -> bool {
        matches!(self.state, RecordState::Active | RecordState::Observer) && self.deadline_ms > mono_ms
    }
}

/// A slot with part of the hash it is filed under, so that a growing index need not visit the records.
type IndexEntry = (u32, u32);

/// Records in slots. A record keeps its slot for life, so slots are a stable order, and a store's key.
pub(super) struct Records {
    slots: Vec<Option<Record>>,
    free: Vec<u32>,
    by_name: HashTable<IndexEntry>,
    by_cookie: HashTable<IndexEntry>,
    /// Names are chosen by strangers: without a secret key they could choose ones that collide.
    name_key: [u8; 32],
}

fn spread(hash: u32) -> u64 {
    // The index takes its bucket from the low bits and its tag from the high ones.
    u64::from(hash) << 32 | u64::from(hash)
}

/// Nobody chooses a cookie's hash, so part of it will do.
fn cookie_hash(cookie: &CookieHash) -> u32 {
    let bytes = cookie.as_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Records {
    pub(super) fn new(name_key: [u8; 32]) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_name: HashTable::new(), by_cookie: HashTable::new(), name_key }
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

    /// The slots of the peer and of the observer of this name. Without regard to case.
    pub(super) fn by_name(&self, name: &str) -> (Option<u32>, Option<u32>) {
        let hash = self.name_hash(name);
        let find = |observer| {
            let is_it = |&(filed, slot): &IndexEntry| {
                filed == hash
                    && self
                        .get(slot)
                        .is_some_and(|r| r.is_observer() == observer && r.peer.strings.name().eq_ignore_ascii_case(name))
            };
            self.by_name.find(spread(hash), is_it).map(|(_, slot)| *slot)
        };
        (find(false), find(true))
    }

    pub(super) fn by_cookie(&self, cookie: &CookieHash) -> Option<u32> {
        let hash = cookie_hash(cookie);
        let is_it = |&(filed, slot): &IndexEntry| filed == hash && self.get(slot).is_some_and(|r| r.peer.cookie == *cookie);
        self.by_cookie.find(spread(hash), is_it).map(|(_, slot)| *slot)
    }

    /// Takes a slot for `record` and files it under its name; under its cookie only by [`Records::index_cookie`].
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

    /// Puts `record` into `slot`, which must be empty; for restoring, then [`Records::collect_free`].
    pub(super) fn insert_at(&mut self, slot: u32, record: Record) -> bool {
        let index = slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if self.slots[index].is_some() {
            return false;
        }
        self.fill(slot, record);
        true
    }

    /// Makes empty slots known as such.
    pub(super) fn collect_free(&mut self) {
        let empty = self.slots.iter().enumerate().filter(|(_, record)| record.is_none());
        self.free = empty.filter_map(|(slot, _)| u32::try_from(slot).ok()).rev().collect();
    }

    fn fill(&mut self, slot: u32, record: Record) {
        let hash = self.name_hash(record.peer.strings.name());
        self.slots[slot as usize] = Some(record);
        self.by_name.insert_unique(spread(hash), (hash, slot), |(hash, _)| spread(*hash));
    }

    pub(super) fn index_cookie(&mut self, slot: u32, cookie: &CookieHash) {
        let hash = cookie_hash(cookie);
        self.by_cookie.insert_unique(spread(hash), (hash, slot), |(hash, _)| spread(*hash));
    }

    pub(super) fn unindex_cookie(&mut self, slot: u32, cookie: &CookieHash) {
        let hash = cookie_hash(cookie);
        if let Ok(filed) = self.by_cookie.find_entry(spread(hash), |filed| *filed == (hash, slot)) {
            filed.remove();
        }
    }

    /// Empties `slot`.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Record> {
        let record = self.slots.get_mut(slot as usize)?.take()?;
        let hash = self.name_hash(record.peer.strings.name());
        if let Ok(filed) = self.by_name.find_entry(spread(hash), |filed| *filed == (hash, slot)) {
            filed.remove();
        }
        self.unindex_cookie(slot, &record.peer.cookie);
        self.free.push(slot);
        Some(record)
    }
}
