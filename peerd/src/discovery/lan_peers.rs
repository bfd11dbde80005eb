//! Peers seen on the LAN, and which of them to turn to next.
//!
//! What is seen is hearsay: anybody on the LAN can announce anything. So no more than [`NEARBY_MAX`] are remembered, one that
//! could not be linked to is tried ever more seldom, and however many are announced, a bounded number is tried in a given time.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::{backoff::Policy, contact::Contact};
use std::{collections::BTreeMap, time::Duration};

/// Peers of one LAN that are remembered. A guess: a segment of a /24 network, full of peers.
pub(crate) const NEARBY_MAX: usize = 256;
/// Answers to one question come within this; then the least loaded of them is known. RFC 6762, section 6: up to 120 ms late,
/// and as much again for the records that were not in the first answer.
const GATHER: Duration = Duration::from_millis(300);
/// Pause after a first try that did not make a link.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// Longest pause: who is dialled once in this time does not mind, nor does the dialler.
const RETRY_MAX: Duration = Duration::from_secs(300);
const RETRY: Policy = Policy { first: RETRY_MIN, longest: RETRY_MAX };
/// Peers offered at once, and again after [`OFFER_INTERVAL`]. A guess: twice the links that a peer seeks; a liar who makes up a
/// new peer for every try has four dials a second from it.
const OFFERS_MAX: usize = 8;
/// See [`OFFERS_MAX`].
const OFFER_INTERVAL: Duration = Duration::from_secs(2);

/// What was seen on the LAN.
#[derive(Debug)]
#[cfg_attr(not(feature = "mdns"), expect(dead_code, reason = "multicast DNS makes them"))]
pub(crate) enum LanEvent {
    /// A peer announced itself, or what it says of itself changed.
    Here(Sighting),
    /// The one that announced itself under this name said goodbye, or was not heard any more.
    Gone(String),
}

/// A peer, as it announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Under which name, the service's included.
    pub(crate) instance: String,
    pub(crate) contact: Contact,
    pub(crate) busy: Load,
}

/// How busy a peer says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    /// Documents it is sending.
    pub load: u32,
    /// Peers it is linked to.
    pub links: u32,
}

/// All that were seen.
pub(crate) struct LanPeers {
    me: PeerId,
    peers: BTreeMap<PeerId, Entry>,
    /// Until then, answers to one question are gathered.
    gathering: Time,
    next_offer: Time,
}

struct Entry {
    sighting: Sighting,
    /// It has not said goodbye.
    here: bool,
    /// It has been a neighbour: it exists.
    proven: bool,
    /// Since it was a neighbour.
    tries: u32,
    not_before: Time,
}

impl LanPeers {
    pub(crate) fn new(me: PeerId) -> Self {
        Self { me, peers: BTreeMap::new(), gathering: Time::ZERO, next_offer: Time::ZERO }
    }

