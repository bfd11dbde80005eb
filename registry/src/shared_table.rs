//! The table behind its lock. Every user holds the lock for microseconds and never while it waits.

use crate::{
    clock::Clock,
    table::{Now, Table},
};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{Notify, futures::Notified};

/// The table, shared by calls, the writer and the expiry task.
pub(crate) struct SharedTable {
    table: Mutex<Table>,
    clock: Clock,
    /// Notified after changes were settled.
    settled: Notify,
    /// Wakes the expiry task.
    wake_expiry: Notify,
    /// When the expiry task wakes by itself, by the monotonic clock.
    expiry_wakes_at_ms: AtomicU64,
}

impl SharedTable {
    pub(crate) fn new(table: Table, clock: Clock) -> Self {
        Self {
            table: Mutex::new(table),
            clock,
            settled: Notify::new(),
            wake_expiry: Notify::new(),
            expiry_wakes_at_ms: AtomicU64::new(0),
        }
    }

    /// Runs `act` on the table, at the present time.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Table, Now) -> T) -> T {
        // A panic with the lock held is a bug in one call; the others go on with the table as it is.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let output = act(&mut table, now);
        let next_ms = table.next_deadline_ms().unwrap_or(u64::MAX);
        drop(table);
        if next_ms < self.expiry_wakes_at_ms.load(Ordering::Relaxed) {
            self.wake_expiry();
        }
        output
    }

    /// Wakes the expiry task.
    pub(crate) fn wake_expiry(&self) {
        self.wake_expiry.notify_one();
    }

    /// Wakes whoever waits for a change to be settled.
    pub(crate) fn notify_settled(&self) {
        self.settled.notify_waiters();
    }

    /// Completes once changes were settled. Enable it before looking at the table, so that no notification is missed.
    pub(crate) fn settled(&self) -> Notified<'_> {
        self.settled.notified()
    }

    /// Waits for the table's next deadline, but at least until `earliest_ms` and at most until `latest_ms`, by the monotonic clock.
    pub(crate) async fn next_deadline(&self, earliest_ms: u64, latest_ms: u64) {
        let next_ms = || self.with(|table, _| table.next_deadline_ms()).unwrap_or(u64::MAX);
        let until_ms = next_ms().clamp(earliest_ms, latest_ms);
        self.expiry_wakes_at_ms.store(until_ms, Ordering::Relaxed);
        // A deadline scheduled before the store is seen here, a later one by whoever schedules it.
        if next_ms().max(earliest_ms) < until_ms {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep_until(self.clock.instant(until_ms)) => {}
            () = self.wake_expiry.notified() => {}
        }
    }
}
