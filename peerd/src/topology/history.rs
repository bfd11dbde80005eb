//! Changes between snapshots of the network: peers that joined and left, and links that this peer made and lost.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{Snapshot, snapshot::Reachability};
use crate::overlay::PeerId;
use p2pdi::{contact::Contact, name::PeerName};
use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

/// Events kept; one more pushes out the oldest. A guess: more than a person scrolls back through.
const EVENTS_MAX: usize = 100;

/// What happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was not in the network before.
    Joined,
    /// No peer names it any more.
    Left,
    /// Other peers name it, but it no longer answers.
    Silent,
    /// It answers again.
    Back,
    /// It is a neighbour of this peer now.
    Linked,
    /// It no longer is.
    Unlinked,
}

impl EventKind {
    /// The word for it in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Silent => "silent",
            Self::Back => "back",
            Self::Linked => "linked",
            Self::Unlinked => "unlinked",
        }
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was detected.
    pub at: SystemTime,
    /// What happened.
    pub kind: EventKind,
    /// The peer it happened to.
    pub peer: PeerName,
}

/// The last known state, and the events until then.
#[derive(Debug, Default)]
pub(super) struct History {
    linked: BTreeMap<PeerId, PeerName>,
    /// The peers that the registry lists; `None` before its first listing.
    listed: Option<BTreeMap<PeerId, PeerName>>,
    /// Peers in the last snapshot, and whether each answered; `None` for one that never did. No snapshot while there is no watcher: it would be
    /// outdated.
    snapshot: Option<BTreeMap<PeerId, (PeerName, Option<bool>)>>,
    events: VecDeque<Event>,
}

