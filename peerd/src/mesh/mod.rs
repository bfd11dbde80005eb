//! The mesh: drives the overlay's and the routing's state machines over real links.
//!
//! Both machines live in one state behind one lock. Each link has a task that reads it and sees through what it reads; what is to be
//! written waits in a bounded queue. Everything else talks to the state through [`Mesh`]; what time brings is done by [`MeshDriver`].

mod abuse;
mod acks;
mod driver;
mod link;
mod name_conflicts;
mod reconnect;
mod state;
mod view;

pub use driver::MeshDriver;
pub use link::RELAYED_MAX_BYTES;
pub use view::View;

use crate::{
    discovery::{Bootnode, LanEvents},
    identity::StateFolder,
    inbox::{Delivered, LocalDelivery, MessageKind, Whisper},
    overlay::plumtree,
    session::Session,
};
use bytes::Bytes;
use driver::Core;
use link::{OutgoingStream, outgoing};
use p2pdi::{
    contact::Contact,
    endpoint::{Endpoint, client_network},
    field::InvalidField,
    link::LinkMessage,
    status::Reason,
    v1::{Announcement, BroadcastResponse},
};
use prost::Message as _;
use state::State;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tonic::{Status, Streaming};

/// How long a join may take: a dial and both greetings (`link::GREETING_TIMEOUT`), then the other side's answer whether it takes this peer
/// as a neighbour (`membership::Config::request_timeout`, 2 s).
const JOIN_TIMEOUT: Duration = Duration::from_secs(6);
/// Longest wait for acknowledgements: those of a large network come within seconds.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest body of a broadcast, in bytes: what the overlay carries, less the names around it.
pub const BROADCAST_MAX_BYTES: usize = plumtree::MAX_PAYLOAD - 2 * 1024;

/// Why a message was not delivered along links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWay {
    /// There is no way to its receiver, or it broke.
    Unknown,
    /// So much waits on the link already that it would wait too long.
    Busy,
    /// More ways are asked for than the peers in between look for; whether there is one is not known.
    TooManySeeks,
    /// This peer is stopping.
    Stopping,
}

/// A peer that was joined: it is a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Who answers there.
    pub contact: Contact,
    /// It was a neighbour before.
    pub already: bool,
}

/// Why a peer was not joined, in words.
#[derive(Debug, Clone)]
enum NotJoined {
    /// Nobody answers, or not as a peer would.
    Failed(String),
    /// One of the two has no room.
    Full(String),
}

/// The peer's part of the mesh, as its other parts see it. Cheap to clone.
#[derive(Clone)]
pub struct Mesh {
    me: Contact,
    core: Arc<Core>,
    view: watch::Receiver<Arc<View>>,
}

impl Mesh {
    /// The mesh of the peer `me`, and what runs it. To be called in the runtime that the peer lives in.
    ///
    /// `life` is what [`StateFolder::next_incarnation`] said, and `folder` is told when its number goes up. Messages go to `post`; peers to turn to
    /// come from `session`, `bootnodes` and the LAN. Links are dialled from the local address `from`, if one is given.
    pub fn new(
        (me, folder, life): (&Contact, &Arc<StateFolder>, (u64, u64)),
        post: LocalDelivery,
        session: Session,
        (bootnodes, lan): (Vec<Bootnode>, LanEvents),
        from: Option<IpAddr>,
    ) -> (Self, MeshDriver) {
        let me = Contact::new(me.id(), me.name().clone(), me.endpoint().clone());
        let (shown, view) = watch::channel(Arc::new(View::new(me.clone())));
        let core = Core::new(|core| State::new(core, (me.clone(), life), post, session, (bootnodes, from), shown));
        let driver = MeshDriver::new(Arc::clone(&core), lan, Arc::clone(folder), life.0);
        (Self { me, core, view }, driver)
    }

    /// How the mesh looks from here. A moment old.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Tells whenever [`Mesh::view`] changes.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Takes a link that another peer opened, calling from `caller`.
    ///
    /// # Errors
    /// When too many are being opened, or the peer is stopping.
    pub fn accept(
        &self,
        frames: Streaming<LinkMessage>,
        caller: Option<SocketAddr>,
    ) -> Result<impl tokio_stream::Stream<Item = Result<LinkMessage, Status>> + Send + use<>, Status> {
        let (out, queue): (_, OutgoingStream) = outgoing();
        let caller = caller.map(|caller| client_network(caller.ip()));
        self.core.with(|state| state.accept(Box::new(frames), out, caller)).ok_or_else(stopping)??;
        Ok(tokio_stream::StreamExt::map(queue, |frame| Ok(LinkMessage::new(frame))))
    }

