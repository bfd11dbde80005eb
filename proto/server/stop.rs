//! Runs a program until a signal stops it.

use crate::platform::StopSignals;
use std::io;
use tokio_util::sync::CancellationToken;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped<T> {
    /// It returned, if necessary within its grace period after one signal.
    Done(T),
    /// By a second signal: exit at once.
    AtOnce,
}

/// Runs `program` with a token that the first Ctrl-C or SIGTERM cancels. A second one drops the program where it is.
///
/// # Errors
/// When the system refuses to install signal handlers.
pub async fn until_stopped<T>(program: impl AsyncFnOnce(CancellationToken) -> T) -> io::Result<Stopped<T>> {
    let mut signals = StopSignals::listen()?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(program(stop.clone()));
    loop {
        tokio::select! {
            done = &mut running => return Ok(Stopped::Done(done)),
            () = signals.next() => {}
        }
        if stop.is_cancelled() {
            return Ok(Stopped::AtOnce);
        }
        tracing::info!("stopping; a second signal stops at once");
        stop.cancel();
    }
}
