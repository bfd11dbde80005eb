//! Signatures: those of this peer, chains of certificates that go with those of others, and what was not signed as it should be.

use super::State;
use crate::{
    mesh::flaw::Flaw,
    overlay::{Action, Message, Misbehaviour, PeerId, routing, wire},
};
use p2pdi::{
    log_limit::Line,
    v1::{self, Broadcast, BroadcastId, Graft, LinkFrame, link_frame::Body},
};

impl State {
    /// Sends a message of the overlay. The first broadcast of each origin on a link has the origin's certificates with it.
    pub(super) fn send_message(&mut self, peer: PeerId, message: &Message) {
        let mut frame = wire::frame(message);
        if let Some(signatures) = &self.signatures
            && let Some(Body::Broadcast(Broadcast { signature: Some(signature), .. })) = &mut frame.body
            && let Some(link) = self.links.get_mut(peer)
            && link.begins_chain(&signature.chain_hash)
        {
            signature.chain = signatures.chain(&signature.chain_hash);
            if signature.chain.is_empty() {
                // Forgotten since: the other side could not check it.
                link.forget_chains();
                return;
            }
        }
        self.send(peer, frame);
    }

    /// A frame arrived that was not signed as it should be: it goes no further.
    pub(super) fn on_flawed(&mut self, from: PeerId, bytes: usize, flaw: &Flaw, id: Option<BroadcastId>) {
        if !self.admit(from, bytes) {
            return;
        }
        match (flaw, id) {
            (Flaw::Forged(why), _) => {
                if let Some(Line { suppressed }) = self.logs.forged.line() {
                    let peer = self.links.get(from).map(|link| link.contact.name().to_string());
                    tracing::warn!(peer, why, suppressed, "a peer passed on a message that is forged; dropping it");
                }
                self.perform(vec![Action::Misbehaved(from, Misbehaviour::Forged)]);
            }
            // The answer to a pull comes with the certificates.
            (Flaw::ChainUnknown, Some(id)) => self.pull(from, id),
            (Flaw::Refused(_) | Flaw::ChainUnknown, _) => {
                self.abuse.record();
                if let Some(Line { suppressed }) = self.logs.refused_signer.line() {
                    let why = flaw.why();
                    tracing::warn!(why, suppressed, "the signer of a message is refused; dropping it");
                }
            }
        }
    }

    fn pull(&mut self, from: PeerId, id: BroadcastId) {
        let graft = Graft { ids: vec![id], push: false };
        self.send(from, LinkFrame { body: Some(Body::Graft(graft)) });
    }

    /// Before the overlay handles a frame: what nobody signed cannot say how far this peer has counted. A later life of this peer that a
    /// neighbour tells of is pulled, and its signature checked.
    pub(super) fn check_counts(&mut self, from: PeerId, body: &mut Body) {
        if self.signatures.is_none() {
            return;
        }
        match body {
            Body::Advertise(advertise) => {
                let me = self.me.id().to_field();
                let mine = advertise.adverts.extract_if(.., |advert| advert.origin == me);
                let newest = mine.filter(|advert| !advert.sequences.is_empty()).max_by_key(|advert| advert.incarnation);
                if let Some(v1::Advert { origin, incarnation, sequences, .. }) = newest
                    && incarnation > self.incarnation()
                {
                    let sequence = sequences.into_iter().max().unwrap_or_default();
                    self.pull(from, BroadcastId { origin, incarnation, sequence });
                }
            }
            Body::Graft(_) => {
                if let Some(link) = self.links.get_mut(from) {
                    link.forget_chains();
                }
            }
            _ => {}
        }
    }

    /// The reply that may be passed on: one that its sender alone vouches for is worth nothing further on.
    pub(super) fn for_others(&self, message: routing::Message) -> routing::Message {
        match message {
            routing::Message::RelayReply(reply) if self.signatures.is_some() && reply.delivered && reply.signature.is_none() => {
                routing::Message::RelayReply(routing::RelayReply::lost(reply.id))
            }
            message => message,
        }
    }
}
