//! Joining a network with a token: the certificate is kept in the state folder.

use super::{error::StateError, folder::StateFolder};
use p2pdi::enrol::{EnrolError, Enrolment, Joining};
use std::path::Path;

/// The folder of the key and the certificates, in the state folder.
const FOLDER: &str = "tls";

/// Why a peer cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no certificate.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
}

impl JoinError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::State(StateError::Locked { .. }) => Some("give each peer its own folder with --state"),
            Self::State(_) | Self::Enrol(EnrolError::Io { .. }) => {
                Some("choose a folder that this user can write to with --state")
            }
            Self::Enrol(EnrolError::Unreachable { .. }) => {
                Some("check that the registry runs with --ca, and that this machine reaches the addresses of the token")
            }
            Self::Enrol(EnrolError::WrongAuthority { .. }) => {
                Some("ask whoever made the token for a new one, and compare `p2pctl ca show` on the registry's machine")
            }
            Self::Enrol(_) => None,
        }
    }
}

/// The certificate that the token gives, or gave at an earlier start. The state folder is locked meanwhile, so that two peers do not join
/// with one token.
///
/// # Errors
/// When the state folder is in use or cannot be written to, or there is no certificate.
pub async fn join(state: &Path, joining: &Joining) -> Result<Enrolment, JoinError> {
    let locked = StateFolder::open(state)?;
    let enrolment = Enrolment::join(&locked.path().join(FOLDER), joining).await?;
    Ok(enrolment)
}
