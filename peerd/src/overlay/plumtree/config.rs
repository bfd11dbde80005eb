//! The numbers of the broadcast protocol, with where they come from.
//!
//! "Plumtree" is Leitão, Pereira, Rodrigues: *Epidemic Broadcast Trees*. Pages are those of the technical report DI-FCUL TR-07-14, as
//! iroh-gossip's source cites them; the proceedings (SRDS 2007, pp. 301–310) are a shorter print.

use std::time::Duration;

/// Timings. The same on all peers of a network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between two beacons of the root. A guess: as often as links would be pinged anyway.
    pub beacon_interval: Duration,
    /// A root not heard of for this long is gone. A guess: two beacons may get lost, and a new root be
    /// there within ten seconds.
    pub root_expiry: Duration,
    /// Adverts wait this long to be sent together. A guess: below what people notice, above what passes
    /// between the messages of a burst.
    pub advertise_delay: Duration,
    /// First wait for an advertised broadcast before it is pulled. Plumtree: "should be configured
    /// considering the diameter of the overlay and a target maximum recovery latency" (p. 8);
    /// here it follows what is measured, between the two limits below. A guess.
    pub graft_first: Duration,
    /// Shortest such wait. A guess: the jitter of a local network.
    pub graft_min: Duration,
    /// Longest such wait. A guess: the recovery people still bear.
    pub graft_max: Duration,
    /// Wait for the answer to a pull before the next holder is asked: "in the order of an average
    /// round trip time to a neighbor" (Plumtree, p. 9). 400 ms is a guess.
    pub graft_retry: Duration,
    /// How long a broadcast is kept for peers that were cut off. A guess: a laptop's change of network.
    pub retention: Duration,
}

impl Config {
    /// How long two peers may have lost each other without being islands to each other: the time until each has another root, or the
    /// same one's next beacon has reached both.
    pub fn lapse(&self) -> Duration {
        self.root_expiry + 2 * self.beacon_interval
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            beacon_interval: Duration::from_secs(2),
            root_expiry: Duration::from_millis(6_500),
            advertise_delay: Duration::from_millis(20),
            graft_first: Duration::from_millis(1_000),
            graft_min: Duration::from_millis(50),
            graft_max: Duration::from_secs(2),
            graft_retry: Duration::from_millis(400),
            retention: Duration::from_secs(60),
        }
    }
}

/// Largest payload in bytes: four of them fit a second's worth of a 2 Mbit/s uplink to one neighbour. A guess.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Broadcasts kept for peers that were cut off and for pulls. A guess: a minute at 60 a second.
pub const MAX_KEPT: usize = 4_096;
/// Bytes of payload kept. A guess: a quarter of the 30 MiB an idle peer may use.
pub const MAX_KEPT_BYTES: usize = 8 << 20;
/// Origins whose sequence windows are remembered, about 170 bytes each: every peer of a network of
/// 10,000 may be a sender, with room for those that came in the place of others. A guess.
pub const MAX_ORIGINS: usize = 16_384;
/// Origins not heard of before that one link may bring per second: as many as can be remembered for as long as broadcasts are
/// kept, or those that are made up would push out the others'.
pub const NEW_ORIGINS_PER_SECOND: u32 = 270;
/// The same at once: a quarter of all. A guess.
pub const NEW_ORIGINS_AT_ONCE: u32 = 4_096;
/// How far a sequence number may be ahead of the last one of that life. A guess: ten thousand broadcasts a second, for five days in
/// which nothing was heard of them.
pub const MAX_SEQUENCE_AHEAD: u64 = 1 << 32;
/// Words of 64 sequence numbers in all of them: 4 MiB. An origin needs one while nothing of it is missing, and 65 at most.
pub const MAX_WINDOW_WORDS: usize = (4 << 20) / 8;
/// Broadcasts that were advertised and have not come. A guess: as many as are kept.
pub const MAX_MISSING: usize = 4_096;
/// Holders remembered for a missing broadcast. A guess: half the neighbours.
pub const MAX_HOLDERS: usize = 4;
/// Times a missing broadcast is asked for before it is forgotten: each holder twice.
pub const MAX_PULLS: usize = 2 * MAX_HOLDERS;
/// Broadcasts asked for at once. A guess: with full payloads, 4 MiB under way.
pub const MAX_PULLS_IN_FLIGHT: usize = 64;
/// Of those, asked of one holder: it cannot use up all, however little it gives. A guess.
pub const MAX_PULLS_OF_HOLDER: usize = MAX_PULLS_IN_FLIGHT / 2;
/// Of those, asked of a holder that has not given anything yet. A guess: with full payloads, two seconds on a link of 1 Mbit/s.
pub const PULLS_AT_FIRST: usize = 4;
/// How long what was asked for may wait behind other things that a holder gives: `MAX_PULLS_OF_HOLDER` of full length on a link
/// of 1 Mbit/s.
pub const MAX_ANSWER: Duration = Duration::from_secs(20);
/// Bytes of payload given for one graft message; who wants more asks again. A guess: what the queue of a
/// link bears.
pub const MAX_GRAFT_BYTES: usize = 1 << 20;
/// Ids in one advert or graft message: 512 are some 16 KiB, and 21 KiB where all numbers are as long as can be. A guess: well below
/// a payload.
pub const MAX_IDS: usize = 512;
/// Broadcasts that a neighbour advertised and did not give when asked twice, more than it gave, before it is named and parted
/// from. A guess: some 20 s of nothing but that, as it is asked for few at a time.
pub const MAX_BROKEN_PROMISES: u32 = 64;
/// Links between a peer and the root beyond which a beacon is not believed: a tree of 10,000 is 10
/// deep; this ends counting to infinity. A guess: room for networks that are not as well linked.
pub const MAX_DEPTH: u32 = 64;
/// Sequence numbers a beacon may reach: at one a second, longer than the sun lasts.
pub const MAX_BEACON_SEQUENCE: u64 = 1 << 60;
