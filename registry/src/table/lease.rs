//! Leases: how long they are and how they are extended.

use super::{
    deadlines::tick_after,
    moment::Now,
    refusal::Refusal,
    settings::{KEEPALIVES_PER_TTL, TARGET_KEEPALIVES_PER_SECOND},
    state::Table,
    view,
};
use p2pdi::{
    cookie::CookieHash,
    v1::{KeepAliveRequest, PeerRecord},
};
use rand::RngExt as _;
use std::num::NonZeroU64;

/// The shortest KeepAlive interval given out, in thousandths of the longest: calls that began together spread out over a fifth of it,
/// and no peer calls more than a quarter too often.
const JITTER_FROM: u64 = 800;

/// The answer to a caller with a lease.
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

    /// The length of a lease at the present population, in milliseconds.
    pub fn ttl_ms(&self) -> u64 {
        self.settings.ttl_ms.max(KEEPALIVES_PER_TTL * self.base_interval_ms())
    }

    /// An interval with jitter, in milliseconds.
    pub(super) fn interval_ms(&mut self) -> u64 {
        self.base_interval_ms() * self.rng.random_range(JITTER_FROM..=1000) / 1000
    }

    /// Extends the lease of the caller with this cookie, and keeps what it reports.
    ///
    /// # Errors
    /// `CookieUnknown`, `LeaseExpired`.
    pub fn keep_alive(&mut self, cookie: &CookieHash, report: KeepAliveRequest, now: Now) -> Result<Lease, Refusal> {
        let slot = self.refresh(cookie, now)?;
        self.report(slot, report);
        self.lease(slot, now).ok_or(Refusal::CookieUnknown)
    }

    /// Extends the lease of the caller with this cookie. Gives its slot.
    pub(super) fn refresh(&mut self, cookie: &CookieHash, now: Now) -> Result<u32, Refusal> {
        let slot = self.records.by_cookie(cookie).ok_or(Refusal::CookieUnknown)?;
        let record = self.records.get_mut(slot).filter(|record| record.is_live(now.mono_ms)).ok_or(Refusal::LeaseExpired)?;
        record.peer.last_active_ms = now.wall_ms;
        record.called_uptime_ms = NonZeroU64::new(now.uptime_ms);
        self.extend(slot, now);
        self.note_extended(slot);
        Ok(slot)
    }

    /// The record of the caller with this cookie. Its lease is not extended.
    ///
    /// # Errors
    /// `CookieUnknown`, `LeaseExpired`.
    pub fn caller(&self, cookie: &CookieHash, now: Now) -> Result<PeerRecord, Refusal> {
        let slot = self.records.by_cookie(cookie).ok_or(Refusal::CookieUnknown)?;
        let record = self.records.get(slot).filter(|record| record.is_live(now.mono_ms)).ok_or(Refusal::LeaseExpired)?;
        Ok(view::peer(record, now))
    }

    /// The process runs again after a pause of `paused_ms`, which [`super::RunningTime`] leaves out of `now`: every lease still has what
    /// it had left before. After a pause of a ttl or more it gets a whole ttl, as after a restart: peers have been calling in vain, and
    /// some wait before they try again.
    pub fn resumed(&mut self, paused_ms: u64, now: Now) {
        if paused_ms < self.ttl_ms() {
            return;
        }
        for slot in 0..u32::try_from(self.records.slots()).unwrap_or(u32::MAX) {
            if self.records.get(slot).is_some_and(|record| record.is_live(now.mono_ms)) {
                self.extend(slot, now);
            }
        }
    }

    pub(super) fn lease(&mut self, slot: u32, now: Now) -> Option<Lease> {
        let (ttl_ms, interval_ms, revision) = (self.ttl_ms(), self.interval_ms(), self.revision);
        let peer = view::peer(self.records.get(slot)?, now);
        Some(Lease { peer, ttl_ms, interval_ms, revision })
    }

    /// Gives a whole ttl from now. A lease that runs longer keeps its end: the ttl shrinks with the population, and the peer goes by
    /// the ttl of its latest answer.
    pub(super) fn extend(&mut self, slot: u32, now: Now) {
        let ttl_ms = self.ttl_ms();
        let Some(record) = self.records.get_mut(slot) else { return };
        // One that was held beyond its end begins anew.
        let was_suspect = self.suspects.remove(&slot);
        self.suspected_elsewhere.remove(&slot);
        let runs_until_ms = if !was_suspect && record.is_live(now.mono_ms) { record.deadline_ms } else { 0 };
        record.deadline_ms = runs_until_ms.max(now.mono_ms + ttl_ms);
        self.schedule(slot);
    }

    /// Has the deadline of this record checked in time.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(record) = self.records.get_mut(slot) else { return };
        let tick = tick_after(record.deadline_ms);
        // The entry is moved when its tick comes; only one that is too late must be replaced.
        if record.kept && (record.scheduled_tick == 0 || tick < record.scheduled_tick) {
            self.deadlines.unschedule(record.scheduled_tick, slot);
            record.scheduled_tick = tick;
            self.deadlines.schedule(tick, slot);
        }
    }
}
