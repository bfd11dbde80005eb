//! One link: its handshake and its reader.

use super::{
    flaw::Flaw,
    send_queue::{LinkSender, queue},
};
use crate::{
    connections::channels::ChannelPool,
    inbox::BODY_MAX_BYTES,
    overlay::{Misbehaviour, wire},
};
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    id::PeerId,
    link::LinkMessage,
    name::PeerName,
    network::NetworkName,
    signed::CHAIN_MAX_BYTES,
    status,
    tls::Identity,
    v1::{BroadcastId, LinkFrame, peer_client::PeerClient},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::coop::consume_budget,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

/// Largest frame accepted, in bytes: a relayed message with the longest body, all its names, and the longest chain of certificates.
pub const RELAYED_MAX_BYTES: usize = BODY_MAX_BYTES + CHAIN_MAX_BYTES + 4 * 1024;
/// Timeout of a dial and both hellos. Below the overlay's own timeout (`membership::Config::dial_timeout`, 4 s).
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(3_500);
/// How long a closed link is still read, so that its queue is sent before the connection ends.
const LINGER: Duration = Duration::from_secs(1);

/// Frames from the other side, whichever side dialled.
pub(super) type Incoming = Box<Streaming<LinkMessage>>;

/// The misbehaviour that ended a link, if that was an invalid frame: gRPC cannot find the next frame after it.
fn misbehaviour(status: &Status) -> Option<Misbehaviour> {
    // Errors of the connection have a source; errors that tonic itself finds in a message have none.
    let own = std::error::Error::source(status).is_none();
    match status.code() {
        Code::OutOfRange if own => Some(Misbehaviour::FrameTooLong),
        Code::Internal | Code::Unimplemented if own => Some(Misbehaviour::Unreadable),
        _ => None,
    }
}

/// A link on which both sides have said hello.
pub(super) struct EstablishedLink {
    pub(super) contact: Contact,
    pub(super) incarnation: u64,
    /// Where this side dialled it; `None`: the other side did.
    pub(super) dialled_at: Option<Endpoint>,
    pub(super) sender: LinkSender,
    pub(super) frames: Incoming,
}

/// Why a link was not opened, as text.
#[derive(Debug)]
pub(super) enum OpenError {
    /// There is no answer, or the connection broke.
    Unreachable(String),
    /// The other side is no peer, or violates the protocol.
    Invalid(String),
    /// The other side is a peer of another network.
    OtherNetwork(String),
}

impl OpenError {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Unreachable(why) | Self::Invalid(why) | Self::OtherNetwork(why) => why,
        }
    }
}

impl From<&str> for OpenError {
    fn from(why: &str) -> Self {
        Self::Unreachable(why.to_owned())
    }
}

/// Opens a link to the peer at `endpoint`, called `name` if that is known, and exchanges hellos. The link has a connection of its own.
///
/// # Errors
/// When there is no answer, or an invalid one.
pub(super) async fn dial(
    channels: &ChannelPool,
    endpoint: &Endpoint,
    name: Option<&PeerName>,
    hello: LinkFrame,
    network: &NetworkName,
) -> Result<EstablishedLink, OpenError> {
    let handshake = async {
        let channel = channels.connect(endpoint, name).await.map_err(|error| OpenError::Unreachable(innermost(&error)))?;
        let identity = channel.identity();
        let (sender, queue) = queue();
        sender.send(hello).map_err(|_| "the send queue is full")?;
        let mut client = PeerClient::new(channel).max_decoding_message_size(RELAYED_MAX_BYTES);
        let response = client.link(queue.map(LinkMessage::new)).await;
        let frames = response.map_err(|status| OpenError::Unreachable(status::describe(&status)))?.into_inner();
        let (link, theirs) = read_hello(Box::new(frames), sender, Some(endpoint.clone())).await?;
        // Without a certificate there is no TLS.
        identity.map_or(Ok(()), |identity| check_contact(&link.contact, &identity))?;
        check_network(link, network, &theirs)
    };
    timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

/// Whom a link must lead to.
pub(super) enum Expectation {
    /// To anybody: there is no TLS.
    Anybody,
    /// To a peer of this certificate; to nobody, if the caller showed none.
    Certified(Option<Arc<Identity>>),
}

/// Accepts a link and exchanges hellos.
///
/// # Errors
/// When the other side sends no valid hello.
pub(super) async fn accept(
    frames: Incoming,
    sender: LinkSender,
    hello: LinkFrame,
    network: &NetworkName,
    expectation: Expectation,
) -> Result<EstablishedLink, OpenError> {
    let handshake = async {
        let (link, theirs) = read_hello(frames, sender, None).await?;
        match expectation {
            Expectation::Anybody => {}
            Expectation::Certified(Some(identity)) => check_contact(&link.contact, &identity)?,
            Expectation::Certified(None) => return Err(OpenError::Invalid("it shows no certificate".to_owned())),
        }
        link.sender.send(hello).map_err(|_| "the other side closed the link")?;
        // After the hello, by which the other side finds out as well.
        check_network(link, network, &theirs)
    };
    timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|_| Err("no hello in time".into()))
}

