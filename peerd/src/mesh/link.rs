//! One link: its greeting, its queue, and the task that reads it.

use crate::{
    inbox::BODY_MAX_BYTES,
    overlay::{Misbehaviour, wire},
};
use p2pdi::{
    channel::connect,
    contact::Contact,
    endpoint::Endpoint,
    link::LinkMessage,
    status,
    v1::{LinkFrame, peer_client::PeerClient},
};
use prost::Message as _;
use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::coop::consume_budget,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

/// Largest frame taken, in bytes: a relayed message with the longest body and all its names.
pub const RELAYED_MAX_BYTES: usize = BODY_MAX_BYTES + 4 * 1024;
/// Frames that may wait to be written on one link. A guess: a burst of broadcasts; small ones are a few hundred bytes.
const QUEUE_MAX: usize = 4_096;
/// Bytes that may wait. Broadcasts are pushed while less than half of it waits, and a pull is answered with half of that at most; past
/// the half they are only offered, and the other side asks for them at its own pace. A peer that does not read even that loses the link.
const QUEUE_MAX_BYTES: usize = 4 << 20;
/// A dial and both greetings. Below the overlay's own limit (`membership::Config::dial_timeout`, 4 s).
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_millis(3_500);
/// How long a closed link is read on, so that what was queued gets out before the connection ends.
const LINGER: Duration = Duration::from_secs(1);

/// The writing end of a link's queue. Dropped, what is queued still goes out, then the link ends.
pub(super) struct Outgoing {
    frames: mpsc::Sender<LinkFrame>,
    bytes: Arc<AtomicUsize>,
}

/// The reading end of a link's queue.
pub(super) struct OutgoingStream {
    frames: mpsc::Receiver<LinkFrame>,
    bytes: Arc<AtomicUsize>,
}

/// A link's queue.
pub(super) fn outgoing() -> (Outgoing, OutgoingStream) {
    let (frames, queue) = mpsc::channel(QUEUE_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Outgoing { frames, bytes: Arc::clone(&bytes) }, OutgoingStream { frames: queue, bytes })
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotQueued {
    /// The other side does not read.
    Full,
    /// The link has ended.
    Ended,
}

impl Outgoing {
    /// Whether the other side reads so slowly that broadcasts should be offered to it rather than pushed: half of the queue is full.
    pub(super) fn is_congested(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > QUEUE_MAX_BYTES / 2 || self.frames.capacity() < QUEUE_MAX / 2
    }

    pub(super) fn send(&self, frame: LinkFrame) -> Result<(), NotQueued> {
        let length = frame.encoded_len();
        if self.bytes.load(Ordering::Relaxed) + length > QUEUE_MAX_BYTES {
            return Err(NotQueued::Full);
        }
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.frames.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotQueued::Full,
            mpsc::error::TrySendError::Closed(_) => NotQueued::Ended,
        })
    }
}

impl Stream for OutgoingStream {
    type Item = LinkFrame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LinkFrame>> {
        let frame = ready!(self.frames.poll_recv(cx));
        if let Some(frame) = &frame {
            self.bytes.fetch_sub(frame.encoded_len(), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }
}

/// What the other side says, whichever side it is.
pub(super) type Incoming = Box<Streaming<LinkMessage>>;

/// What a link ended with, if that was a frame which nobody can read on after: gRPC has no way to find the next one.
fn ended_by(status: &Status) -> Option<Misbehaviour> {
    // What broke below has a cause; what tonic itself found wrong has none.
    let own = std::error::Error::source(status).is_none();
    match status.code() {
        Code::OutOfRange if own => Some(Misbehaviour::FrameTooLong),
        Code::Internal | Code::Unimplemented if own => Some(Misbehaviour::Unreadable),
        _ => None,
    }
}

/// A link on which both sides have said hello.
pub(super) struct Greeted {
    pub(super) contact: Contact,
    pub(super) incarnation: u64,
    pub(super) dialled: bool,
    pub(super) out: Outgoing,
    pub(super) frames: Incoming,
}

/// Why a link was not opened, in words.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// Nobody answers, or it went away.
    Away(String),
    /// What answers is no peer, or one that does not keep to the contract.
    Wrong(String),
}

impl NotOpened {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Away(why) | Self::Wrong(why) => why,
        }
    }
}

impl From<&str> for NotOpened {
    fn from(why: &str) -> Self {
        Self::Away(why.to_owned())
    }
}

