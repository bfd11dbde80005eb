//! A fetch that searches for its holders, as a job: owned, spawnable, and watched from outside.
//!
//! It asks peers which document a number, a name or a hash selects and who holds it, fetches the document that most peers hold
//! themselves, and falls back to the next one if no holder delivers that. While it fetches, it searches again once all known
//! holders failed.

use super::{
    document::{FetchError, FetchOptions, Fetched, FindHolders, fetch},
    progress::Progress,
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::{
        search::{Found, ask},
        source::Source,
    },
};
use p2pdi::content::ContentHash;
use std::{fmt, sync::Arc};
use tokio::sync::mpsc;

/// Events kept for a watcher that does not read them; later ones are dropped. A job has one for each document of the same name.
const EVENTS_MAX: usize = 64;

/// Lists the peers that a job asks who has a document.
pub trait FindPeers: Send + Sync + 'static {
    /// Why peers cannot be listed.
    type Error: fmt::Display + Send + 'static;

    /// The peers to ask, now.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn peers(&self) -> impl Future<Output = Result<Vec<Source>, Self::Error>> + Send;
}

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
    /// Several documents match; the first is the one that most peers hold themselves, and is fetched.
    Ambiguous {
        /// How many match.
        matches: usize,
        /// The one that is fetched.
        chosen: DocumentInfo,
    },
    /// No holder delivered one of several documents that match; the next one is fetched.
    FellBack {
        /// Why the document could not be fetched.
        error: FetchError,
    },
}

/// Why a job failed. `E`: why peers could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum JobError<E: fmt::Display> {
    /// Peers could not be listed.
    #[error("{0}")]
    Peers(E),
    /// There is no peer to ask.
    #[error("nobody has {wanted}: there are no peers to ask")]
    NoPeers {
        /// The document asked for.
        wanted: DocumentSelector,
    },
    /// No peer that was asked knows a holder.
    #[error("nobody has {wanted}; {asked}")]
    NotFound {
        /// The document asked for.
        wanted: DocumentSelector,
        /// The peers asked, and those that did not answer, as text.
        asked: String,
    },
    /// The document could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// A fetch with its search for holders. [`FetchJob::run`] owns all it needs, so it can be spawned; dropped, it is cancelled, and
/// verified pieces stay in the partial file.
pub struct FetchJob<F> {
    request: FetchRequest,
    channels: ChannelPool,
    peers: Arc<F>,
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
        (Self { request, channels, peers, progress, events: sender }, watch)
    }

    /// Runs the job to its end.
    ///
    /// # Errors
    /// When no holder is found, none delivers, or the disk refuses.
    pub async fn run(self) -> Result<Fetched, JobError<F::Error>> {
        if !self.request.from.is_empty() {
            let FetchRequest { wanted, from, options } = &self.request;
            return Ok(self.fetch(wanted, from.clone(), options).await?);
        }
        let wanted = &self.request.wanted;
        let (mut next, mut others) = self.search().await?;
        loop {
            let Found { document, holders, .. } = next;
            // The name it was found by: the first holder may have the same content under another one.
            let options = FetchOptions { save_as: Some(document.name), ..self.request.options.clone() };
            let hash = match wanted {
                DocumentSelector::Hash(hash) => *hash,
                DocumentSelector::Number(_) | DocumentSelector::Name(_) => document.hash,
            };
            let error = match self.fetch(&DocumentSelector::Hash(hash), holders, &options).await {
                // The caller asked for a number or a name, not for the hash that it was found to be.
                Err(FetchError::Sources { sources, kept_bytes, .. }) => {
                    FetchError::Sources { wanted: wanted.clone(), sources, kept_bytes }
                }
                fetched => return Ok(fetched?),
            };
            match others.next() {
                Some(other) => next = other,
                None => return Err(error.into()),
            }
            self.report(FetchEvent::FellBack { error });
        }
    }

    async fn fetch(
        &self,
        wanted: &DocumentSelector,
        holders: Vec<Source>,
        options: &FetchOptions,
    ) -> Result<Fetched, FetchError> {
        // Boxed: a fetch carries the state of a piece's hash, which is large.
        Box::pin(fetch(&self.channels, wanted, holders, self, options, &self.progress)).await
    }

    /// The document that matches and that most peers hold themselves, and the others that match.
    async fn search(&self) -> Result<(Found, impl Iterator<Item = Found> + use<F>), JobError<F::Error>> {
        let wanted = &self.request.wanted;
        let peers = self.peers.peers().await.map_err(JobError::Peers)?;
        if peers.is_empty() {
            return Err(JobError::NoPeers { wanted: wanted.clone() });
        }
        let answers = ask(&self.channels, &peers, wanted).await;
        let asked = answers.summary();
        let mut found = answers.found.into_iter();
        let Some(first) = found.next() else { return Err(JobError::NotFound { wanted: wanted.clone(), asked }) };
        if found.len() > 0 {
            self.report(FetchEvent::Ambiguous { matches: 1 + found.len(), chosen: first.document.clone() });
        }
        Ok((first, found))
    }

    fn report(&self, event: FetchEvent) {
        // Events are for display only: those that are not read in time are dropped.
        let _ = self.events.try_send(event);
    }
}

impl<F: FindPeers> FindHolders for FetchJob<F> {
    async fn holders(&self, hash: ContentHash) -> Vec<Source> {
        match self.peers.peers().await {
            Ok(peers) => {
                let answers = ask(&self.channels, &peers, &DocumentSelector::Hash(hash)).await;
                answers.found.into_iter().flat_map(|found| found.holders).collect()
            }
            Err(error) => {
                tracing::info!(%error, "cannot search for further holders");
                Vec::new()
            }
        }
    }
}

impl FetchWatch {
    /// The byte counts, updated during the fetch.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The next event; `None` after the job's end.
    pub async fn event(&mut self) -> Option<FetchEvent> {
        self.events.recv().await
    }
}
