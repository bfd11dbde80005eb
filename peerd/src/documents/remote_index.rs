//! The documents that other peers list: merged by content hash, dropped by age, bounded in bytes.
//!
//! A copy costs as much as a list of the polled peers, so an update changes a copy while queries read the index before it.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    name_match::name_key,
    remote_listing::{RemoteDocument, SortedListing},
};
use p2pdi::{contact::Contact, content::ContentHash, name::PeerName};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

/// How long a peer's listing stays after the last answer of that peer: several polls.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Most bytes kept for all peers together: 200,000 documents with names of ordinary length.
const BYTES_MAX: usize = 100 * 1024 * 1024;
/// Most peers that are polled. Of more, a random sample, which is kept while its peers answer: the index need not be complete, only a fair
/// sample of the network.
pub(crate) const PEERS_MAX: usize = 64;
/// Most documents of one number, name or content that one peer's listing has in an answer: formats of an RFC, and copies.
const CLAIMS_OF_PEER_MAX: usize = 256;
/// Bytes that each polled peer gets, however much the others listed before it.
const GUARANTEED_BYTES: usize = BYTES_MAX / PEERS_MAX;

/// The documents of all polled peers, found by hash, number or name.
#[derive(Debug, Default, Clone)]
pub(crate) struct RemoteIndex {
    /// Keyed by name, which is unique in a registry; a peer can claim any id.
    peers: BTreeMap<PeerName, RemotePeer>,
    bytes: usize,
    version: u64,
    /// How many different contents there are, once somebody asked.
    distinct: OnceLock<usize>,
}

#[derive(Debug, Clone)]
struct RemotePeer {
    /// Shared with the query answers that list it as a holder.
    peer: Arc<Contact>,
    last_heard: Instant,
    listing: Arc<SortedListing>,
}

impl RemotePeer {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }
}

/// One peer's claim to hold one document.
pub(crate) struct Claim<'a> {
    pub(crate) document: &'a Arc<RemoteDocument>,
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

    /// How many documents there are; equal contents count once.
    pub(crate) fn len(&self) -> usize {
        *self.distinct.get_or_init(|| {
            let mut last = None;
            self.by_hash_order().filter(|(hash, ..)| last.replace(*hash) != Some(*hash)).count()
        })
    }

    /// Documents that peers list and that are not kept, since the index is full or their peer lists too many.
    pub(crate) fn left_out(&self) -> usize {
        self.peers.values().map(|remote| remote.listing.left_out()).sum()
    }

    /// Whether a listing of a peer is kept.
    pub(crate) fn has(&self, name: &PeerName) -> bool {
        self.peers.contains_key(name)
    }

    /// Those of one peer.
    pub(crate) fn left_out_of(&self, name: &PeerName) -> usize {
        self.peers.get(name).map_or(0, |remote| remote.listing.left_out())
    }

    /// The version of the listing kept for a peer; `None` if a new listing would add documents.
    pub(crate) fn version_of(&self, name: &PeerName) -> Option<u64> {
        let has_space = BYTES_MAX.saturating_sub(self.bytes) >= GUARANTEED_BYTES;
        let listing = &self.peers.get(name)?.listing;
        (!(listing.is_truncated() && has_space)).then(|| listing.version())
    }

    /// The peer answered that its index did not change.
    pub(crate) fn confirm(&mut self, peer: Contact, now: Instant, wall: SystemTime) {
        let Some(remote) = self.peers.get_mut(peer.name()) else { return };
        remote.last_heard = now;
        if *remote.peer != peer {
            remote.peer = Arc::new(peer);
            self.bump(wall);
        }
    }

    /// Replaces a peer's listing.
    pub(crate) fn replace(&mut self, peer: Contact, listing: SortedListing, now: Instant, wall: SystemTime) {
        self.remove(peer.name(), wall);
        self.free_bytes(listing.bytes().min(GUARANTEED_BYTES));
        let free = BYTES_MAX.saturating_sub(self.bytes);
        let listing = if listing.bytes() > free { listing.truncated_to(free) } else { listing };
        self.bytes += listing.bytes();
        let name = peer.name().clone();
        self.peers.insert(name, RemotePeer { peer: Arc::new(peer), last_heard: now, listing: Arc::new(listing) });
        self.changed(wall);
    }

    /// Drops the last documents of the peers that take most until `wanted` bytes are free. No peer gets below [`GUARANTEED_BYTES`] by
    /// more than one document.
    fn free_bytes(&mut self, wanted: usize) {
        while BYTES_MAX.saturating_sub(self.bytes) < wanted {
            let missing = wanted - BYTES_MAX.saturating_sub(self.bytes);
            let Some(largest) = self.peers.values_mut().max_by_key(|remote| remote.listing.bytes()) else { return };
            let before = largest.listing.bytes();
            if before <= GUARANTEED_BYTES {
                return;
            }
            largest.listing = Arc::new(largest.listing.truncated_to(before.saturating_sub(missing).max(GUARANTEED_BYTES)));
            self.bytes -= before - largest.listing.bytes();
        }
    }

    /// Drops all documents of a peer.
    pub(crate) fn remove(&mut self, name: &PeerName, wall: SystemTime) {
        if let Some(remote) = self.peers.remove(name) {
            self.bytes -= remote.listing.bytes();
            self.changed(wall);
        }
    }

    /// Whether a peer has not answered for [`AGE_MAX`].
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.peers.values().any(|remote| remote.age(now) > AGE_MAX)
    }

    /// Drops peers that have not answered for [`AGE_MAX`].
    pub(crate) fn expire(&mut self, now: Instant) {
        let expired = self.peers.iter().filter(|(_, remote)| remote.age(now) > AGE_MAX);
        let expired: Vec<_> = expired.map(|(name, _)| name.clone()).collect();
        for name in expired {
            // There is no clock here; the version only has to grow.
            self.remove(&name, SystemTime::UNIX_EPOCH);
        }
    }

    fn changed(&mut self, wall: SystemTime) {
        self.distinct = OnceLock::new();
        self.bump(wall);
    }

    fn bump(&mut self, wall: SystemTime) {
        let micros = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        self.version = u64::try_from(micros).unwrap_or(u64::MAX - 1).max(self.version + 1);
    }

    /// Hash, peer and position in its listing of all documents, by hash: a merge of sorted listings.
    fn by_hash_order(&self) -> impl Iterator<Item = (ContentHash, &RemotePeer, u32)> {
        let peers: Vec<_> = self.peers.values().collect();
        let entry = |peers: &[&RemotePeer], peer: usize, next: usize| {
            let (hash, at) = *peers.get(peer)?.listing.hashes().get(next)?;
            Some(Reverse((hash, peer, next, at)))
        };
        let mut heap: BinaryHeap<_> = (0..peers.len()).filter_map(|peer| entry(&peers, peer, 0)).collect();
        std::iter::from_fn(move || {
            let Reverse((hash, peer, next, at)) = heap.pop()?;
            heap.extend(entry(&peers, peer, next + 1));
            Some((hash, *peers.get(peer)?, at))
        })
    }

    /// The peers whose documents are known, also without any, and how long ago each confirmed them.
    pub(crate) fn peers(&self, now: Instant) -> impl Iterator<Item = (&Arc<Contact>, Duration)> {
        self.peers.values().map(move |remote| (&remote.peer, remote.age(now)))
    }

    /// All claims, those of the same content next to each other.
    pub(crate) fn all(&self, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        self.by_hash_order().filter_map(move |(_, remote, at)| Some(claim(remote, remote.listing.document(at)?, now)))
    }

    pub(crate) fn by_hash(&self, hash: ContentHash, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        self.peers.values().flat_map(move |remote| {
            remote.listing.by_hash(hash).take(CLAIMS_OF_PEER_MAX).map(move |document| claim(remote, document, now))
        })
    }

    pub(crate) fn by_number(&self, number: u32, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        self.peers.values().flat_map(move |remote| {
            remote.listing.by_number(number).take(CLAIMS_OF_PEER_MAX).map(move |document| claim(remote, document, now))
        })
    }

    /// The documents whose names differ from `name` at most in case and in how letters with marks are written.
    pub(crate) fn by_name(&self, name: &str, now: Instant) -> impl Iterator<Item = Claim<'_>> {
        let key = name_key(name);
        self.peers.values().flat_map(move |remote| {
            let documents: Vec<_> = remote.listing.by_name_key(&key).take(CLAIMS_OF_PEER_MAX).collect();
            documents.into_iter().map(move |document| claim(remote, document, now))
        })
    }
}

