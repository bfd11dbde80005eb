//! What the fetch of a document ends with.

use super::source_selection::SourceReport;
use crate::{
    documents::{info::DocumentInfo, selector::DocumentSelector},
    transfer::store::error::WriteError,
};
use p2pdi::content::PieceHashes;
use std::{path::PathBuf, time::Duration};

/// A fetched document.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The document.
    pub document: DocumentInfo,
    /// The file.
    pub path: PathBuf,
    /// Whether the file existed already and nothing was fetched.
    pub already_there: bool,
    /// The hashes that its pieces were verified against; absent for a file that existed already.
    pub piece_hashes: Option<PieceHashes>,
    /// Bytes fetched by this fetch.
    pub fetched_bytes: u64,
    /// Bytes that an earlier, interrupted fetch had verified.
    pub resumed_bytes: u64,
    /// Time from the first request to the synced file.
    pub elapsed: Duration,
    /// Bytes from each source, and why sources were dropped.
    pub sources: Vec<SourceReport>,
}

/// Why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The disk refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Every holder failed.
    #[error("no holder could deliver {wanted}: {}", list(.sources))]
    Sources {
        /// The document asked for.
        wanted: DocumentSelector,
        /// Each holder and why it was dropped.
        sources: Vec<SourceReport>,
        /// Verified bytes that the partial file keeps for the next fetch.
        kept_bytes: u64,
    },
}

impl FetchError {
    /// Whether a holder said that it does not have the content, or not any more: its file changed, or was removed.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Sources { sources, .. } if sources.iter().any(|source| source.gone))
    }

    /// Whether every holder that was asked said so.
    pub(crate) fn is_gone_everywhere(&self) -> bool {
        matches!(self, Self::Sources { sources, .. } if !sources.is_empty() && sources.iter().all(|source| source.gone))
    }

    /// Whether some of the content had arrived before a holder said so.
    pub(super) fn changed_meanwhile(&self) -> bool {
        self.is_gone() && matches!(self, Self::Sources { sources, .. } if sources.iter().any(|source| source.bytes > 0))
    }
}

fn list(sources: &[SourceReport]) -> String {
    if sources.is_empty() {
        return "there are no holders to ask".to_owned();
    }
    let each = |report: &SourceReport| format!("{}: {}", report.source, report.dropped.as_deref().unwrap_or("not asked"));
    sources.iter().map(each).collect::<Vec<_>>().join("; ")
}
