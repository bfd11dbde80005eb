//! Folders by descriptor: whatever others rename and relink meanwhile, nothing outside is opened.

use super::{
    FileId, FileKind, FileStat, FolderEntry, LookupError, nanoseconds,
    resolve::{Step, resolve},
};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, fstatvfs, linkat, mkdirat, openat,
        readlinkat, renameat, statat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
};

/// Never waits for the other end of a FIFO, never becomes the terminal of this process.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const WRITE: OFlags = OFlags::RDWR
    .union(OFlags::CREATE)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// To ask about something without opening it for reading: opening a FIFO or a device can have effects.
#[cfg(target_os = "linux")]
const STAT: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const STAT: OFlags = READ;

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
    id: FileId,
}

impl Folder {
    /// Opens the folder at `path`, through links, too.
    ///
    /// # Errors
    /// When there is no folder, or the file system refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(openat(CWD, path, FOLDER, Mode::empty())?, path.to_owned())
    }

    fn new(descriptor: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let id = file_id(&fstat(&descriptor)?);
        Ok(Self { descriptor, path, id })
    }

    /// Which folder is at `path` now.
    ///
    /// # Errors
    /// When there is no folder, or the file system refuses.
    pub fn id_at(path: &Path) -> io::Result<FileId> {
        let stat = statat(CWD, path, AtFlags::empty())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(file_id(&stat)),
            _ => Err(Errno::NOTDIR.into()),
        }
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
        regular(self.beneath(path, READ)?)
    }

    /// Opens a folder below this one. Links are followed as long as they stay below.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn open_folder(&self, path: &Path) -> Result<Self, LookupError> {
        Ok(Self::new(self.beneath(path, FOLDER)?, self.path.join(path))?)
    }

    /// Removes the file or link at a path below this folder. Links on the way are followed as long as they stay below.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn remove_file(&self, path: &Path) -> Result<(), LookupError> {
        let name = path.file_name().ok_or(LookupError::NotFound)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.map(|parent| self.beneath(parent, FOLDER)).transpose()?;
        let folder = parent.as_ref().map_or(self.descriptor.as_fd(), AsFd::as_fd);
        unlinkat(folder, name, AtFlags::empty()).map_err(lookup)
    }

    /// What is at a path below this folder, at the end of a link if there is one. Nothing is opened for reading.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn stat(&self, path: &Path) -> Result<FileStat, LookupError> {
        Ok(file_stat(&fstat(self.beneath(path, STAT)?).map_err(lookup)?))
    }

    /// The names in this folder, in no order.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn entries(&self) -> io::Result<Entries> {
        Ok(Entries(Dir::read_from(&self.descriptor)?))
    }

    /// What is at a name in this folder, a link counting as itself.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn entry_stat(&self, name: &OsStr) -> Result<FileStat, LookupError> {
        Ok(file_stat(&statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW).map_err(lookup)?))
    }

    /// Opens a folder in this one, but not through a link.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn entry_folder(&self, name: &OsStr) -> Result<Self, LookupError> {
        let descriptor = openat(&self.descriptor, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()).map_err(lookup)?;
        Ok(Self::new(descriptor, self.path.join(name))?)
    }

    /// Opens a regular file in this folder for reading, but not through a link.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn entry_file(&self, name: &OsStr) -> Result<(File, FileStat), LookupError> {
        regular(openat(&self.descriptor, name, READ | OFlags::NOFOLLOW, Mode::empty()).map_err(lookup)?)
    }

    /// Opens a regular file in this folder for reading and writing, but not through a link. Creates it if nothing is there.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn entry_file_for_writing(&self, name: &OsStr) -> Result<(File, FileStat), LookupError> {
        let mode = Mode::from_raw_mode(0o666);
        regular(openat(&self.descriptor, name, WRITE, mode).map_err(lookup)?)
    }

    /// Creates a folder in this one.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something is there, and what the file system reports.
    pub fn create_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o777))?)
    }

    /// Removes a file, or a link itself, from this folder.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn remove_entry(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    /// Renames a file in this folder, over a file that has the new name.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn rename_entry(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    /// Renames a file in this folder, unless something has the new name: as [`rename_no_replace`](crate::platform::rename_no_replace).
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has the new name, and what the file system reports; the old name is still there
    /// then.
    pub fn rename_entry_no_replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let here = &self.descriptor;
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        match rustix::fs::renameat_with(here, from, here, to, rustix::fs::RenameFlags::NOREPLACE) {
            // The kernel or the file system has no such rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            result => return Ok(result?),
        }
        match linkat(here, from, here, to, AtFlags::empty()) {
            Ok(()) => return self.remove_entry(from),
            Err(error @ (Errno::EXIST | Errno::NOENT)) => return Err(error.into()),
            // The file system has no hard links.
            Err(_) => {}
        }
        match statat(here, to, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => self.rename_entry(from, to),
        }
    }

    /// Bytes that this user may still write to the file system of this folder; `None` where that cannot be asked.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn free_bytes(&self) -> io::Result<Option<u64>> {
        let disk = fstatvfs(&self.descriptor)?;
        // Some file systems in memory or in user space have no size.
        Ok((disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    /// Waits for the lock of this folder, which keeps other processes that ask for it out until the result is dropped. `None` where the
    /// file system has no locks.
    pub fn lock(&self) -> Option<File> {
        let folder = File::from(openat(&self.descriptor, ".", FOLDER, Mode::empty()).ok()?);
        // `File::lock` needs a newer Rust.
        flock(&folder, FlockOperation::LockExclusive).ok()?;
        Some(folder)
    }

    /// Linux does it in one step. It refuses absolute links, which may lead back inside, and older kernels and some sandboxes do not
    /// know the call; then it is done by steps, as on other systems.
    #[cfg(target_os = "linux")]
    fn beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, LookupError> {
        use rustix::fs::{ResolveFlags, openat2};
        /// How often an opening is tried again that a rename elsewhere in the tree disturbed (openat2(2), `EAGAIN`).
        const RETRIES_MAX: usize = 8;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match openat2(&self.descriptor, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < RETRIES_MAX => tries += 1,
                Err(Errno::XDEV | Errno::NOSYS | Errno::PERM | Errno::AGAIN) => return self.beneath_by_steps(path, flags),
                result => return result.map_err(lookup),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, LookupError> {
        self.beneath_by_steps(path, flags)
    }

    fn beneath_by_steps(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, LookupError> {
        let root = Place::Root(self.descriptor.as_fd());
        let resolved = resolve(&root, || Ok(self.path.canonicalize()?), path)?;
        let here = resolved.entered.last().unwrap_or(&root);
        let name = resolved.name.as_deref().unwrap_or(OsStr::new("."));
        openat(here, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(lookup)
    }

    /// The same by steps, whatever the system can do.
    #[cfg(test)]
    pub(super) fn open_file_by_steps(&self, path: &Path) -> Result<File, LookupError> {
        self.beneath_by_steps(path, READ).map(File::from)
    }
}

/// A folder on the way of [`resolve`].
enum Place<'a> {
    Root(BorrowedFd<'a>),
    Entered(OwnedFd),
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(descriptor) => *descriptor,
            Self::Entered(descriptor) => descriptor.as_fd(),
        }
    }
}

impl Step for Place<'_> {
    fn kind_of(&self, name: &OsStr) -> Result<FileKind, LookupError> {
        let stat = statat(self, name, AtFlags::SYMLINK_NOFOLLOW).map_err(lookup)?;
        Ok(file_kind(FileType::from_raw_mode(stat.st_mode)).unwrap_or(FileKind::Other))
    }

    fn read_link(&self, name: &OsStr) -> Result<PathBuf, LookupError> {
        let target = readlinkat(self, name, Vec::new()).map_err(lookup)?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    fn enter(&self, name: &OsStr) -> Result<Self, LookupError> {
        openat(self, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()).map(Self::Entered).map_err(lookup)
    }
}

/// The names in a folder.
pub struct Entries(Dir);

impl Iterator for Entries {
    type Item = io::Result<FolderEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.0.read()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                return Some(Ok(FolderEntry { name: OsStr::from_bytes(name).to_owned(), kind: file_kind(entry.file_type()) }));
            }
        }
    }
}

