//! Counts of the receiving side.

use super::download::SourceError;
use metrics::Counter;
use p2pdi::metrics::Metrics;

/// Counters of all fetches of a peer. Clones count together.
#[derive(Clone)]
pub(crate) struct FetchMetrics {
    received: Counter,
    verified: Counter,
    twice: Counter,
    wrong: Counter,
    stalled: Counter,
    ended_early: Counter,
    refused: Counter,
    violated: Counter,
}

impl FetchMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let failed = |reason| {
            let help = "Requests to holders that failed, by reason";
            metrics.counter("p2pdi_download_failures_total", help, &[("reason", reason)])
        };
        let pieces = |result| {
            let help = "Pieces received: verified, already there (received twice), or wrong";
            metrics.counter("p2pdi_download_pieces_total", help, &[("result", result)])
        };
        Self {
            received: metrics.counter("p2pdi_download_bytes_total", "Bytes of documents received, verified or not", &[]),
            verified: pieces("verified"),
            twice: pieces("twice"),
            wrong: pieces("wrong"),
            stalled: failed("stalled"),
            ended_early: failed("ended early"),
            refused: failed("refused"),
            violated: failed("broke the protocol"),
        }
    }

    /// Bytes arrived.
    pub(super) fn received(&self, bytes: u64) {
        self.received.increment(bytes);
    }

    /// A piece arrived and matches its hash. `is_new`: it was missing before.
    pub(super) fn piece(&self, is_new: bool) {
        let counter = if is_new { &self.verified } else { &self.twice };
        counter.increment(1);
    }

    /// A request to a holder failed.
    pub(super) fn failed(&self, error: &SourceError) {
        let counter = match error {
            SourceError::WrongBytes(_) => &self.wrong,
            SourceError::Stalled(_) => &self.stalled,
            SourceError::EndedEarly { .. } => &self.ended_early,
            SourceError::Refused(_) | SourceError::PiecesMissing(_) => &self.refused,
            SourceError::Protocol(_) | SourceError::Header(_) => &self.violated,
        };
        counter.increment(1);
    }
}
