//! The thread that writes: while one batch goes to disk the next one gathers, so one sync serves all who wait.

use crate::{
    leases::{Shared, Waiting},
    store::{Store, StoreError, Write},
    table::{Change, Lease, Peer},
};
use metrics::{Counter, Histogram};
use p2pdi::metrics::Metrics;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Instant,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Changes that may wait for a batch: what 10,000 connections ask for at once, some 4 MiB.
pub(crate) const QUEUE_MAX: usize = 10_000;
/// Changes in one batch at most: a sync is well paid for, and nobody waits long for the batch before.
const BATCH_MAX: usize = 1_024;
/// Records put right on disk along with one batch.
const FLUSH_MAX: usize = 1_024;
/// Changes made visible under one hold of the table's lock, some 100 µs.
const VISIBLE_AT_ONCE: usize = 64;

/// What the thread is asked for.
pub(crate) enum Job {
    /// Write this; the answer is `None` when it cannot be.
    Change(Change, oneshot::Sender<Option<Lease>>),
    /// Write dirty records.
    Flush,
    /// Write what waits, then end.
    Stop,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    store: Box<dyn Store>,
    jobs: mpsc::Receiver<Job>,
    latency: Histogram,
    size: Histogram,
    failures: Counter,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, store: Box<dyn Store>, jobs: mpsc::Receiver<Job>, metrics: &Metrics) -> Self {
        Self {
            shared,
            store,
            jobs,
            latency: metrics.histogram("p2pdi_registry_commit_duration_seconds", "Time to make one batch durable", &[]),
            size: metrics.histogram("p2pdi_registry_commit_changes", "Changes made durable in one batch", &[]),
            failures: metrics.counter("p2pdi_registry_commit_failures_total", "Batches that could not be written", &[]),
        }
    }

    /// Starts the thread. It ends after [`Job::Stop`], or when nobody can ask any more. The token is cancelled when it ends,
    /// by a panic too.
    pub(crate) fn spawn(self) -> std::io::Result<(thread::JoinHandle<()>, CancellationToken)> {
        let ended = CancellationToken::new();
        let at_end = ended.clone().drop_guard();
        let thread = thread::Builder::new().name("registry-writer".into()).spawn(move || {
            let _at_end = at_end;
            self.run();
        })?;
        Ok((thread, ended))
    }

    fn run(mut self) {
        let mut gathered = Vec::with_capacity(BATCH_MAX);
        while self.jobs.blocking_recv_many(&mut gathered, BATCH_MAX) > 0 {
            let mut changes = Vec::with_capacity(gathered.len());
            for job in gathered.drain(..) {
                match job {
                    Job::Change(change, done) => changes.push((change, done)),
                    Job::Flush => {}
                    Job::Stop => self.jobs.close(),
                }
            }
            self.write(changes);
            // A crowd that expired at once is written as fast as the disk takes it, but never before who waits.
            while self.jobs.is_empty() && self.dirty() {
                self.write(Vec::new());
            }
        }
        self.finish();
    }

    fn write(&mut self, changes: Vec<Waiting>) {
        let (dirty, ceiling) = self.shared.with(|table, _| (table.take_dirty(FLUSH_MAX), table.ceiling_wanted()));
        let put_right = dirty.iter().map(|(slot, peer)| written(*slot, peer.as_ref()));
        let asked = changes.iter().map(|(change, _)| Write::Put { slot: change.slot(), peer: change.peer() });
        let batch: Vec<_> = put_right.chain(asked).chain(ceiling.map(Write::Ceiling)).collect();
        if batch.is_empty() {
            return;
        }
        let started = Instant::now();
        let outcome = self.commit(&batch);
        self.latency.record(started.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch has some thousand changes")]
        self.size.record(batch.len() as f64);
        match outcome {
            Ok(()) => {
                if self.shared.store_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the state folder can be written to again");
                }
                if !dirty.is_empty() {
                    self.shared.with(|table, _| table.settle_dirty(dirty.iter().map(|(slot, _)| *slot), true));
                }
                self.make_visible(changes, ceiling);
            }
            Err(error) => {
                self.failures.increment(1);
                if !self.shared.store_failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "registrations are refused until the state folder can be written to");
                }
                self.shared.with(|table, _| {
                    table.settle_dirty(dirty.iter().map(|(slot, _)| *slot), false);
                    for (change, done) in changes {
                        table.abort(change);
                        // Whoever waited may have gone away.
                        let _gone = done.send(None);
                    }
                });
                self.shared.sooner.notify_one();
            }
        }
        self.shared.settled.notify_waiters();
    }

    fn make_visible(&self, changes: Vec<Waiting>, ceiling: Option<u64>) {
        if let Some(ceiling) = ceiling {
            self.shared.with(|table, _| table.ceiling_written(ceiling));
        }
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let some: Vec<_> = changes.by_ref().take(VISIBLE_AT_ONCE).collect();
            let answers = self
                .shared
                .with(|table, now| some.into_iter().map(|(change, done)| (table.commit(change, now), done)).collect::<Vec<_>>());
            for (lease, done) in answers {
                let _gone = done.send(lease);
            }
        }
    }

    /// A panic in the store is one more way to fail.
    fn commit(&mut self, batch: &[Write<'_>]) -> Result<(), StoreError> {
        self.shared.committing(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.store.commit(batch)))
            .unwrap_or_else(|_| Err(StoreError::Failed { doing: "write", problem: "the store panicked".into() }));
        self.shared.committing(false);
        outcome
    }

    /// Whether records wait to be put right on disk, and the disk takes them.
    fn dirty(&self) -> bool {
        !self.shared.store_failing.load(Ordering::Relaxed) && self.shared.with(|table, _| table.counts().dirty) > 0
    }

    /// The last things to write: expiries, and where revisions go on.
    fn finish(mut self) {
        while self.dirty() {
            self.write(Vec::new());
        }
        if self.shared.store_failing.load(Ordering::Relaxed) {
            return;
        }
        let ceiling = self.shared.with(|table, _| table.last_ceiling());
        if let Err(error) = self.commit(&[Write::Ceiling(ceiling)]) {
            tracing::warn!(%error, "revisions will skip some numbers");
        }
    }
}

fn written(slot: u32, peer: Option<&Peer>) -> Write<'_> {
    match peer {
        Some(peer) => Write::Put { slot, peer },
        None => Write::Remove { slot },
    }
}
