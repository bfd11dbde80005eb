//! How much of a document is fetched, shared by the fetch and its display.

use std::sync::atomic::{AtomicU64, Ordering};

/// Byte counts of one fetch. Readers may see the two counts a moment apart.
#[derive(Debug, Default)]
pub struct Progress {
    size: AtomicU64,
    verified: AtomicU64,
}

impl Progress {
    /// Bytes of the document; 0 until the first valid header.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Verified bytes, including those of an earlier fetch.
    pub fn verified(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.verified.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn begin(&self, size: u64, verified: u64) {
        self.verified.store(verified, Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
    }
}
