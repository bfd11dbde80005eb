//! Many holders at once, and every fetcher a holder: real peers on loopback.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test fails by a panic, in its helpers too"
)]

mod churn;
mod holders;
mod hostile;
mod liars;
mod limits;
mod partial;
#[path = "../support/mod.rs"]
mod support;
mod view;

use p2pdi::{content::ContentHash, v1::SwarmRequest};
use peerd::{
    documents::selector::DocumentSelector,
    holders::source::Source,
    transfer::{FetchError, FetchOptions, Fetched, NoMoreHolders, Progress, fetch},
};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};
use support::{peer::Peer, within};

/// A peer that shares nothing and fetches into a folder of its own, from which others fetch what it has.
struct Fetcher {
    peer: Peer,
    progress: Arc<Progress>,
}

impl Fetcher {
    async fn new() -> Self {
        Self { peer: Peer::sharing(&[]).await, progress: Arc::default() }
    }

    fn out(&self) -> PathBuf {
        self.peer.folder.path().join("out")
    }

    fn options(&self) -> FetchOptions {
        FetchOptions { stall: Duration::from_secs(20), ..FetchOptions::new(self.out(), self.peer.handle.swarms().clone()) }
    }

    async fn fetch(&self, hash: ContentHash, sources: Vec<Source>) -> Result<Fetched, FetchError> {
        self.fetch_with(hash, sources, &self.options()).await
    }

    async fn fetch_with(&self, hash: ContentHash, sources: Vec<Source>, options: &FetchOptions) -> Result<Fetched, FetchError> {
        let wanted = DocumentSelector::Hash(hash);
        let channels = self.peer.handle.channels();
        within("the fetch", fetch(channels, &wanted, sources, Arc::new(NoMoreHolders), options, &self.progress)).await
    }

    fn assert_has(&self, fetched: &Fetched, data: &[u8]) {
        assert!(fs::read(&fetched.path).unwrap() == data, "{} has other content", fetched.path.display());
        let left: Vec<_> = fs::read_dir(self.out()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

/// Bytes of all documents that a peer sent to members of their swarms.
async fn sent(peer: &Peer) -> u64 {
    let swarms = peer.client().swarm(SwarmRequest::default()).await.unwrap().into_inner().swarms;
    swarms.iter().flat_map(|swarm| &swarm.connections).map(|connection| connection.sent).sum()
}
