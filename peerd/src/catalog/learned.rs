//! What other peers said they hold: merged by content, aged, bounded. Pure.

use crate::document::DocumentInfo;
use p2pdi::{
    content::{ContentHash, HASH_BYTES},
    endpoint::Endpoint,
    id::PeerId,
    name::PeerName,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// How long a peer's word counts after it last gave it: several rounds of asking.
pub(super) const LEARNED_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Most holdings kept, of all peers together: some 100 MiB with long names. Past it a peer's further documents are not learned.
pub(super) const LEARNED_HOLDINGS_MAX: usize = 200_000;

/// Whose word it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedPeer {
    /// Its id.
    pub id: PeerId,
    /// Its name.
    pub name: PeerName,
    /// Where it is dialled.
    pub endpoint: Endpoint,
}

impl LearnedPeer {
    /// What it is filed under. Its name, which a registry gives to one peer only; an id is whatever its peer says.
    pub(super) fn key(&self) -> PeerKey {
        PeerKey(*ContentHash::of(self.name.key().as_bytes()).as_bytes())
    }
}

/// See [`LearnedPeer::key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerKey([u8; HASH_BYTES]);

/// All documents of one peer, as it listed them.
#[derive(Debug, Clone)]
pub struct LearnedDocuments {
    /// Version of that peer's index.
    pub version: u64,
    /// Its own documents.
    pub documents: Vec<DocumentInfo>,
}

/// The merged index.
#[derive(Debug)]
pub(crate) struct Learned {
    documents: BTreeMap<(ContentHash, PeerKey), Arc<DocumentInfo>>,
    numbers: BTreeSet<(u32, ContentHash, PeerKey)>,
    names: BTreeSet<(String, ContentHash, PeerKey)>,
    peers: BTreeMap<PeerKey, Known>,
    version: u64,
}

#[derive(Debug)]
struct Known {
    peer: LearnedPeer,
    version: u64,
    heard: Instant,
}

/// One peer's word on one document.
pub(crate) struct Word<'a> {
    pub(crate) document: &'a Arc<DocumentInfo>,
    pub(crate) peer: &'a LearnedPeer,
    pub(crate) age: Duration,
}

impl Learned {
    pub(crate) fn new(wall: SystemTime) -> Self {
        let mut new = Self {
            documents: BTreeMap::new(),
            numbers: BTreeSet::new(),
            names: BTreeSet::new(),
            peers: BTreeMap::new(),
            version: 0,
        };
        new.bump(wall);
        new
    }

