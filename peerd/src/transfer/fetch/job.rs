//! A fetch that searches for its holders, as a job: owned, spawnable, and watched from outside.
//!
//! It settles which content a number or a name means, among all peers asked, and fetches that from its holders. A hash is announced to the
//! tracker first: if that names holders, nobody is asked who they are. While it fetches, it searches
//! again once all known holders failed. If the content is gone by then, it settles the name anew: files change while they are fetched.

use super::{
    document::fetch_announced,
    options::FetchOptions,
    outcome::{FetchError, Fetched},
    progress::{Progress, Waiting},
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::{
        announcer::ANNOUNCED_SIZE_MIN,
        search::{Freshness, HolderSearch, SearchError},
        settlement::Settled,
        source::Source,
        tracker::Announced,
    },
    transfer::swarm::early::EarlyAnnounce,
};
use p2pdi::{backoff::Policy, content::ContentHash};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

pub use crate::holders::find_peers::{FindPeers, PeerSample};

/// Events kept for a watcher that does not read them; later ones are dropped. A job has a few.
const EVENTS_MAX: usize = 64;
/// How often a job settles a name or a number anew because the content that it meant is gone. A file that changes more often than it can be
/// fetched is not worth more.
const CHANGES_MAX: u32 = 3;
/// How long a number or a name is settled again and again because its content is gone: holders hash a changed file before they offer it. Enough
/// for some GiB; who fetches a larger one that changes is told so.
const CHANGE_PATIENCE: Duration = Duration::from_secs(15);
/// Pauses between two searches for what nobody has, or for what a changed file is now.
const SEARCH_AGAIN: Policy = Policy { first: Duration::from_millis(200), longest: Duration::from_secs(2) };

/// How long a fetch by hash waits while somebody else is searching for the document, before it searches, too.
const WAITED_MAX: Duration = Duration::from_secs(6);
/// Longest wait before it asks how that search went.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Shortest such wait.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// What to fetch, and how.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The document.
    pub wanted: DocumentSelector,
    /// The holders to fetch from; empty: search for them. Further ones are searched for in both cases.
    pub from: Vec<Source>,
    /// Where the document goes.
    pub options: FetchOptions,
}

/// A decision of a job, for display.
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchEvent {
    /// Several contents have that name or number. One of them is clearly meant, and is fetched.
    Chosen {
        /// The one that is fetched, how many peers hold it, and how many contents there are. Boxed: a channel sets room for many events aside.
        chosen: Box<Settled>,
    },
    /// The content that the name or number meant is gone; it means another one now, which is fetched.
    Changed {
        /// What it meant.
        before: ContentHash,
        /// What it means now.
        now: Box<DocumentInfo>,
    },
}

