//! Peers that announce themselves on the LAN, and which of them to try next.
//!
//! An announcement proves nothing: anybody on the LAN can announce anything. So at most [`LAN_PEERS_MAX`] peers are remembered, the
//! pause before a peer that did not link is tried again doubles, and the number of tries in a given time is bounded, however many
//! peers are announced.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::{backoff::Policy, contact::Contact};
use std::{collections::BTreeMap, time::Duration};

/// Peers of one LAN that are remembered. A guess: a full /24 network.
pub(crate) const LAN_PEERS_MAX: usize = 256;
/// Answers to one query arrive within this time; then the least loaded peer among them is known. RFC 6762, section 6: up to
/// 120 ms, and as much again for records that were not in the first answer.
const GATHER: Duration = Duration::from_millis(300);
/// Pause after the first try that did not make a link.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// Longest pause: a dial every five minutes costs neither side anything.
const RETRY_MAX: Duration = Duration::from_secs(300);
const RETRY: Policy = Policy { first: RETRY_MIN, longest: RETRY_MAX };
/// Most peers offered at once, per [`OFFER_INTERVAL`]. A guess: twice the outgoing links of a peer. An attacker who announces a new
/// peer for every try causes four dials a second.
const OFFERS_MAX: usize = 8;
/// See [`OFFERS_MAX`].
const OFFER_INTERVAL: Duration = Duration::from_secs(2);

/// A peer of the LAN appeared or disappeared.
#[derive(Debug)]
#[cfg_attr(not(feature = "mdns"), expect(dead_code, reason = "multicast DNS makes them"))]
pub(crate) enum LanEvent {
    /// A peer announced itself, or changed its announcement.
    Here(AnnouncedPeer),
    /// The peer with this service instance name said goodbye, or its records expired.
    Gone(String),
}

/// A peer, as its announcement describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnnouncedPeer {
    /// The full name of its DNS-SD service instance.
    pub(crate) instance: String,
    pub(crate) contact: Contact,
    pub(crate) load: Load,
}

/// The load that a peer announces. Ordered by uploads, then links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    /// Documents it is sending.
    pub uploads: u32,
    /// Peers it is linked to.
    pub links: u32,
}

/// All peers announced on the LAN.
pub(crate) struct LanPeers {
    me: PeerId,
    peers: BTreeMap<PeerId, Entry>,
    /// Until then, answers to one query are collected.
    gathering: Time,
    next_offer: Time,
}

struct Entry {
    announced: AnnouncedPeer,
    /// It has not said goodbye, and its records have not expired.
    here: bool,
    /// It has been a neighbour, so it exists.
    proven: bool,
    /// Tries since it was last a neighbour.
    tries: u32,
    not_before: Time,
}

impl LanPeers {
    pub(crate) fn new(me: PeerId) -> Self {
        Self { me, peers: BTreeMap::new(), gathering: Time::ZERO, next_offer: Time::ZERO }
    }

