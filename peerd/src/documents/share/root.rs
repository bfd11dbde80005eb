//! The shared folder, at its configured path.

use p2pdi::platform::{FileId, Folder};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The path of the shared folder. It is opened again for each use, so that the folder can be renamed, replaced and unmounted.
#[derive(Debug, Clone)]
pub(super) struct Root {
    path: PathBuf,
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn open(&self) -> io::Result<Folder> {
        Folder::open(&self.path)
    }

    /// The id of the folder that is at the path now.
    pub(super) fn id(&self) -> io::Result<FileId> {
        Folder::id_at(&self.path)
    }
}
