//! Hashes and titles of files from earlier runs, so that a restart does not read a terabyte again.
//!
//! Losing this cache only costs time. A wrong entry would offer a document under another document's hash, so each entry has a checksum,
//! and a damaged database is deleted as a whole.

use super::{
    document::{Fingerprint, SharedDocument},
    hash::Hashed,
};
use p2pdi::content::{ContentHash, HASH_BYTES, PieceHashes, Pieces};
use redb::{Database, DatabaseError, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
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
/// Raise it when the `title` module gives other titles than before. Cached titles are then extracted again, without hashing.
const TITLE_RULES: u32 = 1;
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

/// A cached file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CachedFile {
    pub(super) hash: ContentHash,
    /// `None` if it was extracted under other [`TITLE_RULES`].
    pub(super) title: Option<Box<str>>,
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
    forgotten: HashSet<Box<str>>,
}

pub(super) struct Cache {
    database: Database,
    /// Used by the indexer only.
    unsaved: Mutex<Unsaved>,
    /// Read by uploads, so it is never locked during a write.
    unsaved_pieces: Mutex<HashMap<ContentHash, Arc<PieceHashes>>>,
}

impl Cache {
    /// Opens the cache in the folder `state`. Creates a new one if there is none or it is damaged.
    pub(super) fn open(state: &Path) -> Result<Self, CacheError> {
        let path = state.join(FILE_NAME);
        match Self::open_checked(&path) {
            Err(CacheError::Other(problem)) => {
                tracing::warn!(path = %path.display(), problem, "the share's cache is damaged; hashing all files again");
                fs::remove_file(&path)?;
                Self::open_checked(&path)
            }
            result => result,
        }
    }

