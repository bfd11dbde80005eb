//! What arrives on links: the overlay's frames, and those that are relayed along them.

use super::{Input, State};
use crate::{
    inbox::{Delivered, Reply, Whisper},
    mesh::{NoWay, acks::PEERS_MAX, driver::Core},
    overlay::routing::{self, RelayReply},
    overlay::{
        Action, Contact, Event, Message, Misbehaviour, PeerId,
        plumtree::{Gossip, MessageId},
        wire,
    },
};
use p2pdi::v1::{Acknowledge, Announcement, LinkFrame, WhisperRequest, link_frame::Body};
use prost::Message as _;

impl State {
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
            // From a newer peer: a sign of life, and no more.
            None => drop(self.admit(from, bytes)),
            body => match Message::try_from(LinkFrame { body }) {
                Err(wire::Error::Unknown) => drop(self.admit(from, bytes)),
                read => {
                    let message = read.ok();
                    if let Some(message) = &message {
                        self.notice_in(message);
                    }
                    self.tell_overlay(Event::Received { from, message, bytes });
                }
            },
        }
        self.tell_events();
    }

    /// Counts a frame against its sender's share.
    fn admit(&mut self, from: PeerId, bytes: usize) -> bool {
        let now = self.now();
        let (admitted, action) = self.overlay.admit(from, bytes, now);
        self.perform(action.into_iter().collect());
        admitted
    }

    /// Handles what is relayed; says whether it could be read.
    fn on_relayed(&mut self, from: PeerId, body: Body) -> bool {
        let now = self.now();
        if let Body::Acknowledge(Acknowledge { id, peers }) = body {
            let id = id.as_ref().and_then(|id| wire::read_broadcast_id(id).ok());
            let (Some(id), true) = (id, peers.len() <= PEERS_MAX) else { return false };
            let peers: Result<Vec<_>, _> = peers.into_iter().map(wire::read_contact).collect();
            let Ok(peers) = peers else { return false };
            self.notice(&peers);
            self.acks.acknowledged(id, peers, now);
            return true;
        }
        match routing::Message::read(body) {
            Ok(Some(message)) => {
                if let routing::Message::SeekReply { found: Some(found), .. } = &message {
                    self.notice([found]);
                }
                let neighbours = self.neighbours();
                let actions = self.routing.received(from, message, &neighbours, now);
                self.route(actions);
                true
            }
            Ok(None) => true,
            Err(error) => {
                tracing::debug!(peer = %from, %error, "a relayed message cannot be read");
                false
            }
        }
    }

    /// Carries out what the routing wants.
    pub(super) fn route(&mut self, actions: Vec<routing::Action>) {
        use routing::Action;
        for action in actions {
            match action {
                // A burst of messages waits its turn elsewhere, or is refused; it must not cost the link.
                Action::Send(peer, routing::Message::Relay(relay)) if self.is_congested(peer) => {
                    if let Some(underway) = self.whispers.remove(&relay.id) {
                        let _ = underway.answer.send(Err(NoWay::Busy));
                    }
                    let actions = self.routing.refuse(relay.id);
                    self.route(actions);
                }
                Action::Send(peer, message) => self.send(peer, message.into_frame()),
                Action::Found(id, contact) => {
                    tracing::debug!(peer = %contact.name(), "the mesh knows a way");
                    let relay = self.whispers.get_mut(&id).and_then(|underway| underway.relay.take());
                    if let Some(relay) = relay {
                        let actions = self.routing.send(relay);
                        self.route(actions);
                    }
                }
                Action::NoWay(id) => self.has_no_way(id, NoWay::Unknown),
                Action::Busy(id) => self.has_no_way(id, NoWay::TooManySeeks),
                Action::Answer(RelayReply { id, delivered_by, hops, reply_kind, reply, .. }) => {
                    if let Some(underway) = self.whispers.remove(&id) {
                        let reply = Reply { kind: reply_kind, body: reply };
                        let _ = underway.answer.send(Ok(Delivered { by: delivered_by, hops, reply }));
                    }
                }
                Action::Deliver(from, relay) => self.deliver(from, relay),
                Action::Namesake(contact) => self.notice([&contact]),
            }
        }
    }

    fn has_no_way(&mut self, id: routing::RouteId, why: NoWay) {
        if let Some(underway) = self.whispers.remove(&id) {
            // Whoever asked may have gone.
            let _ = underway.answer.send(Err(why));
        }
    }

    fn deliver(&mut self, from: PeerId, relay: routing::Relay) {
        let routing::Relay { id, to, kind, body, from: sender, hops, message_id } = relay;
        let request = WhisperRequest { to: to.to_string(), kind, body, from: sender, hops, message_id };
        match Whisper::try_from(request) {
            Ok(whisper) => {
                let reply = move |Delivered { by, hops, reply }| {
                    let (reply_kind, reply) = (reply.kind, reply.body);
                    routing::Message::RelayReply(RelayReply { id, delivered: true, delivered_by: by, hops, reply_kind, reply })
                        .into_frame()
                };
                match self.post.whisper(whisper).at_once() {
                    Ok(delivered) => self.send(from, reply(delivered)),
                    // As many at once as the inbox keeps messages.
                    Err(receipt) => {
                        let core = self.core.clone();
                        let answer = async move {
                            let frame = reply(receipt.answered().await);
                            Core::tell(&core, Input::Answered(from, frame));
                        };
                        self.errands.spawn_on(answer, &self.runtime);
                    }
                }
            }
            Err(status) => tracing::debug!(peer = %from, error = status.message(), "a relayed message is not taken"),
        }
    }

    pub(super) fn on_broadcast(&mut self, from: PeerId, gossip: Gossip) {
        let Gossip { id, payload, hops, .. } = gossip;
        let Ok(Announcement { sender, kind, body, acknowledge }) = Announcement::decode(payload) else {
            tracing::debug!(origin = %id.origin, "a broadcast cannot be read");
            return;
        };
        // Its address is of interest only where it goes by this peer's name.
        if let Some(sender) = &sender
            && sender.name.eq_ignore_ascii_case(self.me.name().as_str())
            && let Ok(sender) = wire::read_contact(sender.clone())
        {
            self.notice([&sender]);
        }
        let sender = sender.map(|contact| contact.name).unwrap_or_default();
        self.post.broadcast(&sender, &kind, body, hops);
        if acknowledge {
            let now = self.now();
            self.acks.delivered(id, from, self.me.clone(), now);
        }
    }

    pub(super) fn send_acknowledgement(&mut self, to: PeerId, id: &MessageId, peers: &[Contact]) {
        let to = match self.links.contains_key(&to) {
            true => Some(to),
            // The link that the broadcast came by is gone; another neighbour has had it as well.
            false if self.acks.detour(id) => {
                self.overlay.plumtree().tree().parent().or_else(|| self.links.keys().next().copied())
            }
            false => None,
        };
        let Some(to) = to else { return };
        let peers = peers.iter().map(wire::contact).collect();
        let body = Body::Acknowledge(Acknowledge { id: Some(wire::broadcast_id(id)), peers });
        self.send(to, LinkFrame { body: Some(body) });
    }
}
