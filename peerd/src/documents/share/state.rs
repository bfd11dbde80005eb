//! The state that a share's handles and its indexer have in common.

use super::{cache::Cache, config::ShareConfig, file_states::Counts, index::Index, root::Root, watch::Signal};
use metrics::{Counter, Gauge};
use p2pdi::v1;
use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch::Sender;

/// Progress of scanning and hashing, for a progress line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanProgress {
    /// Files that are offered or will be.
    pub files: u64,
    /// Those of them that are waiting to be hashed or being hashed.
    pub pending: u64,
    /// Files hashed since the start.
    pub hashed_files: u64,
    /// Bytes hashed since the start.
    pub hashed_bytes: u64,
    /// Bytes hashed and to be hashed.
    pub total_bytes: u64,
    /// Every file that the first scan found, or the last one that was asked for, is offered or left out.
    pub settled: bool,
}

pub(super) struct Shared {
    pub(super) config: ShareConfig,
    pub(super) root: Root,
    pub(super) cache: Cache,
    pub(super) signal: Arc<Signal>,
    pub(super) index: RwLock<Arc<Index>>,
    pub(super) versions: Sender<u64>,
    pub(super) settled: Sender<bool>,
    /// How often a scan was asked for, after which all is to be settled anew.
    pub(super) scans_asked: AtomicU64,
    pub(super) progress: Sender<ScanProgress>,
    pub(super) counts: Mutex<Counts>,
    pub(super) detail: Mutex<String>,
    pub(super) problems: Mutex<Vec<String>>,
    /// Bounded, by name.
    pub(super) left_out: Mutex<Vec<v1::LeftOut>>,
    pub(super) hashed_bytes: Arc<AtomicU64>,
    pub(super) metrics: ShareMetrics,
}

pub(super) struct ShareMetrics {
    pub(super) pending: Gauge,
    pub(super) hashed_bytes: Counter,
}

impl Shared {
    pub(super) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn publish(&self, index: Arc<Index>) {
        let version = index.version();
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        self.versions.send_if_modified(|published| std::mem::replace(published, version) != version);
    }

    pub(super) fn set_detail(&self, detail: String) {
        *self.detail.lock().unwrap_or_else(PoisonError::into_inner) = detail;
    }

    pub(super) fn set_problems(&self, problems: Vec<String>) {
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    pub(super) fn set_left_out(&self, left_out: Vec<v1::LeftOut>) {
        *self.left_out.lock().unwrap_or_else(PoisonError::into_inner) = left_out;
    }

    pub(super) fn report(&self, counts: Counts, progress: impl FnOnce(u64) -> ScanProgress) {
        let hashed_bytes = self.hashed_bytes.load(Ordering::Relaxed);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        self.metrics.pending.set(counts.pending as f64);
        self.metrics.hashed_bytes.absolute(hashed_bytes);
        let progress = progress(hashed_bytes);
        self.progress.send_if_modified(|reported| std::mem::replace(reported, progress) != progress);
    }
}
