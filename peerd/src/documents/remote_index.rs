//! The documents that other peers list: merged by content hash, dropped by age, bounded in bytes.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::info::DocumentInfo;
use p2pdi::{contact::Contact, content::ContentHash, name::PeerName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// How long a peer's listing stays after the last answer of that peer: several polls.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Most bytes kept for all peers together, as [`cost`] counts them: 200,000 documents with names of ordinary length.
const BYTES_MAX: usize = 100 * 1024 * 1024;
/// Most bytes kept for one peer: three times the whole RFC series.
pub(crate) const PEER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most peers that are polled. Of more, a random sample, which is kept while its peers answer: the index need not be complete, only a fair
/// sample of the network.
pub(crate) const PEERS_MAX: usize = 64;
/// Bytes that each polled peer gets, however much the others listed before it.
const GUARANTEED_BYTES: usize = BYTES_MAX / PEERS_MAX;
/// Approximate bytes that a document takes besides its name and title: the record and its entries in three sorted sets.
pub(crate) const DOCUMENT_BYTES: usize = 400;

/// Bytes that a document takes. Its name is kept twice: as listed, and in lower case as a search key.
pub(crate) fn cost(document: &DocumentInfo) -> usize {
    DOCUMENT_BYTES + 2 * document.name.as_str().len() + document.title.len()
}

/// One peer's listing of its own documents.
#[derive(Debug, Clone)]
pub struct RemoteListing {
    /// Version of that peer's index.
    pub version: u64,
    /// Its own documents.
    pub documents: Vec<DocumentInfo>,
}

/// Which document: the peer's slot, and the document's index in that peer's listing.
type Position = (u32, u32);

/// The documents of all polled peers, found by hash, number or name.
#[derive(Debug, Default)]
pub(crate) struct RemoteIndex {
    hashes: BTreeSet<(ContentHash, Position)>,
    numbers: BTreeSet<(u32, Position)>,
    names: BTreeSet<(Box<str>, Position)>,
    /// Keyed by name, which is unique in a registry; a peer can claim any id.
    slots: BTreeMap<PeerName, u32>,
    peers: BTreeMap<u32, RemotePeer>,
    next_slot: u32,
    bytes: usize,
    version: u64,
}

#[derive(Debug)]
struct RemotePeer {
    /// Shared with the query answers that list it as a holder.
    peer: Arc<Contact>,
    version: u64,
    last_heard: Instant,
    documents: Vec<Arc<DocumentInfo>>,
    bytes: usize,
    /// Some documents were dropped because the index was full.
    truncated: bool,
}

/// One peer's claim to hold one document.
pub(crate) struct Claim<'a> {
    pub(crate) document: &'a Arc<DocumentInfo>,
    pub(crate) peer: &'a Arc<Contact>,
    pub(crate) age: Duration,
}

impl RemoteIndex {
    /// An empty index. Its version is greater than that of any earlier run if the clock did not go back.
    pub(crate) fn new(wall: SystemTime) -> Self {
        let mut new = Self::default();
        new.bump(wall);
        new
    }

