//! The file a document is fetched into until it is whole: beside its target, hidden, named after the document's hash, so that a
//! later fetch of the same content, and only of that, finds it.
//!
//! Nothing but the file's own bytes says what it holds: on opening every piece is hashed, and what does not match is missing. A
//! crash at any moment, or a stranger's edit, therefore costs at most the pieces it touched. Blocking; call it off the runtime.

use p2pdi::{
    content::{ContentHash, PieceHasher, PieceHashes},
    document::DocumentName,
};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

/// How much is read at once while a partial file is checked.
const CHECK_BYTES: usize = 1024 * 1024;
/// Hexadecimal digits of the hash in a partial file's name: enough to tell versions apart.
const NAME_HASH_DIGITS: usize = 16;
/// After this many bytes written, the system is told to begin writing them out, so that the final sync is short.
const FLUSH_BYTES: u64 = 64 * 1024 * 1024;
/// What must stay free on the target's file system beside the document: metadata and others' work.
const SPARE_BYTES: u64 = 1024 * 1024;

/// Why a document cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is not enough room.
    #[error("not enough room for {name}: {needed} bytes are missing from the disk under {}, {available} are free", folder.display())]
    NoRoom {
        /// The document.
        name: DocumentName,
        /// The target folder.
        folder: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The target exists with other content.
    #[error("{} exists with other content", path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// Another fetch writes the same document.
    #[error("another fetch is writing {}", path.display())]
    Busy {
        /// The partial file.
        path: PathBuf,
    },
    /// A folder on the way to the target is a link, which could lead outside.
    #[error("{} is a link; the document's name would lead outside the folder", path.display())]
    LeadsOutside {
        /// The link.
        path: PathBuf,
    },
}

impl WriteError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// A piece came with bytes that are not the document's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongPiece {
    /// The piece's index.
    pub index: usize,
}

/// A document on its way to a folder.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// Whether a file of other content at the target may go.
    replace: bool,
    hashes: PieceHashes,
    verified: Vec<bool>,
    current: Option<Current>,
    unflushed: u64,
    flushing: Option<JoinHandle<()>>,
}

/// The piece whose bytes are arriving.
#[derive(Debug)]
struct Current {
    index: usize,
    next: u64,
    hasher: PieceHasher,
}

/// Where a document goes below `folder`, and whether it is there already.
///
/// # Errors
/// When the target exists with other content and `replace` is false, or cannot be looked at.
pub fn target(
    folder: &Path,
    name: &DocumentName,
    hash: &ContentHash,
    size: u64,
    replace: bool,
) -> Result<(PathBuf, bool), WriteError> {
    let path = folder.join(name.to_relative_path());
    let there = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((path, false)),
        Err(error) => return Err(WriteError::io("look at", &path)(error)),
        Ok(meta) => meta,
    };
    if there.is_file() && there.len() == size && hash_file(&path)? == *hash {
        return Ok((path, true));
    }
    if replace && !there.is_dir() { Ok((path, false)) } else { Err(WriteError::TargetExists { path }) }
}

fn hash_file(path: &Path) -> Result<ContentHash, WriteError> {
    let file = File::open(path).map_err(WriteError::io("read", path))?;
    let mut hasher = p2pdi::content::DocumentHasher::new();
    io::copy(&mut io::BufReader::with_capacity(CHECK_BYTES, file), &mut hasher).map_err(WriteError::io("read", path))?;
    Ok(hasher.finalize())
}

