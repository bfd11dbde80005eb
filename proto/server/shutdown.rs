//! The steps of a server's end.

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
