//! The store of one registry: one redb file in its state folder.

use super::{
    backend::{Loaded, Skipped, Store, WriteError, first_revision},
    codec::{self, Unreadable},
    error::StoreError,
    file::{self, FILE_NAME, NUMBERS, RECORDS, REVISION_KEY, Row, catch_panic, damaged, number},
    slots::Slots,
};
use crate::table::{Change, Peer};
use p2pdi::platform::FileId;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, Table};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Pause after a failure: opening a large file again reads all of it, and a disk that is full now is full a millisecond later.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// One redb file, locked while it is open.
pub struct Embedded {
    path: PathBuf,
    /// Where the system names files.
    identity: Option<FileId>,
    /// `None` after a failure, until it is opened again: redb accepts no writes after one.
    database: Option<Database>,
    failed_at: Option<Instant>,
    /// `None` until the records are read.
    slots: Option<Slots>,
    /// The latest revision given to a change, durable or not.
    revision: u64,
    /// The latest revision known to be durable.
    durable_revision: u64,
    /// The rows of the failed commit as they were before it. It may be on disk nevertheless.
    undo: Vec<OldRow>,
    /// While it is set, commits reach the disk and then report an error.
    #[cfg(test)]
    pub(super) failing: Arc<std::sync::atomic::AtomicBool>,
}

/// A row before a commit.
struct OldRow {
    slot: u32,
    row: Option<(u64, Vec<u8>)>,
}

/// A batch on its way into the file.
struct Batch<'a> {
    slots: &'a mut Slots,
    revision: &'a mut u64,
    undo: Vec<OldRow>,
    /// Keys that the batch added to (`true`) and removed from the slots.
    moved: Vec<(Box<str>, u32, bool)>,
    outcomes: Vec<Result<u64, WriteError>>,
}

impl Embedded {
    /// Opens or creates the store in `folder`, which is created when it is missing.
    ///
    /// # Errors
    /// When the folder or the file cannot be used; neither is changed then.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        let (database, identity) = file::open_or_create(folder)?;
        let read_revision = || number(&database, REVISION_KEY).map_err(|error| damaged(&path, &error));
        let durable_revision = catch_panic(&path, read_revision)?.unwrap_or(0);
        let revision = durable_revision.max(first_revision());
        let (database, slots) = (Some(database), None);
        Ok(Self {
            path,
            identity,
            database,
            failed_at: None,
            slots,
            revision,
            durable_revision,
            undo: Vec::new(),
            #[cfg(test)]
            failing: Arc::default(),
        })
    }

    /// The database. Opened again after a failure, and without what the failed commit may have left.
    fn database(&mut self) -> Result<Database, StoreError> {
        if let Some(database) = self.database.take() {
            return Ok(database);
        }
        if self.failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return Err(StoreError::Failed { doing: "write", problem: "it failed a moment ago".into() });
        }
        // It counts as failed until this succeeds.
        self.failed_at = Some(Instant::now());
        let (database, identity) = file::open(&self.path)?;
        // When its volume is gone, the folder may show another file, without what was acknowledged.
        if identity != self.identity {
            let problem = format!("{} is not the file that was opened at the start; is its volume mounted?", self.path.display());
            return Err(StoreError::Failed { doing: "write to the state folder", problem });
        }
        if !self.undo.is_empty() {
            let found = number(&database, REVISION_KEY).map_err(|error| failed(&error))?;
            if found.unwrap_or(0) != self.durable_revision {
                restore(&database, &self.undo, self.revision).map_err(|error| failed(&error))?;
                self.durable_revision = self.revision;
            }
            self.undo.clear();
        }
        Ok(database)
    }

    fn try_commit(&mut self, changes: &[Change]) -> Result<Vec<Result<u64, WriteError>>, StoreError> {
        let database = self.database()?;
        // On an error the database is dropped, and with it redb's record of the failure.
        self.failed_at = Some(Instant::now());
        let mut slots = match self.slots.take() {
            Some(slots) => slots,
            None => self.read(&database, &mut |_, _| {})?.0,
        };
        let mut batch = Batch::new(&mut slots, &mut self.revision, changes.len());
        let written = batch.write(&database, changes);
        #[cfg(test)]
        let written = written.and_then(|()| match self.failing.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(redb::Error::Io(std::io::Error::other("the test makes it fail"))),
            false => Ok(()),
        });
        let Batch { undo, outcomes, moved, .. } = batch;
        if let Err(error) = written {
            for (key, slot, added) in moved.iter().rev() {
                if *added { slots.remove(key, *slot) } else { slots.insert(key, *slot) }
            }
            self.slots = Some(slots);
            self.undo = undo;
            return Err(failed(&error));
        }
        self.slots = Some(slots);
        self.failed_at = None;
        self.durable_revision = self.revision;
        self.database = Some(database);
        Ok(outcomes)
    }

    /// Reads all records. Gives their slots, and the records that were skipped: their rows stay as they are. A name whose record is
    /// skipped is free, so a later version may find two records of one name; the one with the higher revision counts.
    fn read(&self, database: &Database, each: &mut dyn FnMut(Peer, u64)) -> Result<(Slots, Skipped), StoreError> {
        let damaged = |problem: &dyn fmt::Display| damaged(&self.path, problem);
        let (mut slots, mut skipped) = (Slots::default(), Skipped::default());
        let transaction = database.begin_read().map_err(|error| damaged(&error))?;
        let records = transaction.open_table(RECORDS).map_err(|error| damaged(&error))?;
        for row in records.iter().map_err(|error| damaged(&error))? {
            let (slot, row) = row.map_err(|error| damaged(&error))?;
            let (slot, (revision, bytes)) = (slot.value(), row.value());
            let peer = match codec::decode(bytes) {
                Ok(peer) => peer,
                Err(Unreadable::Damaged(problem)) => return Err(damaged(&format_args!("record {slot}: {problem}"))),
                Err(Unreadable::Refused { name, problem }) => {
                    skipped.add(&name, &problem);
                    slots.occupy(slot);
                    continue;
                }
            };
            let key = peer.strings.name().to_ascii_lowercase();
            let mut older = None;
            for other in slots.candidates(&key) {
                let row = records.get(other).map_err(|error| damaged(&error))?;
                if let Some(row) = row.filter(|row| codec::has_name(row.value().1, &key)) {
                    older = Some((other, row.value().0));
                }
            }
            match older {
                Some((_, newer)) if newer >= revision => {
                    slots.occupy(slot);
                    continue;
                }
                Some((older, _)) => slots.remove(&key, older),
                None => {}
            }
            slots.insert(&key, slot);
            each(peer, revision);
        }
        Ok((slots, skipped))
    }
}