    fn open_checked(path: &Path) -> Result<Self, CacheError> {
        // redb panics on some damaged files.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = Database::builder().set_cache_size(MEMORY_BYTES).create(path)?;
            let problem = Self::prepare(&database).err();
            Ok((database, problem))
        }));
        match opened {
            Ok(Ok((database, None))) => Ok(Self { database, unsaved: Mutex::default(), unsaved_pieces: Mutex::default() }),
            Ok(Ok((_, Some(redb::Error::Io(error))))) => Err(io_error(error)),
            Ok(Ok((_, Some(problem)))) => Err(CacheError::Other(problem.to_string())),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(CacheError::InUse),
            Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) => Err(io_error(error)),
            Ok(Err(other)) => Err(CacheError::Other(other.to_string())),
            Err(_) => Err(CacheError::Other("the database is inconsistent".into())),
        }
    }

    /// Creates the tables and reads every entry once, to detect damage at the start.
    fn prepare(database: &Database) -> Result<(), redb::Error> {
        let writing = database.begin_write()?;
        {
            let mut meta = writing.open_table(META)?;
            let format = meta.get("format")?.map(|format| format.value());
            match format {
                Some(format) if format == u128::from(FORMAT) => {}
                Some(other) => return Err(redb::Error::Corrupted(format!("it has format {other} instead of {FORMAT}"))),
                None => {
                    meta.insert("format", u128::from(FORMAT))?;
                }
            }
            for row in writing.open_table(FILES)?.iter()? {
                let (name, value) = row?;
                if decode(name.value(), value.value()).is_none() {
                    return Err(redb::Error::Corrupted("a checksum does not match".into()));
                }
            }
            for row in writing.open_table(PIECES)?.iter()? {
                row?;
            }
            for row in writing.open_table(MISSING_SINCE)?.iter()? {
                row?;
            }
        }
        writing.commit()?;
        Ok(())
    }

    fn unsaved(&self) -> MutexGuard<'_, Unsaved> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsaved_pieces(&self) -> MutexGuard<'_, HashMap<ContentHash, Arc<PieceHashes>>> {
        self.unsaved_pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index that was published last.
    pub(super) fn published(&self) -> Option<Published> {
        let read = || -> Result<_, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            let version = meta.get("version")?.and_then(|version| u64::try_from(version.value()).ok());
            let digest = meta.get("digest")?.map(|digest| digest.value());
            Ok(version.zip(digest).map(|(version, digest)| Published { version, digest }))
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the share's cache");
            None
        })
    }

    /// A snapshot for lookups. `None` if it cannot be read.
    pub(super) fn lookup(&self) -> Option<Lookup> {
        let read = || -> Result<_, redb::Error> {
            let reading = self.database.begin_read()?;
            Ok(Lookup { files: reading.open_table(FILES)?, pieces: reading.open_table(PIECES)? })
        };
        read().map_err(|error| tracing::warn!(%error, "cannot read the share's cache")).ok()
    }

    /// Adds a document that was just hashed. The next [`Self::commit`] writes it.
    pub(super) fn put(&self, document: &SharedDocument, hashed: Hashed) {
        let mut unsaved = self.unsaved();
        let name: Box<str> = document.name.as_str().into();
        unsaved.forgotten.remove(&name);
        unsaved.files.insert(name, encode(document));
        self.unsaved_pieces().extend(hashed.pieces.map(|pieces| (document.hash, Arc::new(pieces))));
    }

    /// Removes a file. The next [`Self::commit`] writes that.
    pub(super) fn forget(&self, name: &str) {
        let mut unsaved = self.unsaved();
        unsaved.files.remove(name);
        unsaved.forgotten.insert(name.into());
    }

    /// Writes all changes, and the version and digest of the index that is about to be published. If it fails, the changes stay in memory.
    pub(super) fn commit(&self, published: Published) -> Result<(), redb::Error> {
        let mut unsaved = self.unsaved();
        let unsaved_pieces = self.unsaved_pieces().clone();
        let writing = self.database.begin_write()?;
        {
            let mut meta = writing.open_table(META)?;
            meta.insert("version", u128::from(published.version))?;
            meta.insert("digest", published.digest)?;
            let mut files = writing.open_table(FILES)?;
            for name in &unsaved.forgotten {
                files.remove(&**name)?;
            }
            for (name, value) in &unsaved.files {
                files.insert(&**name, value.as_slice())?;
            }
            let mut pieces = writing.open_table(PIECES)?;
            for (hash, hashes) in &unsaved_pieces {
                pieces.insert(hash.as_bytes().as_slice(), hashes.joined().as_ref())?;
            }
        }
        writing.commit()?;
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
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(PIECES)?;
            let joined = table.get(hash.as_bytes().as_slice())?;
            Ok(joined.and_then(|joined| PieceHashes::verified(pieces, joined.value(), hash).ok()))
        };
        read().ok().flatten()
    }

    /// Removes files that have been missing for longer than `keep_s` seconds. A folder that is unmounted today can be back tomorrow.
    pub(super) fn prune(&self, present: impl Fn(&str) -> bool, now_s: u64, keep_s: u64) -> Result<(), redb::Error> {
        let writing = self.database.begin_write()?;
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

fn io_error(error: io::Error) -> CacheError {
    match error.kind() {
        // The file is not a database, or is truncated.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => CacheError::Other(error.to_string()),
        _ => CacheError::Io(error),
    }
}

const CHECKSUM_BYTES: usize = 8;

/// Layout of an entry: checksum, fingerprint, hash, title rules, title.
fn encode(document: &SharedDocument) -> Vec<u8> {
    let mut value = vec![0; CHECKSUM_BYTES];
    let fingerprint = &document.fingerprint;
    value.extend(fingerprint.size.to_le_bytes());
    value.extend(fingerprint.inode.to_le_bytes());
    value.extend(fingerprint.modified_ns.to_le_bytes());
    value.extend(fingerprint.changed_ns.to_le_bytes());
    value.extend(document.hash.as_bytes());
    value.extend(TITLE_RULES.to_le_bytes());
    value.extend(document.title.as_bytes());
    let checksum = checksum(document.name.as_str(), value.get(CHECKSUM_BYTES..).unwrap_or_default());
    value.splice(..CHECKSUM_BYTES, checksum);
    value
}

fn decode(name: &str, value: &[u8]) -> Option<(Fingerprint, CachedFile)> {
    let (stored, value) = value.split_first_chunk::<CHECKSUM_BYTES>()?;
    if *stored != checksum(name, value) {
        return None;
    }
    let (size, value) = value.split_first_chunk()?;
    let (inode, value) = value.split_first_chunk()?;
    let (modified, value) = value.split_first_chunk()?;
    let (changed, value) = value.split_first_chunk()?;
    let (hash, value) = value.split_first_chunk::<HASH_BYTES>()?;
    let (rules, title) = value.split_first_chunk()?;
    let fingerprint = Fingerprint {
        size: u64::from_le_bytes(*size),
        inode: u64::from_le_bytes(*inode),
        modified_ns: i64::from_le_bytes(*modified),
        changed_ns: i64::from_le_bytes(*changed),
    };
    let title = (u32::from_le_bytes(*rules) == TITLE_RULES).then(|| std::str::from_utf8(title).map(Box::from).ok()).flatten();
    Some((fingerprint, CachedFile { hash: ContentHash::from_bytes(*hash), title }))
}

fn checksum(name: &str, value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut bytes = Vec::with_capacity(name.len() + 1 + value.len());
    bytes.extend(name.as_bytes());
    bytes.push(0);
    bytes.extend(value);
    ContentHash::of(&bytes).as_bytes().first_chunk().copied().unwrap_or_default()
}

/// For any bytes in the place of an entry: reading them does not panic, with the right checksum or a wrong one, and what is read is
/// written again as the same bytes. For tests and fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::expect_used, reason = "what it finds is a fault")]
pub fn check_any_entry(bytes: &[u8]) {
    const NAME: &str = "a/document.txt";
    let _refused = decode(NAME, bytes);
    let value = [checksum(NAME, bytes).as_slice(), bytes].concat();
    let Some((fingerprint, CachedFile { hash, title })) = decode(NAME, &value) else { return };
    if let Some(title) = title {
        let name = p2pdi::document::DocumentName::parse(NAME).expect("a valid name");
        let document = SharedDocument {
            name,
            number: None,
            title,
            size: fingerprint.size,
            hash,
            modified: fingerprint.modified(),
            fingerprint,
        };
        assert_eq!(encode(&document), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn any_bytes_are_read_as_an_entry_or_refused(bytes in vec(any::<u8>(), 0..120)) {
            check_any_entry(&bytes);
        }

        #[test]
        fn any_title_is_read_or_made_again(fixed in vec(any::<u8>(), 64), title in vec(any::<u8>(), 0..6)) {
            check_any_entry(&[fixed.as_slice(), &TITLE_RULES.to_le_bytes(), &title].concat());
        }
    }
}
