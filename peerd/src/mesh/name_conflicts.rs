//! Other peers that have this peer's name.
//!
//! They show up in hellos, in views, as senders of broadcasts and acknowledgements, and in replies to a seek. Reports of other peers do not
//! count: a lie about a peer that does not exist would leave the name without an owner. So a peer that is mentioned is probed at its
//! address, and is a conflict for as long as it says hello.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::contact::Contact;
use std::{collections::BTreeMap, time::Duration};

/// Conflicts known at once. A guess: more is an attack, not a mistake, and the lowest id decides that as well.
const CONFLICTS_MAX: usize = 16;
/// Interval of probes. A guess: after the owner of a name is gone, the name has no owner for at most this long.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// A peer that has not said hello for this long is gone: three probes.
const GONE_AFTER: Duration = Duration::from_secs(15);
/// A peer that was mentioned and did not answer is not probed again for this long, so that false reports cannot make this peer dial.
const IGNORED_FOR: Duration = Duration::from_secs(60);
/// Time between two log lines about conflicts, however many there are.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// A peer that comes back is logged again after this long.
const LOG_AGAIN: Duration = Duration::from_secs(600);
/// Ids remembered for [`IGNORED_FOR`] and for [`LOG_AGAIN`] each; one more pushes out the lowest. A guess.
const REMEMBERED_MAX: usize = 256;

#[derive(Debug)]
struct NameConflict {
    contact: Contact,
    /// When it last said hello; `None` while only other peers mention it.
    confirmed_at: Option<Time>,
    next_probe: Time,
}

/// The conflicts, and what was ignored or logged lately.
#[derive(Debug, Default)]
pub(super) struct NameConflicts {
    known: BTreeMap<PeerId, NameConflict>,
    /// When each is no longer ignored.
    ignored: BTreeMap<PeerId, Time>,
    /// When each was logged.
    logged: BTreeMap<PeerId, Time>,
    last_logged: Option<Time>,
}

impl NameConflicts {
    /// Another peer mentions that `contact` has this peer's name.
    pub(super) fn mentioned(&mut self, contact: &Contact, now: Time) {
        let ignored = self.ignored.get(&contact.id()).is_some_and(|until| now < *until);
        if ignored || self.known.contains_key(&contact.id()) || self.known.len() >= CONFLICTS_MAX {
            return;
        }
        self.known.insert(contact.id(), NameConflict { contact: contact.clone(), confirmed_at: None, next_probe: now });
    }

    /// The peer itself said hello. Returns whether to log it.
    pub(super) fn confirmed(&mut self, contact: &Contact, now: Time) -> bool {
        if self.known.len() >= CONFLICTS_MAX && !self.known.contains_key(&contact.id()) {
            // The lowest ids decide who owns the name.
            match self.known.last_key_value().map(|(id, _)| *id) {
                Some(highest) if contact.id() < highest => drop(self.known.remove(&highest)),
                _ => return false,
            }
        }
        let next_probe = now + PROBE_INTERVAL;
        self.known.insert(contact.id(), NameConflict { contact: contact.clone(), confirmed_at: Some(now), next_probe });
        self.log_once(contact.id(), now)
    }

    fn log_once(&mut self, peer: PeerId, now: Time) -> bool {
        let recently = |at: Option<&Time>, interval| at.is_some_and(|at| now < *at + interval);
        if recently(self.logged.get(&peer), LOG_AGAIN) || recently(self.last_logged.as_ref(), LOG_INTERVAL) {
            return false;
        }
        self.last_logged = Some(now);
        remember(&mut self.logged, peer, now);
        true
    }

    /// A probe failed.
    pub(super) fn failed(&mut self, peer: PeerId, now: Time) {
        if self.known.get(&peer).is_some_and(|conflict| conflict.confirmed_at.is_none()) {
            self.known.remove(&peer);
            remember(&mut self.ignored, peer, now + IGNORED_FOR);
        }
    }

