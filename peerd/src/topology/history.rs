//! Who came, who left, and which links this peer made and lost: what changed from one look at the network to the next.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{Snapshot, snapshot::Reachability};
use crate::overlay::PeerId;
use p2pdi::{contact::Contact, name::PeerName};
use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

/// Events kept: more than anybody scrolls back through.
const EVENTS_MAX: usize = 100;

/// What happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was not in the network before.
    Joined,
    /// Nobody names it any more.
    Left,
    /// Others name it, and it no longer answers.
    Silent,
    /// It answers again.
    Back,
    /// It is a neighbour of this peer now.
    Linked,
    /// It no longer is.
    Unlinked,
}

impl EventKind {
    /// In a word, for programs.
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

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was noticed.
    pub at: SystemTime,
    /// What.
    pub what: EventKind,
    /// To whom.
    pub peer: PeerName,
}

/// What was so at the last look, and what changed until then.
#[derive(Debug, Default)]
pub(super) struct History {
    linked: BTreeMap<PeerId, PeerName>,
    /// Whom the registry lists; `None` before it did.
    listed: Option<BTreeMap<PeerId, PeerName>>,
    /// Peers in the last picture, and whether each answered; `None` for one that never did. No picture: it would be long past.
    pictured: Option<BTreeMap<PeerId, (PeerName, Option<bool>)>>,
    events: VecDeque<Event>,
}

impl History {
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// The neighbours of this peer as they are now. Returns whether they are others than before.
    pub(super) fn links<'a>(&mut self, neighbours: impl Iterator<Item = &'a Contact>, at: SystemTime) -> bool {
        let now: BTreeMap<_, _> = neighbours.map(|contact| (contact.id(), contact.name().clone())).collect();
        let before = std::mem::replace(&mut self.linked, now.clone());
        self.differences(&before, &now, EventKind::Unlinked, EventKind::Linked, at);
        before != now
    }

    /// Whom the registry lists now. With a picture, that decides: it shows who listed peers really are.
    pub(super) fn listed(&mut self, now: BTreeMap<PeerId, PeerName>, at: SystemTime) {
        if let Some(before) = self.listed.replace(now.clone())
            && self.pictured.is_none()
        {
            self.differences(&before, &now, EventKind::Left, EventKind::Joined, at);
        }
    }

    /// The network as it looks now.
    pub(super) fn pictured(&mut self, snapshot: &Snapshot, at: SystemTime) {
        let before = self.pictured.take();
        let mut now = BTreeMap::new();
        for (id, seen) in snapshot.peers() {
            let (name, was) = (seen.contact.name(), before.as_ref().map(|before| before.get(id).and_then(|(_, was)| *was)));
            let is = match (&seen.standing, was) {
                (Reachability::Answers { .. }, _) => Some(true),
                (Reachability::Silent, Some(None)) => None,
                (Reachability::Silent, _) => Some(false),
                (Reachability::Named, was) => was.flatten(),
            };
            match (was, is) {
                (Some(None), Some(true)) => self.tell(EventKind::Joined, name, at),
                (Some(Some(true)), Some(false)) => self.tell(EventKind::Silent, name, at),
                (Some(Some(false)), Some(true)) => self.tell(EventKind::Back, name, at),
                _ => {}
            }
            now.insert(*id, (name.clone(), is));
        }
        let gone =
            before.iter().flatten().filter(|(id, (_, was))| was.is_some() && !now.contains_key(id) && !snapshot.is_beyond(**id));
        for (_, (name, _)) in gone {
            self.tell(EventKind::Left, name, at);
        }
        self.pictured = Some(now);
    }

    /// Nobody looks any more; the next picture begins a new story.
    pub(super) fn stop_watching(&mut self) {
        self.pictured = None;
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
            self.tell(gone, name, at);
        }
        for (_, name) in now.iter().filter(|(id, _)| !before.contains_key(id)) {
            self.tell(new, name, at);
        }
    }

    fn tell(&mut self, what: EventKind, peer: &PeerName, at: SystemTime) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { at, what, peer: peer.clone() });
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

    /// Peers that answer, and some that do not.
    fn snapshot(answering: &[u128], silent: &[u128]) -> Snapshot {
        let mut snapshot = Snapshot::with_room_for(10);
        for id in answering {
            snapshot.answer(ListPeersResponse { peer: Some(wire::contact(&contact(*id))), ..Default::default() });
        }
        for id in silent {
            snapshot.name(&contact(*id), None);
            snapshot.silent(PeerId::from_u128(*id));
        }
        snapshot
    }

    fn told(history: &mut History) -> Vec<String> {
        history.events.drain(..).map(|event| format!("{} {}", event.peer, event.what.as_str())).collect()
    }

    #[test]
    fn a_peer_joins_when_it_answers_and_leaves_when_nobody_names_it() {
        let (mut history, at) = (History::default(), SystemTime::UNIX_EPOCH);
        history.pictured(&snapshot(&[1, 2], &[3]), at);
        assert!(told(&mut history).is_empty(), "the first snapshot is where the story begins");
        history.pictured(&snapshot(&[1, 2, 4], &[3, 5]), at);
        assert_eq!(told(&mut history), ["p4 joined"]);
        history.pictured(&snapshot(&[1, 3, 5], &[2, 4]), at);
        assert_eq!(told(&mut history), ["p2 silent", "p3 back", "p4 silent", "p5 joined"]);
        history.pictured(&snapshot(&[1, 2, 3], &[]), at);
        assert_eq!(told(&mut history), ["p2 back", "p4 left", "p5 left"]);
        history.pictured(&snapshot(&[1, 2, 3], &[6]), at);
        history.pictured(&snapshot(&[1, 2, 3], &[]), at);
        assert!(told(&mut history).is_empty(), "a rumour came and went");
        history.stop_watching();
        history.pictured(&snapshot(&[1], &[]), at);
        assert!(told(&mut history).is_empty());
    }

    #[test]
    fn links_and_the_registrys_list_are_followed_while_nobody_looks() {
        let (mut history, at) = (History::default(), SystemTime::UNIX_EPOCH);
        let list = |ids: &[u128]| ids.iter().map(|id| (PeerId::from_u128(*id), contact(*id).name().clone())).collect();
        history.links([contact(2)].iter(), at);
        history.listed(list(&[2, 3]), at);
        history.listed(list(&[3, 4]), at);
        history.links([contact(3)].iter(), at);
        assert_eq!(told(&mut history), ["p2 linked", "p2 left", "p4 joined", "p2 unlinked", "p3 linked"]);
        history.pictured(&snapshot(&[1, 3, 4], &[]), at);
        history.listed(list(&[3]), at);
        assert!(told(&mut history).is_empty());
        for _ in 0..EVENTS_MAX {
            history.links([].iter(), at);
            history.links([contact(3)].iter(), at);
        }
        assert_eq!(history.events().count(), EVENTS_MAX);
    }
}
