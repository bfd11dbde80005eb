//! Whether the store works, for the status page and readiness.

use crate::{clock::Clock, timeouts::WriteTimeouts};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Set by the writer, read by everyone.
pub(crate) struct StoreHealth {
    clock: Clock,
    slow_ms: u64,
    failing: AtomicBool,
    /// When the commit under way began, by the monotonic clock, plus 1; 0 while there is none.
    commit_began_ms: AtomicU64,
}

impl StoreHealth {
    pub(crate) fn new(clock: Clock, timeouts: &WriteTimeouts) -> Self {
        let slow_ms = u64::try_from(timeouts.slow_commit.as_millis()).unwrap_or(u64::MAX);
        Self { clock, slow_ms, failing: AtomicBool::new(false), commit_began_ms: AtomicU64::new(0) }
    }

    /// Whether the latest commit failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Records how a commit ended. Gives whether the one before had failed.
    pub(crate) fn set_failing(&self, failing: bool) -> bool {
        self.failing.swap(failing, Ordering::Relaxed)
    }

    /// Records that a commit begins (`true`) or ended.
    pub(crate) fn set_committing(&self, begins: bool) {
        let began_ms = if begins { self.clock.now().mono_ms + 1 } else { 0 };
        self.commit_began_ms.store(began_ms, Ordering::Relaxed);
    }

    /// Whether the commit under way takes so long that the disk seems to hang.
    pub(crate) fn hangs(&self) -> bool {
        let began_ms = self.commit_began_ms.load(Ordering::Relaxed);
        began_ms > 0 && self.clock.now().mono_ms >= began_ms + self.slow_ms
    }
}