    /// The peers to probe now.
    pub(super) fn due(&mut self, now: Time) -> Vec<Contact> {
        let due = self.known.values_mut().filter(|conflict| conflict.next_probe <= now);
        due.map(|conflict| {
            conflict.next_probe = now + PROBE_INTERVAL;
            conflict.contact.clone()
        })
        .collect()
    }

    /// Removes the peers that are gone, and returns them.
    pub(super) fn expire(&mut self, now: Time) -> Vec<Contact> {
        let gone = |conflict: &NameConflict| conflict.confirmed_at.is_some_and(|at| at + GONE_AFTER <= now);
        self.known.extract_if(.., |_, conflict| gone(conflict)).map(|(_, conflict)| conflict.contact).collect()
    }

    /// When to probe, or to expire.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.known.values().map(|conflict| conflict.next_probe).min()
    }

    /// The confirmed conflicts, lowest id first.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.known.values().filter(|conflict| conflict.confirmed_at.is_some()).map(|conflict| &conflict.contact)
    }
}

fn remember(map: &mut BTreeMap<PeerId, Time>, peer: PeerId, time: Time) {
    map.insert(peer, time);
    if map.len() > REMEMBERED_MAX {
        map.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(number: u128) -> Contact {
        Contact::parse(PeerId::from_u128(number), "A", "127.0.0.1:1").unwrap()
    }

    const START: Time = Time::from_secs(100);

    fn confirmed(name_conflicts: &NameConflicts) -> Vec<u128> {
        name_conflicts.contacts().map(|contact| contact.id().as_u128()).collect()
    }

    #[test]
    fn a_mentioned_peer_is_a_conflict_from_its_first_hello_until_it_stops_answering() {
        let mut name_conflicts = NameConflicts::default();
        name_conflicts.mentioned(&contact(7), START);
        assert!(confirmed(&name_conflicts).is_empty());
        assert_eq!(name_conflicts.due(START), [contact(7)]);
        assert!(name_conflicts.due(START).is_empty());
        assert!(name_conflicts.confirmed(&contact(7), START));
        assert_eq!(confirmed(&name_conflicts), [7]);
        // Probed repeatedly, logged once.
        assert_eq!(name_conflicts.due(START + PROBE_INTERVAL), [contact(7)]);
        assert!(!name_conflicts.confirmed(&contact(7), START + LOG_INTERVAL));
        name_conflicts.failed(PeerId::from_u128(7), START + LOG_INTERVAL);
        assert_eq!(confirmed(&name_conflicts), [7]);
        assert!(name_conflicts.expire(START + LOG_INTERVAL + PROBE_INTERVAL).is_empty());
        assert_eq!(name_conflicts.expire(START + LOG_INTERVAL + GONE_AFTER), [contact(7)]);
        assert!(confirmed(&name_conflicts).is_empty() && name_conflicts.next_deadline().is_none());
    }

    #[test]
    fn a_mentioned_peer_that_does_not_answer_is_dialled_once_a_minute_however_often_it_is_mentioned() {
        let mut name_conflicts = NameConflicts::default();
        let mut dials = 0;
        for second in 0..120 {
            let now = START + Duration::from_secs(second);
            name_conflicts.mentioned(&contact(7), now);
            for due in name_conflicts.due(now) {
                dials += 1;
                name_conflicts.failed(due.id(), now);
            }
        }
        assert_eq!(dials, 2);
    }

    #[test]
    fn the_number_of_conflicts_is_bounded_and_the_lowest_ids_are_kept() {
        let mut name_conflicts = NameConflicts::default();
        let mut logged = 0;
        for number in (1..1_000).rev() {
            name_conflicts.mentioned(&contact(number + 5_000), START);
            logged += usize::from(name_conflicts.confirmed(&contact(number), START));
        }
        assert_eq!(confirmed(&name_conflicts), (1..=CONFLICTS_MAX as u128).collect::<Vec<_>>());
        assert_eq!(logged, 1);
        assert!(name_conflicts.ignored.len() <= REMEMBERED_MAX && name_conflicts.logged.len() <= REMEMBERED_MAX);
    }
}
