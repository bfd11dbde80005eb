//! PQuery: pages, samples, deltas.

use super::{
    cursor::{Cursor, Position},
    moment::Now,
    query::Query,
    record::{Record, RecordState},
    refusal::Refusal,
    state::Table,
    view,
};
use p2pdi::{
    channel::REGISTRY_RESPONSE_MAX_BYTES,
    cookie::CookieHash,
    selector::NamePattern,
    v1::{PQueryResponse, PeerRecord},
};
use prost::Message as _;
use rand::seq::index;

/// An answer takes no further record after this many bytes. A full page of the largest records that Register accepts is below it;
/// records that an older registry accepted may not be.
const PAGE_MAX_BYTES: usize = REGISTRY_RESPONSE_MAX_BYTES / 4 * 3;
/// Most bytes around one record: a tag and a length.
const FRAMING_BYTES: usize = 4;
/// Most records looked at for one answer, so that a filter with few matches holds the table for about a millisecond.
/// A page that is short because of it has a token for the next one.
pub(super) const SCAN_MAX: usize = 16_384;

impl Table {
    /// Extends the caller's lease and lists peers but the caller.
    ///
    /// # Errors
    /// `CookieUnknown`, `LeaseExpired`, `PageTokenInvalid`.
    pub fn query(&mut self, caller: &CookieHash, query: &Query, now: Now) -> Result<PQueryResponse, Refusal> {
        let caller = self.refresh(caller, now)?;
        let mut answer = PQueryResponse {
            revision: self.revision,
            active_peers: self.active.len() as u64,
            ttl: Some(view::duration(self.ttl_ms())),
            keep_alive_interval: Some(view::duration(self.interval_ms())),
            ..PQueryResponse::default()
        };
        if query.sample > 0 {
            answer.peers = self.sample(caller, query, now);
            self.mark_suspects(&mut answer.peers);
            return Ok(answer);
        }
        let cursor = if query.page_token.is_empty() {
            None
        } else {
            Some(Cursor::open(&query.page_token, query, &self.token_key).ok_or(Refusal::PageTokenInvalid)?)
        };
        let since = query.since_revision;
        let complete = (self.compacted_revision..=self.revision).contains(&since);
        let cursor = cursor.unwrap_or_else(|| {
            answer.start_over = since > 0 && !complete;
            let delta = since > 0 && complete;
            let position = match (delta, self.settings.replicated) {
                (true, _) => Position::Revision(since + 1),
                (false, true) => Position::Changed(0),
                (false, false) => Position::Slot(0),
            };
            Cursor { position, revision: self.revision }
        });
        answer.revision = cursor.revision;
        let next = match cursor.position {
            // A record removed between two pages may be one that the delta should report.
            Position::Revision(_) if !complete => return Err(Refusal::PageTokenInvalid),
            Position::Revision(from) => {
                self.delta(caller, from, cursor.revision, query, now, &mut answer).map(Position::Revision)
            }
            Position::Slot(from) => self.page(caller, from, query, now, &mut answer.peers).map(Position::Slot),
            Position::Observers(from) => self.observers(caller, from, query, now, &mut answer.peers).map(Position::Observers),
            Position::Changed(from) => self.page_by_revision(caller, from, query, now, &mut answer.peers),
        };
        self.mark_suspects(&mut answer.peers);
        if let Some(position) = next {
            answer.next_page_token = Cursor { position, ..cursor }.seal(query, &self.token_key);
        }
        Ok(answer)
    }

    /// Says of suspects that they are, and puts them last.
    fn mark_suspects(&self, peers: &mut [PeerRecord]) {
        if self.suspects.is_empty() && self.suspected_elsewhere.is_empty() {
            return;
        }
        for peer in peers.iter_mut() {
            let slot = self.records.by_name(&peer.name).0;
            peer.suspect = slot.is_some_and(|slot| self.is_suspect(slot));
        }
        peers.sort_by_key(|peer| peer.suspect);
    }

    /// Peers from slot `from` on. Gives the slot of the next page.
    fn page(&self, caller: u32, from: u32, query: &Query, now: Now, peers: &mut Vec<PeerRecord>) -> Option<u32> {
        if let Some(name) = query.pattern.as_ref().and_then(NamePattern::exact) {
            let (peer, observer) = self.records.by_name(name);
            let named = [peer, observer].into_iter().flatten();
            peers.extend(named.filter_map(|slot| self.listed(slot, caller, query, now)).map(|record| view::peer(record, now)));
            return None;
        }
        self.fill(self.slots_from(from), |_| true, caller, query, now, peers)
    }

