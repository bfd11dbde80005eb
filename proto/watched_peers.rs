//! The peers that a watch of a registry was told of, kept by whoever reads its messages.

use crate::{
    selector::NamePattern,
    v1::{PeerGone, PeerRecord, WatchPeersResponse, peer_event::Change},
};
use prost::DecodeError;
use std::collections::{BTreeMap, BTreeSet};

/// The list of a watch, of all peers or of those that are selected.
#[derive(Debug, Default)]
pub struct WatchedPeers {
    pattern: Option<NamePattern>,
    labels: BTreeMap<String, String>,
    /// By their names in lower case.
    peers: BTreeMap<String, PeerRecord>,
    /// While all peers are listed anew: those of the list so far.
    listed: Option<BTreeSet<String>>,
    revision: u64,
    /// It began at a revision, so that peers exist that it was never told of.
    began_later: bool,
}

impl WatchedPeers {
    /// The list of a watch that begins at this revision, 0 for the whole list; of peers with such a name and all of these labels.
    pub fn new(since_revision: u64, pattern: Option<NamePattern>, labels: BTreeMap<String, String>) -> Self {
        Self { pattern, labels, revision: since_revision, began_later: since_revision > 0, ..Self::default() }
    }

    /// Where a watch goes on after a break.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// What a message changes, in order. A peer that is not selected any more has left. When all are listed anew, those that are as before
    /// are not told, and those that are not in the new list have left.
    ///
    /// # Errors
    /// When the message has an event that is none of the contract.
    pub fn take(&mut self, message: &WatchPeersResponse) -> Result<Vec<Change>, DecodeError> {
        if message.start_over {
            self.listed = Some(BTreeSet::new());
            self.began_later = false;
        }
        let mut changes = Vec::new();
        for event in message.events()? {
            changes.extend(match event.change {
                Some(Change::Joined(peer) | Change::Changed(peer)) if !self.selects(&peer) => {
                    let revision = peer.revision;
                    self.left(&key(&peer.name), revision)
                }
                Some(Change::Joined(peer)) => self.have(peer, false),
                Some(Change::Changed(peer)) => self.have(peer, true),
                Some(Change::Left(gone)) => match self.peers.remove(&key(&gone.name)) {
                    Some(_) => Some(Change::Left(gone)),
                    // It was there before this watch began.
                    None => Some(Change::Left(gone)).filter(|_| self.began_later && self.selects_all()),
                },
                None => None,
            });
        }
        // Of a list that is told in parts the revision comes with the last one.
        if message.revision > 0 {
            self.revision = message.revision;
        }
        if message.caught_up
            && let Some(listed) = self.listed.take()
        {
            let gone: Vec<String> = self.peers.keys().filter(|key| !listed.contains(*key)).cloned().collect();
            changes.extend(gone.iter().filter_map(|key| self.left(key, message.revision)));
        }
        Ok(changes)
    }

    /// `was_there`: the registry says that it was, which counts if this watch cannot know.
    fn have(&mut self, peer: PeerRecord, was_there: bool) -> Option<Change> {
        let key = key(&peer.name);
        let is_listed_again = self.listed.as_mut().is_some_and(|listed| listed.insert(key.clone()));
        match self.peers.insert(key, peer.clone()) {
            None if was_there && self.began_later && self.selects_all() => Some(Change::Changed(peer)),
            None => Some(Change::Joined(peer)),
            Some(before) if is_listed_again && before.endpoint == peer.endpoint && before.labels == peer.labels => None,
            Some(_) => Some(Change::Changed(peer)),
        }
    }

    fn left(&mut self, key: &str, revision: u64) -> Option<Change> {
        let peer = self.peers.remove(key)?;
        Some(Change::Left(PeerGone { id: peer.id, name: peer.name, revision }))
    }

    fn selects_all(&self) -> bool {
        self.pattern.is_none() && self.labels.is_empty()
    }

    fn selects(&self, peer: &PeerRecord) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&peer.name))
            && self.labels.iter().all(|(key, value)| peer.labels.get(key) == Some(value))
    }
}

fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::PeerEvent;
    use prost::Message as _;

    fn peer(name: &str, port: u16, zone: &str) -> PeerRecord {
        let labels = [("zone".to_owned(), zone.to_owned())].into();
        PeerRecord { name: name.into(), endpoint: format!("127.0.0.1:{port}"), labels, revision: 1, ..Default::default() }
    }

    fn gone(name: &str) -> Change {
        Change::Left(PeerGone { name: name.into(), ..Default::default() })
    }

    /// What a watch tells after a message, in words.
    fn told(peers: &mut WatchedPeers, changes: &[Change], revision: u64, start_over: bool) -> Vec<String> {
        let event = |change: &Change| PeerEvent { change: Some(change.clone()) }.encode_to_vec().into();
        let events = changes.iter().map(event).collect();
        let message = WatchPeersResponse { events, revision, caught_up: revision > 0, start_over };
        let word = |change: Change| match change {
            Change::Joined(peer) => format!("joined {}", peer.name),
            Change::Changed(peer) => format!("changed {}", peer.name),
            Change::Left(gone) => format!("left {}", gone.name),
        };
        peers.take(&message).unwrap().into_iter().map(word).collect()
    }

    #[test]
    fn a_list_that_is_told_anew_tells_only_what_differs() {
        let mut peers = WatchedPeers::default();
        let first = ["a", "B", "c"].map(|name| Change::Joined(peer(name, 1, "x")));
        assert_eq!(told(&mut peers, &first[..2], 0, false), ["joined a", "joined B"]);
        assert_eq!(told(&mut peers, &first[2..], 5, false), ["joined c"]);
        assert_eq!((peers.count(), peers.revision()), (3, 5));
        // Another spelling of a name is the same name.
        assert_eq!(told(&mut peers, &[Change::Changed(peer("b", 2, "x")), gone("z")], 6, false), ["changed b"]);
        let again = [Change::Joined(peer("a", 1, "x")), Change::Joined(peer("b", 3, "x"))];
        assert_eq!(told(&mut peers, &again, 0, true), ["changed b"]);
        assert_eq!(told(&mut peers, &[Change::Joined(peer("d", 1, "x"))], 9, false), ["joined d", "left c"]);
    }

    #[test]
    fn who_is_not_selected_any_more_has_left() {
        let pattern = NamePattern::parse("gpu-*").unwrap();
        let mut peers = WatchedPeers::new(0, pattern, [("zone".to_owned(), "x".to_owned())].into());
        let joined = [("gpu-1", "x"), ("gpu-2", "y"), ("cpu-1", "x")].map(|(name, zone)| Change::Joined(peer(name, 1, zone)));
        assert_eq!(told(&mut peers, &joined, 3, false), ["joined gpu-1"]);
        let changed = [("gpu-1", "y"), ("gpu-2", "x"), ("gpu-2", "x")].map(|(name, zone)| Change::Changed(peer(name, 1, zone)));
        assert_eq!(told(&mut peers, &changed, 4, false), ["left gpu-1", "joined gpu-2", "changed gpu-2"]);
        assert_eq!(told(&mut peers, &[gone("gpu-1"), gone("gpu-2")], 5, false), ["left gpu-2"]);
    }

    #[test]
    fn a_watch_that_begins_at_a_revision_believes_what_the_registry_says_of_peers_it_does_not_know() {
        let mut peers = WatchedPeers::new(7, None, BTreeMap::new());
        let changes = [Change::Changed(peer("a", 1, "x")), gone("b"), Change::Joined(peer("c", 1, "x"))];
        assert_eq!(told(&mut peers, &changes, 9, false), ["changed a", "left b", "joined c"]);
        assert_eq!(told(&mut peers, &[Change::Joined(peer("c", 1, "x"))], 9, true), ["left a"]);
        assert_eq!(told(&mut peers, &[gone("b")], 10, false), [] as [&str; 0]);
    }
}