impl Partial {
    /// Opens or makes the partial file for `target`, and finds out which pieces it holds already.
    ///
    /// # Errors
    /// When the folder cannot be made or written, lacks room, or another fetch holds the file.
    pub fn open(
        folder: &Path,
        target: PathBuf,
        name: &DocumentName,
        hashes: PieceHashes,
        replace: bool,
    ) -> Result<Self, WriteError> {
        let parent = make_folders(folder, name)?;
        let hash = hashes.merge().to_string();
        let path = parent.join(format!(".{}.{}.part", name.file_name(), &hash[..NAME_HASH_DIGITS]));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // A link in place of the partial file would have us write through it.
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(WriteError::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WriteError::Busy { path }),
            Err(TryLockError::Error(error)) => return Err(WriteError::io("lock", &path)(error)),
        }
        let count = hashes.pieces().count();
        let mut partial = Self {
            file,
            path,
            target,
            replace,
            hashes,
            verified: vec![false; count],
            current: None,
            unflushed: 0,
            flushing: None,
        };
        partial.check()?;
        partial.check_room(&parent, name)?;
        Ok(partial)
    }

    /// Hashes what is there.
    fn check(&mut self) -> Result<(), WriteError> {
        let pieces = self.hashes.pieces();
        let length = self.file.metadata().map_err(WriteError::io("look at", &self.path))?.len();
        if length == 0 && pieces.size() > 0 {
            return Ok(());
        }
        let mut buffer = vec![0; CHECK_BYTES];
        for index in 0..pieces.count() {
            let range = pieces.range(index);
            if range.end > length {
                break;
            }
            let mut hasher = pieces.hasher(index);
            let mut at = range.start;
            while at < range.end {
                let want = usize::try_from(range.end - at).unwrap_or(CHECK_BYTES).min(CHECK_BYTES);
                self.file.read_exact_at(&mut buffer[..want], at).map_err(WriteError::io("read", &self.path))?;
                hasher.update(&buffer[..want]);
                at += want as u64;
            }
            self.verified[index] = Some(hasher.finalize()) == self.hashes.get(index);
        }
        Ok(())
    }

    fn check_room(&self, parent: &Path, name: &DocumentName) -> Result<(), WriteError> {
        let Ok(disk) = rustix::fs::statvfs(parent) else { return Ok(()) };
        let available = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = self.missing_bytes();
        // Small documents may still fit in what a busy disk has; the write itself will tell.
        if needed > SPARE_BYTES && needed.saturating_add(SPARE_BYTES) > available {
            return Err(WriteError::NoRoom { name: name.clone(), folder: parent.to_owned(), needed, available });
        }
        Ok(())
    }

    /// Bytes of pieces not verified yet.
    pub fn missing_bytes(&self) -> u64 {
        let pieces = self.hashes.pieces();
        let missing = self.verified.iter().enumerate().filter(|(_, verified)| !**verified);
        missing.map(|(index, _)| pieces.range(index)).map(|range| range.end - range.start).sum()
    }

    /// Bytes of the document.
    pub fn size(&self) -> u64 {
        self.hashes.pieces().size()
    }

    /// Whether every piece is verified.
    pub fn is_whole(&self) -> bool {
        self.verified.iter().all(|verified| *verified)
    }

    /// The first run of pieces still missing, as a range of bytes; `None` when the document is whole.
    pub fn next_missing(&self) -> Option<Range<u64>> {
        let pieces = self.hashes.pieces();
        let first = self.verified.iter().position(|verified| !verified)?;
        let run = self.verified[first..].iter().take_while(|verified| !**verified).count();
        Some(pieces.range(first).start..pieces.range(first + run - 1).end)
    }

    /// Forgets the piece under way: the next bytes begin at a piece's start again.
    pub fn restart_piece(&mut self) {
        self.current = None;
    }

    /// Takes the next bytes of the run under way. Returns how many bytes became verified.
    ///
    /// # Errors
    /// The outer error is the disk's; the inner one says that a piece is not the document's: nothing of it counts.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<Result<u64, WrongPiece>, WriteError> {
        let pieces = self.hashes.pieces();
        let (mut offset, mut data, mut counted) = (offset, data, 0);
        loop {
            let index = pieces.index_at(offset).min(pieces.count() - 1);
            let range = pieces.range(index);
            let current = match &mut self.current {
                Some(current) if current.index == index && current.next == offset => current,
                _ => self.current.insert(Current { index, next: offset, hasher: pieces.hasher(index) }),
            };
            let take = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
            let (now, rest) = data.split_at(take);
            self.file.write_all_at(now, offset).map_err(WriteError::io("write", &self.path))?;
            current.hasher.update(now);
            current.next += take as u64;
            offset += take as u64;
            self.unflushed += take as u64;
            if current.next == range.end {
                let right = Some(current.hasher.finalize()) == self.hashes.get(index);
                self.current = None;
                if !right {
                    return Ok(Err(WrongPiece { index }));
                }
                self.verified[index] = true;
                counted += range.end - range.start;
            }
            data = rest;
            if data.is_empty() || take == 0 {
                break;
            }
        }
        if self.unflushed >= FLUSH_BYTES {
            self.unflushed = 0;
            self.start_flush();
        }
        Ok(Ok(counted))
    }

    /// Asks the kernel to begin writing out what was written, if it is not at it still. A sync waits for the disk, which the next
    /// bytes should not; without a thread to be had, the final sync just takes longer.
    fn start_flush(&mut self) {
        if self.flushing.as_ref().is_some_and(|flushing| !flushing.is_finished()) {
            return;
        }
        // Opened anew: a clone would keep the lock for as long as the disk takes, and would take note of a write error in the final
        // sync's place (Linux reports one once to each opening of a file).
        let file = File::open(&self.path).ok();
        self.flushing =
            file.and_then(|file| thread::Builder::new().name("flush".to_owned()).spawn(move || drop(file.sync_data())).ok());
    }

    /// Makes the whole document appear under its name: sync, then rename.
    ///
    /// # Errors
    /// When the disk refuses; the partial file stays.
    pub fn finish(self) -> Result<PathBuf, WriteError> {
        let written = self.file.metadata().map_err(WriteError::io("look at", &self.path))?.len();
        if written != self.size() {
            self.file.set_len(self.size()).map_err(WriteError::io("write", &self.path))?;
        }
        self.file.sync_all().map_err(WriteError::io("write", &self.path))?;
        // The folder is not synced: its content is safe on the disk, so that a power failure leaves it under one of its two names.
        self.rename()?;
        Ok(self.target)
    }
}

