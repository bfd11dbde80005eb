//! Hashes and titles of files from earlier runs, so that a restart does not read a terabyte again.
//!
//! Losing this cache only costs time. A wrong entry would offer a document under another document's hash, so each entry has a checksum,
//! and a damaged database is deleted as a whole.

use super::{
    cache_database::{CacheDatabase, Unsynced},
    cache_entry::{CachedFile, decode, encode},
    document::{Fingerprint, SharedDocument},
    hash::Hashed,
};
use p2pdi::content::{ContentHash, HASH_BYTES, PieceHashes, Pieces};
use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// File name of the cache in the state folder.
pub(super) const FILE_NAME: &str = "share.redb";
/// Raise it when the layout of an entry changes. A cache with another format is deleted.
const FORMAT: u64 = 1;
/// Bytes of the database kept in memory. Reads are rare after the start.
const MEMORY_BYTES: usize = 1024 * 1024;

/// By document name: see [`CachedFile`].
const FILES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("files");
/// By document hash: the concatenated piece hashes of documents with more than one piece.
const PIECES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pieces");
/// By document name: when the file was first found missing, in seconds since 1970.
const MISSING_SINCE: TableDefinition<'_, &str, u64> = TableDefinition::new("missed");
const META: TableDefinition<'_, &str, u128> = TableDefinition::new("meta");

/// Why the cache cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error("another process uses it")]
    InUse,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Other(String),
}

impl From<CacheError> for redb::Error {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::InUse => Self::DatabaseAlreadyOpen,
            CacheError::Io(error) => Self::Io(error),
            CacheError::Other(problem) => Self::Corrupted(problem),
        }
    }
}

/// Version and digest of the index that was published last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) version: u64,
    pub(super) digest: u128,
}

/// Changes that are not on disk yet. They stay if a write fails, and are written with the next.
#[derive(Default)]
struct Unsaved {
    files: BTreeMap<Box<str>, Vec<u8>>,
}

pub(super) struct Cache {
    database: CacheDatabase,
    /// Used by the indexer only.
    unsaved: Mutex<Unsaved>,
    /// Read by uploads, so it is never locked during a write.
    unsaved_pieces: Mutex<HashMap<ContentHash, Arc<PieceHashes>>>,
}

impl Cache {
    /// Opens the cache in the folder `state`. Creates a new one if there is none or it is damaged. `temporary`: it need not survive a crash.
    pub(super) fn open(state: &Path, temporary: bool) -> Result<Self, CacheError> {
        let path = state.join(FILE_NAME);
        Self::with(move || {
            let open = || {
                open_checked(|| {
                    let mut builder = Database::builder();
                    builder.set_cache_size(MEMORY_BYTES);
                    Ok(if temporary { builder.create_with_backend(Unsynced::open(&path)?)? } else { builder.create(&path)? })
                })
            };
            match open() {
                Err(CacheError::Other(problem)) => {
                    tracing::warn!(path = %path.display(), problem, "the share's cache is damaged; hashing all files again");
                    fs::remove_file(&path)?;
                    open()
                }
                result => result,
            }
        })
    }

    /// A cache in the database that `open` opens, now and again after each error.
    fn with(open: impl Fn() -> Result<Database, CacheError> + Send + Sync + 'static) -> Result<Self, CacheError> {
        let database = CacheDatabase::new(open()?, move || open().map_err(redb::Error::from));
        Ok(Self { database, unsaved: Mutex::default(), unsaved_pieces: Mutex::default() })
    }

