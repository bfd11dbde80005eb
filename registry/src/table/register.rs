//! Register and Leave, in two steps each: checked here, written by the caller, then made visible here.

use super::{
    Lease, Now, PackedStrings, Peer, Refusal, Table,
    record::{Record, RecordState},
};
use p2pdi::{
    cookie::{Cookie, CookieHash},
    endpoint::Endpoint,
    id::PeerId,
    name::PeerName,
};
use rand::RngExt as _;
use std::net::Ipv6Addr;

/// What a caller of Register asks for, validated.
pub struct Registration {
    /// The name it wants.
    pub name: PeerName,
    /// Where others can dial it; `None` for an observer.
    pub endpoint: Option<Endpoint>,
    /// For those who select by them.
    pub labels: super::Labels<'static>,
    /// Its own id, if it gave one.
    pub id: Option<PeerId>,
    /// The cookie it presented.
    pub presented: Option<Cookie>,
    /// The cookie it gets, unless it presented its own.
    pub candidate_cookie: Cookie,
    /// Where the call came from ([`super::to_ipv6`]).
    pub address: Ipv6Addr,
}

/// A change that was checked and is to be written: the slot, and what the store shall hold there.
#[must_use = "commit it or abort it: until then its name is held"]
#[derive(Debug)]
pub struct Change {
    slot: u32,
    peer: Box<Peer>,
}

impl Change {
    /// The key under which a store keeps it.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// What the store shall hold.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// What comes of a call that was allowed.
pub enum Prepared<T> {
    /// Write this, then commit it.
    Write(Change),
    /// Nothing to write: done.
    Done(T),
}

impl Table {
    /// Checks a registration and takes its name. Also says which cookie the caller will have.
    ///
    /// # Errors
    /// `NameTaken`, `Full`, `AddressFull`, or `Busy` while another change of the name is being written.
    pub fn prepare_register(&mut self, ask: &Registration, now: Now) -> Result<(Prepared<Lease>, Cookie), Refusal> {
        let observer = ask.endpoint.is_none();
        let (slot, other) = match self.records.by_name(ask.name.as_str()) {
            (peer, watching) if observer => (watching, peer),
            both => both,
        };
        if let Some(record) = other.and_then(|slot| self.records.get(slot)) {
            if record.in_flight {
                return Err(Refusal::Busy);
            }
            if record.is_live(now.mono_ms) {
                return Err(taken(record, now));
            }
        }
        let cookie = match slot.and_then(|slot| self.records.get(slot)) {
            Some(record) => allowed(record, ask, now)?,
            None => &ask.candidate_cookie,
        };
        let hash = cookie.hash();
        let held_there = slot
            .and_then(|slot| self.records.get(slot))
            .is_some_and(|r| matches!(r.state, RecordState::Active | RecordState::Observer) && r.peer.address == ask.address);
        if !held_there && self.addresses.count(ask.address) >= self.settings.max_peers_per_address {
            return Err(Refusal::AddressFull { max: self.settings.max_peers_per_address });
        }
        let slot = match slot {
            Some(slot) => slot,
            None => self.new_slot(ask, hash, observer, now)?,
        };
        let Some(record) = self.records.get_mut(slot) else { return Err(Refusal::Busy) };
        let peer = registered(&record.peer, ask, hash, now);
        if !observer {
            record.in_flight = true;
            return Ok((Prepared::Write(Change { slot, peer: Box::new(peer) }), cookie.clone()));
        }
        let before = std::mem::replace(&mut record.peer, peer);
        let (filed, address) = (record.peer.cookie, record.peer.address);
        self.records.unindex_cookie(slot, &before.cookie);
        self.records.index_cookie(slot, &filed);
        self.addresses.remove(before.address);
        self.addresses.add(address);
        self.extend(slot, now);
        let lease = self.lease(slot, now).ok_or(Refusal::Busy)?;
        Ok((Prepared::Done(lease), cookie.clone()))
    }

    /// A slot for a name never seen, held by it from now on.
    fn new_slot(&mut self, ask: &Registration, cookie: CookieHash, observer: bool, now: Now) -> Result<u32, Refusal> {
        let full = Refusal::Full { max: self.settings.max_peers };
        // Who left makes room for who comes; only leases fill the registry.
        if self.records.len() >= self.settings.max_peers as usize && !self.evict_oldest_inactive() {
            return Err(full);
        }
        let peer = Peer {
            strings: PackedStrings::new(ask.name.as_str(), "", &super::Labels::default()),
            id: PeerId::from_bytes(self.rng.random()),
            cookie,
            address: ask.address,
            first_registered_ms: now.wall_ms,
            last_registered_ms: now.wall_ms,
            last_active_ms: now.wall_ms,
            registrations: super::Registrations::default(),
            active: false,
        };
        let slot = self.records.insert(Record::new(peer, if observer { RecordState::Observer } else { RecordState::Joining }));
        let slot = slot.ok_or(full)?;
        if observer {
            self.observers += 1;
            self.addresses.add(ask.address);
        }
        Ok(slot)
    }

