//! The mesh: runs the state machines of the overlay and of routing over real links.
//!
//! Both machines are part of one state behind one lock. Each link has a task that reads frames and handles them at once, and a bounded
//! queue of frames to write. Other parts of the peer call the state through [`Mesh`]; [`MeshDriver`] calls it when a deadline is due.

mod abuse;
mod acks;
mod broadcasts;
mod candidates;
mod config;
mod driver;
mod flaw;
mod handshakes;
mod incarnation;
mod input;
mod joins;
mod lanes;
mod link;
mod links;
mod log_once;
mod logs;
mod name_conflicts;
mod publisher;
mod recent;
mod reconnect;
mod root_signatures;
mod send_queue;
mod signatures;
mod spares;
mod spawner;
mod state;
mod view;
mod whispers;

pub use config::MeshConfig;
pub use driver::MeshDriver;
pub use joins::Joined;
pub use link::RELAYED_MAX_BYTES;
pub use signatures::Signatures;
pub use view::View;
pub use whispers::WhisperError;

use crate::{
    discovery::LanEvents,
    identity::StateFolder,
    inbox::{Delivered, MessageKind, Whisper},
    overlay::plumtree,
};
use bytes::Bytes;
use driver::Core;
use joins::JoinFailure;
use p2pdi::{
    channel::Dial,
    contact::Contact,
    endpoint::{Endpoint, client_network},
    field::InvalidField,
    link::LinkMessage,
    probe::{self, Answering},
    server::Caller,
    status::Reason,
    v1::{Announcement, BroadcastResponse},
};
use prost::Message as _;
use publisher::Publisher;
use state::State;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tonic::{Status, Streaming};

/// Timeout of a join: a dial with its handshake (`link::HANDSHAKE_TIMEOUT`), then the answer of the other side whether it accepts this
/// peer as a neighbour (`membership::Config::request_timeout`, 2 s).
const JOIN_TIMEOUT: Duration = Duration::from_secs(6);
/// Longest wait for acknowledgements: those of a large network arrive within seconds.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest body of a broadcast, in bytes: the overlay's payload without the names around the body.
pub const BROADCAST_MAX_BYTES: usize = plumtree::MAX_PAYLOAD - 2 * 1024;

/// The peer's part of the mesh, as other parts of the peer see it. Cheap to clone.
#[derive(Clone)]
pub struct Mesh {
    core: Arc<Core>,
    view: watch::Receiver<Arc<View>>,
    dial: Dial,
    signatures: Option<Signatures>,
}

impl Mesh {
    /// The mesh of one peer, and its driver. Must be called in the runtime of the peer. The driver takes `lan_events`, and stores the
    /// incarnation in `folder` when it goes up.
    pub fn new(config: MeshConfig, lan_events: LanEvents, folder: Arc<StateFolder>) -> (Self, MeshDriver) {
        let (incarnation, dial, signatures) = (config.incarnation, config.channels.dial().clone(), config.signatures.clone());
        let (sender, view) = watch::channel(Arc::new(View::new(config.me.clone())));
        let core = Core::new(|sink| State::new(config, sink, Publisher::new(sender)), signatures.clone());
        let driver = MeshDriver::new(Arc::clone(&core), lan_events, folder, incarnation);
        (Self { core, view, dial, signatures }, driver)
    }

    /// The latest view of the mesh from this peer.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// The view, and a notification whenever it changes.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Signs and checks what peers say to those they have no connection to; `None` without TLS.
    pub(crate) fn signatures(&self) -> Option<&Signatures> {
        self.signatures.as_ref()
    }

    /// Changes this peer's endpoint, for links that are opened from now on and for answers. Its id and name stay.
    pub fn set_contact(&self, me: Contact) {
        // A peer that is stopping says nothing any more.
        let _stopped = self.core.with(|state| state.set_contact(me));
    }

    /// Accepts a link that another peer opens. Returns the frames to send to it.
    ///
    /// # Errors
    /// When too many links are being opened, or this peer is stopping.
    pub fn accept(
        &self,
        frames: Streaming<LinkMessage>,
        caller: Option<&Caller>,
    ) -> Result<impl tokio_stream::Stream<Item = Result<LinkMessage, Status>> + Send + use<>, Status> {
        let (sender, queue) = send_queue::queue();
        let network = caller.map(|caller| client_network(caller.address().ip()));
        let identity = caller.and_then(Caller::identity).cloned();
        self.core.with(|state| state.accept(Box::new(frames), sender, network, identity)).ok_or_else(stopping)??;
        Ok(tokio_stream::StreamExt::map(queue, |frame| Ok(LinkMessage::new(frame))))
    }

