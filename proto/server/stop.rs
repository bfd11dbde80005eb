//! Ctrl-C and SIGTERM.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How a program came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped<T> {
    /// It ran to its end, or stopped within its grace period after one signal.
    Done(T),
    /// A second signal: leave at once.
    AtOnce,
}

/// Runs `program` with a token that the first Ctrl-C or SIGTERM cancels; the second ends it where it is.
///
/// # Errors
/// When signals cannot be listened for.
pub async fn until_stopped<T>(program: impl AsyncFnOnce(CancellationToken) -> T) -> io::Result<Stopped<T>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(program(stop.clone()));
    loop {
        tokio::select! {
            done = &mut running => return Ok(Stopped::Done(done)),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if stop.is_cancelled() {
            return Ok(Stopped::AtOnce);
        }
        tracing::info!("stopping; once more to stop at once");
        stop.cancel();
    }
}
