//! Closes the connections of slow readers.
//!
//! A server polls a response stream for its next message only after the previous one was sent. A caller that stops reading therefore
//! suspends the stream with all it holds: an open file, an upload permit, a listing. The suspended stream is not polled, so a separate task
//! watches the time.

use p2pdi::server::Caller;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;

/// A stream that closes its caller's connection if it is not polled in time after a message.
pub(crate) struct SlowReaderGuard<S> {
    inner: Pin<Box<S>>,
    /// When the last message was handed out; `None` while the next one is polled for.
    handed_out: Arc<Mutex<Option<Instant>>>,
    /// `None` if the caller's connection is not known.
    _watch: Option<AbortOnDropHandle<()>>,
}

impl<S: Stream> SlowReaderGuard<S> {
    /// Guards `inner`: `caller` must read a message at least every `unread`.
    pub(crate) fn new(inner: S, caller: Option<Caller>, unread: Duration) -> Self {
        let handed_out = Arc::default();
        let watch = caller.map(|caller| AbortOnDropHandle::new(tokio::spawn(watch(Arc::clone(&handed_out), caller, unread))));
        Self { inner: Box::pin(inner), handed_out, _watch: watch }
    }
}

async fn watch(handed_out: Arc<Mutex<Option<Instant>>>, caller: Caller, unread: Duration) {
    loop {
        let now = Instant::now();
        let due = at(&handed_out).unwrap_or(now) + unread;
        if due <= now {
            tracing::info!(?caller, ?unread, "a caller does not read its response; closing its connection");
            return caller.disconnect();
        }
        sleep_until(due).await;
    }
}

fn at(handed_out: &Mutex<Option<Instant>>) -> Option<Instant> {
    *handed_out.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Stream> Stream for SlowReaderGuard<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        *self.handed_out.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let next = ready!(self.inner.as_mut().poll_next(cx));
        *self.handed_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Poll::Ready(next)
    }
}
