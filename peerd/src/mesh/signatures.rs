//! Signs what this peer says to peers that it has no connection to, and checks what others say that way.
//!
//! The state of the mesh is locked meanwhile only for what this peer signs itself: links check what arrives on them before, each in its
//! own task. A check takes some 100 µs with ECDSA P-256, of something that was checked before some 1 µs.

use super::{
    acks::PEERS_MAX,
    flaw::{Flaw, forged},
    link::LinkEvent,
    recent::Recent,
};
use crate::overlay::{
    plumtree::{MessageId, Root},
    wire,
};
use bytes::Bytes;
use p2pdi::{
    contact::Contact,
    id::PeerId,
    name::PeerName,
    signed::{ChainHash, Proof, Statement},
    tls::{self, Identity, Tls},
    v1::{self, Announcement, LinkFrame, WhisperRequest, link_frame::Body},
};
use prost::Message as _;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Chains of certificates kept, some 3 KiB each; one more pushes out the oldest, which is sent again when it is needed.
const CHAINS_MAX: usize = 4_096;
/// Signatures remembered that were found to be right, some 100 bytes each: as many as there are broadcasts that neighbours may send twice.
const CHECKED_MAX: usize = 8_192;
/// How long a checked chain is used before it is checked again: CAs may be removed.
const CHAIN_LIFETIME: Duration = Duration::from_secs(600);
/// How far the time of a signature may be from this peer's clock: clocks of machines without a time server differ by minutes. What was
/// signed earlier could be repeated by anybody to a peer that was not there at the time.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(3_600);

/// How long before the start of this process something may have been signed: it remembers no message of earlier, so all of that could be
/// repeated to it. As much as clocks usually differ, and messages are under way.
const SIGNED_BEFORE_START_MAX: Duration = Duration::from_secs(300);

/// Signs and checks with the certificates of this peer and its network. Cheap to clone.
#[derive(Clone)]
pub struct Signatures(Arc<Shared>);

struct Shared {
    tls: Tls,
    network: String,
    me: PeerName,
    started_at: SystemTime,
    known: Mutex<Known>,
}

struct Known {
    chains: Recent<ChainHash, Chain>,
    /// By [`Proof::digest`].
    checked: Recent<[u8; 32], ()>,
}

#[derive(Clone)]
struct Chain {
    identity: Arc<Identity>,
    certificates: Vec<Bytes>,
    checked_at: Instant,
}

impl Signatures {
    /// Signs as `me` with the certificate of `tls`, which is for that name, in the network of this name.
    pub fn new(tls: Tls, network: impl Into<String>, me: PeerName) -> Self {
        Self::started_at(SystemTime::now(), tls, network, me)
    }

    fn started_at(started_at: SystemTime, tls: Tls, network: impl Into<String>, me: PeerName) -> Self {
        let known = Known { chains: Recent::new(CHAINS_MAX), checked: Recent::new(CHECKED_MAX) };
        Self(Arc::new(Shared { tls, network: network.into(), me, started_at, known: Mutex::new(known) }))
    }

    /// This peer's signature of a broadcast, without the chain.
    pub(super) fn of_broadcast(&self, me: &Contact, id: &MessageId, payload: &[u8]) -> Option<v1::Signature> {
        let MessageId { origin, incarnation, sequence } = *id;
        let (network, name) = (self.network(), me.name());
        let signature = self.sign(&Statement::Broadcast { network, origin, name, incarnation, sequence, payload })?;
        Some(v1::Signature { chain: Vec::new(), ..signature })
    }

    /// This peer's signature of a whisper, with the chain.
    pub(crate) fn of_whisper(&self, to: &PeerName, message_id: &[u8], kind: &str, body: &[u8]) -> Option<v1::Signature> {
        self.sign(&Statement::Whisper { network: self.network(), from: &self.0.me, to, message_id, kind, body })
    }

    /// This peer's signature of its reply to a relayed whisper, with the chain.
    pub(super) fn of_reply(&self, relay: &[u8], kind: &str, body: &[u8]) -> Option<v1::Signature> {
        self.sign(&Statement::Reply { network: self.network(), by: &self.0.me, relay, kind, body })
    }

    /// This peer's signature of the acknowledgement of a broadcast, without the chain.
    pub(super) fn of_acknowledgement(&self, id: &MessageId) -> Option<v1::Signature> {
        let MessageId { origin, incarnation, sequence } = *id;
        let (network, by) = (self.network(), &self.0.me);
        let signature = self.sign(&Statement::Acknowledgement { network, by, origin, incarnation, sequence })?;
        Some(v1::Signature { chain: Vec::new(), ..signature })
    }