fn regular(descriptor: OwnedFd) -> Result<(File, FileStat), LookupError> {
    let file = File::from(descriptor);
    let stat = FileStat::of(&file)?;
    if stat.kind == FileKind::File { Ok((file, stat)) } else { Err(LookupError::NotAFile) }
}

fn lookup(error: Errno) -> LookupError {
    match error {
        Errno::XDEV => LookupError::Outside,
        Errno::LOOP => LookupError::Loop,
        error => io::Error::from(error).into(),
    }
}

fn file_kind(kind: FileType) -> Option<FileKind> {
    match kind {
        FileType::RegularFile => Some(FileKind::File),
        FileType::Directory => Some(FileKind::Folder),
        FileType::Symlink => Some(FileKind::Link),
        FileType::Unknown => None,
        _ => Some(FileKind::Other),
    }
}

/// The types of these fields differ between systems.
#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "not on every system")]
fn file_id(stat: &Stat) -> FileId {
    FileId { device: stat.st_dev as u64, inode: stat.st_ino.into() }
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast, clippy::cast_possible_wrap, reason = "not on every system")]
fn file_stat(stat: &Stat) -> FileStat {
    FileStat {
        kind: file_kind(FileType::from_raw_mode(stat.st_mode)).unwrap_or(FileKind::Other),
        id: Some(file_id(stat)),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        changed_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}
