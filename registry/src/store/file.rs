//! The file of the embedded store: created, opened, converted.

use super::{
    codec::{self, Unreadable},
    error::StoreError,
};
use p2pdi::platform::{FileId, FileStat, create_private_folder, private, sync_folder};
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use std::{
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// The file in the state folder.
pub const FILE_NAME: &str = "registry.redb";
/// A new file is created under this name and renamed once it is a store, so that a start that was killed can be repeated.
pub(super) const NEW_FILE_NAME: &str = "registry.redb.new";
/// Version of the tables. A change of meaning raises it; new fields do not.
const SCHEMA: u64 = 2;
/// Cached pages of the file. The table in memory answers every read, so these only serve the pages being written.
const CACHE_BYTES: usize = 2 * 1024 * 1024;

/// A record: the revision at which it was written, and the encoded peer.
pub(super) type Row = (u64, &'static [u8]);
/// Records by slot.
pub(super) const RECORDS: TableDefinition<'_, u32, Row> = TableDefinition::new("records");
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
pub(super) const REVISION_KEY: &str = "revision";
pub(super) const SCHEMA_KEY: &str = "schema";
/// Schema 1 kept records without a revision.
pub(super) const RECORDS_V1: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("peers");
/// Schema 1 reserved revisions below this.
pub(super) const CEILING_KEY_V1: &str = "revision_ceiling";

pub(super) fn damaged(path: &Path, problem: &dyn fmt::Display) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), problem: problem.to_string() }
}

/// redb panics on some kinds of damage.
pub(super) fn catch_panic<T>(path: &Path, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(damaged(path, &"reading it made the store panic")))
}

pub(super) fn number(database: &Database, key: &str) -> Result<Option<u64>, redb::Error> {
    let numbers = database.begin_read()?.open_table(NUMBERS)?;
    Ok(numbers.get(key)?.map(|number| number.value()))
}

/// Opens or creates the store in `folder`, which is created when it is missing.
pub(super) fn open_or_create(folder: &Path) -> Result<(Database, Option<FileId>), StoreError> {
    let cannot = |source| StoreError::Folder { path: folder.to_owned(), source };
    // Names and addresses of peers are not for other users of the machine.
    create_private_folder(folder).map_err(cannot)?;
    let path = folder.join(FILE_NAME);
    let database = catch_panic(&path, || if is_new(&path) { create(&path) } else { Ok(open(&path)?.0) })?;
    let identity = fs::File::open(&path).and_then(|file| FileStat::of(&file)).map_err(cannot)?.id;
    // Only after this a new file's directory entry survives a loss of power.
    sync_folder(folder).map_err(cannot)?;
    Ok((database, identity))
}

fn is_new(path: &Path) -> bool {
    !fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Creates the file at `path` if it is missing or empty.
pub(super) fn create(path: &Path) -> Result<Database, StoreError> {
    let cannot = |source| StoreError::Folder { path: path.to_owned(), source };
    let new = path.with_file_name(NEW_FILE_NAME);
    // Other users of the machine must not read names and addresses of peers.
    let mut options = fs::OpenOptions::new();
    let file = private(options.read(true).write(true).create(true).truncate(false)).open(&new).map_err(cannot)?;
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

/// Opens the file at `path`, which is there.
pub(super) fn open(path: &Path) -> Result<(Database, Option<FileId>), StoreError> {
    let cannot = |source| StoreError::Folder { path: path.to_owned(), source };
    let file = fs::OpenOptions::new().read(true).write(true).open(path).map_err(cannot)?;
    let stat = FileStat::of(&file).map_err(cannot)?;
    if stat.size == 0 {
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
    Ok((database, stat.id))
}

/// Gives each record a revision.
fn migrate_from_1(path: &Path, database: &Database) -> Result<(), StoreError> {
    let migrate = || -> Result<Result<(), StoreError>, redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let mut revision = numbers.remove(CEILING_KEY_V1)?.map_or(0, |ceiling| ceiling.value());
            let (old, mut records) = (transaction.open_table(RECORDS_V1)?, transaction.open_table(RECORDS)?);
            for row in old.iter()? {
                let (slot, bytes) = row?;
                if let Err(Unreadable::Damaged(problem)) = codec::decode(bytes.value()) {
                    return Ok(Err(damaged(path, &format_args!("record {}: {problem}", slot.value()))));
                }
                revision += 1;
                records.insert(slot.value(), (revision, bytes.value()))?;
            }
            numbers.insert(REVISION_KEY, revision)?;
            numbers.insert(SCHEMA_KEY, SCHEMA)?;
        }
        transaction.delete_table(RECORDS_V1)?;
        transaction.commit()?;
        Ok(Ok(()))
    };
    let doing = "convert the state file to the present format";
    migrate().map_err(|error| StoreError::Failed { doing, problem: error.to_string() })?
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
