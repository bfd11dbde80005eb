//! Whether the store works, for the status page and readiness.

use crate::{
    store::{Skipped, StoreError},
    timeouts::WriteTimeouts,
};
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
    /// Why the latest commit failed; empty if it did not.
    problem: Mutex<String>,
    /// When the commit under way began.
    commit_began: Mutex<Option<Instant>>,
}

impl StoreHealth {
    pub(crate) fn new(timeouts: &WriteTimeouts, skipped: Skipped) -> Self {
        Self {
            slow_commit: timeouts.slow_commit,
            skipped,
            failing: AtomicBool::new(false),
            problem: Mutex::default(),
            commit_began: Mutex::default(),
        }
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

    /// Why the latest commit failed, for operators; empty if it did not.
    pub(crate) fn problem(&self) -> String {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records how a commit ended. Gives whether the one before had failed.
    pub(crate) fn set_outcome(&self, outcome: Result<(), &StoreError>) -> bool {
        let failed_before = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        if failed_before || outcome.is_err() {
            let problem = outcome.err().map(ToString::to_string).unwrap_or_default();
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        }
        failed_before
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