impl History {
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// Records the current neighbours of this peer. Returns whether they changed.
    pub(super) fn links<'a>(&mut self, neighbours: impl Iterator<Item = &'a Contact>, at: SystemTime) -> bool {
        let now: BTreeMap<_, _> = neighbours.map(|contact| (contact.id(), contact.name().clone())).collect();
        let before = std::mem::replace(&mut self.linked, now.clone());
        self.differences(&before, &now, EventKind::Unlinked, EventKind::Linked, at);
        before != now
    }

    /// Records the peers that the registry lists now. While there is a snapshot, only that makes events: it shows which listed peers answer.
    pub(super) fn listed(&mut self, now: BTreeMap<PeerId, PeerName>, at: SystemTime) {
        if let Some(before) = self.listed.replace(now.clone())
            && self.snapshot.is_none()
        {
            self.differences(&before, &now, EventKind::Left, EventKind::Joined, at);
        }
    }

    /// Records a new snapshot.
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot, at: SystemTime) {
        let before = self.snapshot.take();
        let mut now = BTreeMap::new();
        for (id, peer) in snapshot.peers() {
            let (name, was) = (peer.contact.name(), before.as_ref().map(|before| before.get(id).and_then(|(_, was)| *was)));
            let is = match (&peer.reachability, was) {
                (Reachability::Answers { .. }, _) => Some(true),
                (Reachability::Silent, Some(None)) => None,
                (Reachability::Silent, _) => Some(false),
                (Reachability::Named, was) => was.flatten(),
            };
            match (was, is) {
                (Some(None), Some(true)) => self.record(EventKind::Joined, name, at),
                (Some(Some(true)), Some(false)) => self.record(EventKind::Silent, name, at),
                (Some(Some(false)), Some(true)) => self.record(EventKind::Back, name, at),
                _ => {}
            }
            now.insert(*id, (name.clone(), is));
        }
        let gone =
            before.iter().flatten().filter(|(id, (_, was))| was.is_some() && !now.contains_key(id) && !snapshot.is_beyond(**id));
        for (_, (name, _)) in gone {
            self.record(EventKind::Left, name, at);
        }
        self.snapshot = Some(now);
    }

    /// The last watcher is gone; the next snapshot is compared with nothing.
    pub(super) fn stop_watching(&mut self) {
        self.snapshot = None;
    }

    fn differences(
        &mut self,
        before: &BTreeMap<PeerId, PeerName>,
        now: &BTreeMap<PeerId, PeerName>,
        gone: EventKind,
        new: EventKind,
        at: SystemTime,
    ) {
        for (_, name) in before.iter().filter(|(id, _)| !now.contains_key(id)) {
            self.record(gone, name, at);
        }
        for (_, name) in now.iter().filter(|(id, _)| !before.contains_key(id)) {
            self.record(new, name, at);
        }
    }

    fn record(&mut self, kind: EventKind, peer: &PeerName, at: SystemTime) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { at, kind, peer: peer.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::wire;
    use p2pdi::v1::ListPeersResponse;

    fn contact(id: u128) -> Contact {
        Contact::parse(PeerId::from_u128(id), &format!("p{id}"), &format!("127.0.0.1:{id}")).unwrap()
    }

    /// A snapshot of peers that answer, and of some that do not.
    fn snapshot(answering: &[u128], silent: &[u128]) -> Snapshot {
        let mut snapshot = Snapshot::with_capacity(10);
        for id in answering {
            snapshot.add_answer(ListPeersResponse { peer: Some(wire::contact(&contact(*id))), ..Default::default() });
        }
        for id in silent {
            snapshot.add(&contact(*id), None);
            snapshot.set_silent(PeerId::from_u128(*id));
        }
        snapshot
    }

    fn drain(history: &mut History) -> Vec<String> {
        history.events.drain(..).map(|event| format!("{} {}", event.peer, event.kind.as_str())).collect()
    }

    #[test]
    fn a_peer_joins_when_it_answers_and_leaves_when_no_peer_names_it() {
        let (mut history, at) = (History::default(), SystemTime::UNIX_EPOCH);
        history.snapshot(&snapshot(&[1, 2], &[3]), at);
        assert!(drain(&mut history).is_empty(), "the first snapshot makes no events");
        history.snapshot(&snapshot(&[1, 2, 4], &[3, 5]), at);
        assert_eq!(drain(&mut history), ["p4 joined"]);
        history.snapshot(&snapshot(&[1, 3, 5], &[2, 4]), at);
        assert_eq!(drain(&mut history), ["p2 silent", "p3 back", "p4 silent", "p5 joined"]);
        history.snapshot(&snapshot(&[1, 2, 3], &[]), at);
        assert_eq!(drain(&mut history), ["p2 back", "p4 left", "p5 left"]);
        history.snapshot(&snapshot(&[1, 2, 3], &[6]), at);
        history.snapshot(&snapshot(&[1, 2, 3], &[]), at);
        assert!(drain(&mut history).is_empty(), "a peer that never answered makes no events");
        history.stop_watching();
        history.snapshot(&snapshot(&[1], &[]), at);
        assert!(drain(&mut history).is_empty());
    }

    #[test]
    fn links_and_the_registrys_listing_make_events_without_a_watcher() {
        let (mut history, at) = (History::default(), SystemTime::UNIX_EPOCH);
        let list = |ids: &[u128]| ids.iter().map(|id| (PeerId::from_u128(*id), contact(*id).name().clone())).collect();
        history.links([contact(2)].iter(), at);
        history.listed(list(&[2, 3]), at);
        history.listed(list(&[3, 4]), at);
        history.links([contact(3)].iter(), at);
        assert_eq!(drain(&mut history), ["p2 linked", "p2 left", "p4 joined", "p2 unlinked", "p3 linked"]);
        history.snapshot(&snapshot(&[1, 3, 4], &[]), at);
        history.listed(list(&[3]), at);
        assert!(drain(&mut history).is_empty());
        for _ in 0..EVENTS_MAX {
            history.links([].iter(), at);
            history.links([contact(3)].iter(), at);
        }
        assert_eq!(history.events().count(), EVENTS_MAX);
    }
}
