//! Requests that were sent before a fetch had a plan: the one that told what the document is, and others that were sent with it.

use super::download::{Incoming, SourceError};
use crate::holders::source::Source;
use std::{
    ops::Range,
    time::{Duration, Instant},
};
use tokio_util::task::AbortOnDropHandle;

/// The requests to the holder that named the document.
pub(super) struct Opened {
    pub(super) source: Source,
    /// It has the whole document, as far as is known.
    pub(super) is_whole: bool,
    pub(super) runs: Vec<OpenedRun>,
    /// How long its first answer took.
    pub(super) delay: Duration,
}

/// One of them. Dropped, it ends.
pub(super) struct OpenedRun {
    /// Which pieces.
    pub(super) pieces: Range<usize>,
    pub(super) sent: Instant,
    pub(super) stream: OpenedStream,
}

/// How far it is.
pub(super) enum OpenedStream {
    /// Its header arrived.
    Began(Instant, Box<Incoming>),
    /// It is being opened.
    Opening(AbortOnDropHandle<Result<Incoming, SourceError>>),
}

impl OpenedStream {
    /// When its header arrived; `None`: not yet.
    pub(super) fn began(&self) -> Option<Instant> {
        match self {
            Self::Began(at, _) => Some(*at),
            Self::Opening(_) => None,
        }
    }

    /// The stream, once its header is there.
    pub(super) async fn open(self) -> Result<Incoming, SourceError> {
        match self {
            Self::Began(_, incoming) => Ok(*incoming),
            // A task that did not end by itself.
            Self::Opening(task) => task.await.unwrap_or(Err(SourceError::EndedEarly { got: 0, expected: 1 })),
        }
    }
}
