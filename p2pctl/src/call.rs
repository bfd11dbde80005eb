//! One call to a server, bounded in time; its status becomes a failure with the server's name.

use crate::failure::{Failure, Outcome};
use p2pdi::{
    channel::Dial,
    endpoint::Endpoint,
    probe::{self, Answering},
};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use tonic::{Response, Status, metadata::MetadataMap};

/// Time limit of one call, connection set-up included. Servers give up on their own work sooner.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long pauses take until a server that refused a call for now is called again, all together: the rest is for the calls.
pub(crate) const RETRY_LIMIT: Duration = Duration::from_secs(6);
const _: () = assert!(RETRY_LIMIT.as_secs() < CALL_TIMEOUT.as_secs());

/// The present time by the clock of the server that gave this answer (RFC 9110, section 6.6.1), or by this machine's clock if it does not say. Ages of
/// what a server reports are counted by its own clock.
pub(crate) fn server_time(answer: &MetadataMap) -> SystemTime {
    let date = answer.get("date").and_then(|date| date.to_str().ok());
    date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now)
}

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

/// Awaits `call` to the peer `name` at `endpoint`, for at most `limit`. If no peer answers there, the failure says what does.
///
/// # Errors
/// When the call fails, or takes longer.
pub(crate) async fn to_peer<T>(
    name: &str,
    endpoint: &Endpoint,
    dial: &Dial,
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Outcome<T> {
    // Boxed: a client call is large, and is moved through several futures.
    match bounded(name, limit, Box::pin(call)).await {
        Err(failure) if failure.is_unanswered() => Err(failure.explained(probe::explain(endpoint, dial, &Answering::Peer).await)),
        answered => answered,
    }
}

/// What answers in place of the registry at one of these addresses, if something else does.
pub(crate) async fn explained(registries: &[Endpoint], dial: &Dial) -> Option<String> {
    for registry in registries {
        if let Some(found) = probe::explain(registry, dial, &Answering::Registry).await {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_server_is_that_of_its_answer() {
        let mut answer = MetadataMap::new();
        answer.insert("date", "Thu, 01 Jan 1970 00:00:05 GMT".parse().unwrap());
        assert_eq!(server_time(&answer), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    }
}