    /// This peer's signature of its beacon as the root, without the chain.
    pub(super) fn of_beacon(&self, root: &Root, sequence: u64) -> Option<v1::Signature> {
        let Root { id, incarnation } = *root;
        let (network, name) = (self.network(), &self.0.me);
        let signature = self.sign(&Statement::Beacon { network, root: id, name, incarnation, sequence })?;
        Some(v1::Signature { chain: Vec::new(), ..signature })
    }

    /// Signs a whisper for a peer that passes it on: it is from this program's name then, and has an id.
    pub fn sign_whisper(&self, request: WhisperRequest) -> WhisperRequest {
        let message_id = match request.message_id.len() {
            0 => Bytes::copy_from_slice(&rand::random::<u128>().to_be_bytes()),
            _ => request.message_id.clone(),
        };
        let to = request.to.parse::<PeerName>().ok();
        let signature = to.and_then(|to| self.of_whisper(&to, &message_id, &request.kind, &request.body));
        WhisperRequest { from: self.0.me.to_string(), message_id, signature, ..request }
    }

    /// Checks who signed a whisper.
    ///
    /// # Errors
    /// When it is not the peer, or the operator, that it is said to be from.
    pub(crate) fn check_whisper(&self, request: &WhisperRequest) -> Result<(), Flaw> {
        let WhisperRequest { to, kind, body, from, message_id, signature, .. } = request;
        let whisper = Relayed { to, kind, body, from, message_id, signature: signature.as_ref() };
        self.check_relayed(&whisper)
    }

    /// The certificates of a chain that was sent or checked here lately.
    pub(super) fn chain(&self, hash: &Bytes) -> Vec<Bytes> {
        let Ok(hash) = ChainHash::from_field(hash) else { return Vec::new() };
        self.known().chains.get(&hash).map(|chain| chain.certificates.clone()).unwrap_or_default()
    }

    /// Checks what arrived on the link to `from`: what is wrong takes the place of the frame.
    pub(super) fn screen(&self, from: &Contact, event: LinkEvent) -> LinkEvent {
        let LinkEvent::Frame(mut frame) = event else { return event };
        match self.check_frame(from, &mut frame) {
            Ok(()) => LinkEvent::Frame(frame),
            Err(flaw) => {
                let bytes = frame.encoded_len();
                let id = match frame.body {
                    Some(Body::Broadcast(broadcast)) => broadcast.id,
                    _ => None,
                };
                LinkEvent::Flawed { bytes, flaw, id }
            }
        }
    }

    fn check_frame(&self, from: &Contact, frame: &mut LinkFrame) -> Result<(), Flaw> {
        match &mut frame.body {
            Some(Body::Broadcast(broadcast)) => self.check_broadcast(broadcast),
            Some(Body::Relay(relay)) => {
                let v1::Relay { to, kind, body, from: sender, message_id, signature, .. } = relay;
                let is_from_sender = is_name(sender, from.name()) && is_name(to, &self.0.me);
                if signature.is_none() && is_from_sender {
                    return Ok(());
                }
                let whisper = Relayed { to, kind, body, from: sender, message_id, signature: signature.as_ref() };
                self.check_relayed(&whisper).map_err(with_chain)
            }
            Some(Body::RelayReply(reply)) if reply.delivered => {
                let v1::RelayReply { id, delivered_by, reply_kind: kind, reply: body, signature, .. } = reply;
                if signature.is_none() && is_name(delivered_by, from.name()) {
                    return Ok(());
                }
                let by = name(delivered_by)?;
                let statement = Statement::Reply { network: self.network(), by: &by, relay: id, kind, body };
                self.check(&statement, &by, &proof(signature.as_ref())?).map_err(with_chain)
            }
            Some(Body::Acknowledge(acknowledge)) => self.check_acknowledge(acknowledge),
            Some(Body::Beacon(beacon)) => self.check_beacon(beacon),
            Some(Body::ForwardJoin(v1::ForwardJoin { newcomer: contact, .. })) => check_contacts(contact.as_ref()),
            Some(Body::SeekReply(v1::SeekReply { peer, .. }) | Body::Namesake(v1::Namesake { peer, .. })) => {
                check_contacts(peer.as_ref())
            }
            Some(
                Body::NeighbourReply(v1::NeighbourReply { peers, .. })
                | Body::Disconnect(v1::Disconnect { peers, .. })
                | Body::Shuffle(v1::Shuffle { peers, .. })
                | Body::ShuffleReply(v1::ShuffleReply { peers, .. }),
            ) => check_contacts(&*peers),
            _ => Ok(()),
        }
    }

