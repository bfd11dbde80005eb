//! Why a peer cannot be opened or run.

use crate::{documents::share::ShareError, identity::StateError};
use p2pdi::{
    field::InvalidField,
    server::{self, TaskEnded},
};
use std::io;
use tokio::task::JoinError;
use tonic::Status;

/// Why a peer cannot be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The share cannot be opened.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A setting is not valid, such as the address to advertise.
    #[error(transparent)]
    Config(#[from] InvalidField),
    /// The stored jobs, or the list of what was fetched, can be neither read nor put aside.
    #[error("cannot read the jobs in the state folder: {0}")]
    Jobs(#[source] io::Error),
    /// The listener does not work.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// The server does not work.
    #[error("cannot serve: {0}")]
    Serve(#[from] server::ServeError),
    /// A handler of messages between peers cannot be added: a bug.
    #[error("cannot handle messages between peers: {0}")]
    Handler(#[from] Status),
    /// The reflection service cannot be built: a bug.
    #[error(transparent)]
    Router(#[from] server::RouterError),
    /// A long-lived task of the peer returned before the stop, or panicked: a bug. The peer stops because of it.
    #[error("a part of the peer failed: {0}")]
    Part(#[from] TaskEnded),
    /// Opening or running the peer panicked: a bug.
    #[error("the peer failed: {0}")]
    Panicked(#[from] JoinError),
}
