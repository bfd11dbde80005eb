//! The verified pieces of one document under way, in a partial file that any number of streams fill.
//!
//! The partial file is hidden, beside the target, and named after the document's hash, so that a later fetch of the same content,
//! and of no other, continues with it. Which pieces it holds follows from its bytes alone: opening it hashes every piece, and what
//! does not match counts as missing. So a crash at any moment, or a change by another program, costs at most the pieces it
//! touched.
//!
//! Streams write to it through [`PieceWriter`](super::piece_writer::PieceWriter)s. Blocking; call it off the runtime.

use super::destination::{HASH_READ_BYTES, WriteError, create_folders};
use p2pdi::{
    content::PieceHashes,
    document::DocumentName,
    platform::{FileStat, free_bytes, open_no_follow, read_exact_at, rename_no_replace, write_all_at},
};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Hexadecimal digits of the hash in a partial file's name: enough to tell versions apart.
const NAME_HASH_DIGITS: usize = 16;
/// After this many bytes written, the kernel is asked to begin writing them out, so that the final sync is short.
const FLUSH_BYTES: u64 = 64 * 1024 * 1024;
/// What must stay free on the target's file system beside the document: metadata and other programs' work.
const SPARE_BYTES: u64 = 1024 * 1024;

/// The partial file of a document, its lock, and which pieces are verified. Shared by all streams that fill it.
#[derive(Debug)]
pub(crate) struct PieceStore {
    /// Locked while the store exists.
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// Whether a file of other content at the target may be replaced.
    replace: bool,
    hashes: PieceHashes,
    pieces: Mutex<Vec<Piece>>,
    unflushed_bytes: AtomicU64,
    flush: Mutex<Option<JoinHandle<()>>>,
}

/// What is known of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    Missing,
    /// A writer receives it.
    Claimed,
    Verified,
}

impl PieceStore {
    /// Opens or creates the partial file for `target` and hashes the pieces it holds already.
    ///
    /// # Errors
    /// When the folder cannot be created or written, lacks free space, or another fetch has locked the file or just finished it.
    pub(crate) fn open(
        folder: &Path,
        target: PathBuf,
        name: &DocumentName,
        hashes: PieceHashes,
        replace: bool,
    ) -> Result<Self, WriteError> {
        let parent = create_folders(folder, name)?;
        let hash = hashes.merge().to_string();
        let path = parent.join(format!(".{}.{}.part", name.file_name(), &hash[..NAME_HASH_DIGITS]));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // A symbolic link in place of the partial file would redirect the writes.
        let file = open_no_follow(&mut options, &path).map_err(WriteError::io("write", &path))?;
        lock(&file, &path)?;
        let pieces = verify(&file, &hashes).map_err(WriteError::io("read", &path))?;
        let store = Self {
            file,
            path,
            target,
            replace,
            hashes,
            pieces: Mutex::new(pieces),
            unflushed_bytes: AtomicU64::new(0),
            flush: Mutex::default(),
        };
        store.check_space(&parent, name)?;
        Ok(store)
    }

    fn check_space(&self, parent: &Path, name: &DocumentName) -> Result<(), WriteError> {
        let Ok(Some(available)) = free_bytes(parent) else { return Ok(()) };
        let needed = self.missing_bytes();
        // Small documents may still fit on a nearly full disk; the write itself shows it.
        if needed > SPARE_BYTES && needed.saturating_add(SPARE_BYTES) > available {
            return Err(WriteError::NoSpace { name: name.clone(), folder: parent.to_owned(), needed, available });
        }
        Ok(())
    }

    pub(crate) fn hashes(&self) -> &PieceHashes {
        &self.hashes
    }

    /// Bytes of the document.
    pub(crate) fn size(&self) -> u64 {
        self.hashes.pieces().size()
    }

    /// Bytes of pieces not verified yet.
    pub(crate) fn missing_bytes(&self) -> u64 {
        let pieces = self.hashes.pieces();
        let states = self.pieces();
        let missing = states.iter().enumerate().filter(|(_, piece)| **piece != Piece::Verified);
        missing.map(|(index, _)| pieces.range(index)).map(|range| range.end - range.start).sum()
    }

