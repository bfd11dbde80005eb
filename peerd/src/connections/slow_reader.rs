//! Ends the answers of clients that do not read them.
//!
//! A server polls a response stream for its next message only after the previous one was sent. A client that stops reading therefore
//! suspends the stream with all it holds: an open file, an upload permit, a listing. The suspended stream is not polled, so a task of its own
//! watches the time, and drops the stream. What stays is the message that waits in the connection's buffer. If other calls of the
//! connection make progress, such as when a client hashes a file that it has before it reads on, the connection stays; else it is closed.

use p2pdi::{log_limit::LogLimit, server::Caller, status::Reason};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;

/// Most ended streams that one connection keeps with a message in its buffer; with one more it is closed. A guess: a client that does not
/// read has few streams like that, one that fills memory has many.
const ENDED_MAX: usize = 4;

/// A response stream that ends if it is not polled in time after a message.
pub(crate) struct SlowReaderGuard<S: Stream> {
    guarded: Arc<Guarded<S>>,
    client: Option<Caller>,
    /// What a client that reads again gets.
    ended: fn() -> Option<S::Item>,
    /// `None` if the client's connection is not known.
    _watchdog: Option<AbortOnDropHandle<()>>,
}

struct Guarded<S> {
    state: Mutex<State<S>>,
}

struct State<S> {
    /// `None` once it was ended.
    stream: Option<Pin<Box<S>>>,
    /// When the last message was returned; `None` while the next one is polled for.
    returned_at: Option<Instant>,
}

impl<S: Stream + Send + 'static> SlowReaderGuard<S> {
    /// Guards `inner`: `client` must read each message within `read_timeout`. If it does not, and reads on later, it gets what `ended`
    /// gives, and then the end.
    pub(crate) fn new(inner: S, client: Option<Caller>, read_timeout: Duration, ended: fn() -> Option<S::Item>) -> Self {
        let guarded = Arc::new(Guarded { state: Mutex::new(State { stream: Some(Box::pin(inner)), returned_at: None }) });
        let watchdog = |client| AbortOnDropHandle::new(tokio::spawn(watch(Arc::clone(&guarded), client, read_timeout)));
        let watchdog = client.clone().map(watchdog);
        Self { guarded, client, ended, _watchdog: watchdog }
    }
}

/// An unread stream, and when its last message was returned.
type Unread<S> = (Option<Pin<Box<S>>>, Instant);

impl<S> Guarded<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream, and when its last message was returned, if that was at least `read_timeout` ago. Otherwise when to look again.
    fn take_unread(&self, read_timeout: Duration) -> Result<Unread<S>, Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        match state.returned_at {
            Some(at) if at + read_timeout <= now => Ok((state.stream.take(), at)),
            at => Err(at.unwrap_or(now) + read_timeout),
        }
    }
}

/// Ends the stream when a message stays unread for `read_timeout`.
async fn watch<S>(guarded: Arc<Guarded<S>>, client: Caller, read_timeout: Duration) {
    static LOG: LogLimit = LogLimit::new(1);
    let (stream, since) = loop {
        match guarded.take_unread(read_timeout) {
            Ok(unread) => break unread,
            Err(due) => sleep_until(due).await,
        }
    };
    drop(stream);
    client.ends_for(Reason::Overloaded);
    let others_progress = client.progressed_at() > since && client.ended_unread() < ENDED_MAX;
    if let Some(line) = LOG.line() {
        let what = if others_progress { "ending it" } else { "closing its connection" };
        tracing::info!(?client, ?read_timeout, suppressed = line.suppressed, "a client does not read its response; {what}");
    }
    if others_progress {
        // Counted until the connection drops what is left of the stream.
        let _counted = client.count_ended_unread();
        std::future::pending::<()>().await;
    }
    client.disconnect();
}

impl<S: Stream> Stream for SlowReaderGuard<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.get_mut();
        let mut state = this.guarded.lock();
        state.returned_at = None;
        let Some(stream) = &mut state.stream else {
            let ended = std::mem::replace(&mut this.ended, || None);
            return Poll::Ready(ended());
        };
        let next = ready!(stream.as_mut().poll_next(cx));
        let now = Instant::now();
        state.returned_at = Some(now);
        drop(state);
        if let Some(client) = &this.client {
            client.progressed(now);
        }
        Poll::Ready(next)
    }
}
