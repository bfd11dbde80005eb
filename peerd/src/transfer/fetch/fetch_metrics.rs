//! Counts of the receiving side.

use super::{download::SourceError, progress::Waiting};
use metrics::Counter;
use p2pdi::metrics::Metrics;
use std::{collections::BTreeMap, time::Duration};

/// A fetch that received nothing for this long has stalled: as long as a holder may be silent before its pieces are asked for elsewhere.
const STALLED_AFTER: Duration = Duration::from_secs(1);

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
    stalls: BTreeMap<&'static str, Counter>,
}

/// The stalls of one fetch, each of which counts once for each reason that it has.
#[derive(Default)]
pub(super) struct Stalls {
    reason: Option<&'static str>,
}

/// Why a fetch stalls, as metrics say it.
const REASONS: [&str; 6] = ["no holder", "silent holders", "busy holders", "unreachable holders", "failing holders", "own check"];

fn reason(waiting: Option<&Waiting>) -> &'static str {
    match waiting {
        Some(Waiting::Holders) => "no holder",
        Some(Waiting::Data { .. }) => "silent holders",
        Some(Waiting::Turn { .. }) => "busy holders",
        Some(Waiting::Connection { .. }) => "unreachable holders",
        // Nothing is asked of those that have what is missing: they failed, and are asked again after a pause.
        None => "failing holders",
        Some(Waiting::Check) => "own check",
    }
}

impl Stalls {
    /// Nothing arrived for `idle`, and the fetch waits for this. To be called again and again.
    pub(super) fn look(&mut self, metrics: &FetchMetrics, idle: Duration, waiting: Option<&Waiting>) {
        let now = (idle >= STALLED_AFTER).then(|| reason(waiting));
        if let Some(counter) = now.filter(|_| now != self.reason).and_then(|reason| metrics.stalls.get(reason)) {
            counter.increment(1);
        }
        self.reason = now;
    }
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
            stalls: REASONS
                .map(|reason| {
                    let help = "Times that a fetch received nothing for a second, by what it waited for";
                    (reason, metrics.counter("p2pdi_download_stalls_total", help, &[("reason", reason)]))
                })
                .into(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_once_for_each_reason_until_something_arrives() {
        let metrics = Metrics::default();
        let (counting, mut stalls) = (FetchMetrics::new(&metrics), Stalls::default());
        let counted = |reason: &str| {
            let (page, start) = (metrics.render(), format!("p2pdi_download_stalls_total{{reason=\"{reason}\"}} "));
            page.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse::<u64>().unwrap()
        };
        let data = Waiting::Data { from: Vec::new() };
        let mut look = |seconds, waiting| stalls.look(&counting, Duration::from_secs(seconds), waiting);
        look(0, Some(&data));
        for seconds in 1..9 {
            look(seconds, Some(&data));
        }
        look(9, Some(&Waiting::Holders));
        look(0, Some(&data));
        look(1, Some(&data));
        look(2, None);
        let all = ["silent holders", "no holder", "failing holders", "busy holders"].map(counted);
        assert_eq!(all, [2, 1, 1, 0]);
        for waiting in [Waiting::Turn { at: Vec::new() }, Waiting::Connection { to: Vec::new() }, Waiting::Check] {
            assert!(REASONS.contains(&reason(Some(&waiting))), "{waiting}");
        }
    }
}
