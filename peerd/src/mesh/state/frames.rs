//! Frames that arrive on links: messages of the overlay, and those that are relayed along links.

use super::State;
use crate::{
    inbox::{Delivered, Reply, Whisper},
    mesh::{acks::Acknowledgement, input::Input, send_queue::Origin, whispers::WhisperError},
    overlay::routing::{self, RelayReply},
    overlay::{
        Action, Event, Message, Misbehaviour, PeerId,
        plumtree::{Gossip, MessageId},
        wire,
    },
};
use p2pdi::{
    contact::Contact,
    v1::{Announcement, LinkFrame, WhisperRequest, link_frame::Body},
};
use prost::Message as _;

/// Waits for the reply of a handler.
const REPLY_TASK: &str = "whisper reply";

impl State {
    /// Whether the sender of a message waits on a link for the reply of a handler.
    pub(super) fn is_replying(&self) -> bool {
        self.spawner.is_running(REPLY_TASK)
    }

    pub(super) fn on_frame(&mut self, from: PeerId, frame: LinkFrame) {
        let bytes = frame.encoded_len();
        match frame.body {
            Some(
                body @ (Body::Seek(_)
                | Body::SeekReply(_)
                | Body::Relay(_)
                | Body::RelayReply(_)
                | Body::Namesake(_)
                | Body::Acknowledge(_)),
            ) => {
                if self.admit(from, bytes) && !self.on_relayed(from, body) {
                    self.perform(vec![Action::Misbehaved(from, Misbehaviour::Unreadable)]);
                }
            }
            // An unknown frame of a newer version: it only shows that the peer is alive.
            None => drop(self.admit(from, bytes)),
            Some(mut body) => {
                self.before_overlay(from, &mut body);
                self.on_overlay_frame(from, body, bytes);
            }
        }
        self.handle_events();
    }

    fn on_overlay_frame(&mut self, from: PeerId, body: Body, bytes: usize) {
        match Message::try_from(LinkFrame { body: Some(body) }) {
            Err(wire::Error::Unknown) => drop(self.admit(from, bytes)),
            decoded => {
                let message = decoded.ok();
                if let Some(message) = &message {
                    self.check_names_in(message);
                }
                self.handle_event(Event::Received { from, message, bytes });
            }
        }
    }

    /// Counts a frame against its sender's share; returns whether to handle it.
    pub(super) fn admit(&mut self, from: PeerId, bytes: usize) -> bool {
        let now = self.now();
        let (admitted, action) = self.overlay.admit(from, bytes, now);
        self.perform(action.into_iter().collect());
        admitted
    }

    /// Handles a relayed frame; returns whether it is valid.
    fn on_relayed(&mut self, from: PeerId, body: Body) -> bool {
        let now = self.now();
        if let Body::Acknowledge(acknowledge) = body {
            let Some((id, peers)) = self.read_acknowledgements(from, acknowledge) else { return false };
            self.check_names(peers.iter().map(|by| &by.peer));
            self.broadcasts.acknowledged(id, peers, now);
            return true;
        }
        match routing::Message::read(body) {
            Ok(Some(message)) => {
                if let routing::Message::SeekReply { found: Some(found), .. } = &message {
                    self.check_names([found]);
                }
                let neighbours = self.neighbours();
                let actions = self.routing.received(from, message, &neighbours, now);
                self.perform_routing(actions);
                true
            }
            Ok(None) => true,
            Err(error) => {
                tracing::debug!(peer = %from, %error, "cannot decode a relayed message");
                false
            }
        }
    }

    /// Carries out actions of the routing.
    pub(super) fn perform_routing(&mut self, actions: Vec<routing::Action>) {
        use routing::Action;
        for action in actions {
            match action {
                // A burst of whispers is refused here: in the queue it would fill it, and close the link.
                Action::Send(peer, routing::Message::Relay(relay))
                    if self.links.is_congested(peer, &Origin::Name(&relay.from)) =>
                {
                    self.whispers.finish(relay.id, Err(WhisperError::Congested));
                    let actions = self.routing.refuse(relay.id);
                    self.perform_routing(actions);
                }
                Action::Send(peer, message) => {
                    let message = self.for_others(message);
                    self.send(peer, message.into_frame());
                }
                Action::Found(id, contact) => {
                    tracing::debug!(peer = %contact.name(), "found a route");
                    if let Some(relay) = self.whispers.take_relay(id) {
                        let actions = self.routing.send(relay);
                        self.perform_routing(actions);
                    }
                }
                Action::NoRoute(id) => self.whispers.finish(id, Err(WhisperError::NoRoute)),
                Action::Busy(id) => self.whispers.finish(id, Err(WhisperError::TooManySeeks)),
                Action::Answer(RelayReply { id, delivered_by, hops, reply_kind, reply, .. }) => {
                    let reply = Reply { kind: reply_kind, body: reply };
                    self.whispers.finish(id, Ok(Delivered { by: delivered_by, hops, reply }));
                }
                Action::Deliver(from, relay) => self.deliver(from, relay),
                Action::NameConflict(contact) => self.check_names([&contact]),
            }
        }
    }

