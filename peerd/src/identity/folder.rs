//! The state folder and its lock.

use super::error::StateError;
use p2pdi::{platform::create_private_folder, private_file};
use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

/// A peer's state folder, locked against other processes.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: File,
    /// It is removed when the peer ends.
    is_temporary: bool,
}

impl StateFolder {
    /// Opens the folder, or makes it for this user only, and locks it.
    ///
    /// # Errors
    /// When it cannot be made, or another process has locked it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        create_private_folder(path).map_err(StateError::io("make the state folder", path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(StateError::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock, is_temporary: false }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StateError::io("lock", &lock_path)(error)),
        }
    }

    /// The same folder, of a peer that does not outlast this process: nothing in it is synced.
    #[must_use]
    pub fn temporary(self) -> Self {
        Self { is_temporary: true, ..self }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces a file of the folder atomically, readable by this user only.
    ///
    /// # Errors
    /// When the file cannot be written; the old file stays.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        let write = if self.is_temporary { private_file::write_temporary } else { private_file::write };
        write(&path, text).map_err(StateError::io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_can_be_opened_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let _first = StateFolder::open(folder.path()).unwrap();
        assert!(matches!(StateFolder::open(folder.path()), Err(StateError::Locked { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_made_is_for_its_user_only_and_one_that_is_there_stays_as_it_is() {
        use std::{
            fs::{self, Permissions},
            os::unix::fs::PermissionsExt as _,
        };
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mode = || fs::metadata(&state).unwrap().permissions().mode() & 0o777;
        drop(StateFolder::open(&state).unwrap());
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&state, Permissions::from_mode(0o750)).unwrap();
        drop(StateFolder::open(&state).unwrap());
        assert_eq!(mode(), 0o750);
    }
}
