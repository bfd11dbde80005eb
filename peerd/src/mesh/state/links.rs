//! Opens, replaces and closes links.

use super::State;
use crate::{
    mesh::{
        handshakes::TooMany,
        input::{Input, Purpose},
        joins::{JoinFailure, Joined},
        link::{EstablishedLink, HANDSHAKE_TIMEOUT, Incoming, LinkEvent, OpenError},
        links::Link,
        send_queue::{LinkSender, SendError},
    },
    overlay::{
        Action, Event, PeerId,
        link::{Keep, keep},
    },
};
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    log_limit::Line,
    name::PeerName,
    status::Reason,
    tls::Identity,
    v1::{LinkFrame, link_frame::Body},
};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::Status;

/// Links one address may have open: half of what the overlay holds (`membership::MAX_LINKS`), so that others always find room.
const LINKS_PER_ADDRESS: usize = 32;

/// Whether a frame still counts when another link replaced the one it came on: it is not about its link.
fn outlives_its_link(body: &Body) -> bool {
    matches!(
        body,
        Body::Broadcast(_)
            | Body::Acknowledge(_)
            | Body::Relay(_)
            | Body::RelayReply(_)
            | Body::Seek(_)
            | Body::SeekReply(_)
            | Body::Namesake(_)
    )
}

impl State {
    /// Opens a link to a peer whose name and endpoint are known.
    pub(super) fn dial_contact(&mut self, contact: &Contact, purpose: Purpose) {
        self.dial(vec![(contact.endpoint().clone(), Some(contact.name().clone()))], purpose);
    }

    /// Opens a link to the first of `targets` that answers: endpoints, and the name of the peer expected there, if it is known.
    pub(super) fn dial(&mut self, targets: Vec<(Endpoint, Option<PeerName>)>, purpose: Purpose) {
        match self.handshakes.dial(targets, purpose) {
            Ok(handshake) => self.spawner.spawn("link dial", handshake),
            Err(purpose) => self.open_failed(purpose, &"too many links are being opened".into()),
        }
    }

    /// Begins the handshake on a link that another peer opens.
    ///
    /// # Errors
    /// When too many links are being opened.
    pub(in crate::mesh) fn accept(
        &mut self,
        frames: Incoming,
        sender: LinkSender,
        caller: Option<IpAddr>,
        identity: Option<Arc<Identity>>,
    ) -> Result<(), Status> {
        let why = match self.handshakes.accept(frames, sender, caller, identity) {
            Ok(handshake) => {
                self.spawner.spawn("link accept", handshake);
                return Ok(());
            }
            Err(TooMany::InAll) => "too many links are being opened; try again later",
            Err(TooMany::FromAddress(ip)) => {
                if let Some(Line { suppressed }) = self.logs.handshakes_of_address.line() {
                    tracing::warn!(address = %ip, suppressed, "one address opens too many links; closing those past its share");
                }
                "this address opens too many links at once; try again later"
            }
        };
        Err(Reason::TooManyStreams.status(why))
    }

    /// Handles what the reader of link `number` read, and took so long to check; returns whether it should read on.
    pub(in crate::mesh) fn on_link_event(&mut self, number: u64, peer: PeerId, event: LinkEvent, checking: Duration) -> bool {
        let begun = Instant::now();
        let Some(link) = self.links.get(peer) else { return false };
        match event {
            // Another link replaced this one. Frames in flight are not lost, except those about the link itself.
            LinkEvent::Frame(frame) if link.number != number => {
                if frame.body.as_ref().is_some_and(outlives_its_link) {
                    self.on_frame(peer, frame);
                }
            }
            _ if link.number != number => return false,
            LinkEvent::Frame(frame) => self.on_frame(peer, frame),
            LinkEvent::Flawed { bytes, flaw, id } => self.on_flawed(peer, bytes, &flaw, id),
            LinkEvent::Unreadable(bytes) => self.handle_event(Event::Received { from: peer, message: None, bytes }),
            LinkEvent::Ended(why, None) => {
                tracing::debug!(%peer, why, "a link ended");
                self.link_lost(peer);
            }
            LinkEvent::Ended(_, Some(what)) => {
                self.on_misbehaviour(peer, what);
                self.ban(peer, what);
            }
        }
        self.handle_events();
        let now = self.now();
        let pause = self.overlay.handled(peer, checking + begun.elapsed(), now);
        self.perform(Vec::from_iter(pause));
        true
    }

    pub(in crate::mesh) fn on_input(&mut self, input: Input) {
        match input {
            Input::Opened(link, purpose) => {
                self.handshakes.finished(&purpose);
                self.opened(*link, purpose);
            }
            Input::OpenFailed(purpose, error) => {
                self.handshakes.finished(&purpose);
                self.open_failed(purpose, &error);
            }
            Input::PeersFound(peers) => {
                self.check_names(&peers);
                self.handle_event(Event::PeersFound(peers));
            }
            Input::Reply(peer, frame) => self.send(peer, frame),
        }
        self.handle_events();
    }