    /// Delivers a relayed whisper to this peer, and sends the reply back to the neighbour it came from.
    fn deliver(&mut self, from: PeerId, relay: routing::Relay) {
        let routing::Relay { id, to, kind, body, from: sender, hops, message_id, signature } = relay;
        // What came over the sender's own link is answered there, and to no other peer.
        let signatures = self.signatures.clone().filter(|_| signature.is_some());
        let request = WhisperRequest { to: to.name.to_string(), kind, body, from: sender, hops, message_id, signature };
        match Whisper::try_from(request) {
            Ok(whisper) => {
                let reply_frame = move |Delivered { by, hops, reply }| {
                    let Reply { kind: reply_kind, body: reply } = reply;
                    let signature = signatures.and_then(|signing| signing.of_reply(&id.to_be_bytes(), &reply_kind, &reply));
                    let delivered_by = by;
                    let reply = RelayReply { id, delivered: true, delivered_by, hops, reply_kind, reply, signature };
                    routing::Message::RelayReply(reply).into_frame()
                };
                match self.delivery.whisper(whisper).at_once() {
                    Ok(delivered) => self.send(from, reply_frame(delivered)),
                    // At most as many of these tasks as the inbox keeps messages.
                    Err(pending) => {
                        let reply = async move { Input::Reply(from, reply_frame(pending.wait().await)) };
                        self.spawner.spawn(REPLY_TASK, reply);
                    }
                }
            }
            Err(status) => tracing::debug!(peer = %from, error = status.message(), "dropping an invalid relayed message"),
        }
    }

    pub(super) fn on_broadcast(&mut self, from: PeerId, gossip: Gossip) {
        let Gossip { id, payload, hops, .. } = gossip;
        let Ok(Announcement { sender, kind, body, acknowledge }) = Announcement::decode(payload) else {
            tracing::debug!(origin = %id.origin, "cannot decode a broadcast");
            return;
        };
        // The rest of the contact matters only if it has this peer's name.
        if let Some(sender) = &sender
            && sender.name.eq_ignore_ascii_case(self.me.name().as_str())
            && let Ok(sender) = wire::read_contact(sender.clone())
        {
            self.check_names([&sender]);
        }
        let sender = sender.map(|contact| contact.name).unwrap_or_default();
        self.delivery.broadcast(&sender, &kind, body, hops);
        if acknowledge {
            let now = self.now();
            let signature = self.signatures.as_ref().and_then(|signatures| signatures.of_acknowledgement(&id));
            let own = Acknowledgement { peer: self.me.clone(), signature };
            self.broadcasts.delivered(id, from, own, now);
        }
    }

    /// Passes acknowledgements of a broadcast back to its origin: over this peer's own link to it if there is one, else the way that the
    /// broadcast came.
    pub(super) fn send_acknowledgement(&mut self, came_from: PeerId, id: &MessageId, peers: Vec<Acknowledgement>) {
        let now = self.now();
        let to = match [id.origin, came_from].into_iter().find(|peer| self.links.contains(*peer)) {
            Some(to) => Some(to),
            None if self.links.is_empty() => None,
            // The link that the broadcast came by is gone; another neighbour has the broadcast as well.
            None if self.broadcasts.detour(id) => {
                self.overlay.plumtree().tree().parent().or_else(|| self.links.contacts().next().map(Contact::id))
            }
            None => return,
        };
        self.broadcasts.sent(to, *id, peers.clone(), now);
        let Some(to) = to else { return };
        for acknowledge in self.acknowledgements(to, id, peers) {
            self.send(to, LinkFrame { body: Some(Body::Acknowledge(acknowledge)) });
        }
    }
}
