//! What other peers said they hold: merged by content, aged, bounded.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::info::DocumentInfo;
use p2pdi::{contact::Contact, content::ContentHash, name::PeerName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// How long a peer's word counts after it last gave it: several rounds of asking.
pub(crate) const LEARNED_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Most bytes kept, of all peers together, as [`cost`] counts them: 200,000 documents with names of ordinary length.
const LEARNED_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Most bytes kept of one peer: three times the whole RFC series.
pub(crate) const LEARNED_PEER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most peers in view. Beyond, a random choice, kept while they live: knowledge of everybody's documents is not needed, only a fair part.
pub(crate) const LEARN_PEERS_MAX: usize = 64;
/// What each of the peers in view can count on, whatever the others listed before it.
const FAIR_BYTES: usize = LEARNED_BYTES_MAX / LEARN_PEERS_MAX;
/// Bytes that a document costs beside its texts, about: the record and its place in three sorted sets.
const DOCUMENT_BYTES: usize = 400;

/// Bytes that a document costs. Its name is kept twice: as it is, and to be found without regard to case.
pub(crate) fn cost(document: &DocumentInfo) -> usize {
    DOCUMENT_BYTES + 2 * document.name.as_str().len() + document.title.len()
}

/// All documents of one peer, as it listed them.
#[derive(Debug, Clone)]
pub struct RemoteListing {
    /// Version of that peer's index.
    pub version: u64,
    /// Its own documents.
    pub documents: Vec<DocumentInfo>,
}

/// Which document: the peer's slot, and the place in its listing.
type Place = (u32, u32);

/// The merged index.
#[derive(Debug, Default)]
pub(crate) struct RemoteIndex {
    hashes: BTreeSet<(ContentHash, Place)>,
    numbers: BTreeSet<(u32, Place)>,
    names: BTreeSet<(Box<str>, Place)>,
    /// By name, which the registry gives once; an id is whatever a peer says it is.
    slots: BTreeMap<PeerName, u32>,
    peers: BTreeMap<u32, Peer>,
    slots_given: u32,
    bytes: usize,
    version: u64,
}

#[derive(Debug)]
struct Peer {
    /// Shared with the answers that name it as a holder.
    peer: Arc<Contact>,
    version: u64,
    heard: Instant,
    documents: Vec<Arc<DocumentInfo>>,
    bytes: usize,
    /// The others had left no room for the rest.
    cut: bool,
}

/// One peer's word on one document.
pub(crate) struct Claim<'a> {
    pub(crate) document: &'a Arc<DocumentInfo>,
    pub(crate) peer: &'a Arc<Contact>,
    pub(crate) age: Duration,
}

impl RemoteIndex {
    /// Nothing yet, at a version greater than any before, as far as the clock is right.
    pub(crate) fn new(wall: SystemTime) -> Self {
        let mut new = Self::default();
        new.bump(wall);
        new
    }

