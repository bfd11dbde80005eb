//! A table of one of several registries that share a store: it ends only the leases of the shards that it keeps, and says which leases of
//! the others it extended, for the registries that keep them.

use super::{
    moment::Now,
    record::{Record, RecordState},
    shard::Kept,
    state::Table,
};
use p2pdi::{
    cookie::CookieHash,
    v1::{KeepAliveRequest, Load},
};
use std::{collections::BTreeSet, mem};

/// A lease that this registry extended, and what its holder last reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Extended {
    /// Hash of the holder's cookie.
    pub cookie: CookieHash,
    /// Its load, if it reported one.
    pub load: Option<Load>,
    /// Version of its index of documents.
    pub index_version: u64,
    /// Documents that it shares.
    pub documents: u64,
}

impl Table {
    /// From now on this table keeps the leases of these shards and of no others. Whoever is active in one that is new here gets a whole ttl
    /// and `grace_ms`: what was sent to the registry that kept it before is lost. A shard with another fence is new, too: it was lost meanwhile.
    pub fn keep_shards(&mut self, kept: Kept, grace_ms: u64, now: Now) {
        let before = mem::replace(&mut self.kept, kept);
        let ttl_ms = self.ttl_ms();
        for slot in 0..u32::try_from(self.records.slots()).unwrap_or(u32::MAX) {
            let Some(record) = self.records.get_mut(slot).filter(|record| !record.is_observer()) else { continue };
            let keeps = kept.contains(record.shard);
            if keeps == record.kept && before.fence(record.shard) == kept.fence(record.shard) {
                continue;
            }
            record.kept = keeps;
            if record.state != RecordState::Active {
                continue;
            }
            self.deadlines.unschedule(record.scheduled_tick, slot);
            record.scheduled_tick = 0;
            self.suspects.remove(&slot);
            self.suspected_elsewhere.remove(&slot);
            if keeps {
                record.deadline_ms = record.deadline_ms.max(now.mono_ms.saturating_add(ttl_ms).saturating_add(grace_ms));
                self.schedule(slot);
            }
        }
    }

    /// The shard of the peer with this cookie; `None` of an observer and of a cookie that is not known.
    pub fn shard(&self, cookie: &CookieHash) -> Option<u8> {
        let record = self.records.get(self.records.by_cookie(cookie)?)?;
        (!record.is_observer()).then_some(record.shard)
    }

    /// Up to `limit` leases that were extended by calls to this registry since they were last taken, those it keeps among them.
    pub fn take_extended(&mut self, limit: usize) -> Vec<Extended> {
        let at = self.extended.len().saturating_sub(limit);
        let slots = self.extended.split_off(at);
        let extended = slots.into_iter().filter_map(|slot| {
            // Another record may have the slot by now.
            let record = self.records.get_mut(slot).filter(|record| record.extended)?;
            record.extended = false;
            Some(Extended {
                cookie: record.peer.cookie,
                load: record.load_reported.then_some(record.load),
                index_version: record.index_version,
                documents: record.documents,
            })
        });
        extended.collect()
    }

    pub(super) fn note_extended(&mut self, slot: u32) {
        if !self.settings.replicated {
            return;
        }
        if let Some(record) = self.records.get_mut(slot).filter(|record| !record.is_observer() && !record.extended) {
            record.extended = true;
            self.extended.push(slot);
        }
    }

    /// Another registry extended this lease. One that ran out here meanwhile, and is not stored as such yet, goes on; one that ended is not
    /// changed.
    pub fn extended_elsewhere(&mut self, extended: &Extended, now: Now) {
        let Extended { cookie, load, index_version, documents } = *extended;
        let Some(slot) = self.records.by_cookie(&cookie) else { return };
        let active = self.records.get_mut(slot).filter(|record| record.state == RecordState::Active);
        let Some(record) = active else { return };
        record.peer.last_active_ms = now.wall_ms;
        self.extend(slot, now);
        self.report(slot, KeepAliveRequest { load, index_version, documents });
    }

    /// Keeps what a peer reports.
    pub(super) fn report(&mut self, slot: u32, report: KeepAliveRequest) {
        let KeepAliveRequest { load, index_version, documents } = report;
        if let Some(record) = self.records.get_mut(slot) {
            (record.index_version, record.documents) = (index_version, documents);
            if let Some(load) = load {
                (record.load, record.load_reported) = (load, true);
            }
        }
    }

    /// Of the records in the slots `from..`, `limit` at most: names that are not in `stored`, without those that never were. Gives the
    /// next slot; `None` after the last one.
    pub fn not_stored(&self, stored: &BTreeSet<Box<str>>, from: u32, limit: u32) -> (Vec<String>, Option<u32>) {
        let end = u32::try_from(self.records.slots()).unwrap_or(u32::MAX);
        let until = from.saturating_add(limit).min(end);
        let settled = |record: &&Record| !record.is_observer() && record.state != RecordState::Joining;
        let names = (from..until).filter_map(|slot| self.records.get(slot)).filter(settled);
        let absent = names.map(|record| record.peer.strings.name().to_ascii_lowercase());
        (absent.filter(|name| !stored.contains(name.as_str())).collect(), (until < end).then_some(until))
    }

    /// The cookie of the peer with this name.
    pub fn cookie_of_peer(&self, name: &str) -> Option<CookieHash> {
        Some(self.records.get(self.records.by_name(name).0?)?.peer.cookie)
    }

    /// Everything up to `revision` is known, and it is a removal.
    pub fn reached(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// All records will be read from the store again, in no order of their revisions.
    pub fn reload(&mut self) {
        self.reloading = true;
    }

    /// All records were read from the store again, at `revision`: deltas from before are not complete.
    pub fn reloaded(&mut self, revision: u64) {
        self.reloading = false;
        self.revision = self.revision.max(revision);
        self.compacted_revision = self.revision;
    }
}
