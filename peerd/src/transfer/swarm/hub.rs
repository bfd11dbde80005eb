//! All swarms of this peer, by document.

use super::{
    claims::check_member,
    company::CompanyTracker,
    dial::refusal,
    early::EarlyAnnounce,
    exchange::{ExchangeError, SEND_QUEUE, Streams, exchange, read_start},
    expected::Expectations,
    me::Me,
    partial::Partial,
    state::{SharedSwarm, Swarm},
    update::Start,
};
use crate::{
    documents::confidential::Confidential,
    holders::{
        self,
        announcer::{ANNOUNCED_SIZE_MIN, Announcer, Announcing},
        candidate::Candidate,
        search::SearchHolders,
        tracker::{NoTracker, Tracker},
    },
    transfer::{
        fetch::fetch_metrics::FetchMetrics,
        piece_set::PieceSet,
        rate_meter::RateMeter,
        serve::source::Source,
        store::{batch::Finisher, error::WriteError, piece_store::PieceStore},
    },
};
use p2pdi::{
    content::{ContentHash, Pieces},
    document::DocumentName,
    id::PeerId,
    metrics::Metrics,
    name::PeerName,
    server::Caller,
    v1::{AvailabilityRequest, AvailabilityResponse, AvailabilityUpdate, SwarmRequest, SwarmResponse},
};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// How long a peer announces a document that it fetched, so that others find it: a swarm that begins at once is over by then.
const SEEDING_TIME: Duration = Duration::from_secs(600);
/// How long what was fetched is still served from its store: until the share offers it, which takes a moment.
const HANDOVER_TIME: Duration = Duration::from_secs(5);
/// Most swarms that a peer stays in after their fetches; each costs a bitmap and a call every minute, and without a share a descriptor.
pub const KEPT_MAX: usize = 256;

/// The swarms of one peer. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Swarms {
    me: Me,
    tracker: Arc<dyn Tracker>,
    metrics: FetchMetrics,
    /// Smaller documents are synced in groups.
    finisher: Finisher,
    /// Whether what was fetched is served from its store for as long as the program runs: it has no share.
    keeps_stores: bool,
    shared: Arc<Mutex<Shared>>,
    /// What was sent of all documents.
    sent: Arc<Mutex<RateMeter>>,
    /// Whether there was a swarm yet.
    begun: Arc<watch::Sender<bool>>,
    /// Documents that are announced before their swarms exist.
    expected: Expectations,
    /// Contents that are not announced, and not this peer's to pass on.
    confidential: Arc<Confidential>,
}

#[derive(Default)]
struct Shared {
    by_hash: BTreeMap<ContentHash, Entry>,
    /// Swarms of documents that were fetched, the latest last: this peer stays in them for a while.
    kept: VecDeque<Kept>,
}

/// A swarm that this peer stays in after its fetch.
struct Kept {
    since: Instant,
    swarm: SharedSwarm,
    _store: Option<Arc<PieceStore>>,
    /// The share offers the document, or did.
    offered: bool,
}

impl fmt::Debug for Swarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarms").field("count", &self.lock().by_hash.len()).finish_non_exhaustive()
    }
}

/// A swarm lives as long as a fetch or a stream uses it.
struct Entry {
    swarm: Weak<Swarm>,
    /// The file that the pieces are in; `None`: a document of the share.
    store: Option<Weak<PieceStore>>,
}

impl Swarms {
    /// No swarm yet. This peer announces itself to `tracker`.
    pub(crate) fn new(me: Me, tracker: Arc<dyn Tracker>, metrics: &Metrics) -> Self {
        Self {
            me,
            tracker,
            metrics: FetchMetrics::new(metrics),
            finisher: Finisher::default(),
            keeps_stores: false,
            shared: Arc::default(),
            sent: Arc::default(),
            begun: Arc::new(watch::Sender::new(false)),
            expected: Expectations::default(),
            confidential: Arc::default(),
        }
    }

    /// The same, with the contents that are not to be passed on.
    #[must_use]
    pub(crate) fn with_confidential(self, confidential: Arc<Confidential>) -> Self {
        Self { confidential, ..self }
    }

    /// What a holder has for some only is announced no more, and passed on by nobody without a rule of this peer's own. Blocking: it is on disk
    /// when this returns.
    ///
    /// # Errors
    /// When the disk refuses: then the content must not get a name in any folder.
    pub(crate) fn keep_confidential(&self, hash: ContentHash) -> Result<(), WriteError> {
        let failed = |source| WriteError::Io { doing: "write", path: self.confidential.path(), source };
        self.confidential.keep(hash).map_err(failed)
    }

    /// Whether a holder has the content for some only.
    pub(crate) fn is_confidential(&self, hash: &ContentHash) -> bool {
        self.confidential.has(hash)
    }

    /// The same for a program without a share: it serves what it fetched as long as it runs.
    pub(crate) fn without_share(me: Me, tracker: Arc<dyn Tracker>, metrics: &Metrics) -> Self {
        Self { keeps_stores: true, ..Self::new(me, tracker, metrics) }
    }

