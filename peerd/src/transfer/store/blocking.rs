//! Blocking work of a fetch, off the runtime's threads.

use super::error::WriteError;
use std::{io, panic::resume_unwind, path::PathBuf};
use tokio::task::spawn_blocking;

/// Starts blocking work in a thread for it; a panic there continues in whoever waits for the end.
///
/// # Errors
/// That of the work, or [`io::ErrorKind::Interrupted`] when the runtime stopped before the work began.
pub(crate) fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WriteError> + Send + 'static,
) -> impl Future<Output = Result<T, WriteError>> {
    let task = spawn_blocking(work);
    async move {
        match task.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => Err(WriteError::Io { doing: "finish", path: PathBuf::new(), source: io::ErrorKind::Interrupted.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    #[test]
    fn work_that_a_stopped_runtime_cancels_ends_with_an_error() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let work = {
            let _entered = handle.enter();
            off_runtime(|| Ok(()))
        };
        let ended = Builder::new_current_thread().build().unwrap().block_on(work);
        assert!(matches!(ended, Err(WriteError::Io { source, .. }) if source.kind() == io::ErrorKind::Interrupted));
    }
}
