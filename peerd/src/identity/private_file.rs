//! Files that only their user can read, written atomically.

use super::error::StateError;
use p2pdi::platform::private;
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

/// Replaces a file atomically (temporary file, fsync, rename). Its mode is 0600.
///
/// # Errors
/// When the file cannot be written; the old file stays.
pub fn write_private(path: &Path, text: &str) -> Result<(), StateError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = private(OpenOptions::new().create(true).truncate(true).write(true)).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(StateError::io("write", path))
}