    /// The swarms of a program that fetches and serves nothing. Members see it as `name`, with a random id.
    pub fn of_a_client(name: PeerName, tracker: Arc<dyn Tracker>) -> Self {
        let id = PeerId::of_client(rand::random());
        Self::new(Me { id, name, serves_at: None, zone: String::new() }, tracker, &Metrics::default())
    }

    /// The same in this zone; empty: none.
    #[must_use]
    pub fn in_zone(mut self, zone: String) -> Self {
        self.me.zone = zone;
        self
    }

    /// The zone that this peer is in; empty: none.
    pub(crate) fn zone(&self) -> &str {
        &self.me.zone
    }

    /// Announces a document whose fetch begins. `size`: 0 if it is not known; `holders`: whole ones that were found already.
    pub(crate) fn announce_early(&self, hash: ContentHash, size: u64, holders: Vec<holders::source::Source>) -> EarlyAnnounce {
        let tracker = if self.is_confidential(&hash) { Arc::new(NoTracker) } else { Arc::clone(&self.tracker) };
        EarlyAnnounce::new(hash, size, holders, tracker, Some(self.expected.expect(hash)))
    }

    /// The swarm of a document that is fetched into `store`, and the peers that the tracker names and that `search` finds. Verified pieces
    /// are served while the store exists. `early`: the announce of this document that was made already.
    pub(crate) fn fetching<S: SearchHolders>(
        &self,
        name: DocumentName,
        store: &Arc<PieceStore>,
        search: S,
        early: Option<EarlyAnnounce>,
    ) -> (SharedSwarm, mpsc::Receiver<Vec<Candidate>>) {
        let (hash, pieces) = (*store.hash(), store.pieces());
        let swarm = Arc::new(Swarm::new(hash, pieces, name, store.verified(), self.me.clone()));
        let reported = early.as_ref().map(|early| early.reported().to_vec()).unwrap_or_default();
        // Small documents are fetched before they are announced.
        let tracker = match early {
            // Dropped, an announce that was made before its holder said so ends.
            _ if pieces.size() < ANNOUNCED_SIZE_MIN || self.is_confidential(&hash) => Arc::new(NoTracker),
            Some(early) if early.size() == pieces.size() => early.into_tracker(),
            _ => Arc::clone(&self.tracker),
        };
        let tracker: Arc<dyn Tracker> = Arc::new(CompanyTracker { inner: tracker, swarm: Arc::downgrade(&swarm) });
        let announced = Announcing { hash, size: pieces.size(), had: swarm.had_bytes(), reported };
        let (announcer, handle, candidates) = Announcer::new(announced, tracker, Arc::new(search));
        swarm.announce(handle);
        self.begun.send_replace(true);
        tokio::spawn(announcer.run());
        let mut shared = self.lock();
        shared.by_hash.retain(|_, entry| entry.swarm.strong_count() > 0);
        shared.by_hash.insert(hash, Entry { swarm: Arc::downgrade(&swarm), store: Some(Arc::downgrade(store)) });
        drop(shared);
        self.expected.came();
        self.forget_kept(Instant::now());
        (swarm, candidates)
    }

    /// The id of this peer.
    pub(crate) fn own_id(&self) -> PeerId {
        self.me.id
    }

    /// Finishes smaller documents.
    pub(crate) fn finisher(&self) -> &Finisher {
        &self.finisher
    }

