//! The partial file of a document: hidden, beside the target, locked, and named after the document's hash, so that a later fetch of the
//! same content, and of no other, continues with it.
//!
//! A write of zeros leaves a hole where the file has one, and punches one where it has other bytes, so that a sparse document stays
//! sparse. Blocking.

use super::{destination::create_folders, error::WriteError};
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    platform::{FileStat, Folder, LookupError, data_ranges, punch_hole, write_all_at},
};
use std::{
    ffi::{OsStr, OsString},
    fs::{File, TryLockError},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Hexadecimal digits of the hash in a partial file's name: enough to tell versions apart.
const NAME_HASH_DIGITS: usize = 16;
/// Ends a partial file's name.
const EXTENSION: &str = ".part";

/// The partial file of a document, and where it goes.
#[derive(Debug)]
pub(super) struct PartialFile {
    /// Locked while this exists.
    file: File,
    /// The folder of both names.
    folder: Folder,
    part_name: OsString,
    target_name: OsString,
    path: PathBuf,
    /// For messages: the partial file's own name says nothing to people.
    target: PathBuf,
    /// As it was when it was opened.
    opened: FileStat,
    /// Bytes before this are in the file.
    end: AtomicU64,
}

impl PartialFile {
    /// Opens or creates the partial file of a document whose target is below `folder`, and the folders on the way.
    ///
    /// # Errors
    /// When it cannot be created or written, or another fetch has locked it or just finished it.
    pub(super) fn open(folder: &Path, name: &DocumentName, hash: &ContentHash) -> Result<Self, WriteError> {
        let target = folder.join(name.to_relative_path());
        let folder = create_folders(folder, name)?;
        let part_name = OsString::from(partial_name(name, hash));
        let path = folder.path().join(&part_name);
        let opened = folder.entry_file_for_writing(&part_name);
        let (file, _) = opened.map_err(io::Error::from).map_err(WriteError::io("write", &target))?;
        let opened = lock(&file, &folder, &part_name, &target)?;
        let target_name = name.file_name().into();
        Ok(Self { file, folder, part_name, target_name, path, target, opened, end: AtomicU64::new(opened.size) })
    }

    /// Whether there is a partial file of this content, or a file at the target.
    pub(super) fn is_begun(folder: &Path, name: &DocumentName, hash: &ContentHash) -> bool {
        let target = folder.join(name.to_relative_path());
        let partial = target.with_file_name(partial_name(name, hash));
        [partial, target].iter().any(|path| !matches!(FileStat::at(path), Err(error) if is_absent(&error)))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.part_name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    pub(super) fn opened(&self) -> &FileStat {
        &self.opened
    }

    /// The bytes that are not in holes, in ascending order. Where the file system does not tell, all bytes are.
    pub(super) fn data(&self) -> io::Result<Vec<Range<u64>>> {
        data_ranges(&self.file)
    }

    pub(super) fn write_at(&self, data: &[u8], offset: u64) -> Result<(), WriteError> {
        write_all_at(&self.file, data, offset).map_err(WriteError::io("write", &self.target))?;
        self.end.fetch_max(offset + data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes `range` zero where other bytes may be.
    pub(super) fn write_zeros(&self, range: Range<u64>, zeros: &[u8]) -> Result<(), WriteError> {
        match punch_hole(&self.file, range.clone()) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => self.write_at(zeros, range.start),
        }
    }

    /// Makes `range`, which reads as zeros or was never written, a hole, so that it takes no room, and extends the file to its end: what is
    /// not within the file cannot be told from what was never received.
    pub(super) fn leave_hole(&self, range: Range<u64>) -> Result<(), WriteError> {
        if range.end > self.end.load(Ordering::Relaxed) {
            // Setting the length could cut off what another writer adds at this moment.
            self.write_at(&[0], range.end - 1)?;
        }
        // Where it is not possible, the zeros take room.
        let _punched = punch_hole(&self.file, range);
        Ok(())
    }

    /// Makes the complete file durable.
    pub(super) fn sync(&self) -> Result<(), WriteError> {
        self.file.sync_all().map_err(WriteError::io("write", &self.target))
    }

    pub(super) fn set_size(&self, size: u64) -> Result<(), WriteError> {
        let written = self.file.metadata().map_err(WriteError::io("look at", &self.target))?.len();
        if written != size {
            self.file.set_len(size).map_err(WriteError::io("write", &self.target))?;
        }
        Ok(())
    }

    /// Gives the file the target's name. A file that appeared there meanwhile is replaced only if `replace` is set.
    pub(super) fn rename(&self, replace: bool) -> Result<(), WriteError> {
        let (from, to) = (&self.part_name, &self.target_name);
        let renamed = if replace { self.folder.rename_entry(from, to) } else { self.folder.rename_entry_no_replace(from, to) };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => WriteError::TargetExists { path: self.target.clone() },
            _ => WriteError::io("rename to", &self.target)(error),
        })
    }

    pub(super) fn remove(&self) -> Result<(), WriteError> {
        self.folder.remove_entry(&self.part_name).map_err(WriteError::io("remove", &self.path))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // A process that is being started has a copy of the descriptor until its exec: closing this one would leave the file locked.
        if let Err(error) = self.file.unlock() {
            tracing::debug!(path = %self.path.display(), %error, "cannot unlock a partial file");
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The file name of a document's partial file, which is beside the document's own place.
pub fn partial_name(name: &DocumentName, hash: &ContentHash) -> String {
    format!(".{}.{}{EXTENSION}", name.file_name(), &hash.to_string()[..NAME_HASH_DIGITS])
}

/// The document's file name and the digits of its hash in the name of a partial file; `None` for other names.
pub(super) fn parse_part_name(name: &str) -> Option<(&str, &str)> {
    let (file_name, digits) = name.strip_prefix('.')?.strip_suffix(EXTENSION)?.rsplit_once('.')?;
    let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    (!file_name.is_empty() && digits.len() == NAME_HASH_DIGITS && digits.bytes().all(is_digit)).then_some((file_name, digits))
}

/// Locks the partial file that was opened by its name. Between the two its owner may have renamed or removed it: what is locked then is
/// the finished document, or a file without a name, and the target must be looked at again. Returns what it is. `target` is for messages.
fn lock(file: &File, folder: &Folder, name: &OsStr, target: &Path) -> Result<FileStat, WriteError> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(WriteError::Locked { path: target.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(WriteError::io("lock", target)(error)),
    }
    let locked = FileStat::of(file).map_err(WriteError::io("look at", target))?;
    match folder.entry_stat(name) {
        Ok(there) if there.id == locked.id => Ok(locked),
        Ok(_) | Err(LookupError::NotFound) => Err(WriteError::Locked { path: target.to_owned() }),
        Err(error) => Err(WriteError::io("look at", target)(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_its_owner_renamed_or_removed_before_it_is_locked_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, finished) = (folder.path().join(".part"), folder.path().join("finished"));
        let there = Folder::open(folder.path()).unwrap();
        let lock = |file: &File| lock(file, &there, OsStr::new(".part"), &path);
        let opened = File::create(&path).unwrap();
        fs::rename(&path, &finished).unwrap();
        assert!(matches!(lock(&opened), Err(WriteError::Locked { .. })));
        opened.unlock().unwrap();
        // By now a third fetch has a file of its own there.
        let opened_again = File::create(&path).unwrap();
        assert!(matches!(lock(&opened), Err(WriteError::Locked { .. })));
        lock(&opened_again).unwrap();
        fs::remove_file(&path).unwrap();
        opened_again.unlock().unwrap();
        assert!(matches!(lock(&opened_again), Err(WriteError::Locked { .. })));
    }

    #[test]
    fn names_of_partial_files_are_told_from_others() {
        let hash = ContentHash::of(b"x");
        let name = partial_name(&DocumentName::parse("doc.tar.gz").unwrap(), &hash);
        assert_eq!(parse_part_name(&name), Some(("doc.tar.gz", &hash.to_string()[..16])));
        for other in [
            "doc.part",
            ".doc.part",
            ".doc.0123456789abcdeg.part",
            ".doc.0123456789abcde.part",
            "..0123456789abcdef.part",
            ".doc.0123456789abcdef.part.pieces",
        ] {
            assert_eq!(parse_part_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_link_in_place_of_the_partial_file_is_not_written_through() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = DocumentName::parse("doc.bin").unwrap();
        let hash = ContentHash::of(b"x");
        let link = folder.path().join(partial_name(&DocumentName::parse("doc.bin").unwrap(), &hash));
        std::os::unix::fs::symlink(elsewhere.path().join("victim"), link).unwrap();
        let error = PartialFile::open(folder.path(), &name, &hash).unwrap_err().to_string();
        assert!(error.starts_with("cannot write "), "{error}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