fn check_network(link: EstablishedLink, own: &NetworkName, theirs: &NetworkName) -> Result<EstablishedLink, OpenError> {
    if own == theirs {
        return Ok(link);
    }
    Err(OpenError::OtherNetwork(format!("it is of the network {theirs}, and this peer is of the network {own}")))
}

async fn read_hello(
    mut frames: Incoming,
    sender: LinkSender,
    dialled_at: Option<Endpoint>,
) -> Result<(EstablishedLink, NetworkName), OpenError> {
    let first = frames.message().await.map_err(|status| match misbehaviour(&status) {
        Some(_) => OpenError::Invalid(format!("cannot decode its hello: {}", status::describe(&status))),
        None => OpenError::Unreachable(status::describe(&status)),
    })?;
    let first = first.ok_or("it closed the link without a hello")?;
    let frame = match first {
        LinkMessage { unreadable: Some((error, _)), .. } => {
            return Err(OpenError::Invalid(format!("cannot decode its hello: {error}")));
        }
        LinkMessage { frame, .. } => frame.unwrap_or_default(),
    };
    let invalid = |error| OpenError::Invalid(format!("its hello is invalid: {error}"));
    let (contact, incarnation, network) = wire::read_hello(frame).map_err(invalid)?;
    Ok((EstablishedLink { contact, incarnation, dialled_at, sender, frames }, network))
}

/// Checks that a peer is who its certificate says, and has the id of that name.
fn check_contact(contact: &Contact, identity: &Identity) -> Result<(), OpenError> {
    let name = contact.name();
    if !identity.has_name(name) {
        return Err(OpenError::Invalid(format!("it says that it is {name}, and its certificate is for {identity}")));
    }
    if contact.id() != PeerId::of_name(name) {
        return Err(OpenError::Invalid(format!("{name} says that it has the id of another peer")));
    }
    Ok(())
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What a reader reports.
#[expect(clippy::large_enum_variant, reason = "nearly all are frames: a box would be an allocation for each")]
pub(super) enum LinkEvent {
    /// A frame arrived.
    Frame(LinkFrame),
    /// This many bytes arrived that are no frame.
    Unreadable(usize),
    /// A frame of so many bytes arrived that was not signed as it should be.
    Flawed { bytes: usize, flaw: Flaw, id: Option<BroadcastId> },
    /// The link ended: why, as text, and the misbehaviour of the other side, if that was the reason.
    Ended(String, Option<Misbehaviour>),
}

/// Reads a link.
pub(super) struct Reader {
    pub(super) frames: Incoming,
    /// Nothing is read before this time.
    pub(super) pause: watch::Receiver<Instant>,
    /// Cancelled when the link is closed.
    pub(super) closing: CancellationToken,
}

impl Reader {
    /// Passes frames to `report` until the link ends, is closed, or `report` returns false.
    pub(super) async fn run(mut self, report: impl Fn(LinkEvent) -> bool) {
        loop {
            let until = *self.pause.borrow_and_update();
            let next = async {
                if until > Instant::now() {
                    sleep_until(until).await;
                }
                self.frames.message().await
            };
            let next = tokio::select! {
                () = self.closing.cancelled() => break,
                next = next => next,
            };
            let event = LinkEvent::from(next);
            let ended = matches!(event, LinkEvent::Ended(..));
            let go_on = report(event);
            if ended {
                return;
            }
            if !go_on {
                break;
            }
            // Reading what has arrived does not wait; this lets other tasks run in between.
            consume_budget().await;
        }
        // Frames that were in flight when the link was closed: if another link replaced it, they count. Reading also lets the queue drain.
        let drain = async {
            let mut go_on = true;
            while let Ok(Some(message)) = self.frames.message().await {
                go_on = go_on && report(LinkEvent::from(Ok(Some(message))));
                consume_budget().await;
            }
        };
        let _ = timeout(LINGER, drain).await;
    }
}

impl From<Result<Option<LinkMessage>, Status>> for LinkEvent {
    fn from(next: Result<Option<LinkMessage>, Status>) -> Self {
        match next {
            Ok(Some(LinkMessage { unreadable: Some((_, bytes)), .. })) => Self::Unreadable(bytes),
            Ok(Some(LinkMessage { frame, .. })) => Self::Frame(frame.unwrap_or_default()),
            Ok(None) => Self::Ended("the other side closed it".to_owned(), None),
            Err(status) => Self::Ended(status::describe(&status), misbehaviour(&status)),
        }
    }
}
