//! The table, shared: every call holds its lock for microseconds and never while it waits.

use crate::{
    clock::Clock,
    table::{Change, Lease, Now, Prepared, Refusal, Registration, Table},
    writer::Job,
};
use p2pdi::cookie::{Cookie, CookieHash};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

/// How long a call waits for its turn to be written: a disk that needs longer is as good as none, and callers
/// have deadlines of about as much.
const WRITE_WAIT: Duration = Duration::from_secs(10);

/// How long a call waits for its own write. A sync that takes longer hangs rather than being slow.
const COMMIT_WAIT: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(10) };
/// A write that takes longer makes the registry unready: a slow disk needs a tenth of it.
const COMMIT_SLOW_MS: u64 = if cfg!(test) { 100 } else { 3_000 };

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Refused {
    By(Refusal),
    /// It could not be written.
    Unwritten,
    /// Whether it was written is not known.
    Uncertain,
    /// The registry is stopping.
    Stopping,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::By(refusal)
    }
}

/// What the calls, the writer and the expiry driver share.
pub(crate) struct Shared {
    table: Mutex<Table>,
    pub(crate) clock: Clock,
    /// Rings when changes were committed or aborted.
    pub(crate) settled: Notify,
    /// Wakes the expiry driver.
    pub(crate) sooner: Notify,
    /// When the expiry driver wakes by itself.
    pub(crate) asleep_until_ms: AtomicU64,
    /// The latest write failed.
    pub(crate) store_failing: AtomicBool,
    /// When the write under way began, by the clock that never goes back, and 1 added; 0 while there is none.
    commit_began_ms: AtomicU64,
}

impl Shared {
    pub(crate) fn new(table: Table, clock: Clock) -> Self {
        Self {
            table: Mutex::new(table),
            clock,
            settled: Notify::new(),
            sooner: Notify::new(),
            asleep_until_ms: AtomicU64::new(0),
            store_failing: AtomicBool::new(false),
            commit_began_ms: AtomicU64::new(0),
        }
    }

    /// Notes that a write begins, or (`false`) came to an end.
    pub(crate) fn committing(&self, begins: bool) {
        let began_ms = if begins { self.clock.now().mono_ms + 1 } else { 0 };
        self.commit_began_ms.store(began_ms, Ordering::Relaxed);
    }

    /// Whether the write under way takes so long that the disk seems to hang.
    pub(crate) fn store_hangs(&self) -> bool {
        let began_ms = self.commit_began_ms.load(Ordering::Relaxed);
        began_ms > 0 && self.clock.now().mono_ms >= began_ms + COMMIT_SLOW_MS
    }

    /// Does something with the table, at this moment.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Table, Now) -> T) -> T {
        // A panic with the lock held is a fault in one call; the others go on with what it left.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let done = act(&mut table, now);
        let next_ms = table.next_deadline_ms().unwrap_or(u64::MAX);
        drop(table);
        if next_ms < self.asleep_until_ms.load(Ordering::Relaxed) {
            self.sooner.notify_one();
        }
        done
    }
}

/// The table for calls: what it changes is written before it shows.
#[derive(Clone)]
pub(crate) struct Leases {
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: mpsc::Sender<Job>,
}

impl Leases {
    pub(crate) async fn register(&self, ask: &Registration) -> Result<(Lease, Cookie), Refused> {
        let mut cookie = ask.candidate_cookie.clone();
        let prepare = |table: &mut Table, now| {
            let (prepared, own) = table.prepare_register(ask, now)?;
            cookie = own;
            Ok(prepared)
        };
        let lease = self.change(prepare, |lease| lease).await?;
        Ok((lease, cookie))
    }

    /// Gives the revision.
    pub(crate) async fn leave(&self, cookie: &CookieHash) -> Result<u64, Refused> {
        self.change(|table, now| table.prepare_leave(cookie, now), |lease| lease.revision).await
    }

    async fn change<T>(
        &self,
        mut prepare: impl FnMut(&mut Table, Now) -> Result<Prepared<T>, Refusal>,
        written: impl FnOnce(Lease) -> T,
    ) -> Result<T, Refused> {
        let until = Instant::now() + WRITE_WAIT;
        loop {
            let settled = self.shared.settled.notified();
            let mut settled = std::pin::pin!(settled);
            // From here on no ring is missed.
            settled.as_mut().enable();
            // The place in the queue comes first: between taking the name and queueing the change nothing may wait,
            // or a caller that goes away meanwhile would leave the name held.
            let place = match timeout_at(until, self.jobs.reserve()).await {
                Ok(Ok(place)) => place,
                Ok(Err(_)) => return Err(Refused::Stopping),
                Err(_) => return Err(Refused::Unwritten),
            };
            match self.shared.with(&mut prepare) {
                Ok(Prepared::Done(done)) => return Ok(done),
                Ok(Prepared::Write(change)) => {
                    let (done, answer) = oneshot::channel();
                    place.send(Job::Change(change, done));
                    // If nobody waits any more, the writer ends the change all the same.
                    return match timeout(COMMIT_WAIT, answer).await {
                        Ok(Ok(Some(lease))) => Ok(written(lease)),
                        Ok(Ok(None)) => Err(Refused::Unwritten),
                        // It hangs, or the writer is gone.
                        Err(_) | Ok(Err(_)) => Err(Refused::Uncertain),
                    };
                }
                Err(Refusal::Busy) => {
                    drop(place);
                    timeout_at(until, settled).await.map_err(|_| Refused::Unwritten)?;
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }
}

/// A change and who waits for it.
pub(crate) type Waiting = (Change, oneshot::Sender<Option<Lease>>);
