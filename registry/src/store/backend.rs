//! What every store does. `conformance.rs` tests each of them.

use super::error::StoreError;
use crate::table::{Change, Peer};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Keeps what an acknowledged Register or Leave promised: records keyed by name (in lower case), each with the revision at which it
/// was written, as etcd does.
///
/// One thread calls it, and may block.
pub trait Store: Send {
    /// Gives every record to `each`, with its revision, in any order. Gives the revision up to which these are complete; later
    /// changes have higher ones.
    ///
    /// # Errors
    /// When the records cannot be read, or are damaged.
    fn load(&mut self, each: &mut dyn FnMut(Peer, u64)) -> Result<u64, StoreError>;

    /// Makes changes durable, in order. There is one outcome for each, and one that is refused does not affect the others: either the
    /// revision of the record from now on (each change has a higher one than the change before), or why nothing was changed.
    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>>;

    /// Finds out whether a store that failed works again, by writing to it, and undoes what a failed commit may have left.
    ///
    /// # Errors
    /// When it still fails.
    fn recover(&mut self) -> Result<(), StoreError>;
}

/// Why a change was not made.
#[derive(Debug, Clone)]
pub enum WriteError {
    /// The record's revision is not [`Change::expected_revision`]: another registry changed it first.
    Conflict,
    /// It is not certain to be durable.
    Failed(Arc<StoreError>),
}

/// The revision that a store of its own starts from: microseconds since 1970. No registry makes a million changes a second, so one
/// whose state was lost or restored from a backup still continues above every revision it ever gave out, and a client's
/// `since_revision` from before is not mistaken for one of the new ones.
pub(super) fn first_revision() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}
