//! Signatures: those of this peer, chains of certificates that go with those of others, and what was not signed as it should be.

use super::State;
use crate::{
    mesh::{
        acks::{Acknowledgement, PEERS_MAX},
        flaw::Flaw,
    },
    overlay::{
        Action, Message, Misbehaviour, PeerId,
        plumtree::{MessageId, Root},
        routing, wire,
    },
};
use p2pdi::{
    log_limit::Line,
    v1::{self, Acknowledge, Beacon, Broadcast, BroadcastId, Graft, LinkFrame, Signature, link_frame::Body},
};
use prost::Message as _;

/// Bytes after which acknowledgements go on in another frame: one more with the longest chain is still far below what a link accepts.
const ACKNOWLEDGE_BYTES: usize = 64 * 1024;

impl State {
    /// Sends a message of the overlay. The first broadcast of each origin on a link has the origin's certificates with it.
    pub(super) fn send_message(&mut self, peer: PeerId, message: &Message) {
        let mut frame = wire::frame(message);
        if self.signatures.is_some() {
            if let Some(Body::Beacon(beacon)) = &mut frame.body {
                beacon.signature = self.root_signature(beacon);
                if beacon.signature.is_none() {
                    // It has a later one by now, and sends that next.
                    return;
                }
            }
            if let Some(
                Body::Broadcast(Broadcast { signature: Some(signature), .. })
                | Body::Beacon(Beacon { signature: Some(signature), .. }),
            ) = &mut frame.body
                && !self.add_chain(peer, signature)
            {
                return;
            }
        }
        self.send(peer, frame);
    }

    /// Adds the chain to a signature that `peer` was not sent yet. Returns whether `peer` can check the signature then.
    fn add_chain(&mut self, peer: PeerId, signature: &mut Signature) -> bool {
        let (Some(signatures), Some(link)) = (&self.signatures, self.links.get_mut(peer)) else { return true };
        if !link.begins_chain(&signature.chain_hash) {
            return true;
        }
        signature.chain = signatures.chain(&signature.chain_hash);
        // Forgotten since: the other side could not check it.
        let is_known = !signature.chain.is_empty();
        if !is_known {
            link.forget_chain(&signature.chain_hash);
        }
        is_known
    }

    /// The signature of a beacon that this peer sends: its own as the root, or the root's.
    fn root_signature(&mut self, beacon: &Beacon) -> Option<Signature> {
        let root = Root { incarnation: beacon.root_incarnation, id: PeerId::from_field("root", &beacon.root).ok()? };
        if let Some(known) = self.roots.get(root, beacon.sequence) {
            return Some(known.clone());
        }
        if root.id != self.me.id() {
            return None;
        }
        let signature = self.signatures.as_ref()?.of_beacon(&root, beacon.sequence)?;
        self.roots.learn(root, beacon.sequence, signature.clone(), root.id);
        Some(signature)
    }

    /// A frame arrived that was not signed as it should be: it goes no further.
    pub(super) fn on_flawed(&mut self, from: PeerId, bytes: usize, flaw: &Flaw, id: Option<BroadcastId>) {
        if !self.admit(from, bytes) {
            return;
        }
        match flaw {
            Flaw::Forged(why) => {
                if let Some(Line { suppressed }) = self.logs.forged.line() {
                    let peer = self.links.get(from).map(|link| link.contact.name().to_string());
                    tracing::warn!(peer, why, suppressed, "a peer passed on a message that is forged; dropping it");
                }
                self.perform(vec![Action::Misbehaved(from, Misbehaviour::Forged)]);
            }
            Flaw::ChainUnknown => self.pull(from, id.into_iter().collect()),
            Flaw::Refused(why) => {
                self.abuse.record();
                if let Some(Line { suppressed }) = self.logs.refused_signer.line() {
                    tracing::warn!(why, suppressed, "the signer of a message is refused; dropping it");
                }
            }
        }
    }

    /// Asks for broadcasts, or for none. What a peer sends after it was asked has the certificates with it.
    fn pull(&mut self, from: PeerId, ids: Vec<BroadcastId>) {
        self.send(from, LinkFrame { body: Some(Body::Graft(Graft { ids, push: false })) });
    }

    /// Before the overlay handles a frame: what nobody signed cannot say how far this peer has counted. A later life of this peer that a
    /// neighbour tells of is pulled, and its signature checked. The signatures of roots are kept, to be passed on.
    pub(super) fn before_overlay(&mut self, from: PeerId, body: &mut Body) {
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
                    self.pull(from, vec![BroadcastId { origin, incarnation, sequence }]);
                }
            }
            Body::Graft(_) => {
                if let Some(link) = self.links.get_mut(from) {
                    link.forget_chains();
                }
            }
            Body::Beacon(beacon) => {
                if let (Some(signature), Ok(id)) = (beacon.signature.take(), PeerId::from_field("root", &beacon.root)) {
                    let (followed, _) = self.overlay.plumtree().tree().root();
                    let root = Root { incarnation: beacon.root_incarnation, id };
                    self.roots.learn(root, beacon.sequence, signature, followed.id);
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

    /// Reads acknowledgements; `None`: they are not valid. Those whose certificates are not known here are left out, and the certificates
    /// are asked for.
    pub(super) fn read_acknowledgements(
        &mut self,
        from: PeerId,
        acknowledge: Acknowledge,
    ) -> Option<(MessageId, Vec<Acknowledgement>)> {
        let Acknowledge { id, peers, signatures } = acknowledge;
        let id = wire::read_broadcast_id(id.as_ref()?).ok()?;
        if peers.len() > PEERS_MAX {
            return None;
        }
        let peers = peers.into_iter().map(wire::read_contact).collect::<Result<Vec<_>, _>>().ok()?;
        if self.signatures.is_none() {
            return Some((id, peers.into_iter().map(|peer| Acknowledgement { peer, signature: None }).collect()));
        }
        // An empty signature takes the place of one whose certificates are not known.
        let (count, is_known) = (peers.len(), |signature: &Signature| !signature.value.is_empty());
        let signed = peers.into_iter().zip(signatures).filter(|(_, signature)| is_known(signature));
        let known: Vec<_> = signed.map(|(peer, signature)| Acknowledgement { peer, signature: Some(signature) }).collect();
        if known.len() < count {
            self.pull(from, Vec::new());
        }
        Some((id, known))
    }

    /// Acknowledgements of a broadcast as frames to `to`, with the certificates that it was not sent yet.
    pub(super) fn acknowledgements(&mut self, to: PeerId, id: &MessageId, peers: Vec<Acknowledgement>) -> Vec<Acknowledge> {
        let empty = || Acknowledge { id: Some(wire::broadcast_id(id)), ..Acknowledge::default() };
        let (mut frames, mut last, mut bytes) = (Vec::new(), empty(), 0);
        for Acknowledgement { peer, signature } in peers {
            let peer = wire::contact(&peer);
            bytes += peer.encoded_len();
            if let Some(mut signature) = signature {
                if !self.add_chain(to, &mut signature) {
                    continue;
                }
                bytes += signature.encoded_len();
                last.signatures.push(signature);
            }
            last.peers.push(peer);
            if bytes > ACKNOWLEDGE_BYTES {
                bytes = 0;
                frames.push(std::mem::replace(&mut last, empty()));
            }
        }
        frames.extend(Some(last).filter(|last| !last.peers.is_empty()));
        frames
    }
}
