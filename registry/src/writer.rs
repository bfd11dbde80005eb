//! The thread that writes. While one batch is committed the next one gathers, so one sync serves all callers that wait (group commit).

use crate::{
    applied::Applied,
    queue::{Job, NotWritten, Written},
    shared_table::SharedTable,
    store::{Store, StoreError, WriteError},
    store_health::StoreHealth,
    table::{Change, Lease},
};
use metrics::{Counter, Histogram};
use p2pdi::metrics::Metrics;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Most jobs in one batch: they amortise a sync well, and no caller waits long for the batch before.
const BATCH_MAX: usize = 1_024;
/// How long a change that the store accepted may take to come back by its watch. One that takes longer is not answered as made: a caller
/// that goes by the revision of the answer would miss what others changed before.
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes settled under one hold of the table's lock, some 100 µs.
const SETTLED_AT_ONCE: usize = 64;

/// The call that waits for a change; `None` for an expiry.
type Waiter = Option<oneshot::Sender<Result<Written, NotWritten>>>;

pub(crate) struct Writer {
    table: Arc<SharedTable>,
    health: Arc<StoreHealth>,
    store: Box<dyn Store>,
    /// Where changes come to the table by a watch of the store.
    applied: Option<Arc<Applied>>,
    jobs: mpsc::Receiver<Job>,
    latency: Histogram,
    size: Histogram,
    failures: Counter,
}

impl Writer {
    pub(crate) fn new(
        table: Arc<SharedTable>,
        health: Arc<StoreHealth>,
        store: Box<dyn Store>,
        applied: Option<Arc<Applied>>,
        jobs: mpsc::Receiver<Job>,
        metrics: &Metrics,
    ) -> Self {
        Self {
            table,
            health,
            store,
            applied,
            jobs,
            latency: metrics.histogram("p2pdi_registry_commit_duration_seconds", "Time to make one batch durable", &[]),
            size: metrics.histogram("p2pdi_registry_commit_changes", "Changes made durable in one batch", &[]),
            failures: metrics.counter("p2pdi_registry_commit_failures_total", "Batches that could not be written", &[]),
        }
    }

    /// Starts the thread. It ends after [`Job::Stop`], or when all senders are dropped. The token is cancelled when it ends,
    /// also by a panic.
    pub(crate) fn spawn(self) -> std::io::Result<(thread::JoinHandle<()>, CancellationToken)> {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let thread = thread::Builder::new().name("registry-writer".into()).spawn(move || {
            let _guard = guard;
            self.run();
        })?;
        Ok((thread, ended))
    }

    fn run(mut self) {
        let mut gathered = Vec::with_capacity(BATCH_MAX);
        while self.jobs.blocking_recv_many(&mut gathered, BATCH_MAX) > 0 {
            let (mut changes, mut waiters) = (Vec::with_capacity(gathered.len()), Vec::with_capacity(gathered.len()));
            let (mut expiry_done, mut catching_up, mut restores) = (Vec::new(), Vec::new(), Vec::new());
            for job in gathered.drain(..) {
                match job {
                    Job::Change(change, done) => {
                        changes.push(change);
                        waiters.push(Some(done));
                    }
                    Job::Expiries(expired, done) => {
                        waiters.extend(expired.iter().map(|_| None));
                        changes.extend(expired);
                        expiry_done.push(done);
                    }
                    Job::CatchUp(done) => catching_up.push(done),
                    Job::Restore(changes, done) => restores.push((changes, done)),
                    Job::Probe if self.health.is_failing() => self.probe(),
                    Job::Probe => {}
                    Job::Stop => self.jobs.close(),
                }
            }
            if !changes.is_empty() {
                self.write(changes, waiters);
            }
            for done in expiry_done {
                let _stopping = done.send(());
            }
            if !catching_up.is_empty() {
                let caught_up = self.catch_up();
                for done in catching_up {
                    let _gone = done.send(caught_up);
                }
            }
            for (changes, done) in restores {
                // The caller may have gone away.
                let _gone = done.send(self.restore(changes));
            }
        }
    }

