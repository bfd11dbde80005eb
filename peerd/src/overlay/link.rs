//! Links: liveness, rate limits, and which of two links between a pair of peers is kept.

use std::{collections::BTreeMap, time::Duration};

use super::{PeerId, Time, TokenBucket};

/// An idle side pings at this interval: a little longer than that of beacons, so that a healthy network
/// sends no pings. A guess.
pub const PING_INTERVAL: Duration = Duration::from_millis(2_500);
/// A link without any frame for this long is dead: two pings and their answers may get lost. A guess; the
/// requirement is that dead peers are noticed within seconds.
pub const DEAD_AFTER: Duration = Duration::from_secs(6);
/// A link on which a frame arrived within this time is alive, whatever other peers report: the other side sends a ping or a beacon more
/// often, with half a second of latency. A guess.
pub const FRESH: Duration = Duration::from_millis(3_000);
/// Frames received on a link of a stranger per second, on average, whatever they cost: what one core decodes. The time that they take is what
/// really limits them, see [`Links::handled`].
pub const FRAMES_PER_SECOND: u32 = 100_000;
/// Bytes received on a link of a stranger per second, on average: a gigabit network.
pub const BYTES_PER_SECOND: u32 = 128 << 20;
/// A neighbour with a certificate may send so many times as much, as it may make so many times as many calls: it is known, and can be revoked. Then
/// only the time that its frames take limits them.
pub const CERTIFIED_FACTOR: u32 = 4;
/// Unit in which the time to handle frames is counted: a frame takes some microseconds.
const TIME_UNIT: Duration = Duration::from_nanos(100);
/// Time units in a second that frames of all links may take together before links get no more than their share of it: half of one processor,
/// so that the rest is left for transfers and queries, whatever the machine is.
const HANDLING_PER_SECOND: u32 = 5_000_000;
/// A frame that seems to take longer does not count more: the system gave the processor to somebody else meanwhile.
const HANDLING_MAX: Duration = Duration::from_millis(1);
/// Longest pause for the time that frames took: others share what is left meanwhile.
const HANDLING_PAUSE_MAX: Duration = Duration::from_millis(250);
/// How far a link may exceed its rate, as time to refill the bucket, before its frames are dropped: reading is
/// paused then, so only frames in flight still arrive. A guess.
pub const MAX_DEBT: Duration = Duration::from_secs(1);

/// What may arrive on each link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Frames per second, on average.
    pub frames_per_second: u32,
    /// Bytes per second, on average.
    pub bytes_per_second: u32,
}

impl Default for Config {
    /// For links of strangers.
    fn default() -> Self {
        Self { frames_per_second: FRAMES_PER_SECOND, bytes_per_second: BYTES_PER_SECOND }
    }
}

impl Config {
    /// For links on which both sides show a certificate.
    pub fn certified() -> Self {
        Self { frames_per_second: CERTIFIED_FACTOR * FRAMES_PER_SECOND, bytes_per_second: CERTIFIED_FACTOR * BYTES_PER_SECOND }
    }
}

/// Keep-alive messages of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks for a pong with this nonce.
    Ping(u64),
    /// The answer, with the nonce of the ping.
    Pong(u64),
}

/// Which of two links between the same two peers is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The older one.
    Existing,
    /// The newer one.
    New,
}

/// Decides between two links to `other`; both ends reach the same decision on their own.
///
/// If both sides dialled, the dial of the lower id is kept. If one side dialled twice and the first link is silent, the new one is kept: for a
/// first link that is alive this is not asked.
pub fn keep(me: PeerId, other: PeerId, existing_dialled: bool, new_dialled: bool) -> Keep {
    if existing_dialled == new_dialled || new_dialled == (me < other) { Keep::New } else { Keep::Existing }
}

/// What to do with a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Handle it.
    Pass,
    /// Handle it, then stop reading from this link for this time.
    PassThenPause(Duration),
    /// Drop it: the link is far over its rate.
    Drop,
}

#[derive(Debug)]
struct Health {
    received: Time,
    sent: Time,
    frames: TokenBucket,
    bytes: TokenBucket,
    /// In [`TIME_UNIT`].
    handling: TokenBucket,
}