impl Partial {
    /// Removes the file: the document that it was for is none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn discard(self) -> Result<(), WriteError> {
        fs::remove_file(&self.path).map_err(WriteError::io("remove", &self.path))
    }

    /// A file that appeared at the target meanwhile is not replaced unasked.
    fn rename(&self) -> Result<(), WriteError> {
        use rustix::{
            fs::{CWD, RenameFlags, renameat_with},
            io::Errno,
        };
        if !self.replace {
            match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => return Err(WriteError::TargetExists { path: self.target.clone() }),
                // The file system knows no such rename.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                Err(error) => return Err(WriteError::io("rename to", &self.target)(error.into())),
            }
        }
        fs::rename(&self.path, &self.target).map_err(WriteError::io("rename to", &self.target))
    }
}

/// Makes the folders that a document's name asks for, one by one, and follows no link below `folder`.
fn make_folders(folder: &Path, name: &DocumentName) -> Result<PathBuf, WriteError> {
    fs::create_dir_all(folder).map_err(WriteError::io("make", folder))?;
    let mut path = folder.to_owned();
    let relative = name.to_relative_path();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        path.push(part);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(WriteError::io("make", &path)(error)),
            _ => {}
        }
        let meta = fs::symlink_metadata(&path).map_err(WriteError::io("look at", &path))?;
        if meta.is_symlink() {
            return Err(WriteError::LeadsOutside { path });
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::content::Pieces;

    fn hashes(data: &[u8]) -> PieceHashes {
        let pieces = Pieces::of_size(data.len() as u64).unwrap();
        let hash = |index: usize| {
            let range = pieces.range(index);
            let mut hasher = pieces.hasher(index);
            hasher.update(&data[range.start as usize..range.end as usize]);
            hasher.finalize()
        };
        PieceHashes::new(pieces, (0..pieces.count()).map(hash).collect()).unwrap()
    }

    fn open(folder: &Path, data: &[u8]) -> Result<Partial, WriteError> {
        let name = DocumentName::parse("a/doc.bin").unwrap();
        let (path, there) = target(folder, &name, &ContentHash::of(data), data.len() as u64, false)?;
        assert!(!there);
        Partial::open(folder, path, &name, hashes(data), false)
    }

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7 % 256) as u8).collect()
    }

    #[test]
    fn a_document_appears_under_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let data = data(700_000);
        let mut partial = open(folder.path(), &data).unwrap();
        for (index, chunk) in data.chunks(100_001).enumerate() {
            assert!(!folder.path().join("a/doc.bin").exists());
            partial.write(index as u64 * 100_001, chunk).unwrap().unwrap();
        }
        assert!(partial.is_whole());
        let path = partial.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), data);
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
        let name = DocumentName::parse("a/doc.bin").unwrap();
        assert!(target(folder.path(), &name, &ContentHash::of(&data), 700_000, false).unwrap().1);
    }

    #[test]
    fn verified_pieces_survive_and_damaged_ones_are_missing_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = data(1_000_000);
        let mut partial = open(folder.path(), &data).unwrap();
        assert_eq!(partial.write(0, &data[..600_000]).unwrap(), Ok(2 * 262_144));
        let path = partial.path.clone();
        drop(partial);
        let partial = open(folder.path(), &data).unwrap();
        assert_eq!(partial.next_missing(), Some(2 * 262_144..1_000_000));
        drop(partial);
        File::options().write(true).open(path).unwrap().write_all_at(b"!", 5).unwrap();
        let mut partial = open(folder.path(), &data).unwrap();
        assert_eq!(partial.next_missing(), Some(0..262_144));
        partial.write(0, &data[..262_144]).unwrap().unwrap();
        assert_eq!(partial.missing_bytes(), 1_000_000 - 2 * 262_144);
    }

    #[test]
    fn a_wrong_byte_never_counts() {
        let folder = tempfile::tempdir().unwrap();
        let good = data(300_000);
        let mut bad = good.clone();
        bad[270_000] ^= 1;
        let mut partial = open(folder.path(), &good).unwrap();
        assert_eq!(partial.write(0, &bad).unwrap(), Err(WrongPiece { index: 1 }));
        assert_eq!(partial.next_missing(), Some(262_144..300_000));
    }

    #[test]
    fn an_empty_document_is_whole_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let partial = open(folder.path(), b"").unwrap();
        assert!(partial.is_whole());
        assert_eq!(fs::metadata(partial.finish().unwrap()).unwrap().len(), 0);
    }

    #[test]
    fn a_second_fetch_of_the_same_document_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let _first = open(folder.path(), b"x").unwrap();
        assert!(matches!(open(folder.path(), b"x"), Err(WriteError::Busy { .. })));
    }

    #[test]
    fn a_file_with_other_content_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/doc.bin"), "mine").unwrap();
        assert!(matches!(open(folder.path(), b"theirs"), Err(WriteError::TargetExists { .. })));
        let name = DocumentName::parse("a/doc.bin").unwrap();
        assert!(target(folder.path(), &name, &ContentHash::of(b"theirs"), 6, true).is_ok());
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("a")).unwrap();
        assert!(matches!(open(folder.path(), b"x"), Err(WriteError::LeadsOutside { .. })));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