    fn unsaved(&self) -> MutexGuard<'_, Unsaved> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsaved_pieces(&self) -> MutexGuard<'_, HashMap<ContentHash, Arc<PieceHashes>>> {
        self.unsaved_pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index that was published last.
    pub(super) fn published(&self) -> Option<Published> {
        let read = |database: &Database| -> Result<_, redb::Error> {
            let meta = database.begin_read()?.open_table(META)?;
            let version = meta.get("version")?.and_then(|version| u64::try_from(version.value()).ok());
            let digest = meta.get("digest")?.map(|digest| digest.value());
            Ok(version.zip(digest).map(|(version, digest)| Published { version, digest }))
        };
        self.database.read(read).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the share's cache");
            None
        })
    }

    /// A snapshot for lookups. `None` if it cannot be read.
    pub(super) fn lookup(&self) -> Option<Lookup> {
        let read = |database: &Database| -> Result<_, redb::Error> {
            let reading = database.begin_read()?;
            Ok(Lookup { files: reading.open_table(FILES)?, pieces: reading.open_table(PIECES)? })
        };
        self.database.read(read).map_err(|error| tracing::debug!(%error, "cannot read the share's cache")).ok()
    }

    /// Adds a document that was just hashed. The next [`Self::commit`] writes it.
    pub(super) fn put(&self, document: &SharedDocument, hashed: Hashed) {
        let mut unsaved = self.unsaved();
        let name: Box<str> = document.name.as_str().into();
        unsaved.files.insert(name, encode(document));
        self.unsaved_pieces().extend(hashed.pieces.map(|pieces| (document.hash, Arc::new(pieces))));
    }

    /// Writes all changes, and the version and digest of the index that is about to be published. If it fails, the changes stay in memory.
    pub(super) fn commit(&self, published: Published) -> Result<(), redb::Error> {
        let mut unsaved = self.unsaved();
        let unsaved_pieces = self.unsaved_pieces().clone();
        self.database.write(|database| write_unsaved(database, &unsaved, &unsaved_pieces, published))?;
        *unsaved = Unsaved::default();
        self.unsaved_pieces().clear();
        Ok(())
    }

    /// The piece hashes of a document, verified against its hash. `None` if the cache has lost them.
    pub(super) fn piece_hashes(&self, size: u64, hash: &ContentHash) -> Option<PieceHashes> {
        let pieces = Pieces::of_size(size).ok()?;
        if pieces.count() == 1 {
            return PieceHashes::verified(pieces, hash.as_bytes(), hash).ok();
        }
        let unsaved = self.unsaved_pieces().get(hash).cloned();
        if let Some(hashes) = unsaved {
            return Some(PieceHashes::clone(&hashes));
        }
        let read = |database: &Database| -> Result<_, redb::Error> {
            let table = database.begin_read()?.open_table(PIECES)?;
            let joined = table.get(hash.as_bytes().as_slice())?;
            Ok(joined.and_then(|joined| PieceHashes::verified(pieces, joined.value(), hash).ok()))
        };
        self.database.read(read).map_err(|error| tracing::debug!(%error, "cannot read the share's cache")).ok().flatten()
    }

    /// Whether [`Self::piece_hashes`] would return them.
    pub(super) fn has_piece_hashes(&self, document: &SharedDocument) -> bool {
        self.piece_hashes(document.size, &document.hash).is_some()
    }

    /// Removes files that have been missing for longer than `keep_s` seconds. A folder that is unmounted today can be back tomorrow.
    pub(super) fn prune(&self, present: impl Fn(&str) -> bool, now_s: u64, keep_s: u64) -> Result<(), redb::Error> {
        self.database.write(|database| self.prune_in(database, present, now_s, keep_s))
    }

    fn prune_in(&self, database: &Database, present: impl Fn(&str) -> bool, now_s: u64, keep_s: u64) -> Result<(), redb::Error> {
        let writing = database.begin_write()?;
        let mut changed = false;
        {
            let mut files = writing.open_table(FILES)?;
            let mut missing_since = writing.open_table(MISSING_SINCE)?;
            let mut pieces = writing.open_table(PIECES)?;
            let mut used = HashSet::new();
            let (mut returned, mut newly_missing, mut removed) = (Vec::new(), Vec::new(), Vec::new());
            for row in files.iter()? {
                let (name, value) = row?;
                let name = name.value();
                let since = missing_since.get(name)?.map(|since| since.value());
                match since {
                    Some(_) if present(name) => returned.push(name.to_owned()),
                    None if !present(name) && keep_s > 0 => newly_missing.push(name.to_owned()),
                    Some(since) if now_s.saturating_sub(since) < keep_s => {}
                    None if present(name) => {}
                    _ => {
                        removed.push(name.to_owned());
                        continue;
                    }
                }
                used.extend(decode(name, value.value()).map(|(_, known)| known.hash));
            }
            used.extend(self.unsaved_pieces().keys());
            for name in returned.iter().chain(&removed) {
                missing_since.remove(name.as_str())?;
            }
            for name in &newly_missing {
                missing_since.insert(name.as_str(), now_s)?;
            }
            for name in &removed {
                files.remove(name.as_str())?;
            }
            changed |= !(returned.is_empty() && newly_missing.is_empty() && removed.is_empty());
            if !removed.is_empty() {
                pieces.retain(|hash, _| {
                    <[u8; HASH_BYTES]>::try_from(hash).is_ok_and(|hash| used.contains(&ContentHash::from_bytes(hash)))
                })?;
            }
        }
        if changed {
            writing.commit()?
        } else {
            writing.abort()?
        }
        Ok(())
    }
}

