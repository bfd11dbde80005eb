//! How the table changes: by what the store accepted.

use super::{
    change::Change,
    deadlines::tick_after,
    lease::Lease,
    moment::Now,
    record::{Record, RecordState},
    state::Table,
    view,
};
use p2pdi::v1::peer_event;
use std::{mem, num::NonZeroU64};

impl Table {
    /// Applies a change that the store accepted at `revision`, whichever registry decided it. Changes come in the order of their
    /// revisions; one that is applied already changes nothing.
    pub fn apply(&mut self, change: Change, revision: u64, now: Now) {
        let (slot, observer) = self.records.by_name(&change.key);
        if change.peer.as_ref().is_some_and(|peer| peer.active) {
            self.end_namesake(observer);
        }
        self.apply_at(slot, change, revision, now);
    }

    /// Ends a change that this table decided. In a table of one of several registries it was applied before, by [`Table::apply`]. `accepted`: the revision at which the store accepted it; `None`: it refused it, and
    /// all is as before. Gives the lease of a change that was accepted, unless another change of the name came after it; for a Leave it
    /// is over.
    pub fn settle(&mut self, change: Change, accepted: Option<u64>, now: Now) -> Option<Lease> {
        self.in_flight = self.in_flight.saturating_sub(1);
        match &change.peer {
            None => self.removing = self.removing.saturating_sub(1),
            // If it was accepted, the lease counts from now on.
            Some(peer) if change.adds_lease => self.addresses.remove(peer.address),
            Some(_) => {}
        }
        let slot = self.records.by_name(&change.key).0;
        let record = slot.and_then(|slot| self.records.get_mut(slot));
        let ended_ms = record.as_ref().map_or(now.mono_ms, |record| record.deadline_ms.min(now.mono_ms));
        let is_own = record.is_some_and(|record| record.end_change(change.expected_revision));
        match accepted {
            Some(revision) => {
                // Of several registries each is told by the watch, which was waited for, and which may have brought more since.
                let slot = if self.settings.replicated { slot? } else { self.apply_at(slot, change, revision, now)? };
                if self.records.get(slot).is_none_or(|record| record.revision != revision) {
                    return None;
                }
                let reserved_until_ms = ended_ms.saturating_add(self.settings.name_hold_ms);
                if let Some(record) = self.records.get_mut(slot) {
                    if record.peer.active {
                        record.called_uptime_ms = NonZeroU64::new(now.uptime_ms);
                    } else {
                        record.deadline_ms = reserved_until_ms;
                    }
                }
                self.lease(slot, now)
            }
            None => {
                if is_own {
                    self.keep_as_before(slot?, now);
                }
                None
            }
        }
    }

    /// Ends a load of all records through [`Table::apply`]: revisions continue from `revision`, deltas are complete since
    /// `complete_since`, and every active peer gets a whole ttl. The ttl depends on the population, which is known only now.
    pub fn loaded(&mut self, revision: u64, complete_since: u64, now: Now) {
        self.revision = self.revision.max(revision);
        self.compacted_revision = complete_since.min(self.revision);
        for index in 0..self.active.len() {
            self.extend(self.active[index], now);
        }
    }

    /// Gives the slot of the record, unless it was removed.
    fn apply_at(&mut self, slot: Option<u32>, change: Change, revision: u64, now: Now) -> Option<u32> {
        if !self.reloading {
            self.revision = self.revision.max(revision);
        }
        if let Some(slot) = slot
            && self.records.get(slot).is_some_and(|record| record.revision >= revision)
        {
            return Some(slot);
        }
        let was_active = slot.and_then(|slot| self.records.get(slot)).is_some_and(|record| record.state == RecordState::Active);
        let Some(peer) = change.peer else {
            self.remove(slot?, &change.key, revision);
            return None;
        };
        let cookie = peer.cookie;
        let slot = match slot {
            Some(slot) => {
                self.unlist(slot);
                let record = self.records.get_mut(slot)?;
                let known = record.state != RecordState::Joining;
                if known && record.peer.strings.labels() != peer.strings.labels() {
                    record.labels_revision = revision;
                }
                let before = mem::replace(&mut record.peer, *peer);
                self.records.unindex_cookie(slot, &before.cookie);
                slot
            }
            None => {
                let mut record = Record::new(*peer, RecordState::Joining);
                record.kept = self.kept.contains(record.shard);
                // What they were before is not known, so a delta says of every label that it may have changed.
                record.labels_revision = revision;
                self.records.insert(record)?
            }
        };
        self.records.index_cookie(slot, &cookie);
        self.list(slot, revision, now);
        self.log_change(&change.key, slot, was_active, revision, now);
        Some(slot)
    }

