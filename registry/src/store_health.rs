//! Whether the store works, for the status page and readiness.

use crate::{store::Skipped, timeouts::WriteTimeouts};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Set by the writer, read by everyone.
pub(crate) struct StoreHealth {
    slow_commit: Duration,
    skipped: Skipped,
    failing: AtomicBool,
    /// When the commit under way began.
    commit_began: Mutex<Option<Instant>>,
}

impl StoreHealth {
    pub(crate) fn new(timeouts: &WriteTimeouts, skipped: Skipped) -> Self {
        Self { slow_commit: timeouts.slow_commit, skipped, failing: AtomicBool::new(false), commit_began: Mutex::new(None) }
    }

    /// Records that were skipped at the start.
    pub(crate) fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Whether the latest commit failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// The state in one word. `reachable`: of a store that several registries share, whether it answers.
    pub(crate) fn word(&self, reachable: Option<bool>) -> &'static str {
        if reachable.is_none() && self.hangs() {
            "hanging"
        } else if self.is_failing() || reachable == Some(false) {
            "failing"
        } else {
            "ok"
        }
    }

    /// Records how a commit ended. Gives whether the one before had failed.
    pub(crate) fn set_failing(&self, failing: bool) -> bool {
        self.failing.swap(failing, Ordering::Relaxed)
    }

    /// Records that a commit begins (`true`) or ended.
    pub(crate) fn set_committing(&self, begins: bool) {
        *self.commit_began.lock().unwrap_or_else(PoisonError::into_inner) = begins.then(Instant::now);
    }

    /// Whether the commit under way takes so long that the disk seems to hang.
    pub(crate) fn hangs(&self) -> bool {
        let began = *self.commit_began.lock().unwrap_or_else(PoisonError::into_inner);
        began.is_some_and(|began| began.elapsed() >= self.slow_commit)
    }
}
