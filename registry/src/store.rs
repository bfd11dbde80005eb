//! Where the table's records outlive the process.
//!
//! A store keeps one record a slot and one number, the ceiling of revisions. It is called by one thread, and all of a
//! batch is on disk when [`Store::commit`] returns, or none of it is to be relied on.

mod codec;
mod embedded;
mod memory;

#[cfg(test)]
mod conformance;

pub use embedded::{Embedded, FILE_NAME};
pub use memory::Memory;

use crate::table::Peer;
use std::{io, path::PathBuf};

/// One thing to write.
#[derive(Debug, Clone, Copy)]
pub enum Write<'a> {
    /// From now on `slot` holds this peer.
    Put {
        /// The record's slot in the table: small, dense, and its own while the record exists.
        slot: u32,
        /// What to keep.
        peer: &'a Peer,
    },
    /// From now on `slot` is empty.
    Remove {
        /// The slot of a record that was forgotten, or never came to be.
        slot: u32,
    },
    /// Revisions below this may be given out.
    Ceiling(u64),
}

/// Keeps what an acknowledged Register or Leave promised.
pub trait Store: Send {
    /// Everything that was committed: each record to `each`, and the ceiling (0 in a new store).
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    fn load(&mut self, each: &mut dyn FnMut(u32, Peer) -> Result<(), StoreError>) -> Result<u64, StoreError>;

    /// Writes a batch, in order: durable when it returns. After an error the next call starts afresh, so a store
    /// recovers by itself when its disk does.
    ///
    /// # Errors
    /// When it is not certain that all of it is durable.
    fn commit(&mut self, batch: &[Write<'_>]) -> Result<(), StoreError>;
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the state folder {} is in use by another registry", .0.display())]
    Locked(PathBuf),
    /// The folder cannot be made or entered.
    #[error("cannot use the state folder {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there and is not what this program wrote.
    #[error("{} is damaged, or is not a registry's file: {problem}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer registry wrote it.
    #[error("{} was written by a newer registry (format {found}, this one knows {})", path.display(), embedded::SCHEMA)]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Reading or writing failed.
    #[error("cannot {doing}: {problem}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        problem: String,
    },
}

impl StoreError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Locked(_) => "stop the other one, or give this one a folder of its own with --state DIR".to_owned(),
            Self::Folder { .. } => {
                "give a folder that this user may write to with --state DIR, or run with --state memory".to_owned()
            }
            Self::Damaged { path, .. } => format!(
                "{0} is still there; restore it from a backup, or move it away to begin anew (peers then register again by themselves)",
                path.display()
            ),
            Self::Newer { .. } => "run the newer registry, or give this one a folder of its own with --state DIR".to_owned(),
            Self::Failed { .. } => "see whether the disk is full or failing".to_owned(),
        }
    }
}