/// See [`Cache::lookup`].
pub(super) struct Lookup {
    files: ReadOnlyTable<&'static str, &'static [u8]>,
    pieces: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Lookup {
    /// The cached entry of a file, if it has this name and this fingerprint.
    pub(super) fn get(&self, name: &str, fingerprint: &Fingerprint) -> Option<CachedFile> {
        let value = self.files.get(name).ok()??;
        let (cached, known) = decode(name, value.value())?;
        let has_pieces = Pieces::of_size(fingerprint.size).ok()?.count() > 1;
        let complete = !has_pieces || matches!(self.pieces.get(known.hash.as_bytes().as_slice()), Ok(Some(_)));
        (cached == *fingerprint && complete).then_some(known)
    }
}

/// Opens a database and checks what is in it.
fn open_checked(open: impl FnOnce() -> Result<Database, redb::Error>) -> Result<Database, CacheError> {
    // redb panics on some damaged files.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = open()?;
        prepare(&database)?;
        Ok(database)
    }));
    match opened {
        Ok(result) => result.map_err(|error: redb::Error| match error {
            redb::Error::DatabaseAlreadyOpen => CacheError::InUse,
            redb::Error::Io(error) => io_error(error),
            other => CacheError::Other(other.to_string()),
        }),
        Err(_) => Err(CacheError::Other("the database is inconsistent".into())),
    }
}

/// Creates the tables, or reads every entry once to detect damage. Writes nothing to a cache that is complete, so that it can be opened
/// on a full disk.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let reading = database.begin_read()?;
    let meta = match reading.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            drop(reading);
            return create_tables(database);
        }
        Err(error) => return Err(error.into()),
    };
    let format = meta.get("format")?.map(|format| format.value());
    if format != Some(u128::from(FORMAT)) {
        return Err(redb::Error::Corrupted(format!("it has format {format:?} instead of {FORMAT}")));
    }
    for row in reading.open_table(FILES)?.iter()? {
        let (name, value) = row?;
        if decode(name.value(), value.value()).is_none() {
            return Err(redb::Error::Corrupted("a checksum does not match".into()));
        }
    }
    for row in reading.open_table(PIECES)?.iter()? {
        row?;
    }
    for row in reading.open_table(MISSING_SINCE)?.iter()? {
        row?;
    }
    Ok(())
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    writing.open_table(META)?.insert("format", u128::from(FORMAT))?;
    writing.open_table(FILES)?;
    writing.open_table(PIECES)?;
    writing.open_table(MISSING_SINCE)?;
    writing.commit()?;
    Ok(())
}

