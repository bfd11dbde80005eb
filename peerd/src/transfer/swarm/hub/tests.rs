use super::*;
use crate::{
    holders::{
        announcer::ANNOUNCED_SIZE_MIN,
        source,
        tracker::{Announced, Announcement},
    },
    session::AnnounceError,
};
use p2pdi::content::PieceHashes;

/// Passes on what is announced.
struct Recorder(mpsc::UnboundedSender<Announcement>);

#[tonic::async_trait]
impl Tracker for Recorder {
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
        self.0.send(announcement).unwrap();
        Ok(Announced { interval: Duration::from_secs(60), ..Default::default() })
    }
}

struct Nobody;

impl SearchHolders for Nobody {
    async fn search(&self, _: ContentHash, _: crate::holders::search::Freshness) -> Vec<source::Source> {
        Vec::new()
    }
}

/// Swarms, and what they announce.
fn recorded() -> (Swarms, mpsc::UnboundedReceiver<Announcement>) {
    let (sender, announced) = mpsc::unbounded_channel();
    let me = Me { id: PeerId::from_bytes([1; 16]), name: "p".parse().unwrap(), serves_at: None, zone: String::new() };
    (Swarms::new(me, Arc::new(Recorder(sender)), &Metrics::default()), announced)
}

/// A store of a document of zeros, which is large enough to be announced.
fn store_in(folder: &std::path::Path) -> (DocumentName, Pieces, Arc<PieceStore>) {
    let pieces = Pieces::of_size(ANNOUNCED_SIZE_MIN).unwrap();
    let of_zeros = |piece| {
        let mut hasher = pieces.hasher(piece);
        hasher.update(&vec![0; usize::try_from(pieces.piece_size()).unwrap()]);
        hasher.finalize()
    };
    let hashes = PieceHashes::new(pieces, (0..pieces.count()).map(of_zeros).collect()).unwrap();
    let name = DocumentName::parse("a.bin").unwrap();
    let store = PieceStore::open(folder, &name, hashes, false).unwrap();
    (name, pieces, store)
}

#[tokio::test]
async fn what_a_holder_has_for_some_only_is_not_announced_and_an_earlier_announce_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (name, pieces, store) = store_in(folder.path());
    let hash = *store.hash();
    // Its hash was all that was known.
    let (swarms, mut announced) = recorded();
    let early = swarms.announce_early(hash, pieces.size(), Vec::new());
    assert!(!announced.recv().await.unwrap().done);
    swarms.keep_confidential(hash).unwrap();
    let (swarm, _) = swarms.fetching(name.clone(), &store, Nobody, Some(early));
    assert!(announced.recv().await.unwrap().done);
    swarms.fetched(swarm, Arc::clone(&store));
    // It was known before.
    let (swarms, mut announced) = recorded();
    swarms.keep_confidential(hash).unwrap();
    let early = swarms.announce_early(hash, pieces.size(), Vec::new());
    assert!(early.answer().await.is_err());
    let (swarm, _) = swarms.fetching(name.clone(), &store, Nobody, Some(early));
    drop((swarm, swarms));
    assert!(announced.recv().await.is_none(), "nothing is announced");
}

#[tokio::test]
async fn a_document_that_leaves_the_share_is_not_announced_any_more() {
    let (swarms, mut announced) = recorded();
    let folder = tempfile::tempdir().unwrap();
    let (name, pieces, store) = store_in(folder.path());
    let (swarm, _) = swarms.fetching(name.clone(), &store, Nobody, None);
    assert!(!announced.recv().await.unwrap().done);
    let hash = *swarm.hash();
    swarms.fetched(swarm, store);
    swarms.share_changed(|_| false);
    assert!(swarms.find(&hash).is_some(), "the share does not offer it yet");
    swarms.share_changed(|_| true);
    swarms.share_changed(|_| false);
    assert!(swarms.find(&hash).is_none());
    while !announced.recv().await.unwrap().done {}
    // One that others asked for, of the share.
    let _seeding = swarms.seeding(hash, pieces, &name);
    swarms.share_changed(|_| true);
    assert!(swarms.find(&hash).is_some());
    swarms.share_changed(|_| false);
    assert!(swarms.find(&hash).is_none());
}
