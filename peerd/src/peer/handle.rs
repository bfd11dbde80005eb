//! What a program can do with its peer.

use super::{
    error::PeerError,
    info::{Delivery, MessageCounts, PeerInfo, Tally},
    phase::Phase,
};
use crate::{
    discovery::Bootnode,
    inbox::{Batches, KIND_PING, KIND_UNCLAIMED, Message, MessageKind, Reply},
    mesh::check_wait,
    node::NodeHandle,
    overlay::wire,
};
use bytes::Bytes;
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    fan_out::FanOut,
    field::InvalidField,
    id::PeerId,
    name::PeerName,
    v1::{ListPeersRequest, WhisperRequest, WhisperResponse},
};
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::{runtime, sync::watch, time::timeout};

/// Most joins at once; the rest of a list waits. A guess: enough to hide their latency.
const JOINS_AT_ONCE: usize = 16;
/// How long a peer may take to list the peers it knows.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Most peers accepted from one list: more than a correct peer keeps.
const LISTED_MAX: usize = 1_000;

/// A handle to a peer inside this program; cheap to clone. It does not keep the peer running: only [`Peer`](super::Peer) does.
#[derive(Clone)]
pub struct PeerHandle {
    node: NodeHandle,
    phase: watch::Receiver<Phase>,
    runtime: runtime::Handle,
}

impl PeerHandle {
    pub(super) fn new(node: NodeHandle, phase: watch::Receiver<Phase>) -> Self {
        Self { node, phase, runtime: runtime::Handle::current() }
    }

    pub(super) fn runtime(&self) -> &runtime::Handle {
        &self.runtime
    }

    /// Its name.
    pub fn name(&self) -> &PeerName {
        self.node.identity().name()
    }

    /// Its id.
    pub fn id(&self) -> PeerId {
        self.node.identity().id()
    }

    /// Where others dial it.
    pub fn endpoint(&self) -> Endpoint {
        self.node.contact().endpoint().clone()
    }

    /// Its parts: share, inbox, mesh, registry session. For programs that need more than this handle has: unlike the handle, they take and
    /// return messages of the contract, and change with it.
    pub fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Calls `handler` with each further message of this kind, whisper or broadcast. Replaces an earlier handler of the kind. The handler
    /// returns a [`Reply`], an `Option<Reply>` or `()`. The sender of a whisper gets the reply if it is ready within
    /// [`REPLY_TIMEOUT`](crate::inbox::REPLY_TIMEOUT); there is no reply to a broadcast.
    ///
    /// Messages of one kind are handled one at a time, in order of arrival. A slow handler delays its own kind only; messages that
    /// overflow the inbox meanwhile are dropped, the oldest first, and logged. A handler that panics or takes longer than a minute is
    /// aborted for that message only. It must not block the thread: use `tokio::task::spawn_blocking` for long computations.
    ///
    /// # Errors
    /// When `kind` is not one token of letters, digits, `.`, `_` and `-`, or is `PING`, which every peer answers itself; when too many handlers and
    /// subscriptions exist; or when the peer has stopped.
    pub fn on<F, R>(&self, kind: &str, handler: impl Fn(Message) -> F + Send + Sync + 'static) -> Result<(), PeerError>
    where
        F: Future<Output = R> + Send + 'static,
        R: Into<Reply>,
    {
        let kind = self.handled_kind(kind)?;
        self.node.handlers().on(kind, handler, &self.runtime).map_err(|status| self.refused(&status))
    }

    /// The messages of this kind from now on, for one handler that takes them in batches instead of being called with each, such as one that is
    /// written in another language. It ends when the peer stops, and the kind has no handler any more when it is dropped.
    ///
    /// # Errors
    /// As [`PeerHandle::on`].
    pub fn batches(&self, kind: &str) -> Result<Batches, PeerError> {
        let kind = self.handled_kind(kind)?;
        self.node.handlers().batches(kind).map_err(|status| self.refused(&status))
    }

    /// A kind that a handler may have.
    fn handled_kind(&self, kind: &str) -> Result<MessageKind, PeerError> {
        if self.has_ended() {
            return Err(PeerError::Stopped);
        }
        let kind: MessageKind = kind.parse()?;
        if kind.as_str() == KIND_PING {
            return Err(InvalidField::new("kind", "PING is answered by every peer itself; choose another kind").into());
        }
        Ok(kind)
    }

    /// Makes another peer a neighbour and so joins its mesh. `peer` is `NAME:PORT` on this machine, `NAME@HOST:PORT`, `HOST:PORT`, or a
    /// [`PeerInfo`].
    ///
    /// # Errors
    /// When no peer answers, when it is this peer itself, or when one of the two has no room for another neighbour
    /// ([`PeerError::Busy`]); the other peer then named further peers, which this peer tries by itself.
    pub async fn join(&self, peer: impl ToString) -> Result<PeerInfo, PeerError> {
        self.running()?;
        self.join_one(&peer.to_string().parse()?).await
    }

    /// Joins all peers of a list, such as bootnodes or the result of [`PeerHandle::peers_from`], and returns those joined. Peers without
    /// room for another neighbour are left out: they named further peers, which this peer tries by itself.
    ///
    /// # Errors
    /// When no peer answers.
    pub async fn bootstrap(&self, peers: impl IntoIterator<Item = impl ToString>) -> Result<Vec<PeerInfo>, PeerError> {
        self.running()?;
        let peers = peers.into_iter().map(|peer| peer.to_string().parse()).collect::<Result<Vec<Bootnode>, _>>()?;
        let mut calls = peers.into_iter().map(|peer| {
            let handle = self.clone();
            async move { handle.join_one(&peer).await.map_err(|error| (peer, error)) }
        });
        let (mut joined, mut full, mut failed) = (Vec::new(), false, Vec::new());
        let mut fan_out = FanOut::new(JOINS_AT_ONCE);
        while let Some(result) = fan_out.next(&mut calls).await {
            match result {
                Ok(peer) => joined.push(peer),
                Err((_, PeerError::Busy(_))) => full = true,
                Err((peer, error)) => failed.push((peer.to_string(), error)),
            }
        }
        if joined.is_empty() && !full { Err(PeerError::none_answered(failed)) } else { Ok(joined) }
    }

    async fn join_one(&self, peer: &Bootnode) -> Result<PeerInfo, PeerError> {
        let mut failure = None;
        for endpoint in peer.endpoints() {
            match self.node.mesh().join(endpoint.clone()).await {
                Ok(joined) => return Ok(self.info(&joined.contact, true)),
                // `WORD:PORT` is a name on this machine or a host; the error of the first reading is the more likely one.
                Err(status) => failure = failure.or(Some(PeerError::refused(&peer.to_string(), &status))),
            }
        }
        Err(failure.unwrap_or_else(|| PeerError::NoRoute(format!("{peer} has no address"))))
    }

    /// The other peers that this one knows through links, the mesh or the registry, ordered by name. Some may be gone by now.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let view = self.node.mesh().view();
        let mut found: BTreeMap<PeerId, PeerInfo> = BTreeMap::new();
        for known in self.node.session().known().all() {
            found.insert(known.id(), PeerInfo { name: known.name().clone(), endpoint: known.endpoint().clone(), linked: false });
        }
        for contact in view.known() {
            let linked = view.linked.iter().any(|linked| linked.id() == contact.id());
            found.insert(contact.id(), self.info(contact, linked));
        }
        found.remove(&self.id());
        let mut peers: Vec<_> = found.into_values().collect();
        peers.sort();
        peers
    }