    /// Also takes the chains out: they are kept here. A signature whose chain is not known becomes empty, and whom this peer alone refuses is
    /// left out.
    fn check_acknowledge(&self, acknowledge: &mut v1::Acknowledge) -> Result<(), Flaw> {
        let v1::Acknowledge { id, peers, signatures } = acknowledge;
        let id = id.as_ref().and_then(|id| wire::read_broadcast_id(id).ok()).ok_or_else(|| forged("it has no valid id"))?;
        let MessageId { origin, incarnation, sequence } = id;
        if peers.len() != signatures.len() || peers.len() > PEERS_MAX {
            return Err(forged("it has not one signature of each peer"));
        }
        check_contacts(&*peers)?;
        let mut checked = Vec::with_capacity(peers.len());
        for (peer, mut signature) in peers.drain(..).zip(signatures.drain(..)) {
            let by = name(&peer.name)?;
            let statement = Statement::Acknowledgement { network: self.network(), by: &by, origin, incarnation, sequence };
            match self.check(&statement, &by, &proof(Some(&signature))?) {
                Ok(()) => signature.chain.clear(),
                Err(Flaw::ChainUnknown) => signature = v1::Signature::default(),
                Err(Flaw::Refused(_)) => continue,
                Err(forged @ Flaw::Forged(_)) => return Err(forged),
            }
            checked.push((peer, signature));
        }
        (*peers, *signatures) = checked.into_iter().unzip();
        Ok(())
    }

    /// Also takes the chain out of it: it is kept here.
    fn check_beacon(&self, beacon: &mut v1::Beacon) -> Result<(), Flaw> {
        let v1::Beacon { root, root_incarnation: incarnation, sequence, signature, .. } = beacon;
        let root = PeerId::from_field("root", root).map_err(|_| forged("it has no valid root"))?;
        let proof = proof(signature.as_ref())?;
        let identity = self.identity(&proof, SystemTime::now())?;
        let name = identity.names().iter().find(|name| PeerId::of_name(name) == root);
        let name = name.ok_or_else(|| forged(&format!("{identity} is not the root that it names")))?;
        let statement = Statement::Beacon { network: self.network(), root, name, incarnation: *incarnation, sequence: *sequence };
        self.check(&statement, name, &proof)?;
        if let Some(signature) = signature {
            signature.chain.clear();
        }
        Ok(())
    }

    /// Also takes the chain out of it: it is kept here.
    fn check_broadcast(&self, broadcast: &mut v1::Broadcast) -> Result<(), Flaw> {
        let v1::Broadcast { id, payload, signature, .. } = broadcast;
        let id = id.as_ref().and_then(|id| wire::read_broadcast_id(id).ok()).ok_or_else(|| forged("it has no valid id"))?;
        let announcement = Announcement::decode(payload.clone()).map_err(|_| forged("it cannot be read"))?;
        let name = name(&announcement.sender.unwrap_or_default().name)?;
        if id.origin != PeerId::of_name(&name) {
            return Err(forged("it has another peer's id"));
        }
        let MessageId { origin, incarnation, sequence } = id;
        let network = self.network();
        let statement = Statement::Broadcast { network, origin, name: &name, incarnation, sequence, payload };
        self.check(&statement, &name, &proof(signature.as_ref())?)?;
        if let Some(signature) = signature {
            signature.chain.clear();
        }
        Ok(())
    }

    fn check_relayed(&self, whisper: &Relayed<'_>) -> Result<(), Flaw> {
        let Relayed { to, kind, body, from, message_id, signature } = *whisper;
        let (from, to) = (name(from)?, name(to)?);
        if message_id.len() != 16 {
            return Err(forged("it has no id"));
        }
        let statement = Statement::Whisper { network: self.network(), from: &from, to: &to, message_id, kind, body };
        self.check(&statement, &from, &proof(signature)?)
    }

