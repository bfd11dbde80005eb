//! Register and Leave: checked here, then stored by the caller, then settled.

use super::{
    change::Change,
    labels::Labels,
    lease::Lease,
    moment::Now,
    peer::{PackedStrings, Peer},
    record::{Record, RecordState},
    refusal::Refusal,
    state::Table,
};
use p2pdi::{
    cookie::{Cookie, CookieHash},
    endpoint::Endpoint,
    id::PeerId,
    name::PeerName,
};
use rand::RngExt as _;
use std::net::Ipv6Addr;

/// A validated Register call.
pub struct Registration {
    /// The name it asks for.
    pub name: PeerName,
    /// Where others can dial the peer; `None` for an observer.
    pub endpoint: Option<Endpoint>,
    /// Labels that queries can select by.
    pub labels: Labels<'static>,
    /// The peer's own id, if it sent one.
    pub id: Option<PeerId>,
    /// The cookie in the call's metadata: the record's own, or one that the caller proposes.
    pub presented: Option<Cookie>,
    /// The cookie that the caller gets unless it presented one that it may have.
    pub candidate_cookie: Cookie,
    /// Where the call came from ([`super::to_ipv6`]).
    pub address: Ipv6Addr,
    /// The caller's certificate carries the name: it has it whoever holds it now.
    pub owned: bool,
}

/// A call that was allowed.
pub enum Prepared<T> {
    /// Store this, then [`Table::settle`] it: until then its name is held.
    Write(Change),
    /// Nothing to store: done.
    Done(T),
}

impl Table {
    /// Checks a registration and holds its name. Also gives the cookie that the caller will have.
    ///
    /// # Errors
    /// `NameTaken`, `Full`, `AddressFull`, or `Busy` while another change of the name is in flight.
    pub fn prepare_register(&mut self, registration: &Registration, now: Now) -> Result<(Prepared<Lease>, Cookie), Refusal> {
        let observer = registration.endpoint.is_none();
        // A peer and an observer may have one name, but not both a lease.
        let (slot, other) = match self.records.by_name(registration.name.as_str()) {
            (peer, observing) if observer => (observing, peer),
            both => both,
        };
        if let Some(record) = other.and_then(|slot| self.records.get(slot)) {
            self.check_name(record, registration, now)?;
            // With one certificate they are one, such as a peer and the program that its operator calls it with.
            if record.is_live(now.mono_ms) && !registration.owned {
                return Err(self.taken(record, now));
            }
        }
        let record = slot.and_then(|slot| self.records.get(slot));
        if let Some(record) = record {
            self.check_name(record, registration, now)?;
        }
        let cookie = self.cookie_of(record, registration);
        let hash = cookie.hash();
        let address = registration.address;
        let holds_lease = |r: &Record| matches!(r.state, RecordState::Active | RecordState::Observer);
        let counted_already = record.is_some_and(|record| holds_lease(record) && record.peer.address == address);
        if !counted_already && self.addresses.count(address) >= self.settings.max_peers_per_address {
            return Err(Refusal::AddressFull { max: self.settings.max_peers_per_address });
        }
        let slot = match slot {
            Some(slot) => slot,
            None => self.new_record(registration, hash, now)?,
        };
        let record = self.records.get_mut(slot).ok_or(Refusal::Busy)?;
        // Its lease ran out by what this registry heard, which counts only while it keeps the lease.
        let takes_over =
            record.state == RecordState::Active && !registration.owned && !presents(registration, &record.peer.cookie);
        let peer = registered(&record.peer, registration, hash, now);
        if observer {
            let lease = self.observe(slot, peer, registration.owned, now).ok_or(Refusal::Busy)?;
            return Ok((Prepared::Done(lease), cookie.clone()));
        }
        record.begin_change();
        self.in_flight += 1;
        let mut change = Change { adds_lease: !counted_already, ..Change::put(peer, record.revision) };
        if takes_over {
            change = change.of_keeper(self.kept.fence(record.shard));
        }
        if change.adds_lease {
            self.addresses.add(address);
        }
        Ok((Prepared::Write(change), cookie.clone()))
    }

    /// Whether the caller may have the name of this record: it has a certificate for it, or the record's cookie, or the name is free. Its address says nothing:
    /// the hosts behind one NAT share it, and so do the processes of one machine.
    fn check_name(&self, record: &Record, registration: &Registration, now: Now) -> Result<(), Refusal> {
        if record.is_in_flight() {
            return Err(Refusal::Busy);
        }
        // The end of a lease that another registry keeps is not known here before it is stored.
        let ended = record.kept || record.state != RecordState::Active;
        let is_free = ended && record.reserved_until_ms(self.settings.name_hold_ms) <= now.mono_ms;
        let is_allowed = is_free || registration.owned || presents(registration, &record.peer.cookie);
        if is_allowed { Ok(()) } else { Err(self.taken(record, now)) }
    }

    fn taken(&self, record: &Record, now: Now) -> Refusal {
        let left_ms = record.reserved_until_ms(self.settings.name_hold_ms).saturating_sub(now.mono_ms);
        // When a lease ends that another registry keeps is not known here: no later than this.
        let known = record.kept || record.state != RecordState::Active;
        let left_ms = if known { left_ms } else { self.ttl_ms().saturating_add(self.settings.name_hold_ms) };
        Refusal::NameTaken {
            name: record.peer.strings.name().into(),
            has_lease: record.is_live(now.mono_ms),
            retry_after_seconds: left_ms.div_ceil(1000),
        }
    }