    /// Makes the peer at `endpoint` a neighbour of this one.
    ///
    /// # Errors
    /// When no peer answers there, it is this peer itself, or one of the two has as many neighbours as it accepts.
    pub async fn join(&self, endpoint: Endpoint) -> Result<Joined, Status> {
        let (sender, receiver) = oneshot::channel();
        let join = async {
            self.core.with(|state| state.join(endpoint.clone(), sender)).ok_or_else(stopping)?;
            receiver.await.map_err(|_| stopping())
        };
        match timeout(JOIN_TIMEOUT, join).await {
            Ok(Ok(Ok(joined))) => Ok(joined),
            Ok(Ok(Err(JoinFailure::Failed(why)))) => Err(no_peer(&endpoint, &self.dial, &why).await),
            Ok(Ok(Err(JoinFailure::OtherNetwork(why)))) => Err(Reason::WrongNetwork
                .status(format!("cannot join {endpoint}: {why}; the networks of the two must be the same (--network)"))),
            Ok(Ok(Err(JoinFailure::Full(why)))) => Err(Reason::NeighboursFull.status(format!("cannot join {endpoint}: {why}"))),
            Ok(Err(stopping)) => Err(stopping),
            Err(_) => Err(no_peer(&endpoint, &self.dial, "no answer in time").await),
        }
    }

    /// Sends a message to all peers. With a non-zero `wait`, asks for acknowledgements and counts those that arrive within it.
    ///
    /// # Errors
    /// When the body or the `wait` (past [`WAIT_MAX`]) is too long, or too many broadcasts wait for acknowledgements.
    pub async fn broadcast(&self, kind: &MessageKind, body: Bytes, wait: Duration) -> Result<BroadcastResponse, Status> {
        check_wait(wait)?;
        if body.len() > BROADCAST_MAX_BYTES {
            return Err(Reason::MessageTooLarge.status(format!(
                "the body has {} bytes; at most {BROADCAST_MAX_BYTES} fit. Share larger things as documents",
                body.len()
            )));
        }
        let announcement = Announcement {
            sender: Some(crate::overlay::wire::contact(&self.view().me)),
            kind: kind.to_string(),
            body,
            acknowledge: !wait.is_zero(),
        };
        let (sender, receiver) = oneshot::channel();
        let payload = announcement.encode_to_vec().into();
        self.core.with(|state| state.broadcast(payload, wait, sender)).ok_or_else(stopping)?;
        let tally = receiver.await.map_err(|_| stopping())??;
        Ok(BroadcastResponse { known: tally.known, acknowledged: tally.acknowledged, missing: tally.missing })
    }

    /// Sends a whisper on the link to its receiver. `record`: what the registry says of it, if anything; then it must be the peer on the
    /// link. Waits for the reply without a timeout.
    ///
    /// # Errors
    /// When there is no link, or it broke.
    pub async fn whisper_linked(&self, whisper: &Whisper, record: Option<&Contact>) -> Result<Delivered, WhisperError> {
        if !self.view().is_linked(&whisper.to) {
            return Err(WhisperError::NoRoute);
        }
        self.whisper(whisper, record, true).await
    }

    /// Searches a route to the receiver and sends a whisper along it. `record`: what the registry says of the receiver, if anything; then
    /// others with its name do not count. Waits for the reply for at most `routing::ROUTE_LIFETIME`.
    ///
    /// # Errors
    /// When there is no route.
    pub async fn whisper_routed(&self, whisper: &Whisper, record: Option<&Contact>) -> Result<Delivered, WhisperError> {
        self.whisper(whisper, record, false).await
    }

    async fn whisper(&self, whisper: &Whisper, record: Option<&Contact>, linked_only: bool) -> Result<Delivered, WhisperError> {
        let (sender, receiver) = oneshot::channel();
        self.core.with(|state| state.whisper(whisper.clone(), record, linked_only, sender)).ok_or(WhisperError::Stopping)?;
        receiver.await.unwrap_or(Err(WhisperError::Stopping))
    }
}

/// Why `endpoint` was not joined: a registry or a web server answers there, otherwise `why`.
async fn no_peer(endpoint: &Endpoint, dial: &Dial, why: &str) -> Status {
    let problem = match probe::identify(endpoint, dial).await {
        Some(Answering::Tls) => "it speaks TLS, and this peer does not; give it --tls-cert, --tls-key and --tls-ca".to_owned(),
        Some(found @ (Answering::Registry | Answering::Web(_))) => format!("{endpoint} is {found}, not a peer"),
        _ => why.to_owned(),
    };
    Reason::NoRoute.status(format!("cannot join {endpoint}: {problem}"))
}

/// Checks the time to wait for acknowledgements.
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
