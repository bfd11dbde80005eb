//! Small private files, such as a cookie: written whole or not at all, readable by their owner only.
//!
//! Each write uses a temporary file with a unique name, so several processes may write the same file at once: the last one wins, and
//! no reader sees half of either.

use crate::platform::create_private_folder;
use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// A file to be written, with its room on the disk already reserved.
#[derive(Debug)]
pub struct Reserved {
    temporary: NamedTempFile,
    target: PathBuf,
    /// It must survive a crash of the machine.
    durable: bool,
}

/// Makes sure that `bytes` can be written to `path` later: creates its folder, for this user only, and a temporary file in it, and writes
/// that many bytes.
/// Dropping the result removes the temporary file.
///
/// # Errors
/// When the folder cannot be made or written to, or the disk is full.
pub fn reserve(path: &Path, bytes: usize) -> io::Result<Reserved> {
    reserve_for(path, bytes, true)
}

/// Creates a temporary file in `folder`, readable by this user only. Its errors do not have its name, which says nothing to people.
///
/// # Errors
/// What the file system reports.
pub fn temporary_file(folder: &Path) -> io::Result<NamedTempFile> {
    // Mode 0600 on Unix.
    tempfile::Builder::new().prefix(".p2pdi-").tempfile_in(folder).map_err(|error| {
        // The system's words; the library adds the path to them, and keeps no error of the system.
        let text = error.to_string();
        io::Error::new(error.kind(), text.split(" at path ").next().unwrap_or_default())
    })
}

fn reserve_for(path: &Path, bytes: usize, durable: bool) -> io::Result<Reserved> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_folder(folder)?;
    let mut temporary = temporary_file(folder)?;
    temporary.as_file_mut().write_all(&vec![b' '; bytes])?;
    if durable {
        temporary.as_file().sync_all()?;
    }
    Ok(Reserved { temporary, target: path.to_owned(), durable })
}

impl Reserved {
    /// Writes `content`, syncs it and replaces the file with it.
    ///
    /// # Errors
    /// When the disk refuses; the old file stays.
    pub fn write(mut self, content: impl AsRef<[u8]>) -> io::Result<()> {
        let content = content.as_ref();
        let file = self.temporary.as_file_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(content)?;
        file.set_len(content.len() as u64)?;
        if self.durable {
            file.sync_all()?;
        }
        self.temporary.persist(&self.target).map_err(|error| error.error)?;
        if self.durable { sync_folder(&self.target) } else { Ok(()) }
    }
}

/// Writes `content` to `path`, creating its folder.
///
/// # Errors
/// When the disk refuses; the old file stays.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    reserve(path, content.as_ref().len())?.write(content)
}

/// The same for a file that is of no use after a crash of the machine: it waits for no disk.
///
/// # Errors
/// As [`write()`].
pub fn write_temporary(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    reserve_for(path, content.as_ref().len(), false)?.write(content)
}

/// Makes the rename durable, where folders can be synced.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) && !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, sync::Arc, thread};

    #[test]
    fn many_writers_of_one_file_all_succeed_and_leave_one_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = Arc::new(folder.path().join("state/made/cookie"));
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let path = Arc::clone(&path);
                thread::spawn(move || write(&path, n.to_string().repeat(1_000)).unwrap())
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let text = fs::read_to_string(&*path).unwrap();
        assert_eq!((text.len(), text.chars().filter(|c| text.starts_with(*c)).count()), (1_000, 1_000));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_reserved_file_holds_exactly_its_text_and_a_dropped_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cookie");
        reserve(&path, 100).unwrap().write("short").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        drop(reserve(&path, 100).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(reserve(&path.join("below-a-file"), 1).is_err());
        let missing = temporary_file(&folder.path().join("missing")).unwrap_err();
        assert!(missing.kind() == io::ErrorKind::NotFound && !missing.to_string().contains(".p2pdi-"), "{missing}");
        write_temporary(&path, "another").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
    }
}