    /// The cookie that the caller gets: the record's own if it presented that, the one it proposes if nobody else has it, or a new one.
    fn cookie_of<'a>(&self, record: Option<&Record>, registration: &'a Registration) -> &'a Cookie {
        let fits = |presented: &&Cookie| {
            let hash = presented.hash();
            record.is_some_and(|record| record.peer.cookie == hash) || self.records.by_cookie(&hash).is_none()
        };
        registration.presented.as_ref().filter(fits).unwrap_or(&registration.candidate_cookie)
    }

    /// A record for a new name, which it holds from now on.
    fn new_record(&mut self, registration: &Registration, cookie: CookieHash, now: Now) -> Result<u32, Refusal> {
        let full = Refusal::Full { max: self.settings.max_peers };
        // Only leases fill the registry: inactive records beyond the limit are evicted.
        if self.records.len() - self.inactive.len() >= self.settings.max_peers as usize {
            return Err(full);
        }
        let strings = PackedStrings::new(registration.name.as_str(), "", &Labels::default());
        let peer = Peer::new(strings, PeerId::from_bytes(self.rng.random()), cookie, registration.address, now);
        let observer = registration.endpoint.is_none();
        self.new_slot(peer, if observer { RecordState::Observer } else { RecordState::Joining }).ok_or(full)
    }

    /// A record of this peer.
    pub(super) fn new_slot(&mut self, peer: Peer, state: RecordState) -> Option<u32> {
        let (address, observer) = (peer.address, state == RecordState::Observer);
        let mut fresh = Record::new(peer, state);
        fresh.kept = observer || self.kept.contains(fresh.shard);
        let slot = self.records.insert(fresh)?;
        if observer {
            self.observers += 1;
            self.addresses.add(address);
        }
        Some(slot)
    }

    /// The cookies of the peer and of the observer with this name.
    pub fn cookies_of(&self, name: &PeerName) -> Vec<CookieHash> {
        let (peer, observer) = self.records.by_name(name.as_str());
        [peer, observer]
            .into_iter()
            .flatten()
            .filter_map(|slot| self.records.get(slot))
            .map(|record| record.peer.cookie)
            .collect()
    }

    /// Checks that a name is freed, whoever has it. `Done` carries the revision: nobody has the name (any more).
    ///
    /// # Errors
    /// `Busy` while another change of the name is in flight.
    pub fn prepare_free(&mut self, name: &PeerName) -> Result<Prepared<u64>, Refusal> {
        let (peer, observer) = self.records.by_name(name.as_str());
        if let Some(slot) = observer {
            self.drop_observer(slot);
        }
        let Some(slot) = peer else { return Ok(Prepared::Done(self.revision)) };
        let record = self.records.get(slot).ok_or(Refusal::Busy)?;
        if record.is_in_flight() {
            return Err(Refusal::Busy);
        }
        // The record goes, and its cookie with it: its holder could take the name again at once.
        self.prepare_removal(slot).map(Prepared::Write).ok_or(Refusal::Busy)
    }

    /// Checks a Leave. `Done` carries the revision, for a caller whose lease ended before.
    ///
    /// # Errors
    /// `CookieUnknown`, or `Busy` while another change of the peer is in flight.
    pub fn prepare_leave(&mut self, cookie: &CookieHash, now: Now) -> Result<Prepared<u64>, Refusal> {
        let slot = self.records.by_cookie(cookie).ok_or(Refusal::CookieUnknown)?;
        let record = self.records.get_mut(slot).ok_or(Refusal::CookieUnknown)?;
        if record.is_in_flight() {
            return Err(Refusal::Busy);
        }
        if record.is_observer() {
            self.drop_observer(slot);
            return Ok(Prepared::Done(self.revision));
        }
        if record.state == RecordState::Inactive {
            return Ok(Prepared::Done(self.revision));
        }
        let mut peer = Peer { active: false, ..record.peer.clone() };
        if record.is_live(now.mono_ms) {
            peer.last_active_ms = now.wall_ms;
        }
        record.begin_change();
        self.in_flight += 1;
        Ok(Prepared::Write(Change::put(peer, record.revision)))
    }
}

fn presents(registration: &Registration, cookie: &CookieHash) -> bool {
    registration.presented.as_ref().is_some_and(|presented| presented.hash() == *cookie)
}

/// The record of `before` after this registration.
fn registered(before: &Peer, registration: &Registration, cookie: CookieHash, now: Now) -> Peer {
    let mut registrations = before.registrations.clone();
    registrations.add(now.wall_ms);
    let endpoint = registration.endpoint.as_ref().map_or("", Endpoint::as_str);
    Peer {
        strings: PackedStrings::new(registration.name.as_str(), endpoint, &registration.labels),
        active: registration.endpoint.is_some(),
        id: registration.id.unwrap_or(before.id),
        cookie,
        address: registration.address,
        first_registered_ms: before.first_registered_ms,
        last_registered_ms: now.wall_ms,
        last_active_ms: now.wall_ms,
        registrations,
    }
}
