//! Parameters of Plumtree, with their sources.
//!
//! "Plumtree" is Leitão, Pereira, Rodrigues: *Epidemic Broadcast Trees*. Pages are those of the technical report DI-FCUL TR-07-14, as
//! iroh-gossip's source cites them; the proceedings (SRDS 2007, pp. 301–310) have a shorter version.

use std::time::Duration;

/// Timings. The same on all peers of a network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between two beacons of the root. A guess: as often as idle links would be pinged.
    pub beacon_interval: Duration,
    /// A root without a beacon for this long is gone. A guess: two beacons may get lost, and there is a new root
    /// within ten seconds.
    pub root_expiry: Duration,
    /// Adverts wait this long to be sent together. A guess: less than people notice, more than the time
    /// between the messages of a burst.
    pub advertise_delay: Duration,
    /// Initial delay before an advertised broadcast is pulled. Plumtree: "should be configured
    /// considering the diameter of the overlay and a target maximum recovery latency" (p. 8);
    /// here it follows measurements, between the two limits below. A guess.
    pub graft_first: Duration,
    /// Shortest delay. A guess: the jitter of a local network.
    pub graft_min: Duration,
    /// Longest delay. A guess: the longest acceptable recovery.
    pub graft_max: Duration,
    /// Time for the answer to a pull before the next holder is asked: "in the order of an average
    /// round trip time to a neighbor" (Plumtree, p. 9). 400 ms is a guess.
    pub graft_retry: Duration,
    /// How long a broadcast is stored for peers that lost their links. A guess: the time a laptop takes to change networks.
    pub retention: Duration,
}

impl Config {
    /// How long two peers may lose each other without detecting a partition: the time until they have different roots, or the next
    /// beacon of the same root has reached both.
    pub fn undetected_split(&self) -> Duration {
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

/// Largest payload in bytes: a 2 Mbit/s uplink to one neighbour carries four in a second. A guess.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Broadcasts stored for pulls and for peers that lost their links. A guess: a minute at 60 a second.
pub const MAX_STORED: usize = 4_096;
/// Bytes of payload stored. A guess: a quarter of the 30 MiB an idle peer may use.
pub const MAX_STORED_BYTES: usize = 8 << 20;
/// Origins with a sequence window, about 170 bytes each: every peer of a network of
/// 10,000 may be a sender, and some were replaced by others. A guess.
pub const MAX_ORIGINS: usize = 16_384;
/// New origins accepted from one link per second: as many as windows exist for the time that broadcasts are stored, so that
/// invented origins cannot displace the windows of real ones.
pub const NEW_ORIGINS_PER_SECOND: u32 = 270;
/// The same in a burst: a quarter of all windows. A guess.
pub const NEW_ORIGINS_BURST: u32 = 4_096;
/// How far a sequence number may be ahead of the last one of that incarnation. A guess: ten thousand broadcasts a second for five days
/// without any of them received.
pub const MAX_SEQUENCE_AHEAD: u64 = 1 << 32;
/// Words of 64 sequence numbers in all windows: 4 MiB. An origin needs one word while none of its broadcasts is missing, and 65 at most.
pub const MAX_WINDOW_WORDS: usize = (4 << 20) / 8;
/// Broadcasts that were advertised and have not arrived. A guess: as many as are stored.
pub const MAX_MISSING: usize = 4_096;
/// Holders remembered for a missing broadcast. A guess: half of the neighbours.
pub const MAX_HOLDERS: usize = 4;
/// Pulls of a missing broadcast before it is given up: two from each holder.
pub const MAX_PULLS: usize = 2 * MAX_HOLDERS;
/// Pulls in flight. A guess: with full payloads, 4 MiB.
pub const MAX_PULLS_IN_FLIGHT: usize = 64;
/// Pulls in flight from one holder: a slow one cannot take all. A guess.
pub const MAX_PULLS_PER_HOLDER: usize = MAX_PULLS_IN_FLIGHT / 2;
/// Pulls in flight from a holder that has not answered any yet. A guess: with full payloads, two seconds on a link of 1 Mbit/s.
pub const INITIAL_PULL_WINDOW: usize = 4;
/// How long the answer to a pull may queue behind other messages of the holder: `MAX_PULLS_PER_HOLDER` full payloads on a link of
/// 1 Mbit/s.
pub const MAX_ANSWER_DELAY: Duration = Duration::from_secs(20);
/// Bytes of payload in answer to one graft message; for the rest there is an advert. A guess: what the queue of a
/// link can hold.
pub const MAX_GRAFT_BYTES: usize = 1 << 20;
/// Ids in one advert or graft message: 512 are some 16 KiB, and 21 KiB with the longest numbers. A guess: well below a payload.
pub const MAX_IDS: usize = 512;
/// Broken promises (broadcasts that a neighbour advertised and did not send when asked twice, minus those that it sent) before it is
/// reported and dropped as a neighbour. A guess: some 20 s of nothing else, since it is asked for few at a time.
pub const MAX_BROKEN_PROMISES: u32 = 64;
/// Hops to the root above which a beacon is ignored; it ends counting to infinity. A tree of 10,000 peers is 10
/// deep. A guess: enough for networks with fewer links.
pub const MAX_DEPTH: u32 = 64;
/// Highest sequence number of a beacon: at one a second, 36 billion years.
pub const MAX_BEACON_SEQUENCE: u64 = 1 << 60;
