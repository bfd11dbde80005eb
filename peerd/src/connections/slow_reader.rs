//! Closes the connections of clients that do not read their responses.
//!
//! A server polls a response stream for its next message only after the previous one was sent. A client that stops reading therefore
//! suspends the stream with all it holds: an open file, an upload permit, a listing. The suspended stream is not polled, so a task of its own
//! watches the time.

use p2pdi::{log_limit::LogLimit, server::Caller};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;

/// A response stream that closes its client's connection if it is not polled in time after a message.
pub(crate) struct SlowReaderGuard<S> {
    inner: Pin<Box<S>>,
    /// When the last message was returned; `None` while the next one is polled for.
    returned_at: Arc<Mutex<Option<Instant>>>,
    /// `None` if the client's connection is not known.
    _watchdog: Option<AbortOnDropHandle<()>>,
}

impl<S: Stream> SlowReaderGuard<S> {
    /// Guards `inner`: `client` must read each message within `read_timeout`.
    pub(crate) fn new(inner: S, client: Option<Caller>, read_timeout: Duration) -> Self {
        let returned_at = Arc::default();
        let watchdog = |client| AbortOnDropHandle::new(tokio::spawn(watch(Arc::clone(&returned_at), client, read_timeout)));
        let watchdog = client.map(watchdog);
        Self { inner: Box::pin(inner), returned_at, _watchdog: watchdog }
    }
}

/// Closes the connection of `client` when a message stays unread for `read_timeout`.
async fn watch(returned_at: Arc<Mutex<Option<Instant>>>, client: Caller, read_timeout: Duration) {
    static LOG: LogLimit = LogLimit::new(1);
    loop {
        let now = Instant::now();
        let due = get(&returned_at).unwrap_or(now) + read_timeout;
        if due <= now {
            if let Some(line) = LOG.line() {
                tracing::info!(
                    ?client,
                    ?read_timeout,
                    suppressed = line.suppressed,
                    "a client does not read its response; closing its connection"
                );
            }
            return client.disconnect();
        }
        sleep_until(due).await;
    }
}

fn get(returned_at: &Mutex<Option<Instant>>) -> Option<Instant> {
    *returned_at.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set(returned_at: &Mutex<Option<Instant>>, at: Option<Instant>) {
    *returned_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
}

impl<S: Stream> Stream for SlowReaderGuard<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        set(&self.returned_at, None);
        let next = ready!(self.inner.as_mut().poll_next(cx));
        set(&self.returned_at, Some(Instant::now()));
        Poll::Ready(next)
    }
}
