//! The search for further holders while a document is fetched.

use super::{document::FindHolders, driver::Leads};
use crate::transfer::swarm::update::Candidate;
use p2pdi::content::ContentHash;
use std::{
    future::{Future, pending},
    pin::Pin,
    time::{Duration, Instant},
};

/// Shortest pause between two searches for one document.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// Searches with a [`FindHolders`], one search at a time.
pub(super) struct Search<'a, F> {
    finder: &'a F,
    hash: ContentHash,
    running: Option<Pin<Box<dyn Future<Output = Vec<Candidate>> + Send + 'a>>>,
    ended: Option<Instant>,
}

impl<'a, F: FindHolders> Search<'a, F> {
    pub(super) fn new(finder: &'a F, hash: ContentHash) -> Self {
        Self { finder, hash, running: None, ended: None }
    }
}

impl<F: FindHolders> Leads for Search<'_, F> {
    async fn next(&mut self) -> Vec<Candidate> {
        let Some(running) = &mut self.running else { return pending().await };
        let found = running.await;
        (self.running, self.ended) = (None, Some(Instant::now()));
        found
    }

    fn want_more(&mut self) {
        let is_due = self.ended.is_none_or(|ended| ended.elapsed() >= SEARCH_INTERVAL);
        if self.running.is_none() && is_due {
            let (finder, hash) = (self.finder, self.hash);
            self.running = Some(Box::pin(async move {
                let found = finder.holders(hash).await;
                found.into_iter().map(|source| Candidate { source, zone: String::new(), is_whole: true }).collect()
            }));
        }
    }

    fn is_exhausted(&self) -> bool {
        self.running.is_none() && self.ended.is_some()
    }

    fn is_searching(&self) -> bool {
        self.running.is_some()
    }
}