    fn write(&mut self, changes: Vec<Change>, waiters: Vec<Waiter>) {
        let started = Instant::now();
        let mut outcomes = self.commit(&changes);
        self.await_watch(&mut outcomes);
        self.latency.record(started.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch has some thousand changes")]
        self.size.record(changes.len() as f64);
        let failed = outcomes.iter().find_map(|outcome| match outcome {
            Err(WriteError::Failed(error) | WriteError::Unknown(error)) => Some(Arc::clone(error)),
            Ok(_) | Err(WriteError::Conflict { .. }) => None,
        });
        self.note(failed.as_deref().map_or(Ok(()), Err));
        let mut written = changes.into_iter().zip(outcomes).zip(waiters);
        loop {
            let some: Vec<_> = written.by_ref().take(SETTLED_AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            let answers: Vec<_> = self.table.with(|table, now| {
                let settle = |((change, outcome), waiter): ((Change, Result<u64, WriteError>), Waiter)| {
                    let lease = table.settle(change, outcome.as_ref().ok().copied(), now);
                    (waiter, answer(lease, outcome))
                };
                some.into_iter().map(settle).collect()
            });
            for (waiter, answer) in answers {
                if let Some(waiter) = waiter {
                    // The caller may have gone away.
                    let _gone = waiter.send(answer);
                }
            }
        }
        self.table.notify_settled();
    }

    /// Writes new records, all or none; they show once all are written.
    fn restore(&mut self, changes: Vec<Change>) -> Result<(), NotWritten> {
        let mut written = Vec::with_capacity(changes.len());
        let mut failure = None;
        for batch in changes.chunks(BATCH_MAX) {
            let mut outcomes = self.commit(batch);
            self.await_watch(&mut outcomes);
            for (change, outcome) in batch.iter().zip(outcomes) {
                match outcome {
                    Ok(revision) => written.push((change.clone(), revision)),
                    Err(WriteError::Conflict { .. }) => {
                        failure.get_or_insert(NotWritten::Conflict);
                    }
                    Err(WriteError::Failed(error)) => {
                        self.note(Err(&error));
                        failure.get_or_insert(NotWritten::Failed);
                    }
                    Err(WriteError::Unknown(error)) => {
                        self.note(Err(&error));
                        failure = Some(NotWritten::Unknown);
                    }
                }
            }
            if failure.is_some() {
                break;
            }
        }
        if let Some(failure) = failure {
            let undo: Vec<_> = written.iter().map(|(change, revision)| Change::remove(&change.key, *revision)).collect();
            let left: usize =
                undo.chunks(BATCH_MAX).map(|batch| self.commit(batch).iter().filter(|one| one.is_err()).count()).sum();
            if left > 0 || failure == NotWritten::Unknown {
                tracing::error!(
                    left,
                    "a restore failed, and some of its records may be stored; remove them with `p2pctl registry expire`"
                );
                return Err(NotWritten::Unknown);
            }
            return Err(failure);
        }
        if self.applied.is_some() {
            // They came by the watch.
            return Ok(());
        }
        let mut written = written.into_iter();
        loop {
            let some: Vec<_> = written.by_ref().take(SETTLED_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.table.with(|table, now| some.into_iter().for_each(|(change, revision)| table.apply(change, revision, now)));
        }
    }

    /// Commits a batch. A panic in the store counts as a failure.
    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        self.health.set_committing(true);
        let committed = catch_unwind(AssertUnwindSafe(|| self.store.commit(batch)));
        self.health.set_committing(false);
        let mut outcomes = committed.unwrap_or_default();
        let panicked = || StoreError::Failed { doing: "write", problem: "the store panicked".into() };
        if outcomes.len() < batch.len() {
            let error = Arc::new(panicked());
            outcomes.resize_with(batch.len(), || Err(WriteError::Failed(Arc::clone(&error))));
        }
        outcomes
    }

    /// Waits until the table knows what the store answered, where that comes by a watch.
    fn await_watch(&self, outcomes: &mut [Result<u64, WriteError>]) {
        let Some(applied) = &self.applied else { return };
        let known = outcomes.iter().filter_map(|outcome| match outcome {
            Ok(revision) | Err(WriteError::Conflict { stored: revision }) => Some(*revision),
            Err(WriteError::Failed(_) | WriteError::Unknown(_)) => None,
        });
        let Some(latest) = known.max() else { return };
        let reached = applied.wait(latest, WATCH_TIMEOUT);
        if reached >= latest {
            return;
        }
        let problem = || StoreError::Failed { doing: "follow the store", problem: "its watch is behind".into() };
        let error = Arc::new(problem());
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.as_ref().is_ok_and(|revision| *revision > reached)) {
            *outcome = Err(WriteError::Unknown(Arc::clone(&error)));
        }
    }

    /// Whether the table knows everything that the store acknowledged until now.
    fn catch_up(&mut self) -> bool {
        let latest = catch_unwind(AssertUnwindSafe(|| self.store.latest()));
        match (latest, &self.applied) {
            (Ok(Ok(latest)), Some(applied)) => applied.wait(latest, WATCH_TIMEOUT) >= latest,
            (Ok(Ok(_)), None) => true,
            (Ok(Err(_)) | Err(_), _) => false,
        }
    }

    fn probe(&mut self) {
        self.health.set_committing(true);
        let probed = catch_unwind(AssertUnwindSafe(|| self.store.recover()));
        self.health.set_committing(false);
        if let Ok(Ok(())) = probed {
            self.note(Ok(()));
        }
    }

    /// Records whether the store works, and logs when that changes.
    fn note(&self, outcome: Result<(), &StoreError>) {
        let failed_before = self.health.set_outcome(outcome);
        match outcome {
            Ok(()) if failed_before => tracing::info!("the store can be written to again"),
            Ok(()) => {}
            Err(error) => {
                self.failures.increment(1);
                if !failed_before {
                    self.table.wake_expiry();
                    tracing::error!(%error, "registrations are refused until the store can be written to");
                }
            }
        }
    }
}

fn answer(lease: Option<Lease>, outcome: Result<u64, WriteError>) -> Result<Written, NotWritten> {
    match outcome {
        Ok(revision) => Ok(Written { revision, lease }),
        Err(WriteError::Conflict { .. }) => Err(NotWritten::Conflict),
        Err(WriteError::Failed(_)) => Err(NotWritten::Failed),
        Err(WriteError::Unknown(_)) => Err(NotWritten::Unknown),
    }
}