    /// Grows with every change, and across restarts if the clock does not go back.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn len(&self) -> usize {
        let mut last = None;
        self.hashes.iter().filter(|(hash, _)| last.replace(*hash) != Some(*hash)).count()
    }

    fn by_peer(&self, name: &PeerName) -> Option<&RemotePeer> {
        self.peers.get(self.slots.get(name)?)
    }

    /// The version of the listing kept for a peer; `None` if a new listing would add documents.
    pub(crate) fn version_of(&self, name: &PeerName) -> Option<u64> {
        let has_space = BYTES_MAX - self.bytes >= GUARANTEED_BYTES;
        self.by_peer(name).filter(|remote| !(remote.truncated && has_space)).map(|remote| remote.version)
    }

    /// The peer answered that its index did not change.
    pub(crate) fn confirm(&mut self, peer: Contact, now: Instant, wall: SystemTime) {
        let Some(remote) = self.slots.get(peer.name()).and_then(|slot| self.peers.get_mut(slot)) else { return };
        remote.last_heard = now;
        if *remote.peer != peer {
            remote.peer = Arc::new(peer);
            self.bump(wall);
        }
    }

    /// Replaces a peer's listing.
    pub(crate) fn replace(&mut self, peer: Contact, listing: RemoteListing, now: Instant, wall: SystemTime) {
        self.remove(peer.name(), wall);
        self.free_bytes(listing.documents.iter().map(cost).sum::<usize>().min(GUARANTEED_BYTES));
        let slot = self.next_slot;
        self.next_slot += 1;
        let peer = Arc::new(peer);
        let mut remote =
            RemotePeer { peer, version: listing.version, last_heard: now, documents: Vec::new(), bytes: 0, truncated: false };
        for document in listing.documents {
            let bytes = cost(&document);
            if remote.bytes + bytes > PEER_BYTES_MAX {
                break;
            }
            if self.bytes + bytes > BYTES_MAX {
                remote.truncated = true;
                break;
            }
            let Ok(at) = u32::try_from(remote.documents.len()) else { break };
            let position = (slot, at);
            if let Some(number) = document.number {
                self.numbers.insert((number, position));
            }
            self.names.insert((document.name.as_str().to_lowercase().into(), position));
            self.hashes.insert((document.hash, position));
            remote.documents.push(Arc::new(document));
            remote.bytes += bytes;
            self.bytes += bytes;
        }
        self.slots.insert(remote.peer.name().clone(), slot);
        self.peers.insert(slot, remote);
        self.bump(wall);
    }

    /// Drops the last documents of the peers that take most until `wanted` bytes are free. No peer gets below [`GUARANTEED_BYTES`].
    fn free_bytes(&mut self, wanted: usize) {
        while BYTES_MAX - self.bytes < wanted {
            let Some((&slot, _)) = self.peers.iter().max_by_key(|(_, remote)| remote.bytes) else { return };
            let Some(remote) = self.peers.get_mut(&slot).filter(|remote| remote.bytes > GUARANTEED_BYTES) else { return };
            let Some(document) = remote.documents.pop() else { return };
            remote.truncated = true;
            remote.bytes -= cost(&document);
            self.bytes -= cost(&document);
            let position = (slot, u32::try_from(remote.documents.len()).unwrap_or(u32::MAX));
            self.unlist(&document, position);
        }
    }

    fn unlist(&mut self, document: &DocumentInfo, position: Position) {
        self.hashes.remove(&(document.hash, position));
        self.names.remove(&(document.name.as_str().to_lowercase().into(), position));
        if let Some(number) = document.number {
            self.numbers.remove(&(number, position));
        }
    }

    /// Drops all documents of a peer.
    pub(crate) fn remove(&mut self, name: &PeerName, wall: SystemTime) {
        let Some(slot) = self.slots.remove(name) else { return };
        let Some(remote) = self.peers.remove(&slot) else { return };
        self.bytes -= remote.bytes;
        for (at, document) in (0..).zip(&remote.documents) {
            self.unlist(document, (slot, at));
        }
        self.bump(wall);
    }

    /// Drops peers that have not answered for [`AGE_MAX`].
    pub(crate) fn expire(&mut self, now: Instant) {
        let is_expired = |remote: &RemotePeer| now.saturating_duration_since(remote.last_heard) > AGE_MAX;
        let expired: Vec<_> =
            self.peers.values().filter(|remote| is_expired(remote)).map(|remote| remote.peer.name().clone()).collect();
        for name in expired {
            // There is no clock here; the version only has to grow.
            self.remove(&name, SystemTime::UNIX_EPOCH);
        }
    }

    fn bump(&mut self, wall: SystemTime) {
        let micros = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        self.version = u64::try_from(micros).unwrap_or(u64::MAX - 1).max(self.version + 1);
    }

    /// All claims, those of the same content next to each other.
    pub(crate) fn all(&self, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        self.hashes.iter().filter_map(move |(_, position)| self.claim(*position, now))
    }

    pub(crate) fn by_hash(&self, hash: ContentHash, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        let range = (hash, (0, 0))..=(hash, (u32::MAX, u32::MAX));
        self.hashes.range(range).filter_map(move |(_, position)| self.claim(*position, now))
    }

    pub(crate) fn by_number(&self, number: u32, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        let range = (number, (0, 0))..=(number, (u32::MAX, u32::MAX));
        self.numbers.range(range).filter_map(move |(_, position)| self.claim(*position, now))
    }

    pub(crate) fn by_name(&self, name: &str, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        let lower: Box<str> = name.to_lowercase().into();
        let range = (lower.clone(), (0, 0))..=(lower, (u32::MAX, u32::MAX));
        self.names.range(range).filter_map(move |(_, position)| self.claim(*position, now))
    }

    fn claim(&self, (slot, at): Position, now: Instant) -> Option<Claim<'_>> {
        let remote = self.peers.get(&slot)?;
        let document = remote.documents.get(at as usize)?;
        Some(Claim { document, peer: &remote.peer, age: now.saturating_duration_since(remote.last_heard) })
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
        let mut index = RemoteIndex::default();
        index.replace(peer(1), listing(1, &[48, 1]), now, wall);
        index.replace(peer(2), listing(1, &[48]), now, wall);
        assert_eq!(index.len(), 2);
        let holders: Vec<_> = index.by_number(48, now).map(|claim| claim.peer.name().to_string()).collect();
        assert_eq!(holders, ["p1", "p2"]);
        assert_eq!(index.by_name("RFC48.TXT", now).count(), 2);
        assert_eq!(index.by_hash(document(1).hash, now).count(), 1);
    }

    #[test]
    fn a_listing_that_is_not_confirmed_expires() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut index = RemoteIndex::default();
        index.replace(peer(1), listing(1, &[48]), now, wall);
        index.replace(peer(2), listing(1, &[48]), now, wall);
        let version = index.version();
        let later = now + AGE_MAX;
        index.confirm(peer(2), later, wall);
        index.expire(later + Duration::from_secs(1));
        let holders: Vec<_> = index.by_number(48, later).map(|claim| claim.peer.id()).collect();
        assert_eq!(holders, [peer(2).id()]);
        assert!(index.version() > version);
        assert_eq!(index.version_of(peer(1).name()), None);
    }

    #[test]
    fn a_new_listing_replaces_the_old_one() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut index = RemoteIndex::default();
        index.replace(peer(1), listing(1, &[48, 49]), now, wall);
        let version = index.version();
        index.replace(peer(1), listing(2, &[50]), now, wall);
        assert_eq!((index.len(), index.version_of(peer(1).name())), (1, Some(2)));
        assert_eq!(index.by_number(48, now).count(), 0);
        assert!(index.version() > version);
    }

    #[test]
    fn files_of_equal_content_are_found_under_each_of_their_names() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut index = RemoteIndex::default();
        let copy = DocumentInfo { name: DocumentName::parse("copy.txt").unwrap(), number: None, ..document(48) };
        index.replace(peer(1), RemoteListing { version: 1, documents: vec![document(48), copy] }, now, wall);
        let named = |name| index.by_name(name, now).map(|claim| claim.document.name.to_string()).collect::<Vec<_>>();
        assert_eq!(named("copy.txt"), ["copy.txt"]);
        assert_eq!(named("rfc48.txt"), ["rfc48.txt"]);
        assert_eq!(index.by_number(48, now).count(), 1);
        assert_eq!(index.len(), 1);
        index.remove(peer(1).name(), wall);
        assert_eq!((index.bytes, index.names.len(), index.hashes.len(), index.numbers.len()), (0, 0, 0, 0));
    }

    #[test]
    fn long_names_count_as_bytes_and_every_peer_gets_its_guaranteed_share() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut index = RemoteIndex::default();
        let long = |n: u32| DocumentInfo {
            name: DocumentName::parse(&format!("{n:08}/{}", ["x".repeat(200).as_str(); 4].join("/"))).unwrap(),
            ..document(1)
        };
        let documents: Vec<_> = (0..9_000).map(long).collect();
        for n in 1..=8 {
            index.replace(peer(n), RemoteListing { version: 7, documents: documents.clone() }, now, wall);
            assert!(index.bytes <= BYTES_MAX && index.names.len() * 1_600 <= BYTES_MAX);
            assert!(index.peers.values().all(|remote| remote.bytes <= PEER_BYTES_MAX));
        }
        // The last peer came when the index was full.
        assert!(index.by_peer(peer(8).name()).unwrap().bytes + 4_096 > GUARANTEED_BYTES);
        assert_eq!(index.version_of(peer(8).name()), Some(7));
        index.remove(peer(1).name(), wall);
        assert_eq!(index.version_of(peer(8).name()), None, "the rest fits now");
    }
}
