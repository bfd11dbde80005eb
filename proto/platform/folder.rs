//! A folder, and what lies below it, and nothing outside of it.

#[cfg(any(test, not(unix)))]
#[cfg_attr(unix, allow(unreachable_pub, dead_code, reason = "only its tests use it here"))]
mod portable;
mod resolve;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub use portable::{Entries, Folder};
#[cfg(unix)]
pub use unix::{Entries, Folder};

use std::{ffi::OsString, fs::Metadata, io, path::Path};

/// The kind of what is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, a FIFO, a socket.
    Other,
}

impl FileKind {
    fn of(kind: std::fs::FileType) -> Self {
        match kind {
            kind if kind.is_symlink() => Self::Link,
            kind if kind.is_file() => Self::File,
            kind if kind.is_dir() => Self::Folder,
            _ => Self::Other,
        }
    }
}

/// Which file or folder it is, by whatever path: two paths lead to the same one if and only if these are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// The file system.
    pub device: u64,
    /// The file on it.
    pub inode: u64,
}

/// Metadata of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Its kind.
    pub kind: FileKind,
    /// Which one it is; `None` for files on systems other than Unix.
    pub id: Option<FileId>,
    /// Bytes.
    pub size: u64,
    /// When the content changed last, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// When content or metadata changed last, in nanoseconds since 1970. On systems other than Unix the same as `modified_ns`.
    pub changed_ns: i64,
}

impl FileStat {
    /// Of an open file.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn of(file: &std::fs::File) -> io::Result<Self> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    /// Of what is at `path`, a link counting as itself.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(&std::fs::symlink_metadata(path)?))
    }

    #[cfg(unix)]
    fn from_metadata(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            kind: FileKind::of(metadata.file_type()),
            id: Some(FileId { device: metadata.dev(), inode: metadata.ino() }),
            size: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Without an id: the standard library tells none.
    #[cfg(not(unix))]
    fn from_metadata(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
        let modified_ns = modified.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0);
        Self { kind: FileKind::of(metadata.file_type()), id: None, size: metadata.len(), modified_ns, changed_ns: modified_ns }
    }
}

#[cfg(unix)]
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// One name in a folder.
#[derive(Debug, Clone)]
pub struct FolderEntry {
    /// The name, never `.` or `..`.
    pub name: OsString,
    /// Its kind, where the file system lists it.
    pub kind: Option<FileKind>,
}

/// Why something below a folder is not found or not opened.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The path, or a link on it, leads outside of the folder.
    #[error("the path leads outside of the folder")]
    Outside,
    /// A part of the path is not there, or is no folder.
    #[error("there is no such file or folder")]
    NotFound,
    /// Links lead to each other.
    #[error("too many symbolic links")]
    Loop,
    /// What is there is not of the kind asked for.
    #[error("not a regular file")]
    NotAFile,
    /// The file system refuses.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for LookupError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound,
            io::ErrorKind::CrossesDevices => Self::Outside,
            _ => Self::Io(error),
        }
    }
}

impl From<LookupError> for io::Error {
    fn from(error: LookupError) -> Self {
        let kind = match error {
            LookupError::Io(error) => return error,
            LookupError::NotFound => io::ErrorKind::NotFound,
            LookupError::Outside => io::ErrorKind::CrossesDevices,
            LookupError::Loop => io::ErrorKind::Other,
            LookupError::NotAFile => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

#[cfg(all(test, unix))]
mod tests;