/// Liveness and rate of all links.
#[derive(Debug)]
pub struct Links {
    config: Config,
    links: BTreeMap<PeerId, Health>,
    /// Of all links, in [`TIME_UNIT`].
    handling: TokenBucket,
    nonce: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// Result of [`Links::tick`].
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// Send this ping.
    Ping(PeerId, u64),
    /// Nothing arrived for [`DEAD_AFTER`].
    Dead(PeerId),
}

impl Links {
    /// No link yet.
    pub fn new(config: Config) -> Self {
        let handling = TokenBucket::new(HANDLING_PER_SECOND, Time::ZERO);
        Self { config, links: BTreeMap::new(), handling, nonce: 0 }
    }

    /// A link came up, or replaced an older one.
    pub fn up(&mut self, peer: PeerId, now: Time) {
        let health = Health {
            received: now,
            sent: now,
            frames: TokenBucket::new(self.config.frames_per_second, now),
            bytes: TokenBucket::new(self.config.bytes_per_second, now),
            handling: TokenBucket::new(HANDLING_PER_SECOND, now),
        };
        self.links.insert(peer, health);
        self.share_handling(now);
    }

    /// Each link has the same share of the time for frames.
    fn share_handling(&mut self, now: Time) {
        let links = u32::try_from(self.links.len()).unwrap_or(u32::MAX).max(1);
        for link in self.links.values_mut() {
            link.handling.set_rate((HANDLING_PER_SECOND / links).max(1), now);
        }
    }

    /// Handling a frame of `peer` took so long. Returns for how long its link is not read: only while all links together take more time than
    /// they may, and this one more than its share. So one busy link may use all that the machine has, and many share it.
    pub fn handled(&mut self, peer: PeerId, took: Duration, now: Time) -> Option<Duration> {
        let link = self.links.get_mut(&peer)?;
        let units = u32::try_from(took.min(HANDLING_MAX).as_nanos() / TIME_UNIT.as_nanos()).unwrap_or(u32::MAX);
        let (own, all) = (link.handling.take(units, now), self.handling.take(units, now));
        (!own.is_zero() && !all.is_zero()).then(|| own.min(HANDLING_PAUSE_MAX))
    }

    /// A link ended.
    pub fn down(&mut self, peer: PeerId, now: Time) {
        self.links.remove(&peer);
        self.share_handling(now);
    }

    /// Whether there is a link to `peer`.
    pub fn contains(&self, peer: PeerId) -> bool {
        self.links.contains_key(&peer)
    }

    /// Whether something arrived on the link to `peer` within [`FRESH`].
    pub fn is_fresh(&self, peer: PeerId, now: Time) -> bool {
        self.links.get(&peer).is_some_and(|link| now < link.received + FRESH)
    }