    /// Grows with every change, across restarts too as far as the clock does.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn len(&self) -> usize {
        let mut hashes: Vec<_> = self.documents.keys().map(|(hash, _)| hash).collect();
        hashes.dedup();
        hashes.len()
    }

    /// The version of a peer's index that is known.
    pub(crate) fn version_of(&self, id: &PeerKey) -> Option<u64> {
        self.peers.get(id).map(|known| known.version)
    }

    /// A peer said that nothing changed.
    pub(crate) fn confirm(&mut self, peer: LearnedPeer, now: Instant) {
        if let Some(known) = self.peers.get_mut(&peer.key()) {
            known.heard = now;
            known.peer = peer;
        }
    }

    /// A peer listed all it has.
    pub(crate) fn replace(&mut self, peer: LearnedPeer, listing: LearnedDocuments, now: Instant, wall: SystemTime) {
        let id = peer.key();
        self.remove(&id, wall);
        for document in listing.documents {
            if self.documents.len() >= LEARNED_HOLDINGS_MAX {
                break;
            }
            let hash = document.hash;
            if let Some(number) = document.number {
                self.numbers.insert((number, hash, id));
            }
            self.names.insert((document.name.as_str().to_lowercase(), hash, id));
            self.documents.insert((hash, id), Arc::new(document));
        }
        self.peers.insert(id, Known { peer, version: listing.version, heard: now });
        self.bump(wall);
    }

    /// A peer left, or is not believed any more.
    pub(crate) fn remove(&mut self, id: &PeerKey, wall: SystemTime) {
        if self.peers.remove(id).is_none() {
            return;
        }
        self.documents.retain(|(_, holder), _| holder != id);
        self.numbers.retain(|(_, _, holder)| holder != id);
        self.names.retain(|(_, _, holder)| holder != id);
        self.bump(wall);
    }

    /// Forgets peers that were not heard of for [`LEARNED_AGE_MAX`].
    pub(crate) fn expire(&mut self, now: Instant, wall: SystemTime) {
        let old = |known: &Known| now.saturating_duration_since(known.heard) > LEARNED_AGE_MAX;
        let gone: Vec<_> = self.peers.iter().filter(|(_, known)| old(known)).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(&id, wall);
        }
    }

    fn bump(&mut self, wall: SystemTime) {
        let micros = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        self.version = u64::try_from(micros).unwrap_or(u64::MAX - 1).max(self.version + 1);
    }

    pub(crate) fn all(&self, now: Instant) -> impl Iterator<Item = Word<'_>> {
        self.documents.iter().filter_map(move |((_, id), document)| self.word(id, document, now))
    }

    pub(crate) fn by_hash(&self, hash: ContentHash, now: Instant) -> impl Iterator<Item = Word<'_>> {
        let range = (hash, PeerKey([0; HASH_BYTES]))..=(hash, PeerKey([0xff; HASH_BYTES]));
        self.documents.range(range).filter_map(move |((_, id), document)| self.word(id, document, now))
    }

    pub(crate) fn by_number(&self, number: u32, now: Instant) -> impl Iterator<Item = Word<'_>> {
        let from = (number, ContentHash::from_bytes([0; 32]), PeerKey([0; HASH_BYTES]));
        let keys = self.numbers.range(from..).take_while(move |(n, _, _)| *n == number);
        keys.filter_map(move |(_, hash, id)| self.word(id, self.documents.get(&(*hash, *id))?, now))
    }

    pub(crate) fn by_name(&self, name: &str, now: Instant) -> impl Iterator<Item = Word<'_>> {
        let lower = name.to_lowercase();
        let from = (lower.clone(), ContentHash::from_bytes([0; 32]), PeerKey([0; HASH_BYTES]));
        let keys = self.names.range(from..).take_while(move |(n, _, _)| *n == lower);
        keys.filter_map(move |(_, hash, id)| self.word(id, self.documents.get(&(*hash, *id))?, now))
    }

    fn word<'a>(&'a self, id: &PeerKey, document: &'a Arc<DocumentInfo>, now: Instant) -> Option<Word<'a>> {
        let known = self.peers.get(id)?;
        Some(Word { document, peer: &known.peer, age: now.saturating_duration_since(known.heard) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::{content::Pieces, document::DocumentName};

    fn peer(n: u8) -> LearnedPeer {
        LearnedPeer {
            id: PeerId::from_bytes([n; 16]),
            name: format!("p{n}").parse().unwrap(),
            endpoint: format!("127.0.0.1:{}", 7000 + u16::from(n)).parse().unwrap(),
        }
    }

    fn document(number: u32) -> DocumentInfo {
        DocumentInfo {
            name: DocumentName::parse(&format!("rfc{number}.txt")).unwrap(),
            number: Some(number),
            title: format!("Title {number}"),
            pieces: Pieces::of_size(9).unwrap(),
            hash: ContentHash::of(&number.to_be_bytes()),
            modified: None,
        }
    }

    fn listing(version: u64, numbers: &[u32]) -> LearnedDocuments {
        LearnedDocuments { version, documents: numbers.iter().map(|n| document(*n)).collect() }
    }

    #[test]
    fn the_same_content_at_two_peers_is_one_document_with_two_holders() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = Learned::new(wall);
        learned.replace(peer(1), listing(1, &[48, 1]), now, wall);
        learned.replace(peer(2), listing(1, &[48]), now, wall);
        assert_eq!(learned.len(), 2);
        let holders: Vec<_> = learned.by_number(48, now).map(|word| word.peer.name.to_string()).collect();
        assert_eq!(holders, ["p1", "p2"]);
        assert_eq!(learned.by_name("RFC48.TXT", now).count(), 2);
        assert_eq!(learned.by_hash(document(1).hash, now).count(), 1);
    }

    #[test]
    fn a_peer_that_calls_itself_by_the_id_of_another_takes_nothing_from_it() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = Learned::new(wall);
        learned.replace(peer(1), listing(1, &[48]), now, wall);
        learned.replace(LearnedPeer { id: peer(1).id, ..peer(2) }, listing(7, &[49]), now, wall);
        assert_eq!((learned.len(), learned.version_of(&peer(1).key())), (2, Some(1)));
        assert_eq!(learned.by_number(48, now).next().unwrap().peer, &peer(1));
        learned.remove(&peer(2).key(), wall);
        assert_eq!((learned.len(), learned.by_number(48, now).count()), (1, 1));
    }

    #[test]
    fn a_word_that_is_not_renewed_is_forgotten() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = Learned::new(wall);
        learned.replace(peer(1), listing(1, &[48]), now, wall);
        learned.replace(peer(2), listing(1, &[48]), now, wall);
        let version = learned.version();
        let later = now + LEARNED_AGE_MAX;
        learned.confirm(peer(2), later);
        learned.expire(later + Duration::from_secs(1), wall);
        let holders: Vec<_> = learned.by_number(48, later).map(|word| word.peer.id).collect();
        assert_eq!(holders, [peer(2).id]);
        assert!(learned.version() > version);
        assert_eq!(learned.version_of(&peer(1).key()), None);
    }

    #[test]
    fn every_change_has_a_version_of_its_own_whatever_the_clock_does() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = Learned::new(wall);
        let mut versions = vec![learned.version()];
        for back in 0..5 {
            learned.replace(peer(1), listing(back, &[48]), now, wall - Duration::from_secs(back * 3600));
            versions.push(learned.version());
        }
        learned.expire(now + LEARNED_AGE_MAX * 2, SystemTime::UNIX_EPOCH);
        versions.push(learned.version());
        assert!(versions[0] > 0 && versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    }

    #[test]
    fn a_new_listing_replaces_the_old_one() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = Learned::new(wall);
        learned.replace(peer(1), listing(1, &[48, 49]), now, wall);
        let version = learned.version();
        learned.replace(peer(1), listing(2, &[50]), now, wall);
        assert_eq!((learned.len(), learned.version_of(&peer(1).key())), (1, Some(2)));
        assert_eq!(learned.by_number(48, now).count(), 0);
        assert!(learned.version() > version);
    }
}
