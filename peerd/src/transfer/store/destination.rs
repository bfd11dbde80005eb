//! Where a fetched document goes: its path below the target folder, and the folders on the way. Blocking; call it off the runtime.
//!
//! The target folder itself may be a symbolic link: the user named it. Below it no link is followed, whatever others put there meanwhile:
//! each folder is opened in the one above it.

use super::error::WriteError;
use p2pdi::{
    content::{ContentHash, DocumentHasher},
    document::DocumentName,
    platform::{FileKind, FileStat, Folder, LookupError},
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
};

/// How much is read at once while a file is hashed.
pub(super) const HASH_READ_BYTES: usize = 1024 * 1024;

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
    let file_name = OsStr::new(name.file_name());
    let Some(parent) = open_parent(folder, name)? else { return Ok((path, false)) };
    let existing = match parent.entry_stat(file_name) {
        Err(LookupError::NotFound) => return Ok((path, false)),
        Err(error) => return Err(WriteError::io("look at", &path)(error.into())),
        Ok(stat) => stat,
    };
    if existing.kind == FileKind::File && existing.size == size {
        let found = match hashed {
            Some((stat, found)) if *stat == existing => *found,
            _ => {
                let opened = parent.entry_file(file_name).map_err(io::Error::from).map_err(WriteError::io("read", &path))?;
                hashed.insert((opened.1, hash_file(opened.0).map_err(WriteError::io("read", &path))?)).1
            }
        };
        if found == *hash {
            return Ok((path, true));
        }
    }
    match existing.kind {
        FileKind::Folder => Err(WriteError::TargetIsFolder { path }),
        _ if replace => Ok((path, false)),
        _ => Err(WriteError::TargetExists { path }),
    }
}

fn hash_file(file: File) -> io::Result<ContentHash> {
    let mut hasher = DocumentHasher::new();
    io::copy(&mut BufReader::with_capacity(HASH_READ_BYTES, file), &mut hasher)?;
    Ok(hasher.finalize())
}

/// The innermost folder of a document's name; `None` if it is not there.
fn open_parent(folder: &Path, name: &DocumentName) -> Result<Option<Folder>, WriteError> {
    let mut here = match Folder::open(folder) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WriteError::io("open", folder)(error)),
    };
    for part in parents(name) {
        match enter(&here, part) {
            Ok(inner) => here = inner,
            Err(WriteError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(here))
}

/// Creates the folders in a document's name one by one. Returns the innermost.
pub(super) fn create_folders(folder: &Path, name: &DocumentName) -> Result<Folder, WriteError> {
    let mut here = match Folder::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(WriteError::io("make", folder))?;
            Folder::open(folder)
        }
        opened => opened,
    }
    .map_err(WriteError::io("open", folder))?;
    for part in parents(name) {
        here = match enter(&here, part) {
            Err(WriteError::Io { source, path, .. }) if source.kind() == io::ErrorKind::NotFound => {
                match here.create_folder(OsStr::new(part)) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(WriteError::io("make", &path)(error));
                    }
                    _ => enter(&here, part)?,
                }
            }
            entered => entered?,
        };
    }
    Ok(here)
}

/// The folders in a document's name.
fn parents(name: &DocumentName) -> impl Iterator<Item = &str> {
    let parents = name.as_str().rsplit_once('/').map(|(parents, _)| parents);
    parents.into_iter().flat_map(|parents| parents.split('/'))
}

/// Opens a folder in another one, but not through a link.
fn enter(here: &Folder, part: &str) -> Result<Folder, WriteError> {
    let part = OsStr::new(part);
    here.entry_folder(part).map_err(|error| {
        let path = here.path().join(part);
        match here.entry_stat(part).map(|stat| stat.kind) {
            Ok(FileKind::Link) => WriteError::LeadsOutside { path },
            Ok(FileKind::File | FileKind::Other) => WriteError::io("make", &path)(io::ErrorKind::NotADirectory.into()),
            Ok(FileKind::Folder) | Err(_) => WriteError::io("open", &path)(error.into()),
        }
    })
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
        assert!(matches!(open_parent(folder.path(), &name), Err(WriteError::LeadsOutside { .. })));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_place_of_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let name = DocumentName::parse("a/b/doc.bin").unwrap();
        let error = create_folders(folder.path(), &name).unwrap_err().to_string();
        assert!(error.starts_with("cannot make ") && error.contains("/a: "), "{error}");
        let name = DocumentName::parse("b/c/doc.bin").unwrap();
        assert!(open_parent(folder.path(), &name).unwrap().is_none());
        assert_eq!(create_folders(folder.path(), &name).unwrap().path(), folder.path().join("b/c"));
        assert!(open_parent(folder.path(), &name).unwrap().is_some());
    }
}
