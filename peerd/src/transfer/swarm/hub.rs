//! All swarms of this peer, by document.

use super::partial::Partial;
use super::{
    dial::refusal,
    exchange::{ExchangeError, SEND_QUEUE, Streams, exchange, read_start},
    state::{Me, SharedSwarm, Swarm},
    update::Start,
};
use crate::transfer::{piece_set::PieceSet, serve::source::Source, store::piece_store::PieceStore};
use p2pdi::{
    content::{ContentHash, Pieces},
    document::DocumentName,
    id::PeerId,
    name::PeerName,
    v1::{AvailabilityRequest, AvailabilityResponse, AvailabilityUpdate, SwarmRequest, SwarmResponse},
};
use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// The swarms of one peer. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Swarms {
    me: Me,
    by_hash: Arc<Mutex<BTreeMap<ContentHash, Entry>>>,
}

impl fmt::Debug for Swarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarms").field("count", &self.lock().len()).finish_non_exhaustive()
    }
}

/// A swarm lives as long as a fetch or a stream uses it.
struct Entry {
    swarm: Weak<Swarm>,
    /// The file that the pieces are in; `None`: a document of the share.
    store: Weak<PieceStore>,
}

impl Swarms {
    /// No swarm yet.
    pub(crate) fn new(me: Me) -> Self {
        Self { me, by_hash: Arc::default() }
    }

    /// The swarms of a program that fetches and serves nothing. Members see it as `name`, with a random id.
    pub fn of_a_client(name: PeerName) -> Self {
        let id = PeerId::from_bytes(rand::random());
        Self::new(Me { id, name, serves_at: None, zone: String::new() })
    }

    /// The swarm of a document that is fetched into `store`. Its verified pieces are served while that exists.
    pub(crate) fn fetching(&self, name: DocumentName, store: &Arc<PieceStore>) -> SharedSwarm {
        let (hash, pieces) = (store.hashes().merge(), store.hashes().pieces());
        let swarm = Arc::new(Swarm::new(hash, pieces, name, store.verified(), self.me.clone()));
        let mut by_hash = self.lock();
        by_hash.retain(|_, entry| entry.swarm.strong_count() > 0);
        by_hash.insert(hash, Entry { swarm: Arc::downgrade(&swarm), store: Arc::downgrade(store) });
        swarm
    }

    /// The swarm of a whole document of the share.
    pub(crate) fn seeding(&self, hash: ContentHash, pieces: Pieces, name: &DocumentName) -> SharedSwarm {
        let mut by_hash = self.lock();
        if let Some(swarm) = by_hash.get(&hash).and_then(|entry| entry.swarm.upgrade()).filter(|swarm| swarm.is_whole()) {
            return swarm;
        }
        by_hash.retain(|_, entry| entry.swarm.strong_count() > 0);
        let own = PieceSet::full(pieces.count());
        let swarm = Arc::new(Swarm::new(hash, pieces, name.clone(), own, self.me.clone()));
        by_hash.insert(hash, Entry { swarm: Arc::downgrade(&swarm), store: Weak::new() });
        swarm
    }

    /// The swarm of a document, if this peer is in it.
    pub(crate) fn find(&self, hash: &ContentHash) -> Option<SharedSwarm> {
        self.lock().get(hash)?.swarm.upgrade()
    }

    /// The store that a document is fetched into, or was while its fetch shares it.
    fn store(&self, hash: &ContentHash) -> Option<Arc<PieceStore>> {
        self.lock().get(hash)?.store.upgrade()
    }

    /// The document that is being fetched with this hash, to be served.
    pub(crate) fn source(&self, hash: &ContentHash) -> Option<Source> {
        self.store(hash).map(|store| Source::Partial(Arc::new(Partial::new(store))))
    }

    /// Answers `Peer.Swarm`.
    ///
    /// # Errors
    /// When the hash is invalid.
    pub(crate) fn view(&self, request: &SwarmRequest) -> Result<SwarmResponse, Status> {
        let swarms = match request.blake3.as_ref() {
            [] => self.all(),
            hash => self.find(&ContentHash::from_field(hash)?).into_iter().collect(),
        };
        let now = Instant::now();
        Ok(SwarmResponse { swarms: swarms.iter().map(|swarm| swarm.view(now)).collect() })
    }

    /// All swarms of this peer.
    pub(crate) fn all(&self) -> Vec<SharedSwarm> {
        self.lock().values().filter_map(|entry| entry.swarm.upgrade()).collect()
    }

    /// Accepts an Availability stream. `whole` finds the document in the share.
    ///
    /// # Errors
    /// When the first message does not come or is invalid, or this peer has nothing of the document.
    pub(crate) async fn accept(
        &self,
        requests: Streaming<AvailabilityRequest>,
        whole: impl FnOnce(&Start) -> Result<(Pieces, DocumentName), Status>,
    ) -> Result<Accepted, Status> {
        let ended = |error: ExchangeError| refusal(error).unwrap_or_else(|| Status::cancelled("the stream ended"));
        let mut incoming: Updates = Box::pin(requests.map(|message| message.map(|message| message.update.unwrap_or_default())));
        let start = read_start(&mut incoming).await.map_err(ended)?;
        let swarm = match self.find(&start.hash) {
            Some(swarm) => swarm,
            None => {
                let (pieces, name) = whole(&start)?;
                self.seeding(start.hash, pieces, &name)
            }
        };
        Ok(Accepted { swarm, start, incoming })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContentHash, Entry>> {
        self.by_hash.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<AvailabilityUpdate, Status>> + Send>>;

/// An Availability stream that a member dialled, after its first message.
pub(crate) struct Accepted {
    swarm: SharedSwarm,
    start: Start,
    incoming: Updates,
}

impl Accepted {
    /// This side's messages, until `stop`.
    pub(crate) fn answer(self, stop: CancellationToken) -> impl Stream<Item = Result<AvailabilityResponse, Status>> + Send {
        let Self { swarm, start, incoming } = self;
        let (outgoing, mut responses) = mpsc::channel(SEND_QUEUE);
        async_stream::stream! {
            let wrap = |update| AvailabilityResponse { update: Some(update) };
            let running = exchange(&swarm, false, start, None, Streams { incoming, outgoing }, wrap);
            tokio::pin!(running);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    Some(response) = responses.recv() => yield Ok(response),
                    result = &mut running => {
                        if let Some(status) = result.err().and_then(refusal) {
                            yield Err(status);
                        }
                        return;
                    }
                }
            }
        }
    }
}
