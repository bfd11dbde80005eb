//! A document opened for serving.

use super::{
    document::{Change, Fingerprint, SharedDocument},
    root::Root,
};
use p2pdi::platform::{self, FileStat, LookupError};
use std::{fs::File, io};

/// Why a document cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file does not exist any more.
    #[error("the file does not exist any more")]
    Gone,
    /// The file is not the one that was indexed.
    #[error("the file changed since it was indexed")]
    Changed,
    /// The file was modified since it was indexed, and is hashed again. Its content may be the same.
    #[error("the file is being hashed again")]
    Modified,
    /// The file system refuses to read it.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

impl OpenError {
    /// Whether the process is short of descriptors or memory: a moment later the file may open.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Unreadable(error) if platform::is_shortage(error))
    }
}

/// The open file of a document.
#[derive(Debug)]
pub struct OpenDocument {
    file: File,
    fingerprint: Fingerprint,
}

impl OpenDocument {
    pub(super) fn open(root: &Root, document: &SharedDocument) -> Result<Self, OpenError> {
        let opened = root.open().map_err(LookupError::from).and_then(|root| root.open_file(&document.name.to_relative_path()));
        let (file, stat) = opened.map_err(|error| match error {
            LookupError::NotFound => OpenError::Gone,
            error => OpenError::Unreadable(error.into()),
        })?;
        match document.fingerprint.change_to(&Fingerprint::of(&stat)) {
            Change::None | Change::Metadata => Ok(Self { file, fingerprint: document.fingerprint }),
            Change::Modified => Err(OpenError::Modified),
            Change::Content => Err(OpenError::Changed),
        }
    }

    /// Bytes of the document.
    pub fn size(&self) -> u64 {
        self.fingerprint.size
    }

    /// Fills `buffer` with the bytes from `offset` on. Blocking. `change` says afterwards whether they are the document's.
    ///
    /// # Errors
    /// When the file ends too early, which means that it changed, or the file system fails.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        platform::read_exact_at(&self.file, buffer, offset)
    }

    /// Whether the file is still the one that was indexed: same size, inode, modification time and change time. Blocking; costs one system
    /// call.
    pub fn unchanged(&self) -> bool {
        self.change() == Change::None
    }

    /// How the file changed since it was indexed. Blocking; costs one system call.
    pub(crate) fn change(&self) -> Change {
        FileStat::of(&self.file).map_or(Change::Content, |stat| self.fingerprint.change_to(&Fingerprint::of(&stat)))
    }
}
