//! The peers that a fetch hears of besides those that members name: from the tracker, and from searches.

use super::holder_table::HOLDERS_MAX;
use crate::holders::{
    candidate::Candidate,
    search::{Freshness, SearchHolders},
    source::Source,
};
use p2pdi::content::ContentHash;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::mpsc;

/// The search of one fetch: what was found before the fetch began comes first, and the result of the last search is remembered.
pub(crate) struct FetchSearch<S> {
    inner: Arc<S>,
    known: Mutex<Vec<Source>>,
    outcome: Arc<Outcome>,
}

#[derive(Default)]
struct Outcome {
    is_searching: AtomicBool,
    found_nobody: AtomicBool,
    /// Those that the fetch dropped: at most as many as it keeps track of.
    useless: Mutex<Vec<Source>>,
}

/// What the tracker and the searches name.
pub(super) struct Leads {
    candidates: mpsc::Receiver<Vec<Candidate>>,
    outcome: Arc<Outcome>,
}

/// A search for a fetch whose first holders are `known`, and the half that the fetch keeps.
pub(super) fn search<S>(
    inner: Arc<S>,
    known: Vec<Source>,
) -> (FetchSearch<S>, impl FnOnce(mpsc::Receiver<Vec<Candidate>>) -> Leads) {
    let outcome = Arc::<Outcome>::default();
    let search = FetchSearch { inner, known: Mutex::new(known), outcome: Arc::clone(&outcome) };
    (search, |candidates| Leads { candidates, outcome })
}

impl<S: SearchHolders> SearchHolders for FetchSearch<S> {
    async fn search(&self, hash: ContentHash, freshness: Freshness) -> Vec<Source> {
        let mut known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        let is_distrustful = self.outcome.retain_useful(&mut known);
        if !known.is_empty() {
            return known;
        }
        self.outcome.is_searching.store(true, Ordering::Relaxed);
        // What was learned may be no more than those that are of no use.
        let mut found = self.inner.search(hash, if is_distrustful { Freshness::Asked } else { freshness }).await;
        // Who finds only those has found nobody. The fetch itself asks them again if it has time.
        self.outcome.retain_useful(&mut found);
        self.outcome.found_nobody.store(found.is_empty(), Ordering::Relaxed);
        self.outcome.is_searching.store(false, Ordering::Relaxed);
        found
    }
}

impl Outcome {
    /// Removes the peers that are of no use; returns whether there are any such.
    fn retain_useful(&self, sources: &mut Vec<Source>) -> bool {
        let useless = self.useless.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| !useless.contains(source));
        !useless.is_empty()
    }
}

impl Leads {
    /// Peers that may have the document. Pends until there are some.
    pub(super) async fn next(&mut self) -> Vec<Candidate> {
        match self.candidates.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }

    /// A peer is of no use to the fetch: a search that finds it has not found anybody.
    pub(super) fn useless(&self, source: &Source) {
        let mut useless = self.outcome.useless.lock().unwrap_or_else(PoisonError::into_inner);
        if !useless.contains(source) {
            // The oldest is asked again if it is found again.
            if useless.len() >= HOLDERS_MAX {
                useless.remove(0);
            }
            useless.push(source.clone());
        }
    }

    /// A peer that was of no use is.
    pub(super) fn useful(&self, source: &Source) {
        self.outcome.useless.lock().unwrap_or_else(PoisonError::into_inner).retain(|useless| useless != source);
    }

    /// Whether the last search found nobody but those that are of no use.
    pub(super) fn is_exhausted(&self) -> bool {
        self.outcome.found_nobody.load(Ordering::Relaxed) && !self.is_searching()
    }

    /// Whether peers are being asked now.
    pub(super) fn is_searching(&self) -> bool {
        self.outcome.is_searching.load(Ordering::Relaxed)
    }
}