    /// Those that are there, as far as is known.
    pub(crate) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.peers.values().filter(|entry| entry.here).map(|entry| &entry.sighting.contact)
    }

    /// Takes note of what was seen.
    pub(crate) fn saw(&mut self, sight: LanEvent, now: Time) {
        match sight {
            LanEvent::Here(sighting) => self.here(sighting, now),
            LanEvent::Gone(instance) => {
                for entry in self.peers.values_mut().filter(|entry| entry.sighting.instance == instance) {
                    entry.here = false;
                }
                // Of one that never was, its pauses are remembered, so that it gains nothing by coming back.
                self.peers.retain(|_, entry| entry.here || (entry.tries > 0 && !entry.proven));
            }
        }
    }

    fn here(&mut self, sighting: Sighting, now: Time) {
        let id = sighting.contact.id();
        if id == self.me {
            return;
        }
        if let Some(entry) = self.peers.get_mut(&id) {
            let moved = entry.sighting.contact.endpoint() != sighting.contact.endpoint();
            if moved && entry.proven {
                (entry.tries, entry.not_before) = (0, now);
            }
            (entry.sighting, entry.here) = (sighting, true);
            return;
        }
        // Nobody shares an address with another. Whoever takes one over has waited as long as the one before it.
        let same = |entry: &Entry| entry.sighting.contact.endpoint() == sighting.contact.endpoint();
        let before = self.peers.iter().find(|(_, entry)| same(entry)).map(|(id, _)| *id);
        let before = before.and_then(|id| self.peers.remove(&id));
        if self.peers.len() >= NEARBY_MAX && !self.make_room() {
            return;
        }
        if self.gathering <= now {
            self.gathering = now + GATHER;
        }
        let (tries, waited) = before.filter(|entry| !entry.proven).map_or((0, now), |entry| (entry.tries, entry.not_before));
        let entry = Entry { sighting, here: true, proven: false, tries, not_before: self.gathering.max(waited) };
        self.peers.insert(id, entry);
    }

    /// Forgets one that was tried in vain, the most often tried first.
    fn make_room(&mut self) -> bool {
        let in_vain = self.peers.iter().filter(|(_, entry)| entry.tries > 0 && !entry.proven);
        let worst = in_vain.max_by_key(|(_, entry)| (!entry.here, entry.tries)).map(|(id, _)| *id);
        worst.is_some_and(|id| self.peers.remove(&id).is_some())
    }

    /// Up to `count` peers to turn to now, the least loaded first, but none of those that `linked` names. Each counts as tried.
    /// `random` gives numbers in 0..1.
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
        // Who was tried in vain comes after all others. Of equals, each peer takes others, so that not all turn to one.
        due.sort_by_key(|(id, entry)| (entry.tries, entry.sighting.busy, id.as_u128() ^ me));
        due.truncate(count.min(OFFERS_MAX));
        if !due.is_empty() {
            self.next_offer = now + OFFER_INTERVAL;
        }
        let try_it = |(_, entry): (&PeerId, &mut Entry)| {
            let pause = RETRY.pause_with_jitter(entry.tries, random());
            entry.tries = entry.tries.saturating_add(1);
            entry.not_before = now + pause;
            entry.sighting.contact.clone()
        };
        due.into_iter().map(try_it).collect()
    }

    /// When [`LanPeers::offer`] has the next peer.
    pub(crate) fn next_deadline(&self, linked: impl Fn(PeerId) -> bool) -> Option<Time> {
        let waiting = self.peers.iter().filter(|(id, entry)| entry.here && !linked(**id));
        waiting.map(|(_, entry)| entry.not_before).min().map(|due| due.max(self.next_offer))
    }

    /// A peer, seen here or not, became a neighbour.
    pub(crate) fn linked(&mut self, id: PeerId) {
        if let Some(entry) = self.peers.get_mut(&id) {
            (entry.proven, entry.tries) = (true, 0);
        }
    }

    /// It is none any more.
    pub(crate) fn unlinked(&mut self, id: PeerId, now: Time) {
        if let Some(entry) = self.peers.get_mut(&id) {
            entry.not_before = now + RETRY_MIN;
        }
    }

    /// This peer has lost all others: those that are known to exist are tried at once.
    pub(crate) fn needed(&mut self, now: Time) {
        for entry in self.peers.values_mut().filter(|entry| entry.proven) {
            (entry.tries, entry.not_before) = (0, now);
        }
        self.next_offer = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(number: u16, load: u32, links: u32) -> Sighting {
        at(u128::from(number), number, load, links)
    }

    fn at(id: u128, port: u16, load: u32, links: u32) -> Sighting {
        let contact = Contact::parse(PeerId::from_u128(id), &format!("p{id}"), &format!("10.0.0.1:{port}")).unwrap();
        Sighting { instance: format!("p{id}"), contact, busy: Load { load, links } }
    }

    fn lan_peers(seen: impl IntoIterator<Item = Sighting>) -> LanPeers {
        let mut lan_peers = LanPeers::new(PeerId::from_u128(1_000_000));
        for sighting in seen {
            lan_peers.saw(LanEvent::Here(sighting), Time::ZERO);
        }
        lan_peers
    }

    fn offered(lan_peers: &mut LanPeers, count: usize, now: Time) -> Vec<u128> {
        lan_peers.offer(count, now, |_| false, || 1.0).iter().map(|contact| contact.id().as_u128()).collect()
    }

    const LATER: Time = Time::from_secs(1_000);

    #[test]
    fn answers_are_gathered_and_the_least_loaded_are_tried_first() {
        let mut lan_peers = lan_peers([sighting(1, 3, 0), sighting(2, 0, 5), sighting(3, 0, 2), sighting(4, 7, 0)]);
        assert_eq!(offered(&mut lan_peers, 9, Time::ZERO), []);
        assert_eq!(lan_peers.next_deadline(|_| false), Some(GATHER));
        lan_peers.saw(LanEvent::Here(sighting(5, 0, 0)), GATHER / 2);
        assert_eq!(offered(&mut lan_peers, 3, GATHER), [5, 3, 2]);
        assert_eq!(offered(&mut lan_peers, 9, GATHER + OFFER_INTERVAL), [1, 4, 5, 3, 2]);
    }

    #[test]
    fn neighbours_oneself_and_those_that_said_goodbye_are_not_offered() {
        let mut lan_peers = lan_peers([at(1_000_000, 9, 0, 0), sighting(1, 0, 0), sighting(2, 0, 0)]);
        lan_peers.saw(LanEvent::Gone("p2".into()), Time::ZERO);
        assert_eq!(lan_peers.contacts().count(), 1);
        let all = |_| true;
        assert!(lan_peers.offer(9, LATER, all, || 1.0).is_empty());
        assert_eq!(lan_peers.next_deadline(all), None);
        assert_eq!(offered(&mut lan_peers, 9, LATER), [1]);
    }

    #[test]
    fn who_cannot_be_linked_to_is_tried_ever_more_seldom_whatever_it_announces() {
        let mut lan_peers = lan_peers([sighting(1, 0, 0)]);
        let mut times = Vec::new();
        for second in 0..3_600_u32 {
            let now = Time::from_secs(second.into());
            // It says goodbye, comes back, has another load, another address, another id: it is one and the same.
            lan_peers.saw(LanEvent::Gone("p1".into()), now);
            lan_peers.saw(LanEvent::Here(sighting(1, second, 0)), now);
            if second % 2 == 0 {
                lan_peers.saw(LanEvent::Here(at(1, 2, 0, 0)), now);
            } else {
                lan_peers.saw(LanEvent::Here(at(u128::from(second) + 5, 2, 0, 0)), now);
            }
            times.extend(offered(&mut lan_peers, 9, now).iter().map(|_| second));
        }
        assert!((15..60).contains(&times.len()), "{times:?}");
        assert!(lan_peers.peers.len() <= NEARBY_MAX);
    }

    #[test]
    fn however_many_are_announced_few_are_tried_at_a_time_and_no_more_than_the_limit_remembered() {
        let mut lan_peers = lan_peers([]);
        let (mut tried, mut port) = (0, 0);
        for second in 0..100 {
            for _ in 0..600 {
                port += 1;
                lan_peers.saw(LanEvent::Here(sighting(port, 0, 0)), Time::from_secs(second));
            }
            tried += offered(&mut lan_peers, usize::MAX, Time::from_secs(second)).len();
        }
        assert_eq!(lan_peers.peers.len(), NEARBY_MAX);
        assert!((200..=400).contains(&tried), "{tried}");
        // Who exists stays.
        let known = *lan_peers.peers.keys().next().unwrap();
        lan_peers.linked(known);
        for second in 100..1_000 {
            port += 1;
            lan_peers.saw(LanEvent::Here(sighting(port, 0, 0)), Time::from_secs(second));
            offered(&mut lan_peers, usize::MAX, Time::from_secs(second));
        }
        assert!(lan_peers.peers.contains_key(&known));
    }

    #[test]
    fn a_neighbour_that_is_lost_is_tried_again_soon_and_at_once_when_it_was_the_last() {
        let mut lan_peers = lan_peers([sighting(1, 0, 0), sighting(2, 0, 0)]);
        assert_eq!(offered(&mut lan_peers, 9, LATER).len(), 2);
        lan_peers.linked(PeerId::from_u128(1));
        lan_peers.unlinked(PeerId::from_u128(1), LATER);
        assert_eq!(offered(&mut lan_peers, 9, LATER), []);
        lan_peers.needed(LATER);
        assert_eq!(offered(&mut lan_peers, 9, LATER), [1]);
        // It comes back at another address: that is news.
        lan_peers.saw(LanEvent::Here(at(1, 77, 0, 0)), LATER);
        assert!(offered(&mut lan_peers, 9, LATER + OFFER_INTERVAL).contains(&1));
    }
}