    fn open_failed(&mut self, purpose: Purpose, error: &OpenError) {
        let is_invalid = matches!(error, OpenError::Invalid(_));
        if is_invalid {
            self.abuse.record();
            self.publisher.mark_changed();
        }
        let why = error.why();
        match purpose {
            Purpose::Overlay(peer) => {
                tracing::debug!(%peer, why, "cannot open a link");
                self.overlay_events.push_back(Event::DialFailed { peer });
            }
            Purpose::Bootnode(index) => {
                let now = self.now();
                self.candidates.bootnodes.failed(index, why, now, rand::random());
            }
            Purpose::Join(endpoint) => {
                let failure = match error {
                    OpenError::OtherNetwork(_) => JoinFailure::OtherNetwork(why.to_owned()),
                    _ => JoinFailure::Failed(why.to_owned()),
                };
                self.joins.end(&endpoint, &Err(failure));
            }
            Purpose::NameConflict(peer) => {
                tracing::debug!(%peer, why, "a peer that is said to have this peer's name does not answer");
                let now = self.now();
                self.name_conflicts.failed(peer, now);
            }
            Purpose::Accepted(caller) => {
                if is_invalid && let Some(Line { suppressed }) = self.logs.invalid_hello.line() {
                    tracing::warn!(
                        address = caller.map(tracing::field::display),
                        why,
                        suppressed,
                        "an invalid handshake on a link"
                    );
                }
                if matches!(error, OpenError::OtherNetwork(_))
                    && let Some(Line { suppressed }) = self.logs.other_network.line()
                {
                    let address = caller.map(tracing::field::display);
                    tracing::info!(address, why, suppressed, "a peer of another network asked for a link, and is refused");
                }
                tracing::debug!(?caller, why, "a link was not accepted");
            }
        }
    }

    fn opened(&mut self, link: EstablishedLink, purpose: Purpose) {
        let (contact, now) = (link.contact.clone(), self.now());
        if contact.id() == self.me.id() {
            match purpose {
                Purpose::Bootnode(index) => self.candidates.bootnodes.is_me(index),
                other => self.open_failed(other, &"that is this peer itself".into()),
            }
            return;
        }
        self.on_hello(&contact);
        if self.abuse.is_banned(contact.id(), now) && !matches!(purpose, Purpose::Join(_)) {
            self.open_failed(purpose, &"it is banned for a while because of what it sent".into());
            return;
        }
        let (mut caller, mut join) = (None, None);
        let wants_neighbour = match purpose {
            Purpose::Accepted(from) => {
                caller = from;
                false
            }
            Purpose::Overlay(peer) if peer == contact.id() => false,
            Purpose::Overlay(gone) => {
                self.open_failed(purpose, &"another peer answers at its address".into());
                // A bootnode or a neighbour with a new id may be known to no other peer.
                if self.candidates.has_new_id(gone, &contact) {
                    self.overlay_events.push_back(Event::Probe(contact));
                }
                return;
            }
            Purpose::NameConflict(peer) => {
                if peer != contact.id() || contact.name() != self.me.name() {
                    self.open_failed(purpose, &"another peer answers at its address".into());
                }
                // The hello is all that was wanted.
                return;
            }
            Purpose::Bootnode(index) => {
                self.candidates.bootnodes.reached(index, &contact, now);
                true
            }
            Purpose::Join(endpoint) => {
                self.abuse.lift_ban(contact.id());
                let linked = self.is_live_neighbour(contact.id());
                if linked {
                    // Both ends decide by the same rule which of the two links stays.
                    self.joins.end(&endpoint, &Ok(Joined { contact: contact.clone(), already: true }));
                } else {
                    join = Some(endpoint);
                }
                !linked
            }
        };
        if let Some(ip) = caller
            && self.links.opened_from(ip) >= LINKS_PER_ADDRESS
        {
            if let Some(Line { suppressed }) = self.logs.links_of_address.line() {
                tracing::warn!(address = %ip, suppressed, "one address has too many links open; closing those past its share");
            }
            return;
        }
        if wants_neighbour {
            let mut actions = self.overlay.handle(Event::Join(contact.clone()), now);
            // The link is open already.
            actions.retain(|action| !matches!(action, Action::Dial(dialled) if dialled.id() == contact.id()));
            self.perform(actions);
        }
        self.add_link(link, caller);
        if let Some(endpoint) = join {
            self.handle_events();
            self.await_joined(&endpoint, &contact);
        }
    }

    /// Whether a peer is a neighbour, and something arrived from it lately.
    pub(super) fn is_live_neighbour(&self, peer: PeerId) -> bool {
        self.overlay.membership().is_neighbour(peer) && self.overlay.is_fresh(peer, self.now())
    }

