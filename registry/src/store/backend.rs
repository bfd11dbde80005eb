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
    /// Gives every record to `each`, with its revision, in any order.
    ///
    /// # Errors
    /// When the records cannot be read, or are damaged.
    fn load(&mut self, each: &mut dyn FnMut(Peer, u64)) -> Result<Loaded, StoreError>;

    /// Makes changes durable; no two are of one name. There is one outcome for each, and one that is refused does not affect the others:
    /// either the revision of the record from now on (no two have the same, and all are higher than those of earlier batches), or why
    /// nothing was changed.
    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>>;

    /// A revision that is not lower than that of any change which was acknowledged until now, to whichever registry. Where changes come to
    /// the table by a watch, it reaches that revision soon.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn latest(&mut self) -> Result<u64, StoreError>;

    /// Finds out whether a store that failed works again, by writing to it, and undoes what a failed commit may have left.
    ///
    /// # Errors
    /// When it still fails.
    fn recover(&mut self) -> Result<(), StoreError>;
}

/// What a store has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The records are complete up to this revision; later changes have higher ones.
    pub revision: u64,
    /// No record was removed after this revision: deltas since it, or later, are complete.
    pub complete_since: u64,
    /// Records that were not given.
    pub skipped: Skipped,
}

/// Records that the rules of this version refuse, and another version may have accepted. They stay in the store as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The name of the first one and what is wrong with it, for people. Characters that a terminal or a browser may take for more than
    /// text are shown as `?`. Empty without one.
    pub first: String,
}

impl Skipped {
    /// Longest text kept of the name and of the problem, in characters.
    const SHOWN_CHARS: usize = 100;

    /// Counts one more.
    pub(super) fn add(&mut self, name: &str, problem: &str) {
        if self.count == 0 {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || " .,:;_-/()*".contains(letter);
            let shown = |text: &str| -> String {
                text.chars().take(Self::SHOWN_CHARS).map(|letter| if plain(letter) { letter } else { '?' }).collect()
            };
            self.first = format!("{} ({})", shown(name), shown(problem));
        }
        self.count += 1;
    }
}

/// Why a change was not made.
#[derive(Debug, Clone)]
pub enum WriteError {
    /// The record's revision is not [`Change::expected_revision`]: another registry changed it first. Or the change is for the keeper of
    /// the lease only, and this registry is not (any more).
    Conflict {
        /// The revision that the record has in the store; 0: it is not known, or there is no record.
        stored: u64,
    },
    /// It was not made.
    Failed(Arc<StoreError>),
    /// The store did not answer in time: it was made, or it will be, or never.
    Unknown(Arc<StoreError>),
}

/// The revision that a new store starts from: microseconds since 1970. No registry makes a million changes a second, so one
/// whose state was lost or restored from a backup still continues above every revision it ever gave out, and a client's
/// `since_revision` from before is not mistaken for one of the new ones.
pub(super) fn first_revision() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}