    /// The peer with this name: known already, or found through the registry or the mesh. `None` when there is none.
    ///
    /// # Errors
    /// When `name` is not valid or this peer is not running.
    pub async fn find_peer(&self, name: &str) -> Result<Option<PeerInfo>, PeerError> {
        self.running()?;
        let name: PeerName = name.parse()?;
        // The registry's record beats what the mesh says. If it does not answer, the mesh may still find the peer; if not, that error is
        // returned.
        let registered = self.node.session().find(&name).await.ok().flatten();
        let is_it =
            |peer: &PeerInfo| peer.name == name && registered.as_ref().is_none_or(|record| peer.endpoint == *record.endpoint());
        if let Some(known) = self.peers().into_iter().find(is_it) {
            return Ok(Some(known));
        }
        if let Some(record) = registered {
            return Ok(Some(PeerInfo { name: record.name().clone(), endpoint: record.endpoint().clone(), linked: false }));
        }
        // The reply to PING is the address.
        let found = match self.whisper(name.as_str(), KIND_PING, "").await {
            Ok(Delivery { by, reply: Some(reply), .. }) => {
                by.parse().ok().zip(str::from_utf8(&reply.body).ok().map(str::to_owned))
            }
            Ok(_) | Err(PeerError::NoRoute(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(found.and_then(|(name, endpoint)| Some(PeerInfo { name, endpoint: endpoint.parse().ok()?, linked: false })))
    }

    /// The peers that another peer is linked to or knows of, without this one. [`PeerHandle::bootstrap`] joins them.
    ///
    /// # Errors
    /// When there is no such peer, or it does not answer.
    pub async fn peers_from(&self, peer: impl ToString) -> Result<Vec<PeerInfo>, PeerError> {
        self.running()?;
        let peer = peer.to_string();
        let mut name = None;
        let endpoints = if peer.contains(':') {
            peer.parse::<Bootnode>()?.endpoints().to_vec()
        } else {
            let found = self.find_peer(&peer).await?;
            let no_route = || PeerError::NoRoute(format!("request cannot be fulfilled: no route to {peer}"));
            name = peer.parse().ok();
            vec![found.ok_or_else(no_route)?.endpoint]
        };
        let mut failure = PeerError::NoRoute(format!("{peer} has no address"));
        for endpoint in &endpoints {
            let mut client = self.node.channels().peer(endpoint, name.as_ref());
            match timeout(LIST_TIMEOUT, client.list_peers(ListPeersRequest {})).await {
                Ok(Ok(list)) => {
                    let list = list.into_inner();
                    let neighbours = list.neighbours.into_iter().filter_map(|neighbour| neighbour.peer);
                    // Invalid entries are left out.
                    let contacts =
                        neighbours.chain(list.others).take(LISTED_MAX).filter_map(|contact| wire::read_contact(contact).ok());
                    return Ok(self.infos(contacts));
                }
                Ok(Err(status)) => failure = PeerError::refused(&peer, &status),
                Err(_) => failure = PeerError::not_answering(&peer),
            }
        }
        Err(failure)
    }

    /// Sends a message to all peers of the mesh. Returns when it is sent, not when it has arrived.
    ///
    /// # Errors
    /// When `kind` is not one token, `body` is too long, or this peer is not running.
    pub async fn broadcast(&self, kind: &str, body: impl Into<Bytes>) -> Result<(), PeerError> {
        self.broadcast_counted(kind, body, Duration::ZERO).await.map(drop)
    }

    /// Sends a message to all peers of the mesh and waits at most `wait` for the acknowledgements of all known peers. The result says how
    /// many are known, how many acknowledged, and which did not.
    ///
    /// # Errors
    /// As with [`PeerHandle::broadcast`]; also when `wait` exceeds [`WAIT_MAX`](crate::mesh::WAIT_MAX), or too many broadcasts wait for
    /// acknowledgements already.
    pub async fn broadcast_counted(&self, kind: &str, body: impl Into<Bytes>, wait: Duration) -> Result<Tally, PeerError> {
        self.running()?;
        // Here, so that the error is `PeerError::Invalid`.
        check_wait(wait)?;
        let tally =
            self.node.mesh().broadcast(&kind.parse()?, body.into(), wait).await.map_err(|status| self.refused(&status))?;
        Ok(Tally { known: tally.known, acknowledged: tally.acknowledged, missing: tally.missing })
    }

    /// Sends a message to one peer by whatever route there is, and waits until it is delivered.
    ///
    /// # Errors
    /// When there is no route, `kind` is not one token, `body` is too long, or this peer is not running.
    pub async fn whisper(&self, to: &str, kind: &str, body: impl Into<Bytes>) -> Result<Delivery, PeerError> {
        self.running()?;
        // Parsed here so that the error is `PeerError::Invalid`.
        let (to, kind): (PeerName, MessageKind) = (to.parse()?, kind.parse()?);
        let request = WhisperRequest {
            to: to.to_string(),
            kind: kind.to_string(),
            body: body.into(),
            from: self.name().to_string(),
            ..Default::default()
        };
        let answer = self.node.whisper(request).await.map_err(|status| PeerError::refused(to.as_str(), &status))?;
        let WhisperResponse { delivered_by, hops, round_trip, reply_kind, reply } = answer;
        let unclaimed = reply_kind == KIND_UNCLAIMED;
        let reply = Some(Reply { kind: reply_kind, body: reply }).filter(|reply| !unclaimed && !reply.kind.is_empty());
        let round_trip = round_trip.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
        Ok(Delivery { by: delivered_by, hops, round_trip, reply, unclaimed })
    }

    /// The messages that it received so far, in numbers.
    pub fn message_counts(&self) -> MessageCounts {
        let status = self.node.inbox().status();
        MessageCounts {
            waiting: status.messages,
            received: status.received,
            dropped: status.dropped,
            unclaimed: status.unclaimed,
        }
    }

    /// Waits until the peer has stopped.
    pub async fn stopped(&self) {
        // Fails only when the `Peer` is gone: then it has stopped as well.
        let _ = self.phase.clone().wait_for(|phase| *phase == Phase::Ended).await;
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.phase.borrow() == Phase::Ended
    }

    pub(super) fn running(&self) -> Result<(), PeerError> {
        match *self.phase.borrow() {
            Phase::Built => Err(PeerError::NotStarted),
            Phase::Running => Ok(()),
            Phase::Ended => Err(PeerError::Stopped),
        }
    }

    pub(super) fn refused(&self, status: &tonic::Status) -> PeerError {
        PeerError::refused(self.name().as_str(), status)
    }

    fn info(&self, contact: &Contact, linked: bool) -> PeerInfo {
        PeerInfo { name: contact.name().clone(), endpoint: contact.endpoint().clone(), linked }
    }

    /// Each peer once, without this one.
    fn infos(&self, contacts: impl Iterator<Item = Contact>) -> Vec<PeerInfo> {
        let view = self.node.mesh().view();
        let linked = |id| view.linked.iter().any(|linked| linked.id() == id);
        let found: BTreeMap<_, _> =
            contacts.filter(|contact| contact.id() != self.id()).map(|contact| (contact.id(), contact)).collect();
        let mut peers: Vec<_> = found.into_values().map(|contact| self.info(&contact, linked(contact.id()))).collect();
        peers.sort();
        peers
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({:?})", self.name(), self.endpoint(), *self.phase.borrow())
    }
}
