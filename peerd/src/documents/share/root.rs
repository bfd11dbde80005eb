//! The shared folder, at its configured path.

use p2pdi::platform::{FileId, Folder};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// The path of the shared folder, once there is one. It is opened again for each use, so that the folder can be renamed, replaced and unmounted.
/// Clones have the same path.
#[derive(Debug, Clone, Default)]
pub(super) struct Root {
    path: Arc<OnceLock<PathBuf>>,
}

impl Root {
    /// Sets the path; `false` if another one is set.
    pub(super) fn set(&self, path: PathBuf) -> bool {
        *self.path.get_or_init(|| path.clone()) == path
    }

    /// The path; `None` while nothing is shared.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.get().map(PathBuf::as_path)
    }

    pub(super) fn open(&self) -> io::Result<Folder> {
        Folder::open(self.required()?)
    }

    /// The id of the folder that is at the path now.
    pub(super) fn id(&self) -> io::Result<FileId> {
        Folder::id_at(self.required()?)
    }

    fn required(&self) -> io::Result<&Path> {
        self.path().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "nothing is shared"))
    }
}