fn claim<'a>(remote: &'a RemotePeer, document: &'a Arc<RemoteDocument>, now: Instant) -> Claim<'a> {
    Claim { document, peer: &remote.peer, age: remote.age(now) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{
        info::DocumentInfo,
        remote_listing::{PEER_BYTES_MAX, RemoteListing},
    };
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
            restricted: false,
        }
    }

    fn listing(version: u64, numbers: &[u32]) -> SortedListing {
        sorted(version, numbers.iter().map(|n| document(*n)).collect())
    }

    fn sorted(version: u64, documents: Vec<DocumentInfo>) -> SortedListing {
        SortedListing::new(RemoteListing { version, documents })
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
        index.replace(peer(1), sorted(1, vec![document(48), copy]), now, wall);
        let named = |name| index.by_name(name, now).map(|claim| claim.document.info.name.to_string()).collect::<Vec<_>>();
        assert_eq!(named("copy.txt"), ["copy.txt"]);
        assert_eq!(named("rfc48.txt"), ["rfc48.txt"]);
        assert_eq!(index.by_number(48, now).count(), 1);
        assert_eq!(index.len(), 1);
        index.remove(peer(1).name(), wall);
        assert_eq!((index.bytes, index.len(), index.all(now).count()), (0, 0, 0));
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
            index.replace(peer(n), sorted(7, documents.clone()), now, wall);
            assert!(index.bytes <= BYTES_MAX && index.all(now).count() * 1_600 <= BYTES_MAX);
            assert!(index.peers.values().all(|remote| remote.listing.bytes() <= PEER_BYTES_MAX));
            assert_eq!(index.left_out() + index.all(now).count(), usize::from(n) * documents.len());
            assert!(index.left_out_of(peer(n).name()) > 0);
        }
        // The last peer came when the index was full.
        assert!(index.peers[peer(8).name()].listing.bytes() + 4_096 > GUARANTEED_BYTES);
        assert_eq!(index.version_of(peer(8).name()), Some(7));
        index.remove(peer(1).name(), wall);
        assert_eq!(index.version_of(peer(8).name()), None, "the rest fits now");
    }
}
