//! The store in a file of its own: redb.

use super::{Peer, Store, StoreError, Write, codec};
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The file in the state folder.
pub const FILE_NAME: &str = "registry.redb";
/// Where a new file is made: it gets its name once it is a store, so one that was cut off at its very start is begun again.
pub(super) const BEGUN_FILE_NAME: &str = "registry.redb.new";
/// Version of what is in the tables. A change of meaning raises it; fields that are added do not.
pub(super) const SCHEMA: u64 = 1;
/// The file's pages kept in memory: the table holds all there is to read, so they only serve the pages being written.
const CACHE_BYTES: usize = 2 * 1024 * 1024;
/// How long after a failure it is tried again: opening a large file anew reads it whole, and a disk that is full
/// now is full a millisecond later.
const RETRY_AFTER: Duration = Duration::from_millis(250);

const PEERS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("peers");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const SCHEMA_KEY: &str = "schema";
const CEILING_KEY: &str = "revision_ceiling";

/// One redb file, locked while it is open.
pub struct Embedded {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// `None` after a failure, until it is opened anew: redb takes no more writes after one.
    database: Option<Database>,
    failed_at: Option<Instant>,
}

impl Embedded {
    /// Opens or makes the store in `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// When the folder or the file cannot be used; neither is changed then.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Folder { path: folder.to_owned(), source };
        // Names and addresses of peers are their own business.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let path = folder.join(FILE_NAME);
        let database = unpanicked(&path, || if is_new(&path) { create(&path) } else { Ok(open(&path)?.0) })?;
        let file = fs::metadata(&path).map_err(cannot)?;
        // A new file's entry in its folder survives a loss of power only so.
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot)?;
        Ok(Self { path, identity: (file.dev(), file.ino()), database: Some(database), failed_at: None })
    }

    fn database(&mut self) -> Result<Database, StoreError> {
        if let Some(database) = self.database.take() {
            return Ok(database);
        }
        if self.failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return Err(StoreError::Failed { doing: "write", problem: "it failed a moment ago".into() });
        }
        // Until this comes to an end, it failed.
        self.failed_at = Some(Instant::now());
        let (database, identity) = open(&self.path)?;
        // With its volume gone, the folder may show another file; what was acknowledged is not in that one.
        if identity != self.identity {
            let problem = format!("{} is another file than at the start; is its volume mounted?", self.path.display());
            return Err(StoreError::Failed { doing: "write to the state folder", problem });
        }
        Ok(database)
    }
}

impl Store for Embedded {
    fn load(&mut self, each: &mut dyn FnMut(u32, Peer) -> Result<(), StoreError>) -> Result<u64, StoreError> {
        let database = self.database()?;
        let ceiling = unpanicked(&self.path, || self.read(&database, each))?;
        self.database = Some(database);
        Ok(ceiling)
    }

    fn commit(&mut self, batch: &[Write<'_>]) -> Result<(), StoreError> {
        let database = self.database()?;
        // On an error the database is dropped, and with it what redb remembers of the failure.
        self.failed_at = Some(Instant::now());
        write(&database, batch)
            .map_err(|error| StoreError::Failed { doing: "write to the state folder", problem: error.to_string() })?;
        self.failed_at = None;
        self.database = Some(database);
        Ok(())
    }
}

impl Embedded {
    fn read(&self, database: &Database, each: &mut dyn FnMut(u32, Peer) -> Result<(), StoreError>) -> Result<u64, StoreError> {
        let damaged = |problem: String| StoreError::Damaged { path: self.path.clone(), problem };
        let read = |error: &dyn std::fmt::Display| damaged(error.to_string());
        let transaction = database.begin_read().map_err(|error| read(&error))?;
        let peers = transaction.open_table(PEERS).map_err(|error| read(&error))?;
        for row in peers.iter().map_err(|error| read(&error))? {
            let (slot, bytes) = row.map_err(|error| read(&error))?;
            let peer = codec::decode(bytes.value()).map_err(|problem| damaged(format!("record {}: {problem}", slot.value())))?;
            each(slot.value(), peer)?;
        }
        let numbers = transaction.open_table(NUMBERS).map_err(|error| read(&error))?;
        let ceiling = numbers.get(CEILING_KEY).map_err(|error| read(&error))?;
        Ok(ceiling.map_or(0, |ceiling| ceiling.value()))
    }
}

/// redb takes some damage for a fault of its own and panics.
fn unpanicked<T>(path: &Path, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(StoreError::Damaged { path: path.to_owned(), problem: "reading it made the store panic".into() }))
}

