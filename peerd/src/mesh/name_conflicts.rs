//! Other peers that go by this peer's name.
//!
//! They are heard of in passing: in greetings, in views, from who broadcasts or acknowledges, and where answers to a seek meet. Hearsay
//! alone changes nothing, or a lie about a peer that does not exist would leave a name without anybody: one that is heard of is greeted at
//! its address, and counts for as long as it greets.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::contact::Contact;
use std::{collections::BTreeMap, time::Duration};

/// Namesakes known at once. A guess: more is not a mistake but an attack, which the lowest id decides as well.
const NAMESAKES_MAX: usize = 16;
/// How often each is greeted anew. A guess: a name is without a peer for no longer after its first one is gone.
const GREET_INTERVAL: Duration = Duration::from_secs(5);
/// One that has not greeted for this long is gone: three greetings.
const GONE_AFTER: Duration = Duration::from_secs(15);
/// One that was heard of and did not answer is not tried again for this long, so that liars cannot make this peer dial.
const DENIED_FOR: Duration = Duration::from_secs(60);
/// Time between two lines in the log about namesakes, however many come.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// One that comes back is reported again after this long.
const REPORT_AGAIN: Duration = Duration::from_secs(600);
/// Ids remembered for those two; past it the lowest is forgotten. A guess.
const REMEMBERED_MAX: usize = 256;

#[derive(Debug)]
struct NameConflict {
    contact: Contact,
    /// When it last said so itself.
    greeted: Option<Time>,
    next_greeting: Time,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct NameConflicts {
    known: BTreeMap<PeerId, NameConflict>,
    denied: BTreeMap<PeerId, Time>,
    reported: BTreeMap<PeerId, Time>,
    last_report: Option<Time>,
}

impl NameConflicts {
    /// Somebody says that `contact` goes by this peer's name.
    pub(super) fn heard_of(&mut self, contact: &Contact, now: Time) {
        let denied = self.denied.get(&contact.id()).is_some_and(|until| now < *until);
        if denied || self.known.contains_key(&contact.id()) || self.known.len() >= NAMESAKES_MAX {
            return;
        }
        self.known.insert(contact.id(), NameConflict { contact: contact.clone(), greeted: None, next_greeting: now });
    }

    /// It says so itself. Returns whether that is to be reported.
    pub(super) fn greeted(&mut self, contact: &Contact, now: Time) -> bool {
        if self.known.len() >= NAMESAKES_MAX && !self.known.contains_key(&contact.id()) {
            // The lowest ids matter.
            match self.known.last_key_value().map(|(id, _)| *id) {
                Some(highest) if contact.id() < highest => drop(self.known.remove(&highest)),
                _ => return false,
            }
        }
        let next_greeting = now + GREET_INTERVAL;
        self.known.insert(contact.id(), NameConflict { contact: contact.clone(), greeted: Some(now), next_greeting });
        self.log_once(contact.id(), now)
    }

    fn log_once(&mut self, peer: PeerId, now: Time) -> bool {
        let lately = |at: Option<&Time>, interval| at.is_some_and(|at| now < *at + interval);
        if lately(self.reported.get(&peer), REPORT_AGAIN) || lately(self.last_report.as_ref(), REPORT_INTERVAL) {
            return false;
        }
        self.last_report = Some(now);
        remember(&mut self.reported, peer, now);
        true
    }

    /// It could not be greeted.
    pub(super) fn failed(&mut self, peer: PeerId, now: Time) {
        if self.known.get(&peer).is_some_and(|namesake| namesake.greeted.is_none()) {
            self.known.remove(&peer);
            remember(&mut self.denied, peer, now + DENIED_FOR);
        }
    }

    /// Those to greet now.
    pub(super) fn due(&mut self, now: Time) -> Vec<Contact> {
        let due = self.known.values_mut().filter(|namesake| namesake.next_greeting <= now);
        due.map(|namesake| {
            namesake.next_greeting = now + GREET_INTERVAL;
            namesake.contact.clone()
        })
        .collect()
    }

    /// Forgets those that are gone, and returns them.
    pub(super) fn expire(&mut self, now: Time) -> Vec<Contact> {
        let gone = |namesake: &NameConflict| namesake.greeted.is_some_and(|at| at + GONE_AFTER <= now);
        self.known.extract_if(.., |_, namesake| gone(namesake)).map(|(_, namesake)| namesake.contact).collect()
    }

    /// When there is something to greet, or to forget.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.known.values().map(|namesake| namesake.next_greeting).min()
    }

    /// Those that said so themselves, lowest id first.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.known.values().filter(|namesake| namesake.greeted.is_some()).map(|namesake| &namesake.contact)
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

    fn counted(name_conflicts: &NameConflicts) -> Vec<u128> {
        name_conflicts.contacts().map(|contact| contact.id().as_u128()).collect()
    }

    #[test]
    fn hearsay_counts_once_it_greets_and_until_it_no_longer_does() {
        let mut name_conflicts = NameConflicts::default();
        name_conflicts.heard_of(&contact(7), START);
        assert!(counted(&name_conflicts).is_empty());
        assert_eq!(name_conflicts.due(START), [contact(7)]);
        assert!(name_conflicts.due(START).is_empty());
        assert!(name_conflicts.greeted(&contact(7), START));
        assert_eq!(counted(&name_conflicts), [7]);
        // Greeted again and again, reported once.
        assert_eq!(name_conflicts.due(START + GREET_INTERVAL), [contact(7)]);
        assert!(!name_conflicts.greeted(&contact(7), START + REPORT_INTERVAL));
        name_conflicts.failed(PeerId::from_u128(7), START + REPORT_INTERVAL);
        assert_eq!(counted(&name_conflicts), [7]);
        assert!(name_conflicts.expire(START + REPORT_INTERVAL + GREET_INTERVAL).is_empty());
        assert_eq!(name_conflicts.expire(START + REPORT_INTERVAL + GONE_AFTER), [contact(7)]);
        assert!(counted(&name_conflicts).is_empty() && name_conflicts.next_deadline().is_none());
    }

    #[test]
    fn one_that_nobody_answers_for_is_dialled_once_a_minute_however_often_it_is_heard_of() {
        let mut name_conflicts = NameConflicts::default();
        let mut dials = 0;
        for second in 0..120 {
            let now = START + Duration::from_secs(second);
            name_conflicts.heard_of(&contact(7), now);
            for due in name_conflicts.due(now) {
                dials += 1;
                name_conflicts.failed(due.id(), now);
            }
        }
        assert_eq!(dials, 2);
    }

    #[test]
    fn a_crowd_of_namesakes_is_bounded_and_the_lowest_stay() {
        let mut name_conflicts = NameConflicts::default();
        let mut reports = 0;
        for number in (1..1_000).rev() {
            name_conflicts.heard_of(&contact(number + 5_000), START);
            reports += usize::from(name_conflicts.greeted(&contact(number), START));
        }
        assert_eq!(counted(&name_conflicts), (1..=NAMESAKES_MAX as u128).collect::<Vec<_>>());
        assert_eq!(reports, 1);
        assert!(name_conflicts.denied.len() <= REMEMBERED_MAX && name_conflicts.reported.len() <= REMEMBERED_MAX);
    }
}