    /// Peers whose records are of revision `from` or later, then the observers that are registered here. Gives the next page's position.
    fn page_by_revision(&self, caller: u32, from: u64, query: &Query, now: Now, peers: &mut Vec<PeerRecord>) -> Option<Position> {
        if query.pattern.as_ref().is_some_and(|pattern| pattern.exact().is_some()) {
            self.page(caller, 0, query, now, peers);
            return None;
        }
        let changed = self.changed.range(from..).map(|(revision, slot)| (*revision, *slot));
        let next = self.fill(changed, |_| true, caller, query, now, peers).map(Position::Changed);
        next.or(query.include_observers.then_some(Position::Observers(0)))
    }

    /// Observers from slot `from` on. Gives the slot of the next page.
    fn observers(&self, caller: u32, from: u32, query: &Query, now: Now, peers: &mut Vec<PeerRecord>) -> Option<u32> {
        self.fill(self.slots_from(from), Record::is_observer, caller, query, now, peers)
    }

    /// Slots from this one on, each with itself as its position.
    fn slots_from(&self, from: u32) -> impl Iterator<Item = (u32, u32)> + use<> {
        let end = u32::try_from(self.records.slots()).unwrap_or(u32::MAX);
        (from..end).map(|slot| (slot, slot))
    }

    /// The record in this slot, if the answer to the caller in the slot `caller` has it.
    fn listed(&self, slot: u32, caller: u32, query: &Query, now: Now) -> Option<&Record> {
        self.records.get(slot).filter(|record| slot != caller && query.lists(record, now))
    }

    /// Fills a page with records in these slots. Gives the position of the first slot that was not looked at.
    fn fill<P>(
        &self,
        slots: impl Iterator<Item = (P, u32)>,
        wanted: impl Fn(&Record) -> bool,
        caller: u32,
        query: &Query,
        now: Now,
        peers: &mut Vec<PeerRecord>,
    ) -> Option<P> {
        let mut bytes = 0;
        for (scanned, (position, slot)) in slots.enumerate() {
            if scanned >= SCAN_MAX || peers.len() >= query.page_size || bytes >= PAGE_MAX_BYTES {
                return Some(position);
            }
            if let Some(record) = self.listed(slot, caller, query, now).filter(|record| wanted(record)) {
                let peer = view::peer(record, now);
                bytes += peer.encoded_len() + FRAMING_BYTES;
                peers.push(peer);
            }
        }
        None
    }

    /// What changed in the revisions `from..=until`. Gives the revision of the next page.
    fn delta(&self, caller: u32, from: u64, until: u64, query: &Query, now: Now, answer: &mut PQueryResponse) -> Option<u64> {
        let mut bytes = 0;
        for (scanned, (revision, slot)) in self.changes(from, until).enumerate() {
            let full = answer.peers.len() + answer.gone.len() >= query.page_size || bytes >= PAGE_MAX_BYTES;
            if full || scanned >= SCAN_MAX {
                return Some(revision);
            }
            let Some(record) = self.records.get(slot).filter(|_| slot != caller) else { continue };
            let named = query.pattern.as_ref().is_none_or(|pattern| pattern.matches(record.peer.strings.name()));
            if record.state == RecordState::Active {
                if query.lists(record, now) {
                    let peer = view::peer(record, now);
                    bytes += peer.encoded_len() + FRAMING_BYTES;
                    answer.peers.push(peer);
                } else if named && record.labels_revision > query.since_revision {
                    // It may have had the labels when the caller last asked.
                    answer.gone.push(view::gone(record, revision));
                }
            } else if named
                && (record.peer.strings.labels().contain(&query.labels) || record.labels_revision > query.since_revision)
            {
                answer.gone.push(view::gone(record, revision));
            }
        }
        None
    }

    /// Random peers. With a filter, at most [`SCAN_MAX`] random peers are looked at.
    fn sample(&mut self, caller: u32, query: &Query, now: Now) -> Vec<PeerRecord> {
        let all = self.active.len();
        let unfiltered = query.pattern.is_none() && query.labels.is_empty();
        // Two more: the caller, and one whose lease ran out just now.
        let picks = if unfiltered { query.sample + 2 } else { SCAN_MAX };
        let exact = query.pattern.as_ref().and_then(NamePattern::exact);
        let picked: Vec<u32> = match exact {
            Some(name) => self.records.by_name(name).0.into_iter().collect(),
            None => index::sample(&mut self.rng, all, picks.min(all)).into_iter().map(|index| self.active[index]).collect(),
        };
        let records = picked.into_iter().filter(|slot| *slot != caller).filter_map(|slot| self.records.get(slot));
        let fitting = records.filter(|record| query.lists(record, now)).take(query.sample);
        let mut bytes = 0;
        let mut peers = Vec::new();
        for peer in fitting.map(|record| view::peer(record, now)) {
            bytes += peer.encoded_len() + FRAMING_BYTES;
            peers.push(peer);
            if bytes >= PAGE_MAX_BYTES {
                break;
            }
        }
        peers
    }
}