    /// Checks that `who` signed `statement`.
    fn check(&self, statement: &Statement<'_>, who: &PeerName, proof: &Proof) -> Result<(), Flaw> {
        let now = SystemTime::now();
        let apart = Duration::from_millis(milliseconds(now).abs_diff(proof.signed_at_ms));
        if apart > CLOCKS_APART_MAX {
            return Err(Flaw::Refused(format!("it was signed {} s from the time of this machine's clock", apart.as_secs())));
        }
        let before = Duration::from_millis(milliseconds(self.0.started_at).saturating_sub(proof.signed_at_ms));
        if before > SIGNED_BEFORE_START_MAX {
            return Err(Flaw::Refused(format!("it was signed {} s before this peer started", before.as_secs())));
        }
        let identity = self.identity(proof, now)?;
        // Operators write to peers; they are none.
        let is_operator = matches!(statement, Statement::Whisper { .. }) && identity.operator() == Some(who);
        if !identity.has_name(who) && !is_operator {
            return Err(forged(&format!("{identity} signed it, not {who}")));
        }
        let message = statement.to_bytes(proof.signed_at_ms);
        let digest = proof.digest(&message);
        if self.known().checked.get(&digest).is_some() {
            return Ok(());
        }
        let signature = tls::Signature { scheme: proof.scheme, bytes: proof.value.to_vec() };
        if !self.0.tls.is_signed_by(&identity, &message, &signature) {
            return Err(forged(&format!("{who} did not sign it")));
        }
        self.known().checked.insert(digest, ());
        Ok(())
    }

    /// Who has the chain that `proof` names.
    fn identity(&self, proof: &Proof, now: SystemTime) -> Result<Arc<Identity>, Flaw> {
        let known = self.known().chains.get(&proof.chain_hash).cloned();
        let certificates = match known {
            Some(Chain { identity, checked_at, .. })
                if checked_at.elapsed() < CHAIN_LIFETIME
                    && now < identity.not_after()
                    && !self.0.tls.is_revoked(identity.serial()) =>
            {
                return Ok(identity);
            }
            Some(chain) => chain.certificates,
            None if proof.chain.is_empty() => return Err(Flaw::ChainUnknown),
            None => proof.chain.clone(),
        };
        let chain = certificates.iter().map(|certificate| certificate.to_vec().into()).collect();
        let identity = self.0.tls.check(chain, now).map_err(|error| Flaw::Refused(error.to_string()))?;
        let identity = Arc::new(identity);
        self.keep(proof.chain_hash, Arc::clone(&identity), certificates);
        Ok(identity)
    }

    fn keep(&self, hash: ChainHash, identity: Arc<Identity>, certificates: Vec<Bytes>) {
        self.known().chains.insert(hash, Chain { identity, certificates, checked_at: Instant::now() });
    }

    fn sign(&self, statement: &Statement<'_>) -> Option<v1::Signature> {
        let signed_at_ms = milliseconds(SystemTime::now());
        let signed = self.0.tls.sign(&statement.to_bytes(signed_at_ms));
        let (Some(identity), Ok(tls::Signature { scheme, bytes })) = (self.0.tls.identity(), signed) else {
            // A peer does not start without a certificate.
            tracing::error!("cannot sign a message; others will not accept it");
            return None;
        };
        let chain_hash = ChainHash::of(identity.chain());
        let known = self.known().chains.get(&chain_hash).map(|chain| chain.certificates.clone());
        let chain = known.unwrap_or_else(|| {
            let chain: Vec<_> = identity.chain().iter().map(|certificate| Bytes::copy_from_slice(certificate)).collect();
            self.keep(chain_hash, identity, chain.clone());
            chain
        });
        Some(Proof { scheme, value: bytes.into(), signed_at_ms, chain_hash, chain }.into())
    }

    fn network(&self) -> &str {
        &self.0.network
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A whisper as it arrived: on a link or in a call.
#[derive(Clone, Copy)]
struct Relayed<'a> {
    to: &'a str,
    kind: &'a str,
    body: &'a [u8],
    from: &'a str,
    message_id: &'a [u8],
    signature: Option<&'a v1::Signature>,
}

/// What must come with its chain came without.
fn with_chain(flaw: Flaw) -> Flaw {
    match flaw {
        Flaw::ChainUnknown => forged("it came without the certificate of its signer"),
        flaw => flaw,
    }
}

fn name(text: &str) -> Result<PeerName, Flaw> {
    text.parse().map_err(|_| forged("a name in it is not valid"))
}

/// Checks that peers have the ids of their names: nobody else has them.
fn check_contacts<'a>(contacts: impl IntoIterator<Item = &'a v1::Contact>) -> Result<(), Flaw> {
    for contact in contacts {
        if PeerId::of_name(&name(&contact.name)?).to_field() != contact.id {
            return Err(forged("it names a peer with the id of another"));
        }
    }
    Ok(())
}

fn is_name(text: &str, name: &PeerName) -> bool {
    text.eq_ignore_ascii_case(name.as_str())
}

fn proof(signature: Option<&v1::Signature>) -> Result<Proof, Flaw> {
    let signature = signature.ok_or_else(|| forged("it is not signed"))?;
    Proof::try_from(signature.clone()).map_err(|error| forged(&error.to_string()))
}

fn milliseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
