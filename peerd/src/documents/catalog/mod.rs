//! What the peer knows of documents: its own share, and what it learned from others.

mod query;

pub use query::{Filter, LISTINGS_MAX, LISTINGS_PER_ADDRESS, answer};

use crate::documents::remote_index::RemoteIndex;
use crate::documents::share::Share;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

/// The peer's own share and what it learned, as one index.
#[derive(Clone)]
pub struct Catalog {
    share: Share,
    learned: Arc<Mutex<RemoteIndex>>,
}

impl Catalog {
    /// A catalog that has learned nothing yet.
    pub fn new(share: Share) -> Self {
        Self { share, learned: Arc::new(Mutex::new(RemoteIndex::new(SystemTime::now()))) }
    }

    /// The peer's own share.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Documents known from other peers.
    pub fn learned_documents(&self) -> usize {
        let mut learned = self.learned();
        learned.expire(Instant::now());
        learned.len()
    }

    pub(crate) fn learned(&self) -> MutexGuard<'_, RemoteIndex> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
