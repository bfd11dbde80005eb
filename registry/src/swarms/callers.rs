//! Peers that are members of a swarm, with what the lease table says of each: once, however many swarms it is in.

use super::{announce::Caller, limits::CALLER_BYTES};
use p2pdi::cookie::CookieHash;
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet};

/// A peer, and the swarms that it is in.
pub(super) struct KnownCaller {
    pub(super) caller: Caller,
    /// Slots of its swarms.
    pub(super) swarms: BTreeSet<u32>,
}

/// Peers in slots, found by cookie.
#[derive(Default)]
pub(super) struct Callers {
    slots: Slab<KnownCaller>,
    by_cookie: BTreeMap<[u8; 16], u32>,
    bytes: usize,
}

/// Estimated memory of a peer.
pub(super) fn bytes_of(caller: &Caller) -> usize {
    CALLER_BYTES + caller.name.len() + caller.endpoint.len() + caller.zone.len()
}

impl Callers {
    pub(super) fn get(&self, slot: u32) -> Option<&KnownCaller> {
        self.slots.get(slot as usize)
    }

    pub(super) fn slot(&self, cookie: &CookieHash) -> Option<u32> {
        self.by_cookie.get(cookie.as_bytes()).copied()
    }

    /// Estimated memory of all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the caller, or notes what changed of it. Gives its slot; `None` if there are 2^32.
    pub(super) fn update(&mut self, caller: &Caller) -> Option<u32> {
        let slot = match self.slot(&caller.cookie) {
            Some(slot) => {
                let known = self.slots.get_mut(slot as usize)?;
                self.bytes -= bytes_of(&known.caller);
                known.caller = caller.clone();
                slot
            }
            None => {
                let slot = u32::try_from(self.slots.vacant_key()).ok()?;
                self.slots.insert(KnownCaller { caller: caller.clone(), swarms: BTreeSet::new() });
                self.by_cookie.insert(*caller.cookie.as_bytes(), slot);
                slot
            }
        };
        self.bytes += bytes_of(caller);
        Some(slot)
    }

    /// The caller is in this swarm.
    pub(super) fn join(&mut self, slot: u32, swarm: u32) {
        if let Some(known) = self.slots.get_mut(slot as usize) {
            known.swarms.insert(swarm);
        }
    }

    /// The caller is not in this swarm any more. One that is in none is forgotten.
    pub(super) fn leave(&mut self, slot: u32, swarm: u32) {
        let Some(known) = self.slots.get_mut(slot as usize) else { return };
        known.swarms.remove(&swarm);
        if known.swarms.is_empty()
            && let Some(known) = self.slots.try_remove(slot as usize)
        {
            self.by_cookie.remove(known.caller.cookie.as_bytes());
            self.bytes -= bytes_of(&known.caller);
        }
    }
}
