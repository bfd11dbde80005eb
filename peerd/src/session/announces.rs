//! Announces of members of swarms at the registry: bounded, and patient while this peer registers again.

use super::client::Client;
use p2pdi::{
    status::{self, Reason},
    v1::{AnnounceRequest, AnnounceResponse},
};
use tokio::sync::Semaphore;
use tonic::{Code, Status};

/// Announces in progress at once: a peer may be in some hundred swarms, and their announces need not be answered in one moment.
const CONCURRENT_MAX: usize = 16;

/// Why an announce was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// There is no registry, or one that keeps no swarms.
    #[error("no registry that keeps swarms")]
    NoTracker,
    /// The registry has no room for this membership, or refuses the announce for another reason that does not end soon.
    #[error("the registry refused the announce: {0}")]
    Refused(String),
    /// The registry did not answer, or this peer is not registered at the moment.
    #[error("the registry cannot be told now: {0}")]
    Unavailable(String),
}

/// How an announce that failed is to be taken.
pub(super) enum Failed {
    /// The registry does not know this peer any more; it registers again.
    NotRegistered,
    Error(AnnounceError),
}

impl AnnounceError {
    /// What the status of a failed announce means to its caller.
    pub fn of(error: &Status) -> Self {
        match (Reason::of(error), error.code()) {
            // A registry that does not know the method, or that has it and no swarms.
            (None, Code::Unimplemented) => Self::NoTracker,
            (Some(Reason::TooManySwarms | Reason::InvalidField), _) => Self::Refused(error.message().to_owned()),
            (Some(_), _) => Self::Unavailable(error.message().to_owned()),
            (None, _) => Self::Unavailable(status::describe(error)),
        }
    }
}

/// The announces of one peer.
pub(super) struct Announces(Semaphore);

impl Default for Announces {
    fn default() -> Self {
        Self(Semaphore::new(CONCURRENT_MAX))
    }
}

impl Announces {
    pub(super) async fn call(&self, client: &Client, request: AnnounceRequest) -> Result<AnnounceResponse, Failed> {
        // The semaphore is never closed.
        let _turn = self.0.acquire().await;
        client.announce(request).await.map_err(|error| match Reason::of(&error) {
            Some(Reason::CookieUnknown | Reason::LeaseExpired | Reason::CookieMissing) => Failed::NotRegistered,
            _ => Failed::Error(AnnounceError::of(&error)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_registry_is_no_tracker_and_a_full_one_refuses() {
        assert_eq!(AnnounceError::of(&Status::unimplemented("")), AnnounceError::NoTracker);
        assert!(matches!(AnnounceError::of(&Reason::TooManySwarms.status("full")), AnnounceError::Refused(_)));
        for error in [Status::unavailable("gone"), Status::deadline_exceeded(""), Reason::ShuttingDown.status("stopping")] {
            assert!(matches!(AnnounceError::of(&error), AnnounceError::Unavailable(_)), "{error:?}");
        }
    }
}
