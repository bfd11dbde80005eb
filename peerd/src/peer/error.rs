//! What can go wrong with a peer, and what to do.

use crate::node::NodeError;
use p2pdi::{
    field::InvalidField,
    status::{self, Reason},
};
use std::{io, net::SocketAddr};
use tonic::Status;

/// Why a peer cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A value that cannot be; its words say what can.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The address is not to be had.
    #[error("cannot listen on {address}: {source}; choose another port, or 0 for a free one")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no folder for its state.
    #[error("cannot make a folder for the peer's state: {0}; give one with state()")]
    State(#[source] io::Error),
    /// It cannot be opened, or one of its parts failed.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// It was built and not started.
    #[error("the peer is not running yet; call start() first")]
    NotStarted,
    /// It was shut down or dropped, or it failed, which is logged.
    #[error("the peer has stopped; build another one")]
    Stopped,
    /// None of several peers could be joined.
    #[error("nobody to join: {}; check that they run, and their addresses", .0.join("; "))]
    NobodyAnswers(
        /// Each, and why not.
        Vec<String>,
    ),
    /// There is no way to a peer.
    #[error("{0}; check the name, and that this peer has joined its mesh or registry")]
    NoRoute(String),
    /// A message is longer than fits.
    #[error("{0}")]
    TooLarge(String),
    /// As much is under way as may be.
    #[error("{0}")]
    Busy(String),
    /// Another peer failed or refused.
    #[error("{peer}: {why}")]
    Refused {
        /// Which.
        peer: String,
        /// In its words.
        why: String,
    },
}

impl PeerError {
    /// What `peer` said no with.
    pub(super) fn refused(peer: &str, status: &Status) -> Self {
        let why = status::describe(status);
        match Reason::of(status) {
            Some(Reason::NoRoute) => Self::NoRoute(why),
            Some(Reason::MessageTooLarge) => Self::TooLarge(why),
            Some(Reason::TooManyStreams | Reason::TooManySeeks | Reason::NeighboursFull) => Self::Busy(why),
            Some(Reason::ShuttingDown) => Self::Stopped,
            _ => Self::Refused { peer: peer.to_owned(), why },
        }
    }

    pub(super) fn nobody(failures: Vec<(String, Self)>) -> Self {
        Self::NobodyAnswers(failures.into_iter().map(|(peer, error)| format!("{peer}: {}", error.cause())).collect())
    }

    /// Without what to do, which the whole says once.
    fn cause(&self) -> String {
        match self {
            Self::NoRoute(why) => why.clone(),
            other => other.to_string(),
        }
    }

    pub(super) fn not_answering(peer: &str) -> Self {
        Self::Refused { peer: peer.to_owned(), why: "no answer in time; ask another peer".to_owned() }
    }
}
