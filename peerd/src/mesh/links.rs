//! The table of open links.

use super::{
    link::{EstablishedLink, Reader},
    log_once::LogOnce,
    send_queue::{LinkSender, Origin, SendError},
};
use crate::overlay::PeerId;
use bytes::Bytes;
use p2pdi::{
    contact::Contact,
    endpoint::{Endpoint, client_network},
    name::PeerName,
    v1::LinkFrame,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Chains of certificates remembered for each link as sent, 100 bytes each; then all are sent again when they are needed.
const CHAINS_MAX: usize = 1_024;

/// An open link.
pub(super) struct Link {
    /// Distinguishes it from earlier and later links to the same peer.
    pub(super) number: u64,
    pub(super) contact: Contact,
    pub(super) opened_at: Instant,
    /// The overlay has the peer in its active view.
    pub(super) neighbour: bool,
    /// Where this side dialled it; `None`: the other side did.
    pub(super) dialled_at: Option<Endpoint>,
    /// The address it was opened from, if the other side opened it.
    pub(super) caller: Option<IpAddr>,
    /// Frames on it that a peer should not send.
    pub(super) misbehaved: u32,
    /// Hashes of the chains of certificates that were sent on it.
    chains: BTreeSet<Bytes>,
    sender: LinkSender,
    /// Nothing is read before this time.
    paused_until: watch::Sender<Instant>,
    was_paused: bool,
    closing: CancellationToken,
}

impl Link {
    /// Whether a chain of certificates was not sent yet, and is sent now.
    pub(super) fn begins_chain(&mut self, hash: &Bytes) -> bool {
        if self.chains.len() >= CHAINS_MAX {
            self.chains.clear();
        }
        self.chains.insert(hash.clone())
    }

    /// A chain is not sent, after all.
    pub(super) fn forget_chain(&mut self, hash: &Bytes) {
        self.chains.remove(hash);
    }

    /// The other side may have forgotten the chains that it was sent.
    pub(super) fn forget_chains(&mut self) {
        self.chains.clear();
    }
}

/// Open links, by peer.
#[derive(Default)]
pub(super) struct LinkTable {
    links: BTreeMap<PeerId, Link>,
    /// Links ever opened: the number of the latest.
    opened: u64,
    duplicate_names: LogOnce<PeerName>,
}

impl LinkTable {
    /// Adds a link; returns its number and what reads it.
    pub(super) fn insert(&mut self, link: EstablishedLink, neighbour: bool, caller: Option<IpAddr>) -> (u64, Reader) {
        let EstablishedLink { contact, dialled_at, sender, frames, .. } = link;
        self.opened += 1;
        let number = self.opened;
        let now = Instant::now();
        let (paused_until, pause) = watch::channel(now);
        let closing = CancellationToken::new();
        let reader = Reader { frames, pause, closing: closing.clone() };
        let peer = contact.id();
        let link = Link {
            number,
            contact,
            opened_at: now,
            neighbour,
            dialled_at,
            caller,
            misbehaved: 0,
            chains: BTreeSet::new(),
            sender,
            paused_until,
            was_paused: false,
            closing,
        };
        self.links.insert(peer, link);
        (number, reader)
    }

    /// Closes the link to `peer`. What is queued still goes out.
    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Link> {
        let link = self.links.remove(&peer)?;
        link.closing.cancel();
        Some(link)
    }

    /// Closes all links. What is queued still goes out.
    pub(super) fn close_all(&mut self) {
        for (_, link) in std::mem::take(&mut self.links) {
            link.closing.cancel();
        }
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Link> {
        self.links.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Link> {
        self.links.get_mut(&peer)
    }

    pub(super) fn contains(&self, peer: PeerId) -> bool {
        self.links.contains_key(&peer)
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// The linked peers, by id.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.links.values().map(|link| &link.contact)
    }

    /// Whether the linked peer is the one that a registry's `record` is about. What a peer says of itself proves nothing: without
    /// certificates it is that one only if it was dialled at the address in the record, or called from there.
    pub(super) fn is_registered(&self, record: &Contact) -> bool {
        let is_at = |link: &Link| match (&link.dialled_at, link.caller) {
            (Some(dialled), _) => dialled == record.endpoint(),
            (None, Some(caller)) => record.endpoint().ip().is_some_and(|ip| client_network(ip) == caller),
            (None, None) => false,
        };
        self.links.get(&record.id()).is_some_and(|link| link.contact.name() == record.name() && is_at(link))
    }

    /// How many links were opened from this address.
    pub(super) fn opened_from(&self, ip: IpAddr) -> usize {
        self.links.values().filter(|link| link.caller == Some(ip)).count()
    }

    /// Another linked peer that has the name of `contact`: once for each name, so that it is logged once.
    pub(super) fn new_duplicate_of(&mut self, contact: &Contact) -> Option<&Contact> {
        let is_duplicate = |other: &Contact| other.name() == contact.name() && other.id() != contact.id();
        let duplicate = self.links.values().map(|link| &link.contact).find(|other| is_duplicate(other))?;
        self.duplicate_names.is_new(contact.name().clone()).then_some(duplicate)
    }

    /// Whether the queue of a link is so full that messages of this origin should not be added to it.
    pub(super) fn is_congested(&self, peer: PeerId, origin: &Origin<'_>) -> bool {
        self.links.get(&peer).is_some_and(|link| link.sender.is_congested(origin))
    }

    /// Queues a frame. Without a link it is dropped.
    ///
    /// # Errors
    /// When the link does not take frames any more: it must be closed.
    pub(super) fn send(&self, peer: PeerId, frame: LinkFrame) -> Result<(), SendError> {
        self.links.get(&peer).map_or(Ok(()), |link| link.sender.send(frame))
    }

    /// Stops reading a link for a while. Returns the peer the first time, so that it is logged once.
    pub(super) fn pause(&mut self, peer: PeerId, pause: Duration) -> Option<&Contact> {
        let link = self.links.get_mut(&peer)?;
        link.paused_until.send_replace(Instant::now() + pause);
        (!std::mem::replace(&mut link.was_paused, true)).then_some(&link.contact)
    }
}
