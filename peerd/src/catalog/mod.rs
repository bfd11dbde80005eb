//! What the peer knows of documents: its own share, and what it learned from others.

mod learn;
mod learned;
mod query;

pub use learn::learn;
pub use learned::{LearnedDocuments, LearnedPeer};
pub use query::{Filter, LISTINGS_MAX, LISTINGS_PER_ADDRESS, answer};

use crate::share::Share;
use learned::Learned;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

/// The peer's own share and what it learned, as one index.
#[derive(Clone)]
pub struct Catalog {
    share: Share,
    learned: Arc<Mutex<Learned>>,
}

impl Catalog {
    /// A catalog that has learned nothing yet.
    pub fn new(share: Share) -> Self {
        Self { share, learned: Arc::new(Mutex::new(Learned::new(SystemTime::now()))) }
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

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
