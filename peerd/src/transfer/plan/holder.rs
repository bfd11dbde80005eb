//! What a plan knows of one holder.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    config::{LONG_DELAY, MESSAGE_MAX_BYTES, SILENT_AFTER},
    event::{EndedBy, Has, RequestId},
    meter::Meter,
    patience::Patience,
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

#[derive(Debug)]
pub(super) struct Holder {
    pub(super) near: bool,
    pub(super) in_swarm: bool,
    pub(super) has: Has,
    /// What it would like to be asked for.
    pub(super) ask_for: VecDeque<usize>,
    /// In the order in which they were sent.
    pub(super) requests: Vec<RequestId>,
    /// Bytes of them that are still to arrive.
    pub(super) rest: u64,
    pub(super) meter: Meter,
    pub(super) patience: Patience,
    /// Pieces that it has and this peer lacks.
    pub(super) useful: usize,
    /// Pieces that it has and that are to be requested.
    pub(super) wanted: usize,
    /// The longest run to request: doubles with each, so that nothing long is requested before the rate is known.
    pub(super) run_max: usize,
    /// Since when it is waited for: the last byte, or the first request after a time without one.
    pub(super) awaited: Option<Instant>,
    /// It was waited for too long, and sent nothing since. It gets one request at a time, each of which goes to others too.
    pub(super) silent: bool,
    /// How long its pieces take, one at a time.
    pub(super) piece_time: Option<Duration>,
    pub(super) last_byte: Option<Instant>,
    pub(super) verified_bytes: u64,
    pub(super) dropped: Option<EndedBy>,
}

impl Holder {
    pub(super) fn new(near: bool, has: Has, in_swarm: bool) -> Self {
        Self {
            near,
            in_swarm,
            has,
            ask_for: VecDeque::new(),
            requests: Vec::new(),
            rest: 0,
            meter: Meter::default(),
            patience: Patience::default(),
            useful: 0,
            wanted: 0,
            run_max: 1,
            awaited: None,
            silent: false,
            piece_time: None,
            last_byte: None,
            verified_bytes: 0,
            dropped: None,
        }
    }

    pub(super) fn has(&self, piece: usize) -> bool {
        match &self.has {
            Has::All => true,
            Has::Pieces(pieces) => pieces.contains(piece),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.has == Has::All
    }

    pub(super) fn is_useful(&self) -> bool {
        self.useful > 0 && self.dropped.is_none()
    }

    /// Whether it may be asked now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.is_useful()
            && (!self.silent || self.requests.is_empty())
            && self.patience.paused_until().is_none_or(|until| until <= now)
    }

    /// Whether its path is long, as far as is known.
    pub(super) fn is_far(&self) -> bool {
        self.meter.delay().is_some_and(|delay| delay >= LONG_DELAY)
    }

    /// How long it may be without a byte before it counts as silent.
    pub(super) fn patience_for_bytes(&self) -> Duration {
        let message = self.meter.rate().map_or(Duration::ZERO, |rate| seconds(2.0 * MESSAGE_MAX_BYTES as f64 / rate.max(1.0)));
        SILENT_AFTER + self.meter.delay().unwrap_or_default() + message
    }

    /// A piece of one stream took this long.
    pub(super) fn piece_took(&mut self, time: Duration) {
        self.piece_time = Some(self.piece_time.map_or(time, |before| (before * 3 + time) / 4));
    }
}

/// A time of a computed length; at most a day.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, 86_400.0) } else { 86_400.0 })
}