/// In one transaction.
fn write_unsaved(
    database: &Database,
    unsaved: &Unsaved,
    unsaved_pieces: &HashMap<ContentHash, Arc<PieceHashes>>,
    published: Published,
) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    {
        let mut meta = writing.open_table(META)?;
        meta.insert("version", u128::from(published.version))?;
        meta.insert("digest", published.digest)?;
        let mut files = writing.open_table(FILES)?;
        for (name, value) in &unsaved.files {
            files.insert(&**name, value.as_slice())?;
        }
        let mut pieces = writing.open_table(PIECES)?;
        for (hash, hashes) in unsaved_pieces {
            pieces.insert(hash.as_bytes().as_slice(), hashes.joined().as_ref())?;
        }
    }
    writing.commit()?;
    Ok(())
}

fn io_error(error: io::Error) -> CacheError {
    match error.kind() {
        // The file is not a database, or is truncated.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => CacheError::Other(error.to_string()),
        _ => CacheError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::document::DocumentName;
    use redb::{StorageBackend, backends::InMemoryBackend};
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::{Duration, Instant, SystemTime},
    };

    /// A disk that keeps its content when the database is opened again, and that can be full.
    #[derive(Debug, Clone)]
    struct Disk {
        content: Arc<InMemoryBackend>,
        full: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> io::Result<()> {
            if self.full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.content.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.content.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.content.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.check()?;
            self.content.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.content.write(offset, data)
        }
    }

    fn two_pieces(name: &str, byte: u8) -> (SharedDocument, Hashed) {
        let pieces = Pieces::of_size(p2pdi::content::PIECE_SIZE_MIN + 1).unwrap();
        let hash = |index: usize| {
            let range = pieces.range(index);
            let mut hasher = pieces.hasher(index);
            hasher.update(&vec![byte; usize::try_from(range.end - range.start).unwrap()]);
            hasher.finalize()
        };
        let hashes = PieceHashes::new(pieces, vec![hash(0), hash(1)]).unwrap();
        let fingerprint = Fingerprint { size: pieces.size(), inode: 1, modified_ns: 1, changed_ns: 1 };
        let document = SharedDocument {
            name: DocumentName::parse(name).unwrap(),
            number: None,
            title: name.into(),
            size: pieces.size(),
            hash: hashes.merge(),
            modified: SystemTime::UNIX_EPOCH,
            fingerprint,
        };
        let hashed = Hashed { hash: document.hash, pieces: Some(hashes), number: None, title: name.into() };
        (document, hashed)
    }

    /// Tries until it works: the cache waits before it opens its database again.
    fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = attempt() {
                return found;
            }
            assert!(Instant::now() < deadline, "timed out waiting for {what}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_cache_whose_disk_was_full_is_read_and_written_again_and_loses_nothing() {
        let disk = Disk { content: Arc::new(InMemoryBackend::new()), full: Arc::default() };
        let open = {
            let disk = disk.clone();
            move || open_checked(|| Ok(Database::builder().create_with_backend(disk.clone())?))
        };
        let cache = Cache::with(open.clone()).unwrap();
        let published = |version| Published { version, digest: version.into() };
        let (old, hashed) = two_pieces("old", 1);
        cache.put(&old, hashed);
        cache.commit(published(1)).unwrap();
        disk.full.store(true, Ordering::Relaxed);
        let (new, hashed) = two_pieces("new", 2);
        cache.put(&new, hashed);
        for _ in 0..3 {
            cache.commit(published(2)).unwrap_err();
            assert!(cache.piece_hashes(new.size, &new.hash).is_some(), "what is not written is in memory");
        }
        disk.full.store(false, Ordering::Relaxed);
        eventually("old piece hashes", || cache.piece_hashes(old.size, &old.hash));
        eventually("a write", || cache.commit(published(3)).ok());
        assert!(cache.unsaved_pieces().is_empty());
        drop(cache);
        let cache = Cache::with(open).unwrap();
        assert_eq!(cache.published(), Some(published(3)));
        let lookup = cache.lookup().unwrap();
        for document in [&old, &new] {
            assert_eq!(lookup.get(document.name.as_str(), &document.fingerprint).unwrap().hash, document.hash);
        }
    }
}
