//! One call to a server, bounded in time; its status becomes a failure with the server's name.

use crate::failure::{Failure, Outcome};
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Response, Status};

/// Time limit of one call, connection set-up included. Servers give up on their own work sooner.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Awaits `call` to `server` for at most `limit`.
///
/// # Errors
/// When the call fails, or takes longer.
pub(crate) async fn bounded<T>(
    server: &str,
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Outcome<T> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Failure::call(server, &status)),
        Err(_) => Err(Failure::timed_out(server, limit)),
    }
}
