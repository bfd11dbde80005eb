//! Errors of a peer, and what to do about them.

use crate::{
    documents::selector::DocumentSelector,
    holders::search::{Found, SearchError},
    identity::JoinError,
    node::NodeError,
    transfer::{FetchError, ReadError, fetch::job::JobError, jobs::JobsError},
};
use p2pdi::{
    field::InvalidField,
    phrases::counted,
    status::{self, Reason},
};
use std::{convert::Infallible, io, net::SocketAddr};
use tonic::{Code, Status};

/// Most documents of one name, and most holders of each, that an error names.
const AMBIGUOUS_SHOWN_MAX: usize = 16;
const HOLDERS_SHOWN_MAX: usize = 8;

/// Why a peer cannot be built or used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A value is not valid; the message says what is.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}; choose another port, or 0 for a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// No temporary folder could be made for its state.
    #[error("cannot make a folder for the peer's state: {0}; give one with state()")]
    State(#[source] io::Error),
    /// The token of [`PeerBuilder::join_with`](super::PeerBuilder::join_with) gives no certificate.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It cannot be opened, or one of its parts failed.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A job was refused.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// It is built but not started.
    #[error("the peer is not running yet; call start() first")]
    NotStarted,
    /// It was shut down or dropped, or it failed (which is logged).
    #[error("the peer has stopped; build another one")]
    Stopped,
    /// None of several peers could be joined.
    #[error("no peer could be joined: {}; check that they run, and their addresses", .0.join("; "))]
    NoneAnswered(
        /// Each peer, with the reason.
        Vec<String>,
    ),
    /// Nobody who was asked has a document.
    #[error("{0}")]
    NotFound(String),
    /// Several documents have that name or number, and none is clearly meant; the message names them.
    #[error("{0}")]
    Ambiguous(String),
    /// A document could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A range of a document could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Another peer has the name.
    #[error("{0}")]
    NameTaken(String),
    /// There is no route to a peer.
    #[error("{0}; check the name, and that this peer has joined its mesh or registry")]
    NoRoute(String),
    /// A message is longer than the limit.
    #[error("{0}")]
    TooLarge(String),
    /// Try again later: a limit is reached (neighbours, streams or searches), or the registry did not answer.
    #[error("{0}")]
    Busy(String),
    /// Another peer did not answer in time.
    #[error("{peer}: no answer in time; ask another peer")]
    NoAnswer {
        /// The peer.
        peer: String,
    },
    /// Another peer failed or refused.
    #[error("{peer}: {why}")]
    Refused {
        /// The peer.
        peer: String,
        /// Its reason.
        why: String,
    },
}

impl PeerError {
    /// The error for a status that `peer` answered.
    pub(super) fn refused(peer: &str, status: &Status) -> Self {
        let why = status::describe(status);
        let Some(reason) = Reason::of(status) else {
            return match status.code() {
                // The connection: nobody of this contract said it.
                Code::Unavailable => Self::NoRoute(format!("{peer} does not answer: {why}")),
                Code::DeadlineExceeded => Self::NoAnswer { peer: peer.to_owned() },
                _ => Self::Refused { peer: peer.to_owned(), why },
            };
        };
        match reason {
            Reason::NoRoute => Self::NoRoute(why),
            Reason::MessageTooLarge => Self::TooLarge(why),
            Reason::TooManyStreams | Reason::TooManySeeks | Reason::NeighboursFull | Reason::RegistryUnavailable => {
                Self::Busy(why)
            }
            Reason::RequestTimeout => Self::NoAnswer { peer: peer.to_owned() },
            Reason::ShuttingDown => Self::Stopped,
            _ => Self::Refused { peer: peer.to_owned(), why },
        }
    }

    pub(super) fn none_answered(failures: Vec<(String, Self)>) -> Self {
        if failures.is_empty() {
            return Self::NoneAnswered(vec!["the list is empty".to_owned()]);
        }
        Self::NoneAnswered(failures.into_iter().map(|(peer, error)| format!("{peer}: {}", error.cause())).collect())
    }

    /// Several documents are called `wanted`.
    pub(super) fn ambiguous(wanted: &DocumentSelector, found: &[Found]) -> Self {
        let each = |found: &Found| {
            format!("b3:{} ({}) is held by {}", found.document.hash, found.document.name, found.held_by_text(HOLDERS_SHOWN_MAX))
        };
        let shown: Vec<_> = found.iter().take(AMBIGUOUS_SHOWN_MAX).map(each).collect();
        Self::Ambiguous(format!(
            "{} are called {wanted}: {}; say which one: b3:HASH in place of the name, or from which peer",
            counted(found.len() as u64, "different document"),
            shown.join("; ")
        ))
    }

    /// The peer that sent wrong bytes, and of which piece, if that is why a document cannot be had.
    pub fn corrupt(&self) -> Option<(String, usize)> {
        let sources = match self {
            Self::Fetch(FetchError::Sources { sources, .. }) => sources,
            Self::Read(error) => &error.sources,
            _ => return None,
        };
        sources.iter().find_map(|report| Some((report.source.label().to_owned(), report.wrong_piece()?)))
    }

    /// The reason without the advice, which the whole error gives once.
    fn cause(&self) -> String {
        match self {
            Self::NoRoute(why) => why.clone(),
            other => other.to_string(),
        }
    }

    pub(super) fn not_answering(peer: &str) -> Self {
        Self::NoAnswer { peer: peer.to_owned() }
    }
}

impl From<SearchError<Infallible>> for PeerError {
    fn from(error: SearchError<Infallible>) -> Self {
        match &error {
            SearchError::Ambiguous { wanted, found } => Self::ambiguous(wanted, found),
            SearchError::NoPeers { .. } | SearchError::NotFound { .. } => Self::NotFound(error.to_string()),
            SearchError::Peers(never) => match *never {},
        }
    }
}

impl From<JobError<Infallible>> for PeerError {
    fn from(error: JobError<Infallible>) -> Self {
        match error {
            JobError::Search(error) => error.into(),
            JobError::Fetch(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_connection_says_is_told_apart_from_what_a_peer_says() {
        let refused = |status: Status| PeerError::refused("b", &status);
        let away = refused(Status::unavailable("connection refused"));
        assert!(matches!(&away, PeerError::NoRoute(why) if why.starts_with("b does not answer: ")), "{away}");
        for late in [Status::deadline_exceeded("late"), Reason::RequestTimeout.status("late")] {
            assert!(matches!(refused(late), PeerError::NoAnswer { peer } if peer == "b"));
        }
        assert!(matches!(refused(Status::permission_denied("no")), PeerError::Refused { .. }));
        assert!(matches!(refused(Reason::StoreUnavailable.status("later")), PeerError::Refused { .. }));
        assert!(matches!(refused(Reason::NoRoute.status("no route")), PeerError::NoRoute(why) if why == "no route"));
    }
}