    /// A refused change leaves no trace.
    fn keep_as_before(&mut self, slot: u32, now: Now) {
        let Some(record) = self.records.get_mut(slot) else { return };
        match record.state {
            RecordState::Joining => {
                self.records.remove(slot);
            }
            // Its lease ran out, and this was to be stored: try again.
            RecordState::Active if record.scheduled_tick == 0 && record.kept => {
                let tick = tick_after(now.mono_ms);
                record.scheduled_tick = tick;
                self.deadlines.schedule(tick, slot);
            }
            RecordState::Active | RecordState::Inactive | RecordState::Observer => {}
        }
    }

    /// Adds the record to the indexes of its new state, and gives an active peer its lease.
    fn list(&mut self, slot: u32, revision: u64, now: Now) {
        let (ttl_ms, name_hold_ms) = (self.ttl_ms(), self.settings.name_hold_ms);
        let Some(record) = self.records.get_mut(slot) else { return };
        record.revision = revision;
        if record.peer.active {
            if record.state != RecordState::Active {
                // It was the end of the reservation.
                record.deadline_ms = 0;
            }
            record.state = RecordState::Active;
            record.active_index = u32::try_from(self.active.len()).unwrap_or(u32::MAX);
            self.addresses.add(record.peer.address);
            self.active.push(slot);
            self.changed.insert(revision, slot);
            self.extend(slot, now);
        } else {
            record.state = RecordState::Inactive;
            self.deadlines.unschedule(record.scheduled_tick, slot);
            record.scheduled_tick = 0;
            // Of a record from the store only the wall clock says how old it is. A clock that was set makes this no longer than the hold.
            let ended_ms = record.peer.last_active_ms.saturating_add(ttl_ms);
            let reserved_ms = ended_ms.saturating_add(name_hold_ms).saturating_sub(now.wall_ms).min(name_hold_ms);
            record.deadline_ms = now.mono_ms.saturating_add(reserved_ms);
            self.inactive.insert(revision, slot);
        }
    }

    /// Removes the record from the indexes of its present state.
    fn unlist(&mut self, slot: u32) {
        self.suspects.remove(&slot);
        self.suspected_elsewhere.remove(&slot);
        let Some(record) = self.records.get(slot) else { return };
        let (revision, index) = (record.revision, record.active_index);
        match record.state {
            RecordState::Active => {
                self.addresses.remove(record.peer.address);
                self.changed.remove(&revision);
                self.active.swap_remove(index as usize);
                let moved = self.active.get(index as usize).copied();
                if let Some(moved) = moved.and_then(|moved| self.records.get_mut(moved)) {
                    moved.active_index = index;
                }
            }
            RecordState::Inactive => {
                self.inactive.remove(&revision);
            }
            RecordState::Joining | RecordState::Observer => {}
        }
    }

    /// `key`: the record's name in lower case; `revision`: that of the removal.
    fn remove(&mut self, slot: u32, key: &str, revision: u64) {
        self.unlist(slot);
        let Some(record) = self.records.remove(slot) else { return };
        self.deadlines.unschedule(record.scheduled_tick, slot);
        // Of an active peer no delta will say that it is gone.
        let was_active = record.state == RecordState::Active;
        self.compacted_revision = self.compacted_revision.max(if was_active { revision } else { record.revision });
        if was_active && self.log.is_kept() {
            self.log.push(revision, key, peer_event::Change::Left(view::gone(&record, revision)));
        }
    }
}
