//! The database file of the share's cache. It is opened again after an error: redb refuses every read and write after a failed one.

use p2pdi::platform::private;
use redb::{Database, StorageBackend, TransactionError, backends::FileBackend};
use std::{
    fs::OpenOptions,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Pause before the first attempt to open the database again. A disk that is full now is full a millisecond later.
pub(super) const RETRY_AFTER_MIN: Duration = Duration::from_millis(250);
/// Longest pause: opening reads the whole file. Somebody who freed space should not have to wait longer.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// The pause after this many failures in a row: doubles each time.
pub(super) fn retry_after(failures: u32) -> Duration {
    RETRY_AFTER_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_AFTER_MAX)
}

/// A database file that waits for no disk: after a crash of the machine it is not read.
#[derive(Debug)]
pub(super) struct Unsynced(FileBackend);

impl Unsynced {
    /// # Errors
    /// When the file cannot be opened or made.
    pub(super) fn open(path: &Path) -> Result<Self, redb::Error> {
        // Names of documents that are for some are not for other users of the machine.
        let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(path)?;
        Ok(Self(FileBackend::new(file)?))
    }
}

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// A database, and how to open it again.
pub(super) struct CacheDatabase {
    open: Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    /// `None` after an error, until it is opened again.
    database: Option<Arc<Database>>,
    /// Failed writes and openings in a row.
    failures: u32,
    retry_at: Option<Instant>,
}

impl CacheDatabase {
    /// `database`, which `open` opens again after an error.
    pub(super) fn new(database: Database, open: impl Fn() -> Result<Database, redb::Error> + Send + Sync + 'static) -> Self {
        let state = State { database: Some(Arc::new(database)), failures: 0, retry_at: None };
        Self { open: Box::new(open), state: Mutex::new(state) }
    }

    /// Reads. On an error the database is opened again before its next use.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database()?;
        work(&database).inspect_err(|_| self.close(&database))
    }

    /// Writes. On an error the database is opened again before its next use.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database()?;
        let written = work(&database).inspect_err(|_| self.close(&database))?;
        self.lock().failures = 0;
        Ok(written)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> Result<Arc<Database>, redb::Error> {
        let mut state = self.lock();
        if let Some(database) = &state.database {
            return Ok(Arc::clone(database));
        }
        if state.retry_at.is_some_and(|at| Instant::now() < at) {
            return Err(TransactionError::Storage(redb::StorageError::PreviousIo).into());
        }
        // While a reader still has the failed one, its lock on the file makes this fail.
        match (self.open)() {
            Ok(database) => {
                let database = Arc::new(database);
                state.database = Some(Arc::clone(&database));
                Ok(database)
            }
            Err(error) => {
                state.failed();
                Err(error)
            }
        }
    }

    fn close(&self, failed: &Arc<Database>) {
        let mut state = self.lock();
        if state.database.as_ref().is_some_and(|database| Arc::ptr_eq(database, failed)) {
            state.database = None;
            state.failed();
        }
    }
}

impl State {
    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + retry_after(self.failures));
    }
}