/// Opens a link, from the local address `from` if one is given, and exchanges greetings.
///
/// # Errors
/// When nobody answers, or not as a peer would.
pub(super) async fn dial(endpoint: &Endpoint, from: Option<IpAddr>, hello: LinkFrame) -> Result<Greeted, NotOpened> {
    let greeting = async {
        let channel = connect(endpoint, from).await.map_err(|error| NotOpened::Away(innermost(&error)))?;
        let (out, queue) = outgoing();
        out.send(hello).map_err(|_| "no room for a greeting")?;
        let mut client = PeerClient::new(channel).max_decoding_message_size(RELAYED_MAX_BYTES);
        let answered = client.link(queue.map(LinkMessage::new)).await;
        let frames = answered.map_err(|status| NotOpened::Away(status::describe(&status)))?.into_inner();
        greeted(Box::new(frames), out, true).await
    };
    timeout(GREETING_TIMEOUT, greeting).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

/// Takes a link and exchanges greetings.
///
/// # Errors
/// When the other side does not greet as a peer would.
pub(super) async fn accept(frames: Incoming, out: Outgoing, hello: LinkFrame) -> Result<Greeted, NotOpened> {
    let greeting = async {
        let greeted = greeted(frames, out, false).await?;
        greeted.out.send(hello).map_err(|_| "it went away")?;
        Ok(greeted)
    };
    timeout(GREETING_TIMEOUT, greeting).await.unwrap_or_else(|_| Err("no greeting in time".into()))
}

async fn greeted(mut frames: Incoming, out: Outgoing, dialled: bool) -> Result<Greeted, NotOpened> {
    let first = frames.message().await.map_err(|status| match ended_by(&status) {
        Some(_) => NotOpened::Wrong(format!("its greeting cannot be read: {}", status::describe(&status))),
        None => NotOpened::Away(status::describe(&status)),
    })?;
    let first = first.ok_or("it closed the link without a greeting")?;
    let frame = match first {
        LinkMessage { unreadable: Some((error, _)), .. } => {
            return Err(NotOpened::Wrong(format!("its greeting cannot be read: {error}")));
        }
        LinkMessage { frame, .. } => frame.unwrap_or_default(),
    };
    let wrong = |error| NotOpened::Wrong(format!("its greeting is wrong: {error}"));
    let (contact, incarnation) = wire::read_hello(frame).map_err(wrong)?;
    Ok(Greeted { contact, incarnation, dialled, out, frames })
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What a link's reader hears.
pub(super) enum Heard {
    Frame(LinkFrame),
    /// So many bytes that are no frame.
    Unreadable(usize),
    /// Why, in words, and what the other side did, if that was it.
    Ended(String, Option<Misbehaviour>),
}

/// Reads a link.
pub(super) struct Reader {
    pub(super) frames: Incoming,
    /// Read nothing before.
    pub(super) pause: watch::Receiver<Instant>,
    pub(super) closing: CancellationToken,
}

impl Reader {
    /// Hands frames to `tell` until the link ends, is closed, or `tell` wants no more.
    pub(super) async fn run(mut self, tell: impl Fn(Heard) -> bool) {
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
            let heard = Heard::from(next);
            let ended = matches!(heard, Heard::Ended(..));
            let wanted = tell(heard);
            if ended {
                return;
            }
            if !wanted {
                break;
            }
            // What has arrived already is read without waiting; other links have their turn all the same.
            consume_budget().await;
        }
        // What was under way when it was closed, if another link took its place. This also lets the queue drain.
        let drain = async {
            let mut wanted = true;
            while let Ok(Some(message)) = self.frames.message().await {
                wanted = wanted && tell(Heard::from(Ok(Some(message))));
                consume_budget().await;
            }
        };
        let _ = timeout(LINGER, drain).await;
    }
}

impl From<Result<Option<LinkMessage>, Status>> for Heard {
    fn from(next: Result<Option<LinkMessage>, Status>) -> Self {
        match next {
            Ok(Some(LinkMessage { unreadable: Some((_, bytes)), .. })) => Self::Unreadable(bytes),
            Ok(Some(LinkMessage { frame, .. })) => Self::Frame(frame.unwrap_or_default()),
            Ok(None) => Self::Ended("the other side ended it".to_owned(), None),
            Err(status) => Self::Ended(status::describe(&status), ended_by(&status)),
        }
    }
}