    /// Makes the peer at `endpoint` a neighbour of this one.
    ///
    /// # Errors
    /// When nobody answers there, it is this peer itself, or one of the two has as many neighbours as it keeps.
    pub async fn join(&self, endpoint: Endpoint) -> Result<Joined, Status> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.core.with(|state| state.join(endpoint.clone(), answer)).ok_or_else(stopping)?;
            answered.await.map_err(|_| stopping())
        };
        match timeout(JOIN_TIMEOUT, asked).await {
            Ok(Ok(Ok(joined))) => Ok(joined),
            Ok(Ok(Err(NotJoined::Failed(why)))) => Err(Reason::NoRoute.status(format!("cannot join {endpoint}: {why}"))),
            Ok(Ok(Err(NotJoined::Full(why)))) => Err(Reason::NeighboursFull.status(format!("cannot join {endpoint}: {why}"))),
            Ok(Err(stopping)) => Err(stopping),
            Err(_) => Err(Reason::NoRoute.status(format!("cannot join {endpoint}: no answer in time"))),
        }
    }

    /// Sends a message to all peers. With a `wait`, asks for acknowledgements and gathers them for at most so long.
    ///
    /// # Errors
    /// When the body or the `wait` (past [`WAIT_MAX`]) is too long, or too many broadcasts wait already.
    pub async fn broadcast(&self, kind: &MessageKind, body: Bytes, wait: Duration) -> Result<BroadcastResponse, Status> {
        check_wait(wait)?;
        if body.len() > BROADCAST_MAX_BYTES {
            return Err(Reason::MessageTooLarge.status(format!(
                "the body has {} bytes; at most {BROADCAST_MAX_BYTES} fit. Share larger things as documents",
                body.len()
            )));
        }
        let announcement = Announcement {
            sender: Some(crate::overlay::wire::contact(&self.me)),
            kind: kind.to_string(),
            body,
            acknowledge: !wait.is_zero(),
        };
        let (answer, answered) = oneshot::channel();
        let payload = announcement.encode_to_vec().into();
        self.core.with(|state| state.broadcast(payload, wait, answer)).ok_or_else(stopping)?;
        let tally = answered.await.map_err(|_| stopping())??;
        Ok(BroadcastResponse { known: tally.known, acknowledged: tally.acknowledged, missing: tally.missing })
    }

    /// Sends a whisper along the link to its receiver, if there is one. Waits for the answer without end.
    ///
    /// # Errors
    /// When there is no link, or it broke.
    pub async fn whisper_linked(&self, whisper: &Whisper) -> Result<Delivered, NoWay> {
        if !self.view().is_linked(&whisper.to) {
            return Err(NoWay::Unknown);
        }
        self.whisper(whisper, true).await
    }

    /// Asks the mesh for a way to the receiver and sends a whisper along it. Waits for the answer at most `routing::LIFETIME`.
    ///
    /// # Errors
    /// When there is no way.
    pub async fn whisper_routed(&self, whisper: &Whisper) -> Result<Delivered, NoWay> {
        self.whisper(whisper, false).await
    }

    async fn whisper(&self, whisper: &Whisper, linked_only: bool) -> Result<Delivered, NoWay> {
        let (answer, answered) = oneshot::channel();
        self.core.with(|state| state.whisper(whisper.clone(), linked_only, answer)).ok_or(NoWay::Stopping)?;
        answered.await.unwrap_or(Err(NoWay::Stopping))
    }
}

/// Whether acknowledgements may be waited for for so long.
///
/// # Errors
/// When it is longer than [`WAIT_MAX`].
pub fn check_wait(wait: Duration) -> Result<(), InvalidField> {
    if wait > WAIT_MAX {
        return Err(InvalidField::new(
            "wait",
            format!("is too long; acknowledgements are gathered for at most {} s", WAIT_MAX.as_secs()),
        ));
    }
    Ok(())
}

fn stopping() -> Status {
    Reason::ShuttingDown.status("this peer is stopping; ask another")
}