    /// Whether every piece is verified.
    pub(crate) fn is_complete(&self) -> bool {
        self.pieces().iter().all(|piece| *piece == Piece::Verified)
    }

    /// The first run of pieces that are neither verified nor being received, as a range of bytes.
    pub(crate) fn next_missing(&self) -> Option<Range<u64>> {
        let pieces = self.hashes.pieces();
        let states = self.pieces();
        let first = states.iter().position(|piece| *piece == Piece::Missing)?;
        let run = states[first..].iter().take_while(|piece| **piece == Piece::Missing).count();
        Some(pieces.range(first).start..pieces.range(first + run - 1).end)
    }

    /// Makes the complete document appear under its name: sync, then rename.
    ///
    /// # Errors
    /// When the disk refuses; the partial file stays.
    pub(crate) fn finish(&self) -> Result<PathBuf, WriteError> {
        let written = self.file.metadata().map_err(WriteError::io("look at", &self.path))?.len();
        if written != self.size() {
            self.file.set_len(self.size()).map_err(WriteError::io("write", &self.path))?;
        }
        self.file.sync_all().map_err(WriteError::io("write", &self.path))?;
        // The folder is not synced: the content is on the disk, so a power failure leaves it under one of its two names.
        self.rename()?;
        Ok(self.target.clone())
    }

    /// Removes the partial file: there is no such document.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn discard(&self) -> Result<(), WriteError> {
        fs::remove_file(&self.path).map_err(WriteError::io("remove", &self.path))
    }

    /// A file that appeared at the target meanwhile is replaced only on request.
    fn rename(&self) -> Result<(), WriteError> {
        let renamed =
            if self.replace { fs::rename(&self.path, &self.target) } else { rename_no_replace(&self.path, &self.target) };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => WriteError::TargetExists { path: self.target.clone() },
            _ => WriteError::io("rename to", &self.target)(error),
        })
    }

    /// Gives a missing piece to one writer.
    pub(crate) fn claim(&self, index: usize) -> bool {
        let piece = &mut self.pieces()[index];
        let is_missing = *piece == Piece::Missing;
        if is_missing {
            *piece = Piece::Claimed;
        }
        is_missing
    }

    pub(crate) fn set(&self, index: usize, piece: Piece) {
        self.pieces()[index] = piece;
    }

    fn pieces(&self) -> MutexGuard<'_, Vec<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> Result<(), WriteError> {
        write_all_at(&self.file, data, offset).map_err(WriteError::io("write", &self.path))?;
        let written = data.len() as u64;
        if self.unflushed_bytes.fetch_add(written, Ordering::Relaxed) + written >= FLUSH_BYTES {
            self.unflushed_bytes.store(0, Ordering::Relaxed);
            self.start_flush();
        }
        Ok(())
    }

    /// Asks the kernel to begin writing out what was written, unless it still does. A sync waits for the disk, so it runs in a
    /// separate thread; if none can be started, the final sync takes longer.
    fn start_flush(&self) {
        let mut flush = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        if flush.as_ref().is_some_and(|flush| !flush.is_finished()) {
            return;
        }
        // Opened again: a clone would keep the lock for as long as the disk takes, and would consume a write error that the final
        // sync must report (Linux reports one once to each open file description).
        let file = File::open(&self.path).ok();
        *flush = file.and_then(|file| thread::Builder::new().name("flush".to_owned()).spawn(move || drop(file.sync_data())).ok());
    }
}

/// Locks the partial file that was opened at `path`. Between the two its owner may have renamed or removed it: what is locked then is
/// the finished document, or a file without a name, and the target must be looked at again.
fn lock(file: &File, path: &Path) -> Result<(), WriteError> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(WriteError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(WriteError::io("lock", path)(error)),
    }
    let locked = FileStat::of(file).map_err(WriteError::io("look at", path))?;
    match FileStat::at(path) {
        Ok(there) if there.id == locked.id => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(WriteError::io("look at", path)(error)),
        Ok(_) | Err(_) => Err(WriteError::Locked { path: path.to_owned() }),
    }
}

