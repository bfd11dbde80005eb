//! The store of one registry: one redb file in its state folder.

use super::{
    backend::{Store, WriteError, first_revision},
    codec,
    error::StoreError,
};
use crate::table::{Change, Peer};
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, Table, TableDefinition};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// The file in the state folder.
pub const FILE_NAME: &str = "registry.redb";
/// A new file is created under this name and renamed once it is a store, so that a start that was killed can be repeated.
const NEW_FILE_NAME: &str = "registry.redb.new";
/// Version of the tables. A change of meaning raises it; new fields do not.
const SCHEMA: u64 = 2;
/// Cached pages of the file. The table in memory answers every read, so these only serve the pages being written.
const CACHE_BYTES: usize = 2 * 1024 * 1024;
/// Pause after a failure: opening a large file again reads all of it, and a disk that is full now is full a millisecond later.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// A record: the revision at which it was written, and the encoded peer.
type Row = (u64, &'static [u8]);
/// Records by name in lower case.
const RECORDS: TableDefinition<'_, &str, Row> = TableDefinition::new("records");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const SCHEMA_KEY: &str = "schema";
const REVISION_KEY: &str = "revision";
/// Records of schema 1, by slot.
const RECORDS_V1: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("peers");
/// Revisions below this were reserved by schema 1.
const CEILING_KEY_V1: &str = "revision_ceiling";

/// One redb file, locked while it is open.
pub struct Embedded {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// `None` after a failure, until it is opened again: redb accepts no writes after one.
    database: Option<Database>,
    failed_at: Option<Instant>,
    /// The latest revision given to a change, durable or not.
    revision: u64,
    /// The latest revision known to be durable.
    durable_revision: u64,
    /// What the rows of the latest commit were before it. It is needed when the commit fails and is on disk all the same.
    undo: Vec<OldRow>,
}

/// A key, and its row before a commit.
type OldRow = (Box<str>, Option<(u64, Vec<u8>)>);

impl Embedded {
    /// Opens or creates the store in `folder`, which is created when it is missing.
    ///
    /// # Errors
    /// When the folder or the file cannot be used; neither is changed then.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Folder { path: folder.to_owned(), source };
        // Names and addresses of peers are not for other users of the machine.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let path = folder.join(FILE_NAME);
        let (database, durable_revision) = catch_panic(&path, || {
            let database = if is_new(&path) { create(&path)? } else { open(&path)?.0 };
            let revision = number(&database, REVISION_KEY).map_err(|error| damaged(&path, &error))?.unwrap_or(0);
            Ok((database, revision))
        })?;
        let file = fs::metadata(&path).map_err(cannot)?;
        // Only after this a new file's directory entry survives a loss of power.
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot)?;
        let revision = durable_revision.max(first_revision());
        let identity = (file.dev(), file.ino());
        Ok(Self { path, identity, database: Some(database), failed_at: None, revision, durable_revision, undo: Vec::new() })
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
        let (database, identity) = open(&self.path)?;
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

    fn try_commit(&mut self, batch: &[Change]) -> Result<Vec<Result<u64, WriteError>>, StoreError> {
        let database = self.database()?;
        // On an error the database is dropped, and with it redb's record of the failure.
        self.failed_at = Some(Instant::now());
        let outcomes = write(&database, batch, &mut self.revision, &mut self.undo).map_err(|error| failed(&error))?;
        self.failed_at = None;
        self.durable_revision = self.revision;
        self.undo.clear();
        self.database = Some(database);
        Ok(outcomes)
    }

    fn read(&self, database: &Database, each: &mut dyn FnMut(Peer, u64)) -> Result<(), StoreError> {
        let transaction = database.begin_read().map_err(|error| damaged(&self.path, &error))?;
        let records = transaction.open_table(RECORDS).map_err(|error| damaged(&self.path, &error))?;
        for row in records.iter().map_err(|error| damaged(&self.path, &error))? {
            let (key, row) = row.map_err(|error| damaged(&self.path, &error))?;
            let (revision, bytes) = row.value();
            let peer = codec::decode(bytes)
                .map_err(|problem| damaged(&self.path, &format_args!("record {:?}: {problem}", key.value())))?;
            each(peer, revision);
        }
        Ok(())
    }
}

impl Store for Embedded {
    fn load(&mut self, each: &mut dyn FnMut(Peer, u64)) -> Result<u64, StoreError> {
        let database = self.database()?;
        catch_panic(&self.path, || self.read(&database, each))?;
        self.database = Some(database);
        Ok(self.revision)
    }

    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        self.try_commit(batch).unwrap_or_else(|error| {
            let error = Arc::new(error);
            batch.iter().map(|_| Err(WriteError::Failed(Arc::clone(&error)))).collect()
        })
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        self.try_commit(&[]).map(drop)
    }
}

fn damaged(path: &Path, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), problem: problem.to_string() }
}

fn failed(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed { doing: "write to the state folder", problem: error.to_string() }
}

/// redb panics on some damage, as if it were a bug of its own.
fn catch_panic<T>(path: &Path, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(damaged(path, &"reading it made the store panic")))
}

