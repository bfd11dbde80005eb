//! The limits of a plan.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::channel::{CONNECTION_WINDOW, STREAM_WINDOW, limited_window};
use std::time::Duration;

/// How one run is measured: what the holder sends in this time, so that a change of plan costs no more.
pub(super) const RUN_TIME: Duration = Duration::from_millis(500);
/// A next request is sent this long before the holder would run dry, beside its delay: covers timers and scheduling of both sides.
pub(super) const LEAD_TIME: Duration = Duration::from_millis(30);
/// Without a byte for this long, and its delay, a holder is silent: its pieces are requested elsewhere too.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A run is cut when the rest would take longer than this: four times [`RUN_TIME`].
pub(super) const RUN_TIME_MAX: Duration = Duration::from_secs(2);
/// A piece that takes this many times longer than the holder's others is requested elsewhere too.
pub(super) const SLOW_PIECE: f64 = 3.0;
/// At the end, a piece is requested twice if the second request would take this many times less than what is left of the first.
pub(super) const DUPLICATE_GAIN: f64 = 1.5;
/// Requests for one piece at a time.
pub(super) const REQUESTS_PER_PIECE: usize = 2;
/// Pieces of a holder's list that are looked at: several times what it sends before its next list.
pub(super) const ASK_FOR_MAX: usize = 256;
/// The first pieces are random, so that a newcomer soon has something that others lack (as in BitTorrent: Cohen 2003, section 2.4).
pub(super) const RANDOM_PIECES: usize = 4;
/// A path is long if one stream's flow-control window can limit its rate.
pub const LONG_DELAY: Duration = Duration::from_millis(10);
/// The delay of an only holder is measured with a second request if at least so many windows are missing.
pub const PROBE_WINDOWS: u64 = 4;
/// Rate that a long path is taken to carry until its rate is known, in bytes per second: 8 Gbit/s. Less costs a fetch of some hundred MiB
/// round trips, more costs memory if the disk is slower.
const FIRST_RATE: u64 = 1024 * 1024 * 1024;
/// Windows that are filled at once on a long path before its rate is known, at least and at most: all that the connection takes.
const FIRST_WINDOWS: (u64, u64) = (8, 32);
/// Holders send runs up to this size one after the other: between larger ones no round trip is lost if they overlap.
pub(super) const IN_TURN_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// A holder's messages carry up to this many bytes; only whole ones arrive.
pub(super) const MESSAGE_MAX_BYTES: u64 = 256 * 1024;
/// How often silent holders, slow pieces and the end are looked at while requests are in flight.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Bytes to have in flight on a path with this delay, or more, before its rate is known.
pub fn first_bytes(delay: Duration, stream_window: u64) -> u64 {
    let carries = FIRST_RATE.saturating_mul(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)) / 1000;
    carries.clamp(FIRST_WINDOWS.0 * stream_window, FIRST_WINDOWS.1 * stream_window)
}

/// The limits of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanConfig {
    /// Bytes on their way in all: of each request at most one flow-control window. Bounds the memory of the fetch.
    pub in_flight_max_bytes: u64,
    /// The same with an only holder on a long path, where most of them are between it and this peer: as many as its rate and delay carry,
    /// up to this.
    pub in_flight_long_max_bytes: u64,
    /// Requests in flight with one holder.
    pub requests_per_holder: usize,
    /// The same with an only holder.
    pub requests_of_sole_holder: usize,
    /// Requests in flight in all.
    pub requests_max: usize,
    /// A stream's flow-control window, in bytes: one stream sends no more in a round trip.
    pub stream_window: u64,
    /// More holders are looked for while fewer useful ones are known.
    pub holders_wanted: usize,
    /// Time between two searches while some holder is useful.
    pub search_every: Duration,
    /// Time between two searches while none is.
    pub search_every_without_holder: Duration,
    /// How long a request may wait for a limit of the rate before it is sent: it counts as sent meanwhile.
    pub limit_wait: Duration,
}

/// Bytes in flight of a fetch with a limit, as time at that rate: what is in flight arrives whatever the limit does then, and more of it makes
/// requests wait for the limit in vain.
const LIMITED_IN_FLIGHT_PART: u64 = 4;

impl PlanConfig {
    /// The plan of a fetch that takes `rate` bytes per second, alone or with others.
    pub fn limited(rate: u64) -> Self {
        let stream_window = u64::from(limited_window(rate));
        let in_flight = (rate / LIMITED_IN_FLIGHT_PART).max(stream_window);
        let default = Self::default();
        Self {
            in_flight_max_bytes: default.in_flight_max_bytes.min(in_flight),
            in_flight_long_max_bytes: default.in_flight_long_max_bytes.min(in_flight),
            stream_window,
            limit_wait: Duration::from_secs(2 * in_flight / rate.max(1)),
            ..default
        }
    }
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            in_flight_max_bytes: 48 * 1024 * 1024,
            // What a connection takes without a pause.
            in_flight_long_max_bytes: u64::from(CONNECTION_WINDOW / 2),
            requests_per_holder: 16,
            // As many windows as are in flight, and some requests that are about to end.
            requests_of_sole_holder: 48,
            requests_max: 128,
            stream_window: u64::from(STREAM_WINDOW),
            holders_wanted: 10,
            search_every: Duration::from_secs(10),
            search_every_without_holder: Duration::from_secs(1),
            limit_wait: Duration::ZERO,
        }
    }
}