    /// Number of links.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// A frame was sent.
    pub fn sent(&mut self, peer: PeerId, now: Time) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.sent = link.sent.max(now);
        }
    }

    /// A frame of `bytes` bytes arrived. `None` if there is no such link.
    pub fn received(&mut self, peer: PeerId, bytes: usize, now: Time) -> Option<Verdict> {
        let link = self.links.get_mut(&peer)?;
        link.received = link.received.max(now);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let debt = link.frames.take(1, now).max(link.bytes.take(bytes, now));
        Some(if debt.is_zero() {
            Verdict::Pass
        } else if debt <= MAX_DEBT {
            Verdict::PassThenPause(debt)
        } else {
            Verdict::Drop
        })
    }

    /// The links that need a ping, and those that are dead.
    pub fn tick(&mut self, now: Time) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (peer, link) in &mut self.links {
            if now >= link.received + DEAD_AFTER {
                findings.push(Finding::Dead(*peer));
            } else if now >= link.sent + PING_INTERVAL {
                link.sent = now;
                self.nonce = self.nonce.wrapping_add(1);
                findings.push(Finding::Ping(*peer, self.nonce));
            }
        }
        findings
    }

    /// When [`Links::tick`] is next due.
    pub fn next_deadline(&self) -> Option<Time> {
        let due = |link: &Health| (link.received + DEAD_AFTER).min(link.sent + PING_INTERVAL);
        self.links.values().map(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_keep_the_same_one_of_two_links() {
        let (low, high) = (PeerId::from_u128(1), PeerId::from_u128(2));
        // Both dialled; each end sees both dials, in either order.
        for first_is_lows in [true, false] {
            let at_low = keep(low, high, first_is_lows, !first_is_lows);
            let at_high = keep(high, low, !first_is_lows, first_is_lows);
            assert_eq!(at_low, at_high);
            assert_eq!(at_low == Keep::Existing, first_is_lows, "the lower id's dial stays");
        }
        assert_eq!(keep(low, high, true, true), Keep::New);
        assert_eq!(keep(low, high, false, false), Keep::New);
    }

    #[test]
    fn a_link_is_pinged_when_idle_and_dead_when_silent() {
        let mut links = Links::default();
        let peer = PeerId::from_u128(1);
        links.up(peer, Time::ZERO);
        assert_eq!(links.next_deadline(), Some(PING_INTERVAL));
        assert_eq!(links.tick(PING_INTERVAL), [Finding::Ping(peer, 1)]);
        assert_eq!(links.tick(PING_INTERVAL), []);
        links.received(peer, 10, PING_INTERVAL);
        assert!(!links.tick(DEAD_AFTER).contains(&Finding::Dead(peer)));
        assert_eq!(links.tick(DEAD_AFTER + PING_INTERVAL), [Finding::Dead(peer)]);
    }

    #[test]
    fn a_busy_link_may_use_all_the_time_until_others_want_their_share() {
        let mut links = Links::default();
        let [flooder, quiet, alone] = [1, 2, 3].map(PeerId::from_u128);
        links.up(alone, Time::ZERO);
        let (frame, mut now) = (Duration::from_micros(10), Time::ZERO);
        // 40 % of a processor: within what all may take.
        for _ in 0..200_000 {
            now += frame * 5 / 2;
            assert_eq!(links.handled(alone, frame, now), None);
        }
        links.up(flooder, now);
        links.up(quiet, now);
        let mut paused = [0; 2];
        for round in 0..200_000 {
            now += frame;
            paused[0] += u32::from(links.handled(flooder, frame, now).is_some());
            if round % 20 == 0 {
                paused[1] += u32::from(links.handled(quiet, frame, now).is_some());
            }
        }
        assert!(paused[0] > 0 && paused[1] == 0, "{paused:?}");
        assert!(links.handled(flooder, Duration::from_secs(9), now) <= Some(HANDLING_PAUSE_MAX));
    }

    #[test]
    fn a_link_over_its_rate_is_paused_first_and_its_frames_dropped_only_later() {
        let mut links = Links::default();
        let (flooder, other) = (PeerId::from_u128(1), PeerId::from_u128(2));
        links.up(flooder, Time::ZERO);
        links.up(other, Time::ZERO);
        let mut verdicts = Vec::new();
        for _ in 0..3 * FRAMES_PER_SECOND {
            verdicts.extend(links.received(flooder, 100, Time::ZERO));
        }
        let second = FRAMES_PER_SECOND as usize;
        assert_eq!(verdicts[second - 1], Verdict::Pass);
        assert!(matches!(verdicts[second], Verdict::PassThenPause(_)));
        assert_eq!(verdicts.last(), Some(&Verdict::Drop));
        assert_eq!(links.received(other, 100, Time::ZERO), Some(Verdict::Pass));
        let later = Duration::from_secs(3);
        assert_eq!(links.received(flooder, 100, later), Some(Verdict::Pass));
    }

    #[test]
    fn a_neighbour_with_a_certificate_may_send_more_than_a_stranger() {
        let passed = |config: Config| {
            let (mut links, peer) = (Links::new(config), PeerId::from_u128(1));
            links.up(peer, Time::ZERO);
            let pass = |_: &u32| links.received(peer, 100, Time::ZERO) == Some(Verdict::Pass);
            (0..2 * CERTIFIED_FACTOR * FRAMES_PER_SECOND).take_while(pass).count()
        };
        let (stranger, certified) = (passed(Config::default()), passed(Config::certified()));
        assert_eq!((stranger, certified), (FRAMES_PER_SECOND as usize, (CERTIFIED_FACTOR * FRAMES_PER_SECOND) as usize));
    }
}
