//! One link: its greeting, its queue, and the task that reads it.

use crate::{
    dial::in_words,
    messages::BODY_MAX_BYTES,
    overlay::{Contact, PeerId, wire},
};
use p2pdi::{
    channel::connect,
    endpoint::Endpoint,
    v1::{LinkFrame, LinkRequest, LinkResponse, peer_client::PeerClient},
};
use prost::Message as _;
use std::{
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
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// Largest frame taken, in bytes: a relayed message with the longest body and all its names.
pub const RELAYED_MAX_BYTES: usize = BODY_MAX_BYTES + 4 * 1024;
/// Frames that may wait to be written on one link. A guess: a burst of broadcasts; small ones are a few hundred bytes.
const QUEUE_MAX: usize = 4_096;
/// Bytes that may wait: twice what one pull is answered with. A peer that reads less than it asks for loses the link.
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

/// The other side does not read, or is gone.
#[derive(Debug)]
pub(super) struct Stalled;

impl Outgoing {
    pub(super) fn send(&self, frame: LinkFrame) -> Result<(), Stalled> {
        let length = frame.encoded_len();
        if self.bytes.load(Ordering::Relaxed) + length > QUEUE_MAX_BYTES {
            return Err(Stalled);
        }
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.frames.try_send(frame).map_err(|_| Stalled)
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
pub(super) enum Incoming {
    Dialled(Box<Streaming<LinkResponse>>),
    Accepted(Box<Streaming<LinkRequest>>),
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<LinkFrame>, Status> {
        Ok(match self {
            Self::Dialled(frames) => frames.message().await?.map(|message| message.frame.unwrap_or_default()),
            Self::Accepted(frames) => frames.message().await?.map(|message| message.frame.unwrap_or_default()),
        })
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

/// Opens a link and exchanges greetings.
///
/// # Errors
/// In words, when nobody answers, or not as a peer would.
pub(super) async fn dial(endpoint: &Endpoint, hello: LinkFrame) -> Result<Greeted, String> {
    let greeting = async {
        let channel = connect(endpoint).await.map_err(|error| innermost(&error))?;
        let (out, queue) = outgoing();
        out.send(hello).map_err(|Stalled| "no room for a greeting".to_owned())?;
        let requests = queue.map(|frame| LinkRequest { frame: Some(frame) });
        let mut client = PeerClient::new(channel).max_decoding_message_size(RELAYED_MAX_BYTES);
        let frames = client.link(requests).await.map_err(|status| in_words(&status))?.into_inner();
        greeted(Incoming::Dialled(Box::new(frames)), out, true).await
    };
    timeout(GREETING_TIMEOUT, greeting).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// Takes a link and exchanges greetings.
///
/// # Errors
/// In words, when the other side does not greet as a peer would.
pub(super) async fn accept(frames: Box<Streaming<LinkRequest>>, out: Outgoing, hello: LinkFrame) -> Result<Greeted, String> {
    let greeting = async {
        let greeted = greeted(Incoming::Accepted(frames), out, false).await?;
        greeted.out.send(hello).map_err(|Stalled| "it went away".to_owned())?;
        Ok(greeted)
    };
    timeout(GREETING_TIMEOUT, greeting).await.unwrap_or_else(|_| Err("no greeting in time".to_owned()))
}

async fn greeted(mut frames: Incoming, out: Outgoing, dialled: bool) -> Result<Greeted, String> {
    let first = frames.next().await.map_err(|status| in_words(&status))?;
    let first = first.ok_or_else(|| "it closed the link without a greeting".to_owned())?;
    let (contact, incarnation) = wire::read_hello(first).map_err(|error| format!("its greeting is wrong: {error}"))?;
    Ok(Greeted { contact, incarnation, dialled, out, frames })
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What a link's reader tells the driver.
pub(super) enum Heard {
    Frame(LinkFrame),
    Ended(String),
}

/// Who a reader reads for.
pub(super) struct Reader {
    /// Tells links to one peer apart.
    pub(super) number: u64,
    pub(super) peer: PeerId,
    pub(super) frames: Incoming,
    /// Read nothing before.
    pub(super) pause: watch::Receiver<Instant>,
    pub(super) closing: CancellationToken,
}

impl Reader {
    /// Hands frames to `tell` until the link ends or is closed. `tell` waits while the driver is busy, and with it the other side.
    pub(super) async fn run<T: Future<Output = bool>>(mut self, tell: impl Fn(u64, PeerId, Heard) -> T) {
        loop {
            let until = *self.pause.borrow_and_update();
            let next = async {
                sleep_until(until).await;
                self.frames.next().await
            };
            let heard = tokio::select! {
                () = self.closing.cancelled() => break,
                next = next => match next {
                    Ok(Some(frame)) => Heard::Frame(frame),
                    Ok(None) => Heard::Ended("the other side ended it".to_owned()),
                    Err(status) => Heard::Ended(in_words(&status)),
                },
            };
            let ended = matches!(heard, Heard::Ended(_));
            let told = tokio::select! {
                () = self.closing.cancelled() => break,
                told = tell(self.number, self.peer, heard) => told,
            };
            if ended || !told {
                return;
            }
        }
        // Nobody listens any more; this only lets the queue drain.
        let drain = async { while let Ok(Some(_)) = self.frames.next().await {} };
        let _ = timeout(LINGER, drain).await;
    }
}