/// Hashes the pieces that a partial file holds.
fn verify(file: &File, hashes: &PieceHashes) -> io::Result<Vec<Piece>> {
    let pieces = hashes.pieces();
    let mut states = vec![Piece::Missing; pieces.count()];
    let length = file.metadata()?.len();
    if length == 0 && pieces.size() > 0 {
        return Ok(states);
    }
    let mut buffer = vec![0; HASH_READ_BYTES];
    for (index, state) in states.iter_mut().enumerate() {
        let range = pieces.range(index);
        if range.end > length {
            break;
        }
        let mut hasher = pieces.hasher(index);
        let mut offset = range.start;
        while offset < range.end {
            let wanted = usize::try_from(range.end - offset).unwrap_or(HASH_READ_BYTES).min(HASH_READ_BYTES);
            read_exact_at(file, &mut buffer[..wanted], offset)?;
            hasher.update(&buffer[..wanted]);
            offset += wanted as u64;
        }
        if Some(hasher.finalize()) == hashes.get(index) {
            *state = Piece::Verified;
        }
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::store::{
        destination::locate,
        piece_writer::{
            PieceWriter,
            tests::{PIECE, data, open},
        },
    };
    use p2pdi::content::ContentHash;

    #[test]
    fn a_document_appears_under_its_name_only_when_complete() {
        let folder = tempfile::tempdir().unwrap();
        let data = data(700_000);
        let store = open(folder.path(), &data).unwrap();
        let mut writer = PieceWriter::new(&store);
        for (index, chunk) in data.chunks(100_001).enumerate() {
            assert!(!folder.path().join("a/doc.bin").exists());
            writer.write(index as u64 * 100_001, chunk).unwrap().unwrap();
        }
        assert!(store.is_complete());
        let path = store.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), data);
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
        let name = DocumentName::parse("a/doc.bin").unwrap();
        assert!(locate(folder.path(), &name, &ContentHash::of(&data), 700_000, false, &mut None).unwrap().1);
    }

    #[test]
    fn verified_pieces_survive_and_damaged_ones_are_missing_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = data(1_000_000);
        let store = open(folder.path(), &data).unwrap();
        assert_eq!(PieceWriter::new(&store).write(0, &data[..600_000]).unwrap(), Ok(2 * PIECE as u64));
        let path = store.path.clone();
        drop(store);
        let store = open(folder.path(), &data).unwrap();
        assert_eq!(store.next_missing(), Some(2 * PIECE as u64..1_000_000));
        drop(store);
        write_all_at(&File::options().write(true).open(path).unwrap(), b"!", 5).unwrap();
        let store = open(folder.path(), &data).unwrap();
        assert_eq!(store.next_missing(), Some(0..PIECE as u64));
        PieceWriter::new(&store).write(0, &data[..PIECE]).unwrap().unwrap();
        assert_eq!(store.missing_bytes(), 1_000_000 - 2 * PIECE as u64);
    }

    #[test]
    fn an_empty_document_is_complete_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), b"").unwrap();
        assert!(store.is_complete());
        assert_eq!(fs::metadata(store.finish().unwrap()).unwrap().len(), 0);
    }

    #[test]
    fn a_file_that_its_owner_renamed_or_removed_before_it_is_locked_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, finished) = (folder.path().join(".part"), folder.path().join("finished"));
        let opened = File::create(&path).unwrap();
        fs::rename(&path, &finished).unwrap();
        assert!(matches!(lock(&opened, &path), Err(WriteError::Locked { .. })));
        opened.unlock().unwrap();
        // By now a third fetch has a file of its own there.
        let opened_again = File::create(&path).unwrap();
        assert!(matches!(lock(&opened, &path), Err(WriteError::Locked { .. })));
        lock(&opened_again, &path).unwrap();
        fs::remove_file(&path).unwrap();
        opened_again.unlock().unwrap();
        assert!(matches!(lock(&opened_again, &path), Err(WriteError::Locked { .. })));
    }

    #[test]
    fn a_second_fetch_of_the_same_document_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = open(folder.path(), b"x").unwrap();
        assert!(matches!(open(folder.path(), b"x"), Err(WriteError::Locked { .. })));
    }
}