    /// Bytes of a document went to another peer.
    pub(super) fn count_sent(&self, bytes: u64, now: Instant) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).add(bytes, now);
    }

    /// Bytes of documents that were sent to others so far, and bytes a second over the last seconds.
    pub fn sent(&self) -> (u64, u64) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        (sent.total(), sent.rate(Instant::now()))
    }

    /// Counts of all fetches.
    pub(crate) fn metrics(&self) -> &FetchMetrics {
        &self.metrics
    }

    /// Waits for the first document that is fetched.
    pub(crate) async fn begun(&self) {
        // No error: this handle keeps the sender.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// A document was fetched: this peer stays in its swarm for a while.
    pub(crate) fn fetched(&self, swarm: SharedSwarm, store: Arc<PieceStore>) {
        let kept = if self.keeps_stores {
            Some(store)
        } else {
            // Members ask on until the share offers the document.
            tokio::spawn(async move {
                tokio::time::sleep(HANDOVER_TIME).await;
                drop(store);
            });
            None
        };
        self.lock().kept.push_back(Kept { since: Instant::now(), swarm, _store: kept, offered: false });
        self.forget_kept(Instant::now());
    }

    /// Ends the swarms of documents that the share offered and does not offer any more: whoever asked would be refused.
    pub(crate) fn share_changed(&self, offers: impl Fn(&ContentHash) -> bool) {
        let mut shared = self.lock();
        let mut ended = Vec::new();
        shared.kept.retain_mut(|kept| {
            let is_offered = offers(kept.swarm.hash());
            let stays = is_offered || !kept.offered;
            kept.offered |= is_offered;
            if !stays {
                ended.push(Arc::clone(&kept.swarm));
            }
            stays
        });
        let of_share = shared.by_hash.iter().filter(|(hash, entry)| entry.store.is_none() && !offers(hash));
        ended.extend(of_share.filter_map(|(_, entry)| entry.swarm.upgrade()));
        shared.by_hash.retain(|_, entry| !ended.iter().any(|swarm| std::ptr::eq(entry.swarm.as_ptr(), Arc::as_ptr(swarm))));
        drop(shared);
        for swarm in ended {
            tracing::debug!(document = %swarm.name(), "a swarm ends: the share does not offer its document any more");
            swarm.end();
        }
    }

    fn forget_kept(&self, now: Instant) {
        let mut shared = self.lock();
        let is_over = |kept: &Kept| !self.keeps_stores && now.saturating_duration_since(kept.since) > SEEDING_TIME;
        while shared.kept.front().is_some_and(is_over) || shared.kept.len() > KEPT_MAX {
            shared.kept.pop_front();
        }
    }

    /// The swarm of a whole document of the share.
    pub(crate) fn seeding(&self, hash: ContentHash, pieces: Pieces, name: &DocumentName) -> SharedSwarm {
        let mut shared = self.lock();
        let by_hash = &mut shared.by_hash;
        if let Some(swarm) = by_hash.get(&hash).and_then(|entry| entry.swarm.upgrade()).filter(|swarm| swarm.is_whole()) {
            return swarm;
        }
        by_hash.retain(|_, entry| entry.swarm.strong_count() > 0);
        let own = PieceSet::full(pieces.count());
        let swarm = Arc::new(Swarm::new(hash, pieces, name.clone(), own, self.me.clone()));
        by_hash.insert(hash, Entry { swarm: Arc::downgrade(&swarm), store: None });
        swarm
    }

    /// The swarm of a document, if this peer is in it.
    pub(crate) fn find(&self, hash: &ContentHash) -> Option<SharedSwarm> {
        self.lock().by_hash.get(hash)?.swarm.upgrade()
    }

    /// The store that a document is fetched into, or was while its fetch shares it.
    fn store(&self, hash: &ContentHash) -> Option<Arc<PieceStore>> {
        self.lock().by_hash.get(hash)?.store.as_ref()?.upgrade()
    }

    /// The document that is being fetched with this hash, to be served.
    pub(crate) fn source(&self, hash: &ContentHash) -> Option<Source> {
        self.store(hash).map(|store| Source::Partial(Arc::new(Partial::new(store, self.is_confidential(hash)))))
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

    /// This peer's view of at most `limit` swarms, those it fetches first, then those where something moves; and the number of all.
    #[cfg(feature = "http")]
    pub(crate) fn busiest(&self, limit: usize, now: Instant) -> (Vec<p2pdi::v1::Swarm>, usize) {
        let mut swarms = self.all();
        let in_all = swarms.len();
        swarms.sort_by_cached_key(|swarm| {
            let sum = swarm.traffic.sum(now);
            let moving = sum.receive_rate + sum.send_rate > 0;
            // The rate itself changes all the time, and what is read should not move.
            (swarm.is_whole(), !moving, swarm.name().to_string(), *swarm.hash())
        });
        (swarms.iter().take(limit).map(|swarm| swarm.view(now)).collect(), in_all)
    }

    /// All swarms of this peer.
    pub(crate) fn all(&self) -> Vec<SharedSwarm> {
        self.lock().by_hash.values().filter_map(|entry| entry.swarm.upgrade()).collect()
    }

    /// Accepts an Availability stream. `may_know` refuses a caller that must not know of the document, also of one whose swarm this peer is in;
    /// `whole` finds the document in the share.
    ///
    /// # Errors
    /// When the first message does not come or is invalid, or this peer has nothing of the document.
    pub(crate) async fn accept(
        &self,
        requests: Streaming<AvailabilityRequest>,
        caller: Option<&Caller>,
        may_know: impl Fn(&ContentHash) -> Result<(), Status>,
        whole: impl FnOnce(&Start) -> Result<(Pieces, DocumentName), Status>,
    ) -> Result<Accepted, Status> {
        let ended = |error: ExchangeError| refusal(error).unwrap_or_else(|| Status::cancelled("the stream ended"));
        let mut incoming: Updates = Box::pin(requests.map(|message| message.map(|message| message.update.unwrap_or_default())));
        let mut start = read_start(&mut incoming).await.map_err(ended)?;
        if let Some(identity) = caller.and_then(Caller::identity) {
            check_member(&mut start.member, identity)?;
        }
        may_know(&start.hash)?;
        let swarm = match self.expected.find(&start.hash, || self.find(&start.hash)).await {
            Some(swarm) => {
                // Meanwhile its holder may have said that it is for some only.
                may_know(&start.hash)?;
                swarm
            }
            None => {
                let (pieces, name) = whole(&start)?;
                self.seeding(start.hash, pieces, &name)
            }
        };
        Ok(Accepted { swarm, start, incoming })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
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
                        // What it sent last, such as its first message to a member that left at once.
                        while let Ok(response) = responses.try_recv() {
                            yield Ok(response);
                        }
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

#[cfg(test)]
mod tests;
