//! The table behind its lock. Every user holds the lock for microseconds and never while it waits.

use crate::{
    clock::{Clock, millis},
    table::{Now, Table},
};
use std::{
    panic::resume_unwind,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::panicking,
    time::Duration,
};
use tokio::sync::{Notify, futures::Notified, watch};
use tokio_util::sync::CancellationToken;

/// Shorter pauses are not logged: a loaded machine has many.
const PAUSE_LOGGED_MS: u64 = 1_000;

/// The table, shared by calls, the writer and the expiry task.
pub(crate) struct SharedTable {
    locked: Mutex<(Table, Clock)>,
    /// See [`Clock::check_interval`].
    check_interval: Duration,
    /// Notified after changes were settled.
    settled: Notify,
    /// Notified after each change of the revision, for those who watch.
    changed: watch::Sender<()>,
    /// Wakes the expiry task.
    wake_expiry: Notify,
    /// When the expiry task wakes without a notification, by the table's clock.
    expiry_wakes_at_ms: AtomicU64,
}

impl SharedTable {
    pub(crate) fn new(table: Table, clock: Clock) -> Self {
        Self {
            check_interval: clock.check_interval(),
            locked: Mutex::new((table, clock)),
            settled: Notify::new(),
            changed: watch::Sender::new(()),
            wake_expiry: Notify::new(),
            expiry_wakes_at_ms: AtomicU64::new(0),
        }
    }

    /// Runs `act` on the table, at the present time.
    ///
    /// # Panics
    /// When `act` does, and from then on always: a change that is half made could hold a name for ever. The expiry task is woken, so that
    /// its panic ends the registry at once.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Table, Now) -> T) -> T {
        // Declared first, so dropped last: the lock is released by then.
        let _wake_on_panic = WakeOnPanic(&self.wake_expiry);
        let Ok(mut locked) = self.locked.lock() else {
            resume_unwind(Box::new("the table was left inconsistent by a panic"));
        };
        let (table, clock) = &mut *locked;
        let (now, paused_ms) = clock.now();
        if paused_ms > 0 {
            // Whichever call comes first after a pause must find the leases extended.
            table.resumed(paused_ms, now);
        }
        let before = table.revision();
        let output = act(table, now);
        let has_changed = table.revision() != before;
        let next_ms = table.next_deadline_ms().unwrap_or(u64::MAX);
        drop(locked);
        if has_changed {
            self.changed.send_replace(());
        }
        if paused_ms >= PAUSE_LOGGED_MS {
            let paused = Duration::from_millis(paused_ms);
            tracing::warn!(?paused, "this process was stopped, or its machine suspended; every lease is extended by that time");
        }
        if next_ms < self.expiry_wakes_at_ms.load(Ordering::Relaxed) {
            self.wake_expiry();
        }
        output
    }

    /// Reads the clock as often as it must be, so that a pause of the process is noticed, until `stop`.
    pub(crate) async fn check_clock(&self, stop: CancellationToken) {
        let check = async {
            loop {
                tokio::time::sleep(self.check_interval).await;
                self.with(|_, _| ());
            }
        };
        let _stopped: Option<()> = stop.run_until_cancelled(check).await;
    }

    /// Wakes the expiry task.
    pub(crate) fn wake_expiry(&self) {
        self.wake_expiry.notify_one();
    }

    /// Wakes the tasks that wait for a change to be settled.
    pub(crate) fn notify_settled(&self) {
        self.settled.notify_waiters();
    }

    /// Notifies of changes of the revision, whichever registry made them.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Completes once changes were settled. Enable it before looking at the table, so that no notification is missed.
    pub(crate) fn settled(&self) -> Notified<'_> {
        self.settled.notified()
    }

    /// Waits for the table's next deadline, at least for `shortest` and at most for `longest`.
    pub(crate) async fn next_deadline(&self, shortest: Duration, longest: Duration) {
        let wait = || {
            let (now_ms, next_ms) = self.with(|table, now| (now.mono_ms, table.next_deadline_ms()));
            let until_next = Duration::from_millis(next_ms.unwrap_or(u64::MAX).saturating_sub(now_ms));
            (now_ms, until_next.clamp(shortest, longest))
        };
        let (now_ms, pause) = wait();
        let until_ms = now_ms.saturating_add(millis(pause));
        self.expiry_wakes_at_ms.store(until_ms, Ordering::Relaxed);
        // A deadline scheduled before the store is seen here; a later one notifies.
        let pause = pause.min(wait().1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.wake_expiry.notified() => {}
        }
    }
}

/// Wakes the expiry task when whoever holds the lock panics.
struct WakeOnPanic<'a>(&'a Notify);

impl Drop for WakeOnPanic<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.0.notify_one();
        }
    }
}
