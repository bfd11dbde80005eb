//! A table from what a store kept.

use super::{
    Now, Peer, REVISION_BLOCK, Table,
    record::{Record, RecordState},
};

impl Table {
    /// Puts a peer back into its slot. Call [`Table::restored`] after the last one. `false`: the slot or the name is
    /// taken, so the store is not one that this table wrote.
    pub fn restore(&mut self, slot: u32, peer: Peer) -> bool {
        if self.records.by_name(peer.strings.name()).0.is_some() {
            return false;
        }
        let (cookie, state) = (peer.cookie, if peer.active { RecordState::Active } else { RecordState::Inactive });
        if !self.records.insert_at(slot, Record::new(peer, state)) {
            return false;
        }
        self.records.index_cookie(slot, &cookie);
        true
    }

    /// Everyone is back: who was active is active again for one whole ttl. Revisions go on from `ceiling`, below which
    /// some were given out before, and the next block of them is to be written ([`Table::ceiling_wanted`]).
    pub fn restored(&mut self, ceiling: u64, now: Now) {
        self.records.collect_free();
        self.revision = ceiling.max(1);
        let mut inactive = Vec::new();
        for slot in 0..u32::try_from(self.records.slots()).unwrap_or(u32::MAX) {
            let Some(record) = self.records.get_mut(slot) else { continue };
            if record.state == RecordState::Inactive {
                inactive.push((record.peer.last_active_ms, slot));
                continue;
            }
            self.revision += 1;
            record.revision = self.revision;
            record.active_index = u32::try_from(self.active.len()).unwrap_or(u32::MAX);
            let address = record.peer.address;
            self.active.push(slot);
            self.changed.insert(self.revision, slot);
            self.addresses.add(address);
        }
        inactive.sort_unstable();
        for (_, slot) in inactive {
            let revision = self.next_revision();
            self.inactive.insert(revision, slot);
            if let Some(record) = self.records.get_mut(slot) {
                record.revision = revision;
            }
        }
        // Only now is the population known, and with it the ttl. It is not the peers who were active now.
        for index in 0..self.active.len() {
            let slot = self.active[index];
            let last_active_ms = self.records.get(slot).map(|record| record.peer.last_active_ms);
            self.extend(slot, now);
            if let (Some(record), Some(last_active_ms)) = (self.records.get_mut(slot), last_active_ms) {
                record.peer.last_active_ms = last_active_ms;
            }
        }
        self.compacted_revision = self.revision;
        self.ceiling = self.revision;
    }

    /// Where revisions may go on after a clean stop.
    pub fn last_ceiling(&self) -> u64 {
        self.revision
    }
}

const _: () = assert!(REVISION_BLOCK > 0, "a restored table asks for its first block at once");
