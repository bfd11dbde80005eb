//! Leases: how long they are, how they are extended, how they end.

use super::{
    FORGET_AFTER_MS, KEEPALIVES_PER_TTL, Now, Refusal, TARGET_KEEPALIVES_PER_SECOND, Table,
    deadlines::tick_after,
    record::{Record, RecordState},
    view,
};
use p2pdi::{
    cookie::CookieHash,
    v1::{Load, PeerRecord},
};
use rand::RngExt as _;

/// The shortest share of the interval that a caller is told, in thousandths: calls that began together spread out over
/// a fifth of it, and nobody calls more than a quarter too often.
const JITTER_FROM: u64 = 800;

/// What a caller with a lease is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// The caller's record.
    pub peer: PeerRecord,
    /// Length of the lease, in milliseconds.
    pub ttl_ms: u64,
    /// When to send the next KeepAlive, in milliseconds.
    pub interval_ms: u64,
    /// The change counter.
    pub revision: u64,
}

impl Table {
    fn base_interval_ms(&self) -> u64 {
        let holders = (self.active.len() + self.observers) as u64;
        (self.settings.ttl_ms / KEEPALIVES_PER_TTL).max(holders * 1000 / TARGET_KEEPALIVES_PER_SECOND)
    }

    /// The length of a lease with as many peers as there are, in milliseconds.
    pub fn ttl_ms(&self) -> u64 {
        self.settings.ttl_ms.max(KEEPALIVES_PER_TTL * self.base_interval_ms())
    }

    /// An interval with jitter, in milliseconds.
    pub(super) fn interval_ms(&mut self) -> u64 {
        self.base_interval_ms() * self.rng.random_range(JITTER_FROM..=1000) / 1000
    }

    /// Extends the lease of the caller with this cookie, and notes what it reports.
    ///
    /// # Errors
    /// `CookieUnknown`, `LeaseExpired`.
    pub fn keep_alive(
        &mut self,
        cookie: &CookieHash,
        load: Option<Load>,
        index_version: u64,
        now: Now,
    ) -> Result<Lease, Refusal> {
        let slot = self.refresh(cookie, now)?;
        if let Some(record) = self.records.get_mut(slot) {
            record.index_version = index_version;
            if let Some(load) = load {
                (record.load, record.load_reported) = (load, true);
            }
        }
        self.lease(slot, now).ok_or(Refusal::CookieUnknown)
    }

    /// Extends the lease of the caller with this cookie.
    pub(super) fn refresh(&mut self, cookie: &CookieHash, now: Now) -> Result<u32, Refusal> {
        let slot = self.records.by_cookie(cookie).ok_or(Refusal::CookieUnknown)?;
        if !self.records.get(slot).is_some_and(|record| record.is_live(now.mono_ms)) {
            return Err(Refusal::LeaseExpired);
        }
        self.extend(slot, now);
        Ok(slot)
    }

    pub(super) fn lease(&mut self, slot: u32, now: Now) -> Option<Lease> {
        let (ttl_ms, interval_ms, revision) = (self.ttl_ms(), self.interval_ms(), self.revision);
        let peer = view::peer(self.records.get(slot)?, now);
        Some(Lease { peer, ttl_ms, interval_ms, revision })
    }

    /// Gives a whole ttl from now. A lease that runs longer keeps its end: ttls shrink with the population, and the peer
    /// goes by the one it was told until it hears of a new one.
    pub(super) fn extend(&mut self, slot: u32, now: Now) {
        let ttl_ms = self.ttl_ms();
        let Some(record) = self.records.get_mut(slot) else { return };
        let runs_until_ms = if record.is_live(now.mono_ms) { record.deadline_ms } else { 0 };
        let deadline_ms = runs_until_ms.max(now.mono_ms + ttl_ms);
        let tick = tick_after(deadline_ms);
        record.deadline_ms = deadline_ms;
        record.peer.last_active_ms = now.wall_ms;
        // An entry for later than needed would end the lease late.
        if record.scheduled_tick == 0 || tick < record.scheduled_tick {
            record.scheduled_tick = tick;
            self.deadlines.schedule(tick, slot);
        }
    }

    /// When to call [`Table::expire`] next, by the clock that never goes back.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.next_ms()
    }

    /// Ends leases that ran out and forgets peers long gone. Looks at no more than `limit` of each, so that a caller
    /// can let others in between; returns whether more are waiting.
    pub fn expire(&mut self, now: Now, limit: usize) -> bool {
        for _ in 0..limit {
            let Some((tick, slot)) = self.deadlines.pop_due(now.mono_ms) else {
                return self.forget(now, limit);
            };
            let Some(record) = self.records.get_mut(slot).filter(|record| record.scheduled_tick == tick) else { continue };
            record.scheduled_tick = 0;
            if record.deadline_ms > now.mono_ms || record.in_flight {
                let tick = tick_after(record.deadline_ms.max(now.mono_ms));
                record.scheduled_tick = tick;
                self.deadlines.schedule(tick, slot);
            } else if record.is_observer() {
                self.drop_observer(slot);
            } else {
                self.deactivate(slot);
                self.mark_dirty(slot);
            }
        }
        true
    }

    /// Ends the lease of a peer.
    pub(super) fn deactivate(&mut self, slot: u32) {
        let Some(record) = self.records.get_mut(slot).filter(|record| record.state == RecordState::Active) else { return };
        record.state = RecordState::Inactive;
        record.peer.active = false;
        record.scheduled_tick = 0;
        self.revision += 1;
        let before = std::mem::replace(&mut record.revision, self.revision);
        let (active_index, address) = (record.active_index, record.peer.address);
        self.changed.remove(&before);
        self.inactive.insert(self.revision, slot);
        self.addresses.remove(address);
        self.active.swap_remove(active_index as usize);
        if let Some(moved) = self.active.get(active_index as usize).copied()
            && let Some(moved) = self.records.get_mut(moved)
        {
            moved.active_index = active_index;
        }
    }

    pub(super) fn drop_observer(&mut self, slot: u32) {
        if let Some(Record { peer, .. }) = self.records.remove(slot) {
            self.addresses.remove(peer.address);
            self.observers -= 1;
        }
    }

    /// Forgets peers that left 30 days ago.
    fn forget(&mut self, now: Now, limit: usize) -> bool {
        for _ in 0..limit {
            let Some((_, slot)) = self.inactive.first_key_value() else { return false };
            let old = |record: &Record| record.peer.last_active_ms.saturating_add(FORGET_AFTER_MS) <= now.wall_ms;
            if !self.records.get(*slot).is_some_and(|record| old(record) && !record.in_flight) {
                return false;
            }
            self.evict_oldest_inactive();
        }
        true
    }

    /// Forgets the peer that left first and is not about to come back. What it leaves behind on disk is removed later.
    pub(super) fn evict_oldest_inactive(&mut self) -> bool {
        /// Peers that are about to come back are passed over; with more than this many the table counts as full.
        const PASSED_OVER_MAX: usize = 64;
        let mut oldest = self.inactive.iter().take(PASSED_OVER_MAX);
        let found = oldest.find(|(_, slot)| self.records.get(**slot).is_some_and(|record| !record.in_flight));
        let Some((revision, slot)) = found.map(|(revision, slot)| (*revision, *slot)) else { return false };
        self.inactive.remove(&revision);
        self.records.remove(slot);
        self.mark_dirty(slot);
        self.compacted_revision = self.compacted_revision.max(revision);
        true
    }
}