    /// Checks a Leave. `Done` carries the revision, for a caller whose lease ended before.
    ///
    /// # Errors
    /// `CookieUnknown`, or `Busy` while another change of the peer is being written.
    pub fn prepare_leave(&mut self, cookie: &CookieHash, now: Now) -> Result<Prepared<u64>, Refusal> {
        let slot = self.records.by_cookie(cookie).ok_or(Refusal::CookieUnknown)?;
        let Some(record) = self.records.get_mut(slot) else { return Err(Refusal::CookieUnknown) };
        if record.in_flight {
            return Err(Refusal::Busy);
        }
        if record.is_observer() {
            self.drop_observer(slot);
            return Ok(Prepared::Done(self.revision));
        }
        // An expiry that is not on disk yet is written now: after this answer the peer stays inactive.
        if record.state == RecordState::Inactive && !record.dirty && !record.flushing {
            return Ok(Prepared::Done(self.revision));
        }
        record.in_flight = true;
        let mut peer = Box::new(record.peer.clone());
        peer.active = false;
        if record.is_live(now.mono_ms) {
            peer.last_active_ms = now.wall_ms;
        }
        Ok(Prepared::Write(Change { slot, peer }))
    }

    /// Makes a change visible that is on disk. Gives what the caller is told; for a Leave the lease is over.
    pub fn commit(&mut self, change: Change, now: Now) -> Option<Lease> {
        let Change { slot, peer } = change;
        let record = self.records.get_mut(slot)?;
        record.in_flight = false;
        if !peer.active {
            record.peer.last_active_ms = peer.last_active_ms;
            self.deactivate(slot);
            return self.lease(slot, now);
        }
        let relabelled = record.peer.strings.labels() != peer.strings.labels();
        let before = std::mem::replace(&mut record.peer, *peer);
        let (state, revision) = (record.state, record.revision);
        let (cookie, address) = (record.peer.cookie, record.peer.address);
        record.state = RecordState::Active;
        match state {
            RecordState::Active => {
                self.changed.remove(&revision);
                self.addresses.remove(before.address);
            }
            RecordState::Inactive => {
                self.inactive.remove(&revision);
            }
            RecordState::Joining | RecordState::Observer => {}
        }
        if state != RecordState::Active {
            record.active_index = u32::try_from(self.active.len()).unwrap_or(u32::MAX);
            self.active.push(slot);
        }
        if before.cookie != cookie || state == RecordState::Joining {
            self.records.unindex_cookie(slot, &before.cookie);
            self.records.index_cookie(slot, &cookie);
        }
        self.addresses.add(address);
        let revision = self.next_revision();
        self.changed.insert(revision, slot);
        if let Some(record) = self.records.get_mut(slot) {
            record.revision = revision;
            if relabelled {
                record.labels_revision = revision;
            }
        }
        self.extend(slot, now);
        self.lease(slot, now)
    }

    /// Forgets a change that could not be written. All is as before, and since the failed write may have reached the
    /// disk after all, the slot is written again when the disk works.
    pub fn abort(&mut self, change: Change) {
        let Some(record) = self.records.get_mut(change.slot) else { return };
        record.in_flight = false;
        if record.state == RecordState::Joining {
            self.records.remove(change.slot);
        }
        self.mark_dirty(change.slot);
    }
}

/// Whether the caller may have this record, and with which cookie.
fn allowed<'a>(record: &Record, ask: &'a Registration, now: Now) -> Result<&'a Cookie, Refusal> {
    if record.in_flight {
        return Err(Refusal::Busy);
    }
    if let Some(own) = ask.presented.as_ref().filter(|cookie| cookie.hash() == record.peer.cookie) {
        return Ok(own);
    }
    let endpoint = ask.endpoint.as_ref().map_or("", Endpoint::as_str);
    let same_place = record.peer.strings.endpoint().eq_ignore_ascii_case(endpoint) && record.peer.address == ask.address;
    if record.is_live(now.mono_ms) && !same_place {
        return Err(taken(record, now));
    }
    Ok(&ask.candidate_cookie)
}

fn taken(record: &Record, now: Now) -> Refusal {
    let left_ms = record.deadline_ms.saturating_sub(now.mono_ms);
    Refusal::NameTaken { name: record.peer.strings.name().into(), retry_after_seconds: left_ms.div_ceil(1000) }
}

/// The record of `before` after this registration.
fn registered(before: &Peer, ask: &Registration, cookie: CookieHash, now: Now) -> Peer {
    let mut registrations = before.registrations.clone();
    registrations.add(now.wall_ms);
    Peer {
        strings: PackedStrings::new(ask.name.as_str(), ask.endpoint.as_ref().map_or("", Endpoint::as_str), &ask.labels),
        active: ask.endpoint.is_some(),
        id: ask.id.unwrap_or(before.id),
        cookie,
        address: ask.address,
        first_registered_ms: before.first_registered_ms,
        last_registered_ms: now.wall_ms,
        last_active_ms: now.wall_ms,
        registrations,
    }
}
