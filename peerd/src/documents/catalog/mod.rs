//! The peer's own share and the remote index, queried as one.

mod query;

pub use query::{Filter, LISTINGS_MAX, LISTINGS_PER_ADDRESS, answer};

use crate::documents::{remote_index::RemoteIndex, share::Share};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

/// The peer's own share and the documents that other peers list. Clones are handles to the same catalog.
#[derive(Clone)]
pub struct Catalog {
    share: Share,
    remote: Arc<Mutex<RemoteIndex>>,
}

impl Catalog {
    /// A catalog of `share` and an empty remote index.
    pub fn new(share: Share) -> Self {
        Self { share, remote: Arc::new(Mutex::new(RemoteIndex::new(SystemTime::now()))) }
    }

    /// The peer's own share.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// How many documents other peers list; equal contents count once.
    pub fn remote_documents(&self) -> usize {
        let mut remote = self.remote();
        remote.expire(Instant::now());
        remote.len()
    }

    pub(crate) fn remote(&self) -> MutexGuard<'_, RemoteIndex> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
