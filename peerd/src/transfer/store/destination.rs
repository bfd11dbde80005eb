//! Where a fetched document goes: its path below the target folder, and the folders on the way. Blocking; call it off the runtime.

use p2pdi::{
    content::{ContentHash, DocumentHasher},
    document::DocumentName,
    platform::{FileKind, FileStat},
};
use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
};

/// How much is read at once while a file is hashed.
pub(crate) const HASH_READ_BYTES: usize = 1024 * 1024;

/// Why a document cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The disk lacks free space.
    #[error("not enough space for {name}: {needed} bytes are still to be written under {}, {available} are free", folder.display())]
    NoSpace {
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
    Locked {
        /// The partial file.
        path: PathBuf,
    },
    /// A folder on the way to the target is a symbolic link, which could lead outside.
    #[error("{} is a symbolic link; the document's name would lead outside the folder", path.display())]
    LeadsOutside {
        /// The link.
        path: PathBuf,
    },
}

impl WriteError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// A file that was hashed, as it was then, and its hash.
pub(crate) type HashedFile = Option<(FileStat, ContentHash)>;

/// The path of a document below `folder`, and whether the file there already has its content. That file is hashed only if it is not the
/// one in `hashed`, which is kept for the next call.
///
/// # Errors
/// When a file with other content is there and `replace` is false, or it cannot be read.
pub(crate) fn locate(
    folder: &Path,
    name: &DocumentName,
    hash: &ContentHash,
    size: u64,
    replace: bool,
    hashed: &mut HashedFile,
) -> Result<(PathBuf, bool), WriteError> {
    let path = folder.join(name.to_relative_path());
    let existing = match FileStat::at(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((path, false)),
        Err(error) => return Err(WriteError::io("look at", &path)(error)),
        Ok(stat) => stat,
    };
    if existing.kind == FileKind::File && existing.size == size {
        let found = match hashed {
            Some((stat, found)) if *stat == existing => *found,
            _ => hashed.insert((existing, hash_file(&path)?)).1,
        };
        if found == *hash {
            return Ok((path, true));
        }
    }
    if replace && existing.kind != FileKind::Folder { Ok((path, false)) } else { Err(WriteError::TargetExists { path }) }
}

fn hash_file(path: &Path) -> Result<ContentHash, WriteError> {
    let file = File::open(path).map_err(WriteError::io("read", path))?;
    let mut hasher = DocumentHasher::new();
    io::copy(&mut BufReader::with_capacity(HASH_READ_BYTES, file), &mut hasher).map_err(WriteError::io("read", path))?;
    Ok(hasher.finalize())
}

/// Creates the folders in a document's name one by one, and follows no symbolic link below `folder`. Returns the innermost.
pub(crate) fn create_folders(folder: &Path, name: &DocumentName) -> Result<PathBuf, WriteError> {
    fs::create_dir_all(folder).map_err(WriteError::io("make", folder))?;
    let mut path = folder.to_owned();
    let relative = name.to_relative_path();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        path.push(part);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(WriteError::io("make", &path)(error)),
            _ => {}
        }
        let metadata = fs::symlink_metadata(&path).map_err(WriteError::io("look at", &path))?;
        if metadata.is_symlink() {
            return Err(WriteError::LeadsOutside { path });
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_other_content_is_replaced_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/doc.bin"), "mine").unwrap();
        let name = DocumentName::parse("a/doc.bin").unwrap();
        let locate =
            |data: &[u8], replace| locate(folder.path(), &name, &ContentHash::of(data), data.len() as u64, replace, &mut None);
        assert!(matches!(locate(b"theirs", false), Err(WriteError::TargetExists { .. })));
        assert!(!locate(b"theirs", true).unwrap().1);
        assert!(locate(b"mine", false).unwrap().1);
    }

    #[test]
    fn a_file_is_hashed_again_only_after_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("doc.bin");
        fs::write(&path, "mine").unwrap();
        let name = DocumentName::parse("doc.bin").unwrap();
        let mine = ContentHash::of(b"mine");
        // As if it had been hashed before, with another result.
        let mut hashed = Some((FileStat::at(&path).unwrap(), ContentHash::of(b"else")));
        assert!(!locate(folder.path(), &name, &mine, 4, true, &mut hashed).unwrap().1);
        fs::rename(&path, folder.path().join("other")).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(locate(folder.path(), &name, &mine, 4, true, &mut hashed).unwrap().1);
        assert_eq!(hashed.map(|(_, hash)| hash), Some(mine));
    }

    #[test]
    fn a_symbolic_link_in_place_of_a_folder_is_not_followed() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("a")).unwrap();
        let name = DocumentName::parse("a/doc.bin").unwrap();
        assert!(matches!(create_folders(folder.path(), &name), Err(WriteError::LeadsOutside { .. })));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
