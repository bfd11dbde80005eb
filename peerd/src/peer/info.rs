//! What a peer tells its program about other peers and about messages sent.

use crate::inbox::Reply;
use p2pdi::{endpoint::Endpoint, name::PeerName, v1::SessionState};
use std::{fmt, time::Duration};

/// Another peer, as far as this one knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerInfo {
    /// Its name.
    pub name: PeerName,
    /// Where others dial it.
    pub endpoint: Endpoint,
    /// Whether this peer has a link to it.
    pub linked: bool,
}

/// `NAME@HOST:PORT`, as [`PeerHandle::join`](super::PeerHandle::join) takes it.
impl fmt::Display for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.endpoint)
    }
}

/// How far a broadcast came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Other peers that the sender knows of.
    pub known: u64,
    /// Those of them that acknowledged it.
    pub acknowledged: u64,
    /// Names of those that did not in time. Empty when no acknowledgement was asked for.
    pub missing: Vec<String>,
}

/// A whisper that was delivered, as its receiver reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Name of the receiver.
    pub by: String,
    /// Links and calls on the way; 0: the receiver is this peer itself.
    pub hops: u32,
    /// Time from sending to the acknowledgement.
    pub round_trip: Duration,
    /// The reply of the receiver's handler, if it came within [`REPLY_TIMEOUT`](crate::inbox::REPLY_TIMEOUT).
    pub reply: Option<Reply>,
    /// The receiver has no handler or subscription for messages of this kind: it counted the message and dropped it.
    pub unclaimed: bool,
}

/// Messages that a peer received, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// In the inbox now.
    pub waiting: u64,
    /// Received since the peer was built.
    pub received: u64,
    /// Dropped for newer ones because the inbox was full.
    pub dropped: u64,
    /// Of a kind that no handler or subscription takes; dropped.
    pub unclaimed: u64,
}

/// How a peer stands with its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Where it is in registering.
    pub state: RegistrationState,
    /// The URL of the registry in use; before the first answer those of all replicas, with commas between them; empty without a registry.
    pub registry: String,
    /// The reason for the state, in words.
    pub detail: String,
}

/// Where a peer is in registering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegistrationState {
    /// It runs without a registry.
    None,
    /// It tries to register.
    Registering,
    /// The registry lists it.
    Registered,
    /// The registry does not answer; the peer serves, and tries again.
    Unreachable,
    /// The registry refuses it, because another peer has the name, for example; the peer serves, and tries again.
    Refused,
}

impl From<SessionState> for RegistrationState {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Unspecified | SessionState::None => Self::None,
            SessionState::Registering => Self::Registering,
            SessionState::Registered => Self::Registered,
            SessionState::Unreachable => Self::Unreachable,
            SessionState::Refused => Self::Refused,
        }
    }
}
