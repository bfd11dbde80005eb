//! Counts the fetches in progress of a peer.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// The number of fetches in progress. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Downloads(Arc<AtomicU32>);

/// One fetch in progress; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "the fetch counts until this is dropped"]
pub struct DownloadInProgress(Downloads);

impl Downloads {
    /// Counts one more fetch, until the returned guard is dropped.
    pub fn begin(&self) -> DownloadInProgress {
        self.0.fetch_add(1, Ordering::Relaxed);
        DownloadInProgress(self.clone())
    }

    /// How many are in progress.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for DownloadInProgress {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
