//! How leases end, and how records are forgotten.

use super::{
    change::Change,
    deadlines::tick_after,
    moment::Now,
    peer::Peer,
    record::{Record, RecordState},
    settings::FORGET_AFTER_MS,
    state::Table,
};
use p2pdi::cookie::CookieHash;

/// What [`Table::expire`] decided.
#[derive(Debug)]
#[must_use = "the changes go to the store, then to `settle`: until then their names are held"]
pub struct Expired {
    /// Leases that ran out, and records to remove.
    pub changes: Vec<Change>,
    /// Cookies of the peers and observers whose leases ran out.
    pub ended: Vec<CookieHash>,
    /// More may be due now.
    pub more: bool,
}

impl Table {
    /// When to call [`Table::expire`] next, by the monotonic clock: now while there are inactive records to evict.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if self.surplus() > 0 { Some(0) } else { self.deadlines.next_ms() }
    }

    /// Decides which leases ran out, and which inactive records to remove: those that are old, and the oldest beyond the limit. Looks at no more than `limit` of each,
    /// so that the caller can release the lock in between. Observers are not stored and end at once.
    pub fn expire(&mut self, now: Now, limit: usize) -> Expired {
        let (mut changes, mut ended) = (Vec::new(), Vec::new());
        for _ in 0..limit {
            let Some((tick, slot)) = self.deadlines.pop_due(now.mono_ms) else {
                let more = self.forget(now, limit, &mut changes);
                return Expired { changes, ended, more };
            };
            let Some(record) = self.records.get_mut(slot).filter(|record| record.scheduled_tick == tick) else { continue };
            record.scheduled_tick = 0;
            if record.deadline_ms > now.mono_ms || record.is_in_flight() {
                let tick = tick_after(record.deadline_ms.max(now.mono_ms));
                record.scheduled_tick = tick;
                self.deadlines.schedule(tick, slot);
            } else if record.is_observer() {
                ended.push(record.peer.cookie);
                self.drop_observer(slot);
            } else if record.state == RecordState::Active {
                if self.hold(slot, now) {
                    continue;
                }
                let Some(record) = self.records.get_mut(slot) else { continue };
                ended.push(record.peer.cookie);
                record.begin_change();
                self.in_flight += 1;
                let ended_peer = Peer { active: false, ..record.peer.clone() };
                changes.push(Change::put(ended_peer, record.revision).of_keeper(self.kept.fence(record.shard)));
            }
        }
        Expired { changes, ended, more: true }
    }

    /// Decides to remove records of peers that have been inactive for 30 days, and those beyond the limit. Says whether there may be
    /// more.
    fn forget(&mut self, now: Now, limit: usize, changes: &mut Vec<Change>) -> bool {
        let surplus = self.surplus();
        let old = |record: &Record| record.peer.last_active_ms.saturating_add(FORGET_AFTER_MS) <= now.wall_ms;
        let kept = self
            .inactive
            .values()
            .filter_map(|slot| self.records.get(*slot).filter(|record| record.kept).map(|record| (*slot, record)));
        let oldest = kept.take(limit + self.removing).filter(|(_, record)| !record.is_in_flight());
        let oldest = oldest.map(|(slot, record)| (slot, old(record)));
        let removed = oldest.enumerate().take_while(|(index, (_, old))| *old || *index < surplus).take(limit);
        let slots: Vec<u32> = removed.map(|(_, (slot, _))| slot).collect();
        changes.extend(slots.iter().filter_map(|slot| {
            let fence = self.kept.fence(self.records.get(*slot)?.shard);
            Some(self.prepare_removal(*slot)?.of_keeper(fence))
        }));
        slots.len() == limit
    }

    /// Inactive records beyond the limit that are not being removed yet.
    fn surplus(&self) -> usize {
        let kept = self.records.len().saturating_sub(self.removing);
        kept.saturating_sub(self.settings.max_peers as usize).min(self.inactive.len().saturating_sub(self.removing))
    }

    /// Decides to remove a record.
    pub(super) fn prepare_removal(&mut self, slot: u32) -> Option<Change> {
        let record = self.records.get_mut(slot)?;
        record.begin_change();
        self.in_flight += 1;
        self.removing += 1;
        Some(Change::remove(record.peer.strings.name(), record.revision))
    }
}