/// Why a job failed. `E`: why peers could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum JobError<E: fmt::Display> {
    /// No document was found, or several.
    #[error(transparent)]
    Search(#[from] SearchError<E>),
    /// The document could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Whom the tracker names, and the size that they say.
struct Named {
    holders: Vec<Source>,
    size: u64,
}

/// A fetch with its search for holders. [`FetchJob::run`] owns all it needs, so it can be spawned; dropped, it is cancelled, and
/// verified pieces stay in the partial file.
pub struct FetchJob<F> {
    request: FetchRequest,
    /// What the name or number means, if that is settled already.
    settled: Option<Settled>,
    channels: ChannelPool,
    search: Arc<HolderSearch<F>>,
    progress: Arc<Progress>,
    events: mpsc::Sender<FetchEvent>,
}

/// What a job shows of itself while it runs.
pub struct FetchWatch {
    progress: Arc<Progress>,
    events: mpsc::Receiver<FetchEvent>,
}

impl<F: FindPeers> FetchJob<F> {
    /// A job that dials through `channels` and asks the peers that `peers` lists, and what it shows of itself.
    pub fn new(request: FetchRequest, channels: ChannelPool, peers: Arc<F>) -> (Self, FetchWatch) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let progress = Arc::<Progress>::default();
        let watch = FetchWatch { progress: Arc::clone(&progress), events };
        let search = Arc::new(HolderSearch::new(channels.clone(), peers));
        (Self { request, settled: None, channels, search, progress, events: sender }, watch)
    }

    /// The same job, which begins with the content that was settled a moment ago, and its holders. Not for one that was given holders.
    #[must_use]
    pub fn beginning_with(self, settled: Settled) -> Self {
        Self { settled: Some(settled), ..self }
    }

    /// Runs the job to its end.
    ///
    /// # Errors
    /// When no holder is found, it is not clear which content is meant, no holder delivers, or the disk refuses.
    pub async fn run(mut self) -> Result<Fetched, JobError<F::Error>> {
        let settled = self.settled.take();
        let FetchRequest { wanted, from, options } = &self.request;
        if !from.is_empty() {
            return self.run_from().await;
        }
        let mut early = None;
        if let (DocumentSelector::Hash(hash), None) = (wanted, &settled) {
            let (announced, named) = self.ask_tracker(*hash).await;
            if let Some(Named { holders, size }) = named {
                let options = FetchOptions { expected_size: Some(size), ..options.clone() };
                return Ok(self.fetch(wanted, holders, &options, Some(announced)).await?);
            }
            early = Some(announced);
        }
        let mut settled = match settled {
            Some(settled) => settled,
            None => self.settle_patiently(wanted).await?,
        };
        let mut changes = 0;
        loop {
            let document = settled.found.document.clone();
            if settled.contents > 1 {
                self.report(FetchEvent::Chosen { chosen: Box::new(settled.clone()) });
            }
            // The name it was found by: a holder may have the same content under another one.
            let size = document.size();
            let options = FetchOptions {
                save_as: Some(document.name),
                expected_size: Some(size),
                restricted: document.restricted,
                ..self.request.options.clone()
            };
            let hash = document.hash;
            // The fetch announces it with its size, unless it is small, or for some only: then what announced it ends.
            if let Some(early) = early.take().filter(|_| size >= ANNOUNCED_SIZE_MIN && !document.restricted) {
                early.replaced();
            }
            let error = match self.fetch(&DocumentSelector::Hash(hash), settled.found.holders, &options, None).await {
                // The caller asked for a number or a name, not for the hash that it was found to be.
                Err(FetchError::Sources { sources, kept_bytes, .. }) => {
                    FetchError::Sources { wanted: wanted.clone(), sources, kept_bytes }
                }
                fetched => return Ok(fetched?),
            };
            if matches!(wanted, DocumentSelector::Hash(_)) || changes >= CHANGES_MAX {
                return Err(error.into());
            }
            match self.settle_anew(wanted, hash, error.is_gone()).await? {
                Some(now) => settled = now,
                // Nothing changed: its holders do not deliver.
                None => return Err(error.into()),
            }
            changes += 1;
            self.report(FetchEvent::Changed { before: hash, now: Box::new(settled.found.document.clone()) });
        }
    }

    /// Fetches from the holders that were given. A number or a name is asked for again after its content changed there.
    async fn run_from(&self) -> Result<Fetched, JobError<F::Error>> {
        let FetchRequest { wanted, from, options } = &self.request;
        let (until, mut pauses) = (Instant::now() + CHANGE_PATIENCE, SEARCH_AGAIN.start());
        loop {
            match self.fetch(wanted, from.clone(), options, None).await {
                Err(error)
                    if error.changed_meanwhile() && !matches!(wanted, DocumentSelector::Hash(_)) && Instant::now() < until =>
                {
                    sleep(pauses.next(rand::random())).await;
                }
                ended => return Ok(ended?),
            }
        }
    }

    /// What `wanted` means. If nobody has it, or peers cannot be listed now, it is searched for again as long as the options say.
    async fn settle_patiently(&self, wanted: &DocumentSelector) -> Result<Settled, SearchError<F::Error>> {
        let (until, mut pauses) = (Instant::now() + self.request.options.wait_for_holders, SEARCH_AGAIN.start());
        let mut freshness = Freshness::Learned;
        let may_pass = |error: &SearchError<F::Error>| match error {
            SearchError::NotFound { .. } | SearchError::NoPeers { .. } => true,
            SearchError::Peers(why) => F::may_pass(why),
            SearchError::Ambiguous { .. } => false,
        };
        loop {
            match self.search.settle(wanted, freshness).await {
                Err(error) if may_pass(&error) && Instant::now() < until => {
                    self.progress.set_waiting(Some(Waiting::Holders));
                    sleep(pauses.next(rand::random())).await;
                    freshness = Freshness::Asked;
                }
                settled => {
                    self.progress.set_waiting(None);
                    return settled;
                }
            }
        }
    }

    /// What `wanted` means by now, if that is other content than `before`. `gone`: a holder said that it has that no more, so that other content
    /// is waited for.
    async fn settle_anew(
        &self,
        wanted: &DocumentSelector,
        before: ContentHash,
        gone: bool,
    ) -> Result<Option<Settled>, SearchError<F::Error>> {
        let until = Instant::now() + if gone { CHANGE_PATIENCE } else { Duration::ZERO };
        let mut pauses = SEARCH_AGAIN.start();
        loop {
            match self.search.settle(wanted, Freshness::Asked).await {
                Ok(now) if now.found.document.hash != before => return Ok(Some(now)),
                Err(ambiguous @ SearchError::Ambiguous { .. }) => return Err(ambiguous),
                Ok(_) | Err(_) if Instant::now() >= until => return Ok(None),
                Ok(_) | Err(_) => sleep(pauses.next(rand::random())).await,
            }
        }
    }

    async fn fetch(
        &self,
        wanted: &DocumentSelector,
        holders: Vec<Source>,
        options: &FetchOptions,
        early: Option<EarlyAnnounce>,
    ) -> Result<Fetched, FetchError> {
        let search = Arc::clone(&self.search);
        // Boxed: a fetch carries the state of a piece's hash, which is large.
        Box::pin(fetch_announced(&self.channels, wanted, holders, search, options, &self.progress, early)).await
    }

    /// Announces a document of which the hash is known only, and says whom the tracker names who has some of it. While somebody else searches
    /// for it, this is repeated a few times.
    async fn ask_tracker(&self, hash: ContentHash) -> (EarlyAnnounce, Option<Named>) {
        let mut early = self.request.options.swarms.announce_early(hash, 0, Vec::new());
        let until = Instant::now() + WAITED_MAX;
        while let Ok(Announced { others, interval, search, size, .. }) = early.answer().await {
            let (whole, parts): (Vec<_>, Vec<_>) =
                others.into_iter().filter(|other| other.complete || other.had > 0).partition(|other| other.complete);
            let named = if whole.is_empty() { parts } else { whole };
            if !named.is_empty() {
                return (early, Some(Named { holders: named.into_iter().map(|named| named.source).collect(), size }));
            }
            // One that answers without a size is of an earlier version.
            if search || interval > WAIT_MAX || Instant::now() >= until {
                break;
            }
            // Whatever an answer says, the tracker is not asked all the time.
            sleep(interval.max(WAIT_MIN)).await;
            early = early.again();
        }
        (early, None)
    }

    fn report(&self, event: FetchEvent) {
        // Events are for display only: those that are not read in time are dropped.
        let _ = self.events.try_send(event);
    }
}

impl FetchWatch {
    /// The byte counts, updated during the fetch.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The same, for a part that outlives this.
    pub(crate) fn shared_progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// The next event; `None` after the job's end.
    pub async fn event(&mut self) -> Option<FetchEvent> {
        self.events.recv().await
    }
}
