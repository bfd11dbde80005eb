//! What operators see and copy: all records.

use super::{
    listing::SCAN_MAX,
    moment::Now,
    peer::Peer,
    query::PAGE_MAX,
    record::{Record, RecordState},
    state::Table,
    view,
};
use p2pdi::{
    selector::NamePattern,
    v1::{RegistryRecord, RegistryRecordState},
};

impl Table {
    /// Whether a peer has, or had, a lease, or is about to: nothing may be restored into such a table.
    pub fn has_records(&self) -> bool {
        !self.active.is_empty() || !self.inactive.is_empty() || self.in_flight > 0
    }

    /// The revision, and all that is stored at it. Copies the whole table: some 200 ms for a million peers.
    pub fn stored(&self) -> (u64, Vec<Peer>) {
        let slots = self.active.iter().chain(self.inactive.values());
        (self.revision, slots.filter_map(|slot| self.records.get(*slot)).map(|record| record.peer.clone()).collect())
    }

    /// Records from slot `from` on whose names match. Gives the slot where the next page begins.
    pub fn administered(&self, from: u32, pattern: Option<&NamePattern>, now: Now) -> (Vec<RegistryRecord>, Option<u32>) {
        let end = u32::try_from(self.records.slots()).unwrap_or(u32::MAX);
        let mut records = Vec::new();
        for (scanned, slot) in (from..end).enumerate() {
            if scanned >= SCAN_MAX || records.len() >= PAGE_MAX {
                return (records, Some(slot));
            }
            let selected = |record: &&Record| pattern.is_none_or(|pattern| pattern.matches(record.peer.strings.name()));
            records.extend(self.records.get(slot).filter(selected).and_then(|record| administered(record, now)));
        }
        (records, None)
    }
}

fn administered(record: &Record, now: Now) -> Option<RegistryRecord> {
    let state = match record.state {
        RecordState::Joining => return None,
        RecordState::Active if record.is_live(now.mono_ms) => RegistryRecordState::Active,
        RecordState::Active | RecordState::Inactive => RegistryRecordState::Inactive,
        RecordState::Observer => RegistryRecordState::Observer,
    };
    let shown = view::peer(record, now);
    let remaining_ms = record.deadline_ms.saturating_sub(now.mono_ms);
    Some(RegistryRecord {
        name: shown.name,
        endpoint: shown.endpoint,
        labels: shown.labels,
        id: shown.id,
        state: state.into(),
        registered_from: record.peer.address.to_canonical().to_string(),
        last_registered_at: shown.last_registered_at,
        last_active_at: shown.last_active_at,
        registration_count: shown.registration_count,
        revision: shown.revision,
        remaining: Some(view::duration(remaining_ms)),
    })
}
