//! Lines about faults of holders. Holders can repeat them at will, in one fetch and in many.

use super::download::SourceError;
use crate::holders::source::Source;
use p2pdi::log_limit::{Line, LogLimit};

/// Lines of one kind a minute: a fetch has some holders, and each may fail for another reason.
const LINES_MAX: u32 = 10;

/// A holder that was asked what a document is did not say.
pub(super) fn source_failed(source: &Source, error: &SourceError) {
    static LOG: LogLimit = LogLimit::new(LINES_MAX);
    if let Some(Line { suppressed }) = LOG.line() {
        tracing::info!(%source, %error, suppressed, "a source failed");
    }
}

/// A request for pieces failed.
pub(super) fn request_failed(source: &Source, error: &SourceError) {
    static LOG: LogLimit = LogLimit::new(LINES_MAX);
    if let Some(Line { suppressed }) = LOG.line() {
        tracing::info!(%source, %error, suppressed, "a request to a holder failed");
    }
}

/// A holder sent wrong bytes, or broke the contract.
pub(super) fn banned(source: &Source, why: &str) {
    static LOG: LogLimit = LogLimit::new(LINES_MAX);
    if let Some(Line { suppressed }) = LOG.line() {
        tracing::warn!(%source, why, suppressed, "a holder is not asked again for this document");
    }
}