impl Store for Embedded {
    fn load(&mut self, each: &mut dyn FnMut(Peer, u64)) -> Result<Loaded, StoreError> {
        let database = self.database()?;
        let (slots, skipped) = catch_panic(&self.path, || self.read(&database, each))?;
        (self.database, self.slots) = (Some(database), Some(slots));
        Ok(Loaded { revision: self.revision, complete_since: self.revision, skipped })
    }

    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        self.try_commit(batch).unwrap_or_else(|error| {
            let error = Arc::new(error);
            batch.iter().map(|_| Err(WriteError::Failed(Arc::clone(&error)))).collect()
        })
    }

    fn latest(&mut self) -> Result<u64, StoreError> {
        Ok(self.revision)
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        self.try_commit(&[]).map(drop)
    }
}

impl<'a> Batch<'a> {
    fn new(slots: &'a mut Slots, revision: &'a mut u64, changes: usize) -> Self {
        let outcomes = Vec::with_capacity(changes);
        Self { slots, revision, undo: Vec::new(), moved: Vec::new(), outcomes }
    }

    /// Makes the changes durable, in one transaction.
    fn write(&mut self, database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for change in changes {
                let outcome = self.add(&mut records, change)?;
                self.outcomes.push(outcome);
            }
            // Without changes too, so that a recovery writes something.
            transaction.open_table(NUMBERS)?.insert(REVISION_KEY, *self.revision)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn add(&mut self, records: &mut Table<'_, u32, Row>, change: &Change) -> Result<Result<u64, WriteError>, redb::Error> {
        let mut found = None;
        for slot in self.slots.candidates(&change.key) {
            let Some(row) = records.get(slot)? else { continue };
            let (revision, bytes) = row.value();
            if codec::has_name(bytes, &change.key) {
                found = Some((slot, revision, bytes.to_vec()));
            }
        }
        let stored = found.as_ref().map_or(0, |(_, revision, _)| *revision);
        if stored != change.expected_revision {
            return Ok(Err(WriteError::Conflict { stored }));
        }
        *self.revision += 1;
        let slot = found.as_ref().map_or_else(|| self.slots.next_free(), |(slot, ..)| *slot);
        let bytes = change.peer.as_deref().map(codec::encode);
        put(records, slot, bytes.as_deref().map(|bytes| (*self.revision, bytes)))?;
        match (&found, &change.peer) {
            (None, Some(_)) => {
                self.slots.insert(&change.key, slot);
                self.moved.push((change.key.clone(), slot, true));
            }
            (Some(_), None) => {
                self.slots.remove(&change.key, slot);
                self.moved.push((change.key.clone(), slot, false));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.undo.push(OldRow { slot, row: found.map(|(_, revision, bytes)| (revision, bytes)) });
        Ok(Ok(*self.revision))
    }
}

/// Restores rows as they were before a commit. A slot may be there more than once; its first entry is the oldest.
fn restore(database: &Database, undo: &[OldRow], revision: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for OldRow { slot, row } in undo.iter().rev() {
            put(&mut records, *slot, row.as_ref().map(|(revision, bytes)| (*revision, bytes.as_slice())))?;
        }
        transaction.open_table(NUMBERS)?.insert(REVISION_KEY, revision)?;
    }
    transaction.commit()?;
    Ok(())
}

fn put(records: &mut Table<'_, u32, Row>, slot: u32, row: Option<(u64, &[u8])>) -> Result<(), redb::Error> {
    match row {
        Some(row) => drop(records.insert(slot, row)?),
        None => drop(records.remove(slot)?),
    }
    Ok(())
}

fn failed(error: &dyn fmt::Display) -> StoreError {
    StoreError::Failed { doing: "write to the state folder", problem: error.to_string() }
}

#[cfg(test)]
mod tests;