fn write(database: &Database, batch: &[Write<'_>]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut peers = transaction.open_table(PEERS)?;
        for write in batch {
            match write {
                Write::Put { slot, peer } => {
                    peers.insert(slot, codec::encode(peer).as_slice())?;
                }
                Write::Remove { slot } => {
                    peers.remove(slot)?;
                }
                Write::Ceiling(_) => {}
            }
        }
        if let Some(ceiling) =
            batch.iter().rev().find_map(|w| if let Write::Ceiling(ceiling) = w { Some(*ceiling) } else { None })
        {
            transaction.open_table(NUMBERS)?.insert(CEILING_KEY, ceiling)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn is_new(path: &Path) -> bool {
    !fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Makes the file at `path`, where there is none or an empty one.
fn create(path: &Path) -> Result<Database, StoreError> {
    let cannot = |source| StoreError::Folder { path: path.to_owned(), source };
    let failed = |error: &dyn std::fmt::Display| StoreError::Failed { doing: "make the state file", problem: error.to_string() };
    let begun = path.with_file_name(BEGUN_FILE_NAME);
    // Whoever else may look into the folder need not read who is known here.
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&begun);
    let file = file.map_err(cannot)?;
    // The lock first: what is emptied here must not be what another registry has just begun, or even named.
    match file.try_lock() {
        Ok(()) if is_new(path) => file.set_len(0).map_err(cannot)?,
        Ok(()) | Err(fs::TryLockError::WouldBlock) => {
            return Err(StoreError::Locked(path.parent().unwrap_or(path).to_owned()));
        }
        Err(fs::TryLockError::Error(source)) => return Err(cannot(source)),
    }
    let database = database(path, file)?;
    let begin = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(PEERS)?;
        transaction.open_table(NUMBERS)?.insert(SCHEMA_KEY, SCHEMA)?;
        transaction.commit()?;
        Ok(())
    };
    begin().map_err(|error| failed(&error))?;
    fs::rename(&begun, path).map_err(cannot)?;
    Ok(database)
}

/// Opens the file at `path`, which is there, and tells its device and inode.
fn open(path: &Path) -> Result<(Database, (u64, u64)), StoreError> {
    let cannot = |source| StoreError::Folder { path: path.to_owned(), source };
    let damaged = |problem: String| StoreError::Damaged { path: path.to_owned(), problem };
    let file = fs::OpenOptions::new().read(true).write(true).open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.len() == 0 {
        // redb would begin anew in it.
        return Err(damaged("it is empty".into()));
    }
    let database = database(path, file)?;
    let schema = || -> Result<Option<u64>, redb::Error> {
        let transaction = database.begin_read()?;
        let numbers = transaction.open_table(NUMBERS)?;
        Ok(numbers.get(SCHEMA_KEY)?.map(|schema| schema.value()))
    };
    match schema().map_err(|error| damaged(error.to_string()))? {
        Some(SCHEMA) => Ok((database, (metadata.dev(), metadata.ino()))),
        Some(found) if found > SCHEMA => Err(StoreError::Newer { path: path.to_owned(), found }),
        _ => Err(damaged("it has no format number".into())),
    }
}

fn database(path: &Path, file: fs::File) -> Result<Database, StoreError> {
    Builder::new().set_cache_size(CACHE_BYTES).create_file(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.parent().unwrap_or(path).to_owned()),
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
            StoreError::Folder { path: path.to_owned(), source }
        }
        error => StoreError::Damaged { path: path.to_owned(), problem: error.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_was_cut_off_while_the_file_was_made_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        for begun in [&b""[..], b"redb", &[0; 100_000]] {
            let folder = folder.path().join(begun.len().to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(BEGUN_FILE_NAME), begun).unwrap();
            let mut store = Embedded::open(&folder).unwrap();
            store.commit(&[Write::Ceiling(7)]).unwrap();
            drop(store);
            assert!(!folder.join(BEGUN_FILE_NAME).exists());
            assert_eq!(Embedded::open(&folder).unwrap().load(&mut |_, _| Ok(())).unwrap(), 7);
        }
    }

    #[test]
    fn after_a_failure_only_the_same_file_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let aside = folder.path().join("aside");
        let mut store = Embedded::open(folder.path()).unwrap();
        store.commit(&[Write::Ceiling(7)]).unwrap();
        // As after a write error, with the volume gone.
        store.database = None;
        fs::rename(&path, &aside).unwrap();
        store.commit(&[Write::Ceiling(8)]).unwrap_err();
        assert!(!path.exists(), "nothing is begun in the bare mount point");
        // Somebody else's there.
        drop(create(&path).unwrap());
        store.failed_at = None;
        let error = store.commit(&[Write::Ceiling(9)]).unwrap_err();
        assert!(error.to_string().contains("another file"), "{error}");
        fs::rename(&aside, &path).unwrap();
        store.failed_at = None;
        store.commit(&[Write::Ceiling(10)]).unwrap();
        drop(store);
        assert_eq!(Embedded::open(folder.path()).unwrap().load(&mut |_, _| Ok(())).unwrap(), 10);
    }
}
