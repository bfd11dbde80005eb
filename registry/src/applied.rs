//! Up to which revision the changes in the store have reached the table, where they come by a watch.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// A revision that only grows, and whoever waits for it.
#[derive(Default)]
pub(crate) struct Applied {
    revision: Mutex<u64>,
    grown: Condvar,
}

impl Applied {
    /// Changes up to `revision` are in the table.
    pub(crate) fn advance(&self, revision: u64) {
        let mut applied = self.revision.lock().unwrap_or_else(PoisonError::into_inner);
        *applied = revision.max(*applied);
        self.grown.notify_all();
    }

    /// Waits until changes up to `revision` are in the table, `longest` at most. Gives up to which they are.
    pub(crate) fn wait(&self, revision: u64, longest: Duration) -> u64 {
        let applied = self.revision.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.grown.wait_timeout_while(applied, longest, |applied| *applied < revision);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
