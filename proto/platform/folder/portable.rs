//! Folders by path, with the standard library only. Between the check of a path and its use others can put a link there: a share on such
//! a system is safe from names that come from the network, not from other users who may write to it.

use super::{
    FileId, FileKind, FileStat, FolderEntry, LookupError,
    resolve::{Step, resolve},
};
use std::{
    ffi::OsStr,
    fs::{self, File, ReadDir},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
};

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    id: FileId,
}

impl Folder {
    /// Opens the folder at `path`, through links, too.
    ///
    /// # Errors
    /// When there is no folder, or the file system refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: Self::id_at(path)? })
    }

    /// Which folder is at `path` now.
    ///
    /// # Errors
    /// When there is no folder, or the file system refuses.
    pub fn id_at(path: &Path) -> io::Result<FileId> {
        if !fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        // One folder has one real path.
        let mut hasher = DefaultHasher::new();
        path.canonicalize()?.hash(&mut hasher);
        Ok(FileId { device: 0, inode: hasher.finish() })
    }

    /// Which folder this is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The path it was opened by. Something else may be there by now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file below this folder for reading. Links are followed as long as they stay below.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn open_file(&self, path: &Path) -> Result<(File, FileStat), LookupError> {
        let path = self.beneath(path)?;
        // Opening a FIFO would wait for its other end.
        if !fs::metadata(&path)?.is_file() {
            return Err(LookupError::NotAFile);
        }
        let file = File::open(path)?;
        let stat = FileStat::of(&file)?;
        Ok((file, stat))
    }

    /// Opens a folder below this one. Links are followed as long as they stay below.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn open_folder(&self, path: &Path) -> Result<Self, LookupError> {
        Ok(Self::open(&self.beneath(path)?)?)
    }

    /// Removes the file or link at a path below this folder. Links on the way are followed as long as they stay below.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn remove_file(&self, path: &Path) -> Result<(), LookupError> {
        let name = path.file_name().ok_or(LookupError::NotFound)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.map_or_else(|| Ok(self.path.clone()), |parent| self.beneath(parent))?;
        Ok(fs::remove_file(folder.join(name))?)
    }

    /// What is at a path below this folder, at the end of a link if there is one. Nothing is opened for reading.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn stat(&self, path: &Path) -> Result<FileStat, LookupError> {
        stat(&self.beneath(path)?)
    }

    /// The names in this folder, in no order.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn entries(&self) -> io::Result<Entries> {
        Ok(Entries(fs::read_dir(&self.path)?))
    }

    /// What is at a name in this folder, a link counting as itself.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn entry_stat(&self, name: &OsStr) -> Result<FileStat, LookupError> {
        stat(&self.path.join(name))
    }

    /// Opens a folder in this one, but not through a link.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn entry_folder(&self, name: &OsStr) -> Result<Self, LookupError> {
        if self.entry_stat(name)?.kind != FileKind::Folder {
            return Err(LookupError::NotFound);
        }
        Ok(Self::open(&self.path.join(name))?)
    }

    /// Opens a regular file in this folder for reading, but not through a link.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn entry_file(&self, name: &OsStr) -> Result<(File, FileStat), LookupError> {
        if self.entry_stat(name)?.kind != FileKind::File {
            return Err(LookupError::NotAFile);
        }
        let file = File::open(self.path.join(name))?;
        let stat = FileStat::of(&file)?;
        Ok((file, stat))
    }

    /// Opens a regular file in this folder for reading and writing, but not through a link. Creates it if nothing is there.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn entry_file_for_writing(&self, name: &OsStr) -> Result<(File, FileStat), LookupError> {
        match self.entry_stat(name) {
            Ok(stat) if stat.kind != FileKind::File => return Err(LookupError::NotAFile),
            Ok(_) | Err(LookupError::NotFound) => {}
            Err(error) => return Err(error),
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(self.path.join(name))?;
        let stat = FileStat::of(&file)?;
        Ok((file, stat))
    }

    /// Creates a folder in this one.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something is there, and what the file system reports.
    pub fn create_folder(&self, name: &OsStr) -> io::Result<()> {
        fs::create_dir(self.path.join(name))
    }

    /// Removes a file, or a link itself, from this folder.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn remove_entry(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    /// Renames a file in this folder, over a file that has the new name.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn rename_entry(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    /// Renames a file in this folder, unless something has the new name: as [`rename_no_replace`](crate::platform::rename_no_replace).
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has the new name, and what the file system reports; the old name is still there
    /// then.
    pub fn rename_entry_no_replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        crate::platform::rename_no_replace(&self.path.join(from), &self.path.join(to))
    }

    /// Bytes that this user may still write to the file system of this folder; `None` where that cannot be asked.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn free_bytes(&self) -> io::Result<Option<u64>> {
        crate::platform::free_bytes(&self.path)
    }

    /// Waits for the lock of this folder, which keeps other processes that ask for it out until the result is dropped. `None` where the
    /// file system has no locks: always here.
    pub fn lock(&self) -> Option<File> {
        None
    }

    fn beneath(&self, path: &Path) -> Result<PathBuf, LookupError> {
        let resolved = resolve(&self.path, || Ok(self.path.canonicalize()?), path)?;
        let here = resolved.entered.last().unwrap_or(&self.path);
        Ok(resolved.name.map_or_else(|| here.clone(), |name| here.join(name)))
    }
}

impl Step for PathBuf {
    fn kind_of(&self, name: &OsStr) -> Result<FileKind, LookupError> {
        Ok(FileKind::of(fs::symlink_metadata(self.join(name))?.file_type()))
    }

    fn read_link(&self, name: &OsStr) -> Result<PathBuf, LookupError> {
        Ok(fs::read_link(self.join(name))?)
    }

    fn enter(&self, name: &OsStr) -> Result<Self, LookupError> {
        if self.kind_of(name)? == FileKind::Folder { Ok(self.join(name)) } else { Err(LookupError::NotFound) }
    }
}

/// Folders get the id that [`Folder::id_at`] gives.
fn stat(path: &Path) -> Result<FileStat, LookupError> {
    let mut stat = FileStat::from_metadata(&fs::symlink_metadata(path)?);
    if stat.kind == FileKind::Folder {
        stat.id = Some(Folder::id_at(path)?);
    }
    Ok(stat)
}

/// The names in a folder.
#[derive(Debug)]
pub struct Entries(ReadDir);

impl Iterator for Entries {
    type Item = io::Result<FolderEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?;
        Some(entry.map(|entry| FolderEntry { name: entry.file_name(), kind: entry.file_type().ok().map(FileKind::of) }))
    }
}
