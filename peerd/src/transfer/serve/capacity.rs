//! What the peer can send at the same time, and what it sends: slots, rate, memory, metrics.

use super::{
    line::{Line, Place},
    slots::{Limits, Turn},
    source::Kind,
};
use crate::transfer::{rate_meter::RateMeter, throttle::Throttle};
use metrics::{Counter, Gauge};
use p2pdi::{content::ContentHash, metrics::Metrics, status::Reason};
use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use tonic::Status;

/// Streams sent at the same time, unless the settings say otherwise: more than the sixteen leechers that an uplink serves best at once, so
/// that small documents do not wait for large ones.
const SLOTS: usize = 64;
/// Rate of a stream, in bytes per second, below which fewer are sent at once: a piece of 256 KiB arrives within 8 s.
const USEFUL_RATE: u64 = 32 * 1024;
/// Slots at any rate: one slow reader must not hold up all others.
const SLOTS_MIN: usize = 2;
/// Memory for what was read from the disk and not sent: with HTTP/2's buffers it keeps the sending side below 64 MiB.
const READS_BYTES: usize = 24 * 1024 * 1024;
/// Least and most bytes read at once. Each stream has two reads: one that is sent, and the next one.
const READ_BYTES: Range<usize> = 64 * 1024..1024 * 1024;
/// Reasons of refusals that are counted.
const REFUSALS: [Reason; 4] =
    [Reason::TooManyStreams, Reason::PiecesMissing, Reason::DocumentChanged, Reason::DocumentUnreadable];

/// Shared by all streams of a peer.
pub(super) struct Capacity {
    line: Arc<Line>,
    throttle: Throttle,
    sent: Mutex<RateMeter>,
    /// Streams that are sent now, with or without a slot.
    sending: AtomicUsize,
    active: Gauge,
    waiting: Gauge,
    whole_bytes: Counter,
    partial_bytes: Counter,
    documents: Counter,
    refused: Vec<(Reason, Counter)>,
}

impl Capacity {
    /// No more than `limit` bytes per second, if given, and `slots` streams at the same time; `None`: as many as suit the limit.
    pub(super) fn new(limit: Option<u64>, slots: Option<usize>, metrics: &Metrics) -> Self {
        let bytes = |kind| {
            metrics.counter("p2pdi_upload_bytes_total", "Bytes of documents sent, by what is here of them", &[("kind", kind)])
        };
        let refused = |reason: &Reason| {
            let labels = [("reason", reason.as_str())];
            let help = "Requests for documents that were refused, by reason";
            (*reason, metrics.counter("p2pdi_uploads_refused_total", help, &labels))
        };
        Self {
            line: Arc::new(Line::new(limits(limit, slots))),
            throttle: Throttle::new(limit),
            sent: Mutex::default(),
            sending: AtomicUsize::new(0),
            active: metrics.gauge("p2pdi_uploads_active", "Documents being sent", &[]),
            waiting: metrics.gauge("p2pdi_uploads_waiting", "Streams that wait for an upload slot", &[]),
            whole_bytes: bytes("whole"),
            partial_bytes: bytes("partial"),
            documents: metrics.counter("p2pdi_uploads_total", "Documents or ranges whose sending began", &[]),
            refused: REFUSALS.iter().map(refused).collect(),
        }
    }

    /// Other limits from now on, as in [`Self::new`].
    pub(super) fn set_limits(&self, limit: Option<u64>, slots: Option<usize>) {
        self.throttle.set_bytes_per_second(limit);
        self.line.set_limits(limits(limit, slots));
    }

    /// The limit of the rate.
    pub(super) fn bytes_per_second_max(&self) -> Option<u64> {
        self.throttle.bytes_per_second()
    }

    /// The rate now.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.sent().rate(Instant::now())
    }

    fn sent(&self) -> MutexGuard<'_, RateMeter> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a stream of `document`, which may have a slot at once. `None` if too many are in its turn.
    pub(super) fn enter(&self, document: ContentHash, turn: Option<Turn>) -> Option<Place> {
        self.line.enter(document, turn)
    }

    /// Bytes that a stream reads at once: the fewer, the more streams are sent.
    pub(super) fn read_bytes(&self) -> usize {
        let sending = self.sending.load(Ordering::Relaxed).max(1);
        let bytes = READS_BYTES / (2 * sending);
        (bytes / READ_BYTES.start * READ_BYTES.start).clamp(READ_BYTES.start, READ_BYTES.end)
    }

    /// Waits until some of `most` bytes may be sent, and counts them.
    pub(super) async fn take(&self, most: usize, kind: Kind) -> usize {
        let bytes = self.throttle.take(most).await;
        let counter = match kind {
            Kind::Whole => &self.whole_bytes,
            Kind::Partial => &self.partial_bytes,
        };
        counter.increment(bytes as u64);
        self.sent().add(bytes as u64, Instant::now());
        bytes
    }

    /// Counts a document or range whose sending begins.
    pub(super) fn count_document(&self) {
        self.documents.increment(1);
    }

    /// Counts a request that was refused.
    pub(super) fn count_refused(&self, status: &Status) {
        let reason = Reason::of(status);
        if let Some((_, counter)) = self.refused.iter().find(|(known, _)| Some(*known) == reason) {
            counter.increment(1);
        }
    }

    /// Counts a stream as being sent.
    pub(super) fn count_sending(self: &Arc<Self>) -> Active {
        self.sending.fetch_add(1, Ordering::Relaxed);
        self.active.increment(1);
        self.show_waiting();
        Active(Arc::clone(self))
    }

    /// Updates the metric of those who wait.
    pub(super) fn show_waiting(&self) {
        let (_, waiting) = self.line.counts();
        self.waiting.set(u32::try_from(waiting).unwrap_or(u32::MAX));
    }
}

/// The slots of a peer: `slots`, or as many as suit the rate limit; a popular document leaves a quarter to others.
fn limits(limit: Option<u64>, slots: Option<usize>) -> Limits {
    let slots = slots.unwrap_or_else(|| slots_for(limit)).max(1);
    Limits { all: slots, per_document: (slots * 3).div_ceil(4) }
}

/// How many streams are sent at the same time within a rate limit.
fn slots_for(limit: Option<u64>) -> usize {
    limit.map_or(SLOTS, |limit| usize::try_from(limit / USEFUL_RATE).unwrap_or(usize::MAX).clamp(SLOTS_MIN, SLOTS))
}

/// Counts a stream as being sent until it is dropped, however it ends.
pub(super) struct Active(Arc<Capacity>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
        self.0.active.decrement(1);
        self.0.show_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_suit_the_limit() {
        let slots = [None, Some(1), Some(256 << 10), Some(1 << 30)].map(slots_for);
        assert_eq!(slots, [SLOTS, SLOTS_MIN, 8, SLOTS]);
    }

    #[test]
    fn reads_of_any_number_of_streams_stay_within_their_memory() {
        let capacity = Capacity::new(None, None, &Metrics::default());
        assert_eq!(capacity.read_bytes(), READ_BYTES.end);
        for sending in 1..=256 {
            capacity.sending.store(sending, Ordering::Relaxed);
            let most = READS_BYTES.max(2 * sending * READ_BYTES.start);
            assert!(2 * sending * capacity.read_bytes() <= most, "{sending} streams");
        }
    }
}