fn number(database: &Database, key: &str) -> Result<Option<u64>, redb::Error> {
    let numbers = database.begin_read()?.open_table(NUMBERS)?;
    Ok(numbers.get(key)?.map(|number| number.value()))
}

/// Makes the batch durable. Leaves in `undo` what the rows were before.
fn write(
    database: &Database,
    batch: &[Change],
    revision: &mut u64,
    undo: &mut Vec<OldRow>,
) -> Result<Vec<Result<u64, WriteError>>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut outcomes = Vec::with_capacity(batch.len());
    {
        let mut records = transaction.open_table(RECORDS)?;
        for change in batch {
            let before = records.get(&*change.key)?.map(|row| (row.value().0, row.value().1.to_vec()));
            if before.as_ref().map_or(0, |(revision, _)| *revision) != change.expected_revision {
                outcomes.push(Err(WriteError::Conflict));
                continue;
            }
            undo.push((change.key.clone(), before));
            *revision += 1;
            let bytes = change.peer.as_deref().map(codec::encode);
            put(&mut records, &change.key, bytes.as_deref().map(|bytes| (*revision, bytes)))?;
            outcomes.push(Ok(*revision));
        }
        // With an empty batch too, so that a recovery writes something.
        transaction.open_table(NUMBERS)?.insert(REVISION_KEY, *revision)?;
    }
    transaction.commit()?;
    Ok(outcomes)
}

/// Restores rows. The latest of a key comes first, so that the oldest counts.
fn restore(database: &Database, undo: &[OldRow], revision: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for (key, row) in undo.iter().rev() {
            put(&mut records, key, row.as_ref().map(|(revision, bytes)| (*revision, bytes.as_slice())))?;
        }
        transaction.open_table(NUMBERS)?.insert(REVISION_KEY, revision)?;
    }
    transaction.commit()?;
    Ok(())
}

fn put(records: &mut Table<'_, &'static str, Row>, key: &str, row: Option<(u64, &[u8])>) -> Result<(), redb::Error> {
    match row {
        Some(row) => drop(records.insert(key, row)?),
        None => drop(records.remove(key)?),
    }
    Ok(())
}

fn is_new(path: &Path) -> bool {
    !fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Creates the file at `path`, where there is none or an empty one.
fn create(path: &Path) -> Result<Database, StoreError> {
    let cannot = |source| StoreError::Folder { path: path.to_owned(), source };
    let new = path.with_file_name(NEW_FILE_NAME);
    // Other users of the machine must not read names and addresses of peers.
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&new);
    let file = file.map_err(cannot)?;
    // Lock first: the file that is emptied here must not be one that another registry is creating, or has renamed already.
    match file.try_lock() {
        Ok(()) if is_new(path) => file.set_len(0).map_err(cannot)?,
        Ok(()) | Err(fs::TryLockError::WouldBlock) => {
            return Err(StoreError::Locked(path.parent().unwrap_or(path).to_owned()));
        }
        Err(fs::TryLockError::Error(source)) => return Err(cannot(source)),
    }
    let database = database(path, file)?;
    let initialise = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(NUMBERS)?.insert(SCHEMA_KEY, SCHEMA)?;
        transaction.commit()?;
        Ok(())
    };
    let failed = |error: redb::Error| StoreError::Failed { doing: "create the state file", problem: error.to_string() };
    initialise().map_err(failed)?;
    fs::rename(&new, path).map_err(cannot)?;
    Ok(database)
}

/// Opens the file at `path`, which is there. Gives its device and inode.
fn open(path: &Path) -> Result<(Database, (u64, u64)), StoreError> {
    let cannot = |source| StoreError::Folder { path: path.to_owned(), source };
    let file = fs::OpenOptions::new().read(true).write(true).open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.len() == 0 {
        // redb would make it a new database.
        return Err(damaged(path, &"it is empty"));
    }
    let database = database(path, file)?;
    match number(&database, SCHEMA_KEY).map_err(|error| damaged(path, &error))? {
        Some(SCHEMA) => {}
        Some(1) => migrate_from_1(path, &database)?,
        Some(found) if found > SCHEMA => return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA }),
        _ => return Err(damaged(path, &"it has no format number")),
    }
    Ok((database, (metadata.dev(), metadata.ino())))
}

/// Schema 1 kept records by slot and without a revision, and reserved revisions in blocks.
fn migrate_from_1(path: &Path, database: &Database) -> Result<(), StoreError> {
    let migrate = || -> Result<Result<(), StoreError>, redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let mut revision = numbers.remove(CEILING_KEY_V1)?.map_or(0, |ceiling| ceiling.value());
            let (old, mut records) = (transaction.open_table(RECORDS_V1)?, transaction.open_table(RECORDS)?);
            for row in old.iter()? {
                let (slot, bytes) = row?;
                let peer = match codec::decode(bytes.value()) {
                    Ok(peer) => peer,
                    Err(problem) => return Ok(Err(damaged(path, &format_args!("record {}: {problem}", slot.value())))),
                };
                revision += 1;
                let key = peer.strings.name().to_ascii_lowercase();
                if records.insert(key.as_str(), (revision, bytes.value()))?.is_some() {
                    return Ok(Err(damaged(path, &format_args!("{key} is in it twice"))));
                }
            }
            numbers.insert(REVISION_KEY, revision)?;
            numbers.insert(SCHEMA_KEY, SCHEMA)?;
        }
        transaction.delete_table(RECORDS_V1)?;
        transaction.commit()?;
        Ok(Ok(()))
    };
    let failed = |error: redb::Error| StoreError::Failed {
        doing: "convert the state file to the present format",
        problem: error.to_string(),
    };
    migrate().map_err(failed)?
}