    /// The peers that are on the LAN now, as far as is known.
    pub(crate) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.peers.values().filter(|entry| entry.here).map(|entry| &entry.announced.contact)
    }

    /// Records an event.
    pub(crate) fn on_event(&mut self, event: LanEvent, now: Time) {
        match event {
            LanEvent::Here(announced) => self.here(announced, now),
            LanEvent::Gone(instance) => {
                for entry in self.peers.values_mut().filter(|entry| entry.announced.instance == instance) {
                    entry.here = false;
                }
                // The pauses of a peer that never linked stay, so that it gains nothing by coming back.
                self.peers.retain(|_, entry| entry.here || (entry.tries > 0 && !entry.proven));
            }
        }
    }

    fn here(&mut self, announced: AnnouncedPeer, now: Time) {
        let id = announced.contact.id();
        if id == self.me {
            return;
        }
        if let Some(entry) = self.peers.get_mut(&id) {
            let moved = entry.announced.contact.endpoint() != announced.contact.endpoint();
            if moved && entry.proven {
                (entry.tries, entry.not_before) = (0, now);
            }
            (entry.announced, entry.here) = (announced, true);
            return;
        }
        // Two peers never share an endpoint. A peer at the endpoint of an earlier one takes over its pauses.
        let same = |entry: &Entry| entry.announced.contact.endpoint() == announced.contact.endpoint();
        let replaced = self.peers.iter().find(|(_, entry)| same(entry)).map(|(id, _)| *id);
        let replaced = replaced.and_then(|id| self.peers.remove(&id));
        if self.peers.len() >= LAN_PEERS_MAX && !self.make_room() {
            return;
        }
        if self.gathering <= now {
            self.gathering = now + GATHER;
        }
        let (tries, not_before) =
            replaced.filter(|entry| !entry.proven).map_or((0, now), |entry| (entry.tries, entry.not_before));
        let entry = Entry { announced, here: true, proven: false, tries, not_before: self.gathering.max(not_before) };
        self.peers.insert(id, entry);
    }

    /// Forgets a peer that never linked: one that is gone first, then the one with the most tries. `false`: there is none.
    fn make_room(&mut self) -> bool {
        let unreachable = self.peers.iter().filter(|(_, entry)| entry.tries > 0 && !entry.proven);
        let worst = unreachable.max_by_key(|(_, entry)| (!entry.here, entry.tries)).map(|(id, _)| *id);
        worst.is_some_and(|id| self.peers.remove(&id).is_some())
    }

    /// Up to `count` peers to try now, the least loaded first, without those that are `linked`. Each counts as tried. `random` gives
    /// numbers in 0..1.
    pub(crate) fn offer(
        &mut self,
        count: usize,
        now: Time,
        linked: impl Fn(PeerId) -> bool,
        mut random: impl FnMut() -> f64,
    ) -> Vec<Contact> {
        if now < self.next_offer || count == 0 {
            return Vec::new();
        }
        let me = self.me.as_u128();
        let is_due = |(id, entry): &(&PeerId, &mut Entry)| entry.here && entry.not_before <= now && !linked(**id);
        let mut due: Vec<_> = self.peers.iter_mut().filter(is_due).collect();
        // Peers that did not link come last. The XOR gives each peer another order of equals, so that they do not all choose the same.
        due.sort_by_key(|(id, entry)| (entry.tries, entry.announced.load, id.as_u128() ^ me));
        due.truncate(count.min(OFFERS_MAX));
        if !due.is_empty() {
            self.next_offer = now + OFFER_INTERVAL;
        }
        let try_next = |(_, entry): (&PeerId, &mut Entry)| {
            let pause = RETRY.pause_with_jitter(entry.tries, random());
            entry.tries = entry.tries.saturating_add(1);
            entry.not_before = now + pause;
            entry.announced.contact.clone()
        };
        due.into_iter().map(try_next).collect()
    }

    /// When [`LanPeers::offer`] next has a peer.
    pub(crate) fn next_deadline(&self, linked: impl Fn(PeerId) -> bool) -> Option<Time> {
        let candidates = self.peers.iter().filter(|(id, entry)| entry.here && !linked(**id));
        candidates.map(|(_, entry)| entry.not_before).min().map(|due| due.max(self.next_offer))
    }

    /// A peer, announced on the LAN or not, became a neighbour.
    pub(crate) fn linked(&mut self, id: PeerId) {
        if let Some(entry) = self.peers.get_mut(&id) {
            (entry.proven, entry.tries) = (true, 0);
        }
    }

    /// A peer is no longer a neighbour.
    pub(crate) fn unlinked(&mut self, id: PeerId, now: Time) {
        if let Some(entry) = self.peers.get_mut(&id) {
            entry.not_before = now + RETRY_MIN;
        }
    }

    /// This peer has lost all neighbours: peers that are known to exist are tried at once.
    pub(crate) fn retry_now(&mut self, now: Time) {
        for entry in self.peers.values_mut().filter(|entry| entry.proven) {
            (entry.tries, entry.not_before) = (0, now);
        }
        self.next_offer = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(number: u16, load: u32, links: u32) -> AnnouncedPeer {
        at(u128::from(number), number, load, links)
    }

    fn at(id: u128, port: u16, load: u32, links: u32) -> AnnouncedPeer {
        let contact = Contact::parse(PeerId::from_u128(id), &format!("p{id}"), &format!("10.0.0.1:{port}")).unwrap();
        AnnouncedPeer { instance: format!("p{id}"), contact, load: Load { uploads: load, links } }
    }

    fn lan_peers(peers: impl IntoIterator<Item = AnnouncedPeer>) -> LanPeers {
        let mut lan_peers = LanPeers::new(PeerId::from_u128(1_000_000));
        for announced in peers {
            lan_peers.on_event(LanEvent::Here(announced), Time::ZERO);
        }
        lan_peers
    }

    fn offered(lan_peers: &mut LanPeers, count: usize, now: Time) -> Vec<u128> {
        lan_peers.offer(count, now, |_| false, || 1.0).iter().map(|contact| contact.id().as_u128()).collect()
    }

    const LATER: Time = Time::from_secs(1_000);

    #[test]
    fn answers_are_collected_and_the_least_loaded_peers_are_tried_first() {
        let mut lan_peers = lan_peers([announced(1, 3, 0), announced(2, 0, 5), announced(3, 0, 2), announced(4, 7, 0)]);
        assert_eq!(offered(&mut lan_peers, 9, Time::ZERO), []);
        assert_eq!(lan_peers.next_deadline(|_| false), Some(GATHER));
        lan_peers.on_event(LanEvent::Here(announced(5, 0, 0)), GATHER / 2);
        assert_eq!(offered(&mut lan_peers, 3, GATHER), [5, 3, 2]);
        assert_eq!(offered(&mut lan_peers, 9, GATHER + OFFER_INTERVAL), [1, 4, 5, 3, 2]);
    }

    #[test]
    fn neighbours_the_peer_itself_and_peers_that_said_goodbye_are_not_offered() {
        let mut lan_peers = lan_peers([at(1_000_000, 9, 0, 0), announced(1, 0, 0), announced(2, 0, 0)]);
        lan_peers.on_event(LanEvent::Gone("p2".into()), Time::ZERO);
        assert_eq!(lan_peers.contacts().count(), 1);
        let all = |_| true;
        assert!(lan_peers.offer(9, LATER, all, || 1.0).is_empty());
        assert_eq!(lan_peers.next_deadline(all), None);
        assert_eq!(offered(&mut lan_peers, 9, LATER), [1]);
    }

    #[test]
    fn a_peer_that_does_not_link_is_tried_with_growing_pauses_whatever_it_announces() {
        let mut lan_peers = lan_peers([announced(1, 0, 0)]);
        let mut times = Vec::new();
        for second in 0..3_600_u32 {
            let now = Time::from_secs(second.into());
            // A goodbye, a return, another load, another endpoint or another id: it counts as the same peer.
            lan_peers.on_event(LanEvent::Gone("p1".into()), now);
            lan_peers.on_event(LanEvent::Here(announced(1, second, 0)), now);
            if second % 2 == 0 {
                lan_peers.on_event(LanEvent::Here(at(1, 2, 0, 0)), now);
            } else {
                lan_peers.on_event(LanEvent::Here(at(u128::from(second) + 5, 2, 0, 0)), now);
            }
            times.extend(offered(&mut lan_peers, 9, now).iter().map(|_| second));
        }
        assert!((15..60).contains(&times.len()), "{times:?}");
        assert!(lan_peers.peers.len() <= LAN_PEERS_MAX);
    }

    #[test]
    fn tries_and_memory_are_bounded_however_many_peers_are_announced() {
        let mut lan_peers = lan_peers([]);
        let (mut tried, mut port) = (0, 0);
        for second in 0..100 {
            for _ in 0..600 {
                port += 1;
                lan_peers.on_event(LanEvent::Here(announced(port, 0, 0)), Time::from_secs(second));
            }
            tried += offered(&mut lan_peers, usize::MAX, Time::from_secs(second)).len();
        }
        assert_eq!(lan_peers.peers.len(), LAN_PEERS_MAX);
        assert!((200..=400).contains(&tried), "{tried}");
        // A peer that exists is not forgotten.
        let known = *lan_peers.peers.keys().next().unwrap();
        lan_peers.linked(known);
        for second in 100..1_000 {
            port += 1;
            lan_peers.on_event(LanEvent::Here(announced(port, 0, 0)), Time::from_secs(second));
            offered(&mut lan_peers, usize::MAX, Time::from_secs(second));
        }
        assert!(lan_peers.peers.contains_key(&known));
    }

    #[test]
    fn a_lost_neighbour_is_retried_soon_and_at_once_if_it_was_the_last() {
        let mut lan_peers = lan_peers([announced(1, 0, 0), announced(2, 0, 0)]);
        assert_eq!(offered(&mut lan_peers, 9, LATER).len(), 2);
        lan_peers.linked(PeerId::from_u128(1));
        lan_peers.unlinked(PeerId::from_u128(1), LATER);
        assert_eq!(offered(&mut lan_peers, 9, LATER), []);
        lan_peers.retry_now(LATER);
        assert_eq!(offered(&mut lan_peers, 9, LATER), [1]);
        // A known peer at another endpoint is tried without a pause.
        lan_peers.on_event(LanEvent::Here(at(1, 77, 0, 0)), LATER);
        assert!(offered(&mut lan_peers, 9, LATER + OFFER_INTERVAL).contains(&1));
    }
}