    /// Grows with every change, across restarts too as far as the clock does.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn len(&self) -> usize {
        let mut last = None;
        self.hashes.iter().filter(|(hash, _)| last.replace(*hash) != Some(*hash)).count()
    }

    fn known(&self, name: &PeerName) -> Option<&Peer> {
        self.peers.get(self.slots.get(name)?)
    }

    /// The version of a peer's index that is known; `None` where there is more to learn.
    pub(crate) fn version_of(&self, name: &PeerName) -> Option<u64> {
        let room = LEARNED_BYTES_MAX - self.bytes >= FAIR_BYTES;
        self.known(name).filter(|known| !(known.cut && room)).map(|known| known.version)
    }

    /// A peer said that nothing changed.
    pub(crate) fn confirm(&mut self, peer: Contact, now: Instant, wall: SystemTime) {
        let Some(known) = self.slots.get(peer.name()).and_then(|slot| self.peers.get_mut(slot)) else { return };
        known.heard = now;
        if *known.peer != peer {
            known.peer = Arc::new(peer);
            self.bump(wall);
        }
    }

    /// A peer listed all it has.
    pub(crate) fn replace(&mut self, peer: Contact, listing: RemoteListing, now: Instant, wall: SystemTime) {
        self.remove(peer.name(), wall);
        self.make_room(listing.documents.iter().map(cost).sum::<usize>().min(FAIR_BYTES));
        let slot = self.slots_given;
        self.slots_given += 1;
        let peer = Arc::new(peer);
        let mut known = Peer { peer, version: listing.version, heard: now, documents: Vec::new(), bytes: 0, cut: false };
        for document in listing.documents {
            let bytes = cost(&document);
            if known.bytes + bytes > LEARNED_PEER_BYTES_MAX {
                break;
            }
            if self.bytes + bytes > LEARNED_BYTES_MAX {
                known.cut = true;
                break;
            }
            let Ok(at) = u32::try_from(known.documents.len()) else { break };
            let place = (slot, at);
            if let Some(number) = document.number {
                self.numbers.insert((number, place));
            }
            self.names.insert((document.name.as_str().to_lowercase().into(), place));
            self.hashes.insert((document.hash, place));
            known.documents.push(Arc::new(document));
            known.bytes += bytes;
            self.bytes += bytes;
        }
        self.slots.insert(known.peer.name().clone(), slot);
        self.peers.insert(slot, known);
        self.bump(wall);
    }

    /// Forgets the last documents of those who take most, as far as they take more than their share.
    fn make_room(&mut self, wanted: usize) {
        while LEARNED_BYTES_MAX - self.bytes < wanted {
            let Some((&slot, _)) = self.peers.iter().max_by_key(|(_, known)| known.bytes) else { return };
            let Some(known) = self.peers.get_mut(&slot).filter(|known| known.bytes > FAIR_BYTES) else { return };
            let Some(document) = known.documents.pop() else { return };
            known.cut = true;
            known.bytes -= cost(&document);
            self.bytes -= cost(&document);
            let place = (slot, u32::try_from(known.documents.len()).unwrap_or(u32::MAX));
            self.unlist(&document, place);
        }
    }

    fn unlist(&mut self, document: &DocumentInfo, place: Place) {
        self.hashes.remove(&(document.hash, place));
        self.names.remove(&(document.name.as_str().to_lowercase().into(), place));
        if let Some(number) = document.number {
            self.numbers.remove(&(number, place));
        }
    }

    /// A peer left, or is not believed any more.
    pub(crate) fn remove(&mut self, name: &PeerName, wall: SystemTime) {
        let Some(slot) = self.slots.remove(name) else { return };
        let Some(known) = self.peers.remove(&slot) else { return };
        self.bytes -= known.bytes;
        for (at, document) in (0..).zip(&known.documents) {
            self.unlist(document, (slot, at));
        }
        self.bump(wall);
    }

    /// Forgets peers that were not heard of for [`LEARNED_AGE_MAX`].
    pub(crate) fn expire(&mut self, now: Instant) {
        let old = |known: &Peer| now.saturating_duration_since(known.heard) > LEARNED_AGE_MAX;
        let gone: Vec<_> = self.peers.values().filter(|known| old(known)).map(|known| known.peer.name().clone()).collect();
        for name in gone {
            // The version only has to differ from the last one.
            self.remove(&name, SystemTime::UNIX_EPOCH);
        }
    }

    fn bump(&mut self, wall: SystemTime) {
        let micros = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        self.version = u64::try_from(micros).unwrap_or(u64::MAX - 1).max(self.version + 1);
    }

    /// All, those of one content together.
    pub(crate) fn all(&self, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        self.hashes.iter().filter_map(move |(_, place)| self.claim(*place, now))
    }

    pub(crate) fn by_hash(&self, hash: ContentHash, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        let range = (hash, (0, 0))..=(hash, (u32::MAX, u32::MAX));
        self.hashes.range(range).filter_map(move |(_, place)| self.claim(*place, now))
    }

    pub(crate) fn by_number(&self, number: u32, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        let range = (number, (0, 0))..=(number, (u32::MAX, u32::MAX));
        self.numbers.range(range).filter_map(move |(_, place)| self.claim(*place, now))
    }

    pub(crate) fn by_name(&self, name: &str, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        let lower: Box<str> = name.to_lowercase().into();
        let range = (lower.clone(), (0, 0))..=(lower, (u32::MAX, u32::MAX));
        self.names.range(range).filter_map(move |(_, place)| self.claim(*place, now))
    }

    fn claim(&self, (slot, at): Place, now: Instant) -> Option<Claim<'_>> {
        let known = self.peers.get(&slot)?;
        let document = known.documents.get(at as usize)?;
        Some(Claim { document, peer: &known.peer, age: now.saturating_duration_since(known.heard) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::id::PeerId;
    use p2pdi::{content::Pieces, document::DocumentName};

    fn peer(n: u8) -> Contact {
        Contact::new(
            PeerId::from_bytes([n; 16]),
            format!("p{n}").parse().unwrap(),
            format!("127.0.0.1:{}", 7000 + u16::from(n)).parse().unwrap(),
        )
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

    fn listing(version: u64, numbers: &[u32]) -> RemoteListing {
        RemoteListing { version, documents: numbers.iter().map(|n| document(*n)).collect() }
    }

    #[test]
    fn the_same_content_at_two_peers_is_one_document_with_two_holders() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = RemoteIndex::default();
        learned.replace(peer(1), listing(1, &[48, 1]), now, wall);
        learned.replace(peer(2), listing(1, &[48]), now, wall);
        assert_eq!(learned.len(), 2);
        let holders: Vec<_> = learned.by_number(48, now).map(|claim| claim.peer.name().to_string()).collect();
        assert_eq!(holders, ["p1", "p2"]);
        assert_eq!(learned.by_name("RFC48.TXT", now).count(), 2);
        assert_eq!(learned.by_hash(document(1).hash, now).count(), 1);
    }

    #[test]
    fn a_word_that_is_not_renewed_is_forgotten() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = RemoteIndex::default();
        learned.replace(peer(1), listing(1, &[48]), now, wall);
        learned.replace(peer(2), listing(1, &[48]), now, wall);
        let version = learned.version();
        let later = now + LEARNED_AGE_MAX;
        learned.confirm(peer(2), later, wall);
        learned.expire(later + Duration::from_secs(1));
        let holders: Vec<_> = learned.by_number(48, later).map(|claim| claim.peer.id()).collect();
        assert_eq!(holders, [peer(2).id()]);
        assert!(learned.version() > version);
        assert_eq!(learned.version_of(peer(1).name()), None);
    }

    #[test]
    fn a_new_listing_replaces_the_old_one() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = RemoteIndex::default();
        learned.replace(peer(1), listing(1, &[48, 49]), now, wall);
        let version = learned.version();
        learned.replace(peer(1), listing(2, &[50]), now, wall);
        assert_eq!((learned.len(), learned.version_of(peer(1).name())), (1, Some(2)));
        assert_eq!(learned.by_number(48, now).count(), 0);
        assert!(learned.version() > version);
    }

    #[test]
    fn files_of_equal_content_are_found_under_each_of_their_names() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = RemoteIndex::default();
        let copy = DocumentInfo { name: DocumentName::parse("copy.txt").unwrap(), number: None, ..document(48) };
        learned.replace(peer(1), RemoteListing { version: 1, documents: vec![document(48), copy] }, now, wall);
        let named = |name| learned.by_name(name, now).map(|claim| claim.document.name.to_string()).collect::<Vec<_>>();
        assert_eq!(named("copy.txt"), ["copy.txt"]);
        assert_eq!(named("rfc48.txt"), ["rfc48.txt"]);
        assert_eq!(learned.by_number(48, now).count(), 1);
        assert_eq!(learned.len(), 1);
        learned.remove(peer(1).name(), wall);
        assert_eq!((learned.bytes, learned.names.len(), learned.hashes.len(), learned.numbers.len()), (0, 0, 0, 0));
    }

    #[test]
    fn long_names_of_one_content_are_bounded_by_bytes_and_leave_others_their_share() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut learned = RemoteIndex::default();
        let long = |n: u32| DocumentInfo {
            name: DocumentName::parse(&format!("{n:08}/{}", ["x".repeat(200).as_str(); 4].join("/"))).unwrap(),
            ..document(1)
        };
        let documents: Vec<_> = (0..9_000).map(long).collect();
        for n in 1..=8 {
            learned.replace(peer(n), RemoteListing { version: 7, documents: documents.clone() }, now, wall);
            assert!(learned.bytes <= LEARNED_BYTES_MAX && learned.names.len() * 1_600 <= LEARNED_BYTES_MAX);
            assert!(learned.peers.values().all(|known| known.bytes <= LEARNED_PEER_BYTES_MAX));
        }
        // The last one came when all was taken.
        assert!(learned.known(peer(8).name()).unwrap().bytes + 4_096 > FAIR_BYTES);
        assert_eq!(learned.version_of(peer(8).name()), Some(7));
        learned.remove(peer(1).name(), wall);
        assert_eq!(learned.version_of(peer(8).name()), None, "there is room for the rest now");
    }
}