    /// Adds a link, unless an open link to the same peer stays in its place.
    ///
    /// A peer that dialled twice keeps the one of the two links that it had first, see [`crate::mesh::spares`].
    fn add_link(&mut self, link: EstablishedLink, caller: Option<IpAddr>) {
        let (contact, now) = (link.contact.clone(), self.now());
        let peer = contact.id();
        if let Some(existing) = self.links.get(peer) {
            let fresh = self.overlay.is_fresh(peer, now);
            let crossing =
                existing.dialled_at.is_some() != link.dialled_at.is_some() && existing.opened_at.elapsed() < HANDSHAKE_TIMEOUT;
            if fresh && !crossing {
                // The linked peer is alive: another peer that claims its id must not replace it.
                if caller.is_some() && existing.contact != contact {
                    self.abuse.record();
                    self.publisher.mark_changed();
                    if let Some(Line { suppressed }) = self.logs.claimed_id.line() {
                        tracing::warn!(peer = %existing.contact.name(), claimed_as = %contact.name(), from = ?caller, suppressed,
                            "a second link with the id of a linked peer, from another address; keeping the first link");
                    }
                } else if caller.is_some() && existing.caller == caller && existing.opened_at.elapsed() < HANDSHAKE_TIMEOUT {
                    self.spares.hold(peer, link, caller, now);
                }
                return;
            }
            let dialled = |at: &Option<Endpoint>| at.is_some();
            if fresh && keep(self.me.id(), peer, dialled(&existing.dialled_at), dialled(&link.dialled_at)) == Keep::Existing {
                return;
            }
            if !fresh {
                // Messages sent on the old link may be lost.
                let actions = self.routing.link_down(peer);
                self.perform_routing(actions);
            }
            self.links.remove(peer);
        }
        self.insert_link(link, caller);
    }

    fn insert_link(&mut self, link: EstablishedLink, caller: Option<IpAddr>) {
        let (contact, peer, now) = (link.contact.clone(), link.contact.id(), self.now());
        self.warn_of_duplicate_name(&contact);
        let (incarnation, dialled) = (link.incarnation, link.dialled_at.is_some());
        let is_neighbour = self.overlay.membership().is_neighbour(peer);
        let (number, reader) = self.links.insert(link, is_neighbour, caller);
        self.spawner.read(number, contact.clone(), reader);
        self.candidates.reconnect.linked(peer);
        self.broadcasts.link_up(now);
        self.publisher.mark_changed();
        self.overlay_events.push_back(Event::LinkUp { peer: contact, incarnation, dialled });
    }

    /// Closes a link that the overlay does not want any more. What is queued still goes out, unless the peer is `silent`.
    pub(super) fn close(&mut self, peer: PeerId, silent: bool) {
        let Some(link) = self.remove_link(peer) else { return };
        if silent {
            if let Some(Line { suppressed }) = self.logs.silent.line() {
                tracing::info!(peer = %link.contact.name(), suppressed, "nothing arrives from a peer any more; closing its link");
            }
            self.remember_lost(&link);
        }
    }

    /// A link ended by itself, or the other side does not read.
    pub(super) fn link_lost(&mut self, peer: PeerId) {
        if let Some((spare, caller)) = self.spares.take(peer) {
            // The other side has closed the link that it had second.
            let actions = self.routing.link_down(peer);
            self.perform_routing(actions);
            self.links.remove(peer);
            self.insert_link(spare, caller);
        } else if let Some(link) = self.remove_link(peer) {
            self.remember_lost(&link);
            self.overlay_events.push_back(Event::LinkDown { peer });
        }
    }

    /// Closes a link, and fails what waits for its peer.
    fn remove_link(&mut self, peer: PeerId) -> Option<Link> {
        let link = self.links.remove(peer)?;
        self.spares.remove(peer);
        self.publisher.mark_changed();
        let now = self.now();
        self.broadcasts.link_down(peer, now);
        let actions = self.routing.link_down(peer);
        self.perform_routing(actions);
        self.not_joined(peer);
        Some(link)
    }

    /// Only former neighbours are reconnected to.
    fn remember_lost(&mut self, link: &Link) {
        if link.neighbour {
            let now = self.now();
            self.candidates.reconnect.remember(link.contact.clone(), now, rand::random());
        }
    }

    /// Queues a frame. A link whose queue is full is closed: the other side does not read.
    pub(super) fn send(&mut self, peer: PeerId, frame: LinkFrame) {
        let Err(error) = self.links.send(peer, frame) else { return };
        if let Some(link) = self.links.get(peer) {
            match error {
                SendError::Full => {
                    if let Some(Line { suppressed }) = self.logs.not_reading.line() {
                        tracing::info!(peer = %link.contact.name(), suppressed, "a peer does not read what it is sent; closing its link");
                    }
                }
                // Its reader is about to report why.
                SendError::Closed => tracing::debug!(peer = %link.contact.name(), "a link has ended"),
            }
        }
        self.link_lost(peer);
    }
}
