//! The steps of a server's end.

use http::Extensions;
use std::{fmt, future::Future, pin::Pin};
use tokio_util::sync::CancellationToken;

/// How a server ends: at the stop it accepts no more connections; once it is drained, or the grace period is over, its clients are told
/// (HTTP/2 GOAWAY) and no more calls are taken.
pub struct Shutdown {
    pub(super) stop: CancellationToken,
    pub(super) closing: CancellationToken,
    pub(super) drained: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Shutdown {
    /// Calls that are under way at `stop` are finished, and none is taken any more.
    pub fn at(stop: CancellationToken) -> Self {
        Self { closing: stop.clone(), stop, drained: Box::pin(std::future::ready(())) }
    }

    /// After `stop` the connections that are open go on to make calls until `drained` ends: work that takes several calls is finished.
    /// `drained` is first polled after `stop`; then `closing` is cancelled.
    pub fn when_drained(
        stop: CancellationToken,
        closing: CancellationToken,
        drained: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { stop, closing, drained: Box::pin(drained) }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("stop", &self.stop).field("closing", &self.closing).finish_non_exhaustive()
    }
}

/// The end of a call's connection, in the extensions of its request: its client is told to make no further calls on it (HTTP/2 GOAWAY), because
/// the server stops, or because the connection is old. Calls that would never end by themselves end then.
#[derive(Debug, Clone)]
pub struct Ending(pub(super) CancellationToken);

impl Ending {
    /// The end of the connection that a request came by; of one from inside the process, never.
    pub fn of(extensions: &Extensions) -> CancellationToken {
        extensions.get().map_or_else(CancellationToken::new, |Self(ending)| ending.clone())
    }
}
