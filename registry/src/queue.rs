//! What the writer is asked to do.

use crate::table::{Change, Lease};
use tokio::sync::{mpsc, oneshot};

/// Changes that may wait for a batch: what 10,000 connections ask for at once, some 4 MiB.
pub(crate) const QUEUE_MAX: usize = 10_000;

/// Why a change was not made. The record is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotWritten {
    /// Another registry changed the record first.
    Conflict,
    /// The store failed.
    Failed,
    /// The store did not answer in time: the change is made, or will be, or never.
    Unknown,
}

/// A change that the store accepted.
#[derive(Debug)]
pub(crate) struct Written {
    /// The revision at which it did.
    pub(crate) revision: u64,
    /// The lease of the caller; `None` when it has none any more: it left, or another change came after this one.
    pub(crate) lease: Option<Lease>,
}

/// A job of the writer.
pub(crate) enum Job {
    /// Write the change of a call.
    Change(Change, oneshot::Sender<Result<Written, NotWritten>>),
    /// Write leases that ran out and records to remove, then answer.
    Expiries(Vec<Change>, oneshot::Sender<()>),
    /// Write the records of a backup: all of them or none. Nothing is stored yet, so each is a new one.
    Restore(Vec<Change>, oneshot::Sender<Result<(), NotWritten>>),
    /// Find out whether a store that failed works again.
    Probe,
    /// Say when the table knows everything that the store acknowledged until now, to whichever registry; or that it cannot be found out.
    CatchUp(oneshot::Sender<bool>),
    /// Write what waits, then end.
    Stop,
}

/// The writer's queue.
pub(crate) type Jobs = mpsc::Sender<Job>;
