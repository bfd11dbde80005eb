//! The file of the ledger: one redb file in the CA's folder, locked while it is open.

use super::{
    codec,
    error::CaError,
    ledger::{Change, Ledger},
};
use p2pdi::{
    network::NetworkName,
    platform::{create_private_folder, private, sync_folder},
};
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use std::{
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// The file in the CA's folder.
const FILE_NAME: &str = "ledger.redb";
/// A new file is created under this name and renamed once it is a ledger, so that a start that was killed can be repeated.
const NEW_FILE_NAME: &str = "ledger.redb.new";
/// Its name once its content is kept where several registries share it.
const RETIRED_NAME: &str = "ledger.redb.shared";
/// Version of the tables. A change of meaning raises it; new fields do not.
const SCHEMA: u64 = 1;
/// Cached pages of the file. The ledger in memory answers every read.
const CACHE_BYTES: usize = 1024 * 1024;

const TOKENS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("tokens");
const CERTIFICATES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("certificates");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");
const SCHEMA_KEY: &str = "schema";
const REVISION_KEY: &str = "revision";
const GENERATION_KEY: &str = "generation";
const NETWORK_KEY: &str = "network";

/// The open file.
pub(super) struct LedgerFile {
    path: PathBuf,
    /// `None` after a failure, until it is opened again: redb accepts no writes after one.
    database: Option<Database>,
}

impl LedgerFile {
    /// Whether `folder` has one.
    pub(super) fn is_in(folder: &Path) -> bool {
        folder.join(FILE_NAME).exists()
    }

    /// Gives the file another name, once all of it is kept elsewhere: whoever looked into it would think that it still counts.
    pub(super) fn retire(folder: &Path) {
        let (from, to) = (folder.join(FILE_NAME), folder.join(RETIRED_NAME));
        match fs::rename(&from, &to) {
            Ok(()) => {
                tracing::info!(file = %to.display(), "the ledger of the CA folder is shared with other registries now; its file is not used any more")
            }
            Err(error) => {
                tracing::warn!(%error, file = %from.display(), "this ledger is not used any more, since it is shared with other registries; remove it")
            }
        }
    }

    /// Opens the file in `folder`, or creates both. Gives its network, too.
    pub(super) fn open(folder: &Path, network: &NetworkName) -> Result<(Self, NetworkName), CaError> {
        create_private_folder(folder).map_err(io_error("make the folder", folder))?;
        let path = folder.join(FILE_NAME);
        let is_new = !fs::metadata(&path).is_ok_and(|file| file.len() > 0);
        let opened = catch_unwind(AssertUnwindSafe(|| if is_new { create(&path, network) } else { open(&path) }));
        let database = opened.unwrap_or_else(|_| Err(damaged(&path, &"reading it made the store panic")))?;
        sync_folder(folder).map_err(io_error("sync the folder", folder))?;
        let found = network_of(&database).map_err(|error| damaged(&path, &error))?;
        let found = found.parse().map_err(|error| damaged(&path, &error))?;
        Ok((Self { path, database: Some(database) }, found))
    }

    /// Reads all that was stored.
    pub(super) fn load(&self) -> Result<Ledger, CaError> {
        let Some(database) = &self.database else { return Ok(Ledger::default()) };
        let mut ledger = Ledger::default();
        let mut unreadable = 0;
        let mut read = || -> Result<(), redb::Error> {
            let transaction = database.begin_read()?;
            let numbers = transaction.open_table(NUMBERS)?;
            let number = |key| Ok::<_, redb::Error>(numbers.get(key)?.map_or(0, |number| number.value()));
            let generation = u32::try_from(number(GENERATION_KEY)?).unwrap_or(u32::MAX);
            ledger.apply(Change::Trust { revision: number(REVISION_KEY)?, generation });
            for row in transaction.open_table(TOKENS)?.iter()? {
                match codec::decode_token(row?.1.value()) {
                    Some(token) => ledger.apply(Change::Token(token)),
                    None => unreadable += 1,
                }
            }
            for row in transaction.open_table(CERTIFICATES)?.iter()? {
                match codec::decode_certificate(row?.1.value()) {
                    Some(certificate) => ledger.apply(Change::Certificate(certificate)),
                    None => unreadable += 1,
                }
            }
            Ok(())
        };
        catch_unwind(AssertUnwindSafe(&mut read))
            .map_err(|_| damaged(&self.path, &"reading it made the store panic"))?
            .map_err(|error| damaged(&self.path, &error))?;
        // A token that was revoked, or a certificate, must not be forgotten silently.
        if unreadable > 0 {
            return Err(damaged(&self.path, &format_args!("{unreadable} rows cannot be read")));
        }
        Ok(ledger)
    }

    /// Makes the changes durable, all or none.
    pub(super) fn write(&mut self, changes: &[Change]) -> Result<(), CaError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        // On an error the database is dropped, and with it redb's record of the failure.
        write(&database, changes).map_err(|error| CaError::NotStored(error.to_string()))?;
        self.database = Some(database);
        Ok(())
    }
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let (mut tokens, mut certificates) = (transaction.open_table(TOKENS)?, transaction.open_table(CERTIFICATES)?);
        let mut numbers = transaction.open_table(NUMBERS)?;
        for change in changes {
            match change {
                Change::Token(token) => {
                    tokens.insert(token.hash.0.as_slice(), codec::encode_token(token).as_slice())?;
                }
                Change::ForgetToken(hash) => drop(tokens.remove(hash.0.as_slice())?),
                Change::Certificate(certificate) => {
                    certificates.insert(certificate.serial.as_slice(), codec::encode_certificate(certificate).as_slice())?;
                }
                Change::ForgetCertificate(serial) => drop(certificates.remove(serial.as_slice())?),
                Change::Trust { revision, generation } => {
                    numbers.insert(REVISION_KEY, *revision)?;
                    numbers.insert(GENERATION_KEY, u64::from(*generation))?;
                }
                Change::Authority { .. } => {}
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn network_of(database: &Database) -> Result<String, redb::Error> {
    let texts = database.begin_read()?.open_table(TEXTS)?;
    Ok(texts.get(NETWORK_KEY)?.map(|text| text.value().to_owned()).unwrap_or_default())
}

fn create(path: &Path, network: &NetworkName) -> Result<Database, CaError> {
    let new = path.with_file_name(NEW_FILE_NAME);
    let cannot = io_error("create", &new);
    let mut options = fs::OpenOptions::new();
    let file = private(options.read(true).write(true).create(true).truncate(false)).open(&new).map_err(&cannot)?;
    // Lock first: the file that is emptied here must not be one that another program is creating.
    match file.try_lock() {
        Ok(()) => file.set_len(0).map_err(&cannot)?,
        Err(fs::TryLockError::WouldBlock) => return Err(locked(path)),
        Err(fs::TryLockError::Error(source)) => return Err(cannot(source)),
    }
    let database = database(path, file)?;
    let initialise = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(TOKENS)?;
        transaction.open_table(CERTIFICATES)?;
        transaction.open_table(NUMBERS)?.insert(SCHEMA_KEY, SCHEMA)?;
        transaction.open_table(TEXTS)?.insert(NETWORK_KEY, network.as_str())?;
        transaction.commit()?;
        Ok(())
    };
    initialise().map_err(|error| CaError::NotStored(error.to_string()))?;
    fs::rename(&new, path).map_err(io_error("create", path))?;
    Ok(database)
}

fn open(path: &Path) -> Result<Database, CaError> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
    if file.metadata().map_err(io_error("open", path))?.len() == 0 {
        // redb would make it a new database.
        return Err(damaged(path, &"it is empty"));
    }
    let database = database(path, file)?;
    let read_schema = || -> Result<Option<u64>, redb::Error> {
        let numbers = database.begin_read()?.open_table(NUMBERS)?;
        Ok(numbers.get(SCHEMA_KEY)?.map(|number| number.value()))
    };
    match read_schema().map_err(|error| damaged(path, &error))? {
        Some(SCHEMA) => Ok(database),
        Some(found) => Err(damaged(path, &format_args!("it has the format {found}, and this program knows {SCHEMA}"))),
        None => Err(damaged(path, &"it has no format number")),
    }
}

fn database(path: &Path, file: fs::File) -> Result<Database, CaError> {
    Builder::new().set_cache_size(CACHE_BYTES).create_file(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => locked(path),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
            io_error("use", path)(error)
        }
        error => damaged(path, &error),
    })
}

fn locked(path: &Path) -> CaError {
    CaError::Locked(path.parent().unwrap_or(path).to_owned())
}

fn damaged(path: &Path, problem: &dyn fmt::Display) -> CaError {
    CaError::Damaged { path: path.to_owned(), problem: problem.to_string() }
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> CaError + use<> {
    let path = path.to_owned();
    move |source| CaError::Io { doing, path: path.clone(), source }
}