fn database(path: &Path, file: fs::File) -> Result<Database, StoreError> {
    Builder::new().set_cache_size(CACHE_BYTES).create_file(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.parent().unwrap_or(path).to_owned()),
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
            StoreError::Folder { path: path.to_owned(), source }
        }
        error => damaged(path, &error),
    })
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{contents, peer};

    #[test]
    fn a_start_that_was_killed_while_it_created_the_file_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        for begun in [&b""[..], b"redb", &[0; 100_000]] {
            let folder = folder.path().join(begun.len().to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(NEW_FILE_NAME), begun).unwrap();
            let mut store = Embedded::open(&folder).unwrap();
            store.try_commit(&[Change::put(peer(7, true), 0)]).unwrap();
            drop(store);
            assert!(!folder.join(NEW_FILE_NAME).exists());
            assert_eq!(contents(&mut Embedded::open(&folder).unwrap()).len(), 1);
        }
    }

    #[test]
    fn after_a_failure_only_the_same_file_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let aside = folder.path().join("aside");
        let mut store = Embedded::open(folder.path()).unwrap();
        store.try_commit(&[Change::put(peer(7, true), 0)]).unwrap();
        // As after a write error, with the volume gone.
        store.database = None;
        fs::rename(&path, &aside).unwrap();
        store.recover().unwrap_err();
        assert!(!path.exists(), "no new file is created in the bare mount point");
        // Another registry's file.
        drop(create(&path).unwrap());
        store.failed_at = None;
        let error = store.recover().unwrap_err();
        assert!(error.to_string().contains("not the file"), "{error}");
        fs::rename(&aside, &path).unwrap();
        store.failed_at = None;
        store.try_commit(&[Change::put(peer(8, true), 0)]).unwrap();
        drop(store);
        assert_eq!(contents(&mut Embedded::open(folder.path()).unwrap()).len(), 2);
    }

    #[test]
    fn a_failed_commit_that_reached_the_disk_is_undone() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(folder.path()).unwrap();
        store.try_commit(&[Change::put(peer(1, true), 0), Change::put(peer(2, true), 0)]).unwrap();
        let before = contents(&mut store);
        let revision = |name: &str| before[name].1;
        let batch = [
            Change::put(peer(1, false), revision("peer-1")),
            Change::remove("peer-2", revision("peer-2")),
            Change::put(peer(3, true), 0),
        ];
        // The commit reaches the disk, and its sync reports an error.
        let database = store.database.take().unwrap();
        write(&database, &batch, &mut store.revision, &mut store.undo).unwrap();
        drop(database);
        store.recover().unwrap();
        assert_eq!(contents(&mut store), before);
        drop(store);
        assert_eq!(contents(&mut Embedded::open(folder.path()).unwrap()), before);
    }

    #[test]
    fn a_failed_commit_that_did_not_reach_the_disk_needs_no_undo() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(folder.path()).unwrap();
        store.try_commit(&[Change::put(peer(1, true), 0)]).unwrap();
        let before = contents(&mut store);
        store.undo = vec![("peer-1".into(), None)];
        store.database = None;
        store.recover().unwrap();
        assert_eq!(contents(&mut store), before);
        let accepted = store.try_commit(&[Change::put(peer(1, false), before["peer-1"].1)]).unwrap();
        assert!(accepted[0].as_ref().is_ok_and(|revision| *revision > before["peer-1"].1));
    }

    #[test]
    fn a_file_of_schema_1_is_converted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let peers = [peer(1, true), peer(2, false)];
        for (slot, peer) in [0, 70_000].into_iter().zip(&peers) {
            transaction.open_table(RECORDS_V1).unwrap().insert(slot, codec::encode(peer).as_slice()).unwrap();
        }
        let far = u64::MAX / 2;
        transaction.open_table(NUMBERS).unwrap().insert(SCHEMA_KEY, 1).unwrap();
        transaction.open_table(NUMBERS).unwrap().insert(CEILING_KEY_V1, far).unwrap();
        transaction.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let mut store = Embedded::open(folder.path()).unwrap();
            let found = contents(&mut store);
            assert_eq!(found.values().map(|(peer, _)| peer).collect::<Vec<_>>(), peers.iter().collect::<Vec<_>>());
            assert!(found.values().all(|(_, revision)| *revision > far), "{found:?}");
            assert_eq!(store.load(&mut |_, _| {}).unwrap(), far + 2);
        }
    }
}
