//! Observers: callers that only ask. They are not stored, so registries that share a store ask each other: for an observer that calls
//! another one than it registered with, and whether a name is free.
//!
//! Two that ask for one name at the same time at two registries: each is held here first, and claimed at the other registries then. Of two
//! that are not yet claimed everywhere the one with the smaller hash of the cookie stays, and any that is claimed stays. So at least one of
//! the two registries sees both, and all decide alike.

use super::{
    labels::Labels,
    lease::Lease,
    moment::Now,
    peer::{PackedStrings, Peer},
    record::{Record, RecordState},
    state::Table,
    view,
};
use p2pdi::{cookie::CookieHash, id::PeerId, name::PeerName, v1::FindObserverResponse};
use std::{mem, num::NonZeroU64};

impl Table {
    /// Registers an observer in the slot of its record.
    pub(super) fn observe(&mut self, slot: u32, peer: Peer, owned: bool, now: Now) -> Option<Lease> {
        let (cookie, address) = (peer.cookie, peer.address);
        let record = self.records.get_mut(slot)?;
        record.called_uptime_ms = NonZeroU64::new(now.uptime_ms);
        record.owned = owned;
        let before = mem::replace(&mut record.peer, peer);
        record.claimed &= before.cookie == cookie;
        self.records.unindex_cookie(slot, &before.cookie);
        self.records.index_cookie(slot, &cookie);
        self.addresses.remove(before.address);
        self.addresses.add(address);
        self.extend(slot, now);
        self.lease(slot, now)
    }

    /// Forgets an observer.
    pub(super) fn drop_observer(&mut self, slot: u32) {
        if let Some(Record { peer, scheduled_tick, .. }) = self.records.remove(slot) {
            self.deadlines.unschedule(scheduled_tick, slot);
            self.addresses.remove(peer.address);
            self.observers -= 1;
        }
    }

    /// The live observer in this slot.
    fn observer_in(&self, slot: Option<u32>, now: Now) -> Option<(u32, &Record)> {
        let slot = slot?;
        let record = self.records.get(slot).filter(|record| record.is_observer() && record.is_live(now.mono_ms))?;
        Some((slot, record))
    }

    /// The observer with this cookie, as another registry adopts it.
    pub fn observer(&self, cookie: &CookieHash, now: Now) -> Option<FindObserverResponse> {
        let (_, record) = self.observer_in(self.records.by_cookie(cookie), now)?;
        let address = record.peer.address.octets().to_vec().into();
        Some(FindObserverResponse { found: true, peer: Some(view::peer(record, now)), address, owned: record.owned })
    }

    /// Whether a record has this cookie.
    pub fn knows(&self, cookie: &CookieHash) -> bool {
        self.records.by_cookie(cookie).is_some()
    }

    /// An observer that is registered elsewhere has a lease here, too. Not if somebody has its name here, but for a peer of which one
    /// certificate carries the name for both.
    pub fn adopt_observer(&mut self, cookie: CookieHash, found: FindObserverResponse, now: Now) {
        let FindObserverResponse { peer: Some(peer), address, owned, .. } = found else { return };
        let Ok(address) = <[u8; 16]>::try_from(address.as_ref()) else { return };
        let (Ok(name), Ok(id)) = (peer.name.parse::<PeerName>(), PeerId::from_field("id", &peer.id)) else { return };
        let (peer_slot, observing) = self.records.by_name(name.as_str());
        let taken = observing.is_some() || peer_slot.is_some() && !owned;
        if taken || self.knows(&cookie) || self.records.len() >= self.settings.max_peers as usize {
            return;
        }
        let strings = PackedStrings::new(name.as_str(), "", &Labels::pack(&peer.labels));
        let Some(slot) = self.new_slot(Peer::new(strings, id, cookie, address.into(), now), RecordState::Observer) else {
            return;
        };
        if let Some(record) = self.records.get_mut(slot) {
            (record.claimed, record.owned) = (true, owned);
        }
        self.records.index_cookie(slot, &cookie);
        self.extend(slot, now);
    }

    /// The slot of the observer with this cookie, whether its lease ran out or not.
    fn observer_slot(&self, cookie: &CookieHash) -> Option<u32> {
        self.records.by_cookie(cookie).filter(|slot| self.records.get(*slot).is_some_and(Record::is_observer))
    }

    /// Whether other registries have to be asked whether this observer may have its name.
    pub fn is_unclaimed(&self, cookie: &CookieHash) -> bool {
        self.observer_slot(cookie).and_then(|slot| self.records.get(slot)).is_some_and(|record| !record.claimed)
    }

    /// An observer with this cookie asks for this name at another registry. Gives the milliseconds for which somebody else has it here;
    /// whoever else had it here, and does not now, is gone. `owned`: its certificate carries the name, so that it has it in any case.
    pub fn claim_elsewhere(&mut self, name: &PeerName, cookie: &CookieHash, owned: bool, now: Now) -> Option<u64> {
        let (_, slot) = self.records.by_name(name.as_str());
        let (slot, held) = self.observer_in(slot, now)?;
        if held.peer.cookie == *cookie {
            return None;
        }
        // Both registries decide alike while neither is claimed: the lower cookie stays.
        let is_first = !held.claimed && cookie.as_bytes() < held.peer.cookie.as_bytes();
        let wins = if owned == held.owned { is_first || owned && held.claimed } else { owned };
        if wins {
            self.drop_observer(slot);
            return None;
        }
        Some(held.deadline_ms.saturating_sub(now.mono_ms))
    }

    /// No other registry objects. Says whether this observer has its name still.
    pub fn claimed(&mut self, cookie: &CookieHash) -> bool {
        let slot = self.observer_slot(cookie);
        slot.and_then(|slot| self.records.get_mut(slot)).map(|record| record.claimed = true).is_some()
    }

    /// The observer with this cookie is gone: it left elsewhere, or another one has its name.
    pub fn end_observer(&mut self, cookie: &CookieHash) -> bool {
        self.observer_slot(cookie).map(|slot| self.drop_observer(slot)).is_some()
    }

    /// A peer that registered elsewhere has this name now: an observer loses it, unless one certificate carries it for both.
    pub(super) fn end_namesake(&mut self, observer: Option<u32>) {
        if let Some(slot) = observer.filter(|slot| self.records.get(*slot).is_some_and(|record| !record.owned)) {
            self.drop_observer(slot);
        }
    }
}
