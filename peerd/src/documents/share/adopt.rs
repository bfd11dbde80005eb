//! Files that this process puts into the share, or takes from it: what is known of their content is not read again.

use super::{
    Share,
    document::{Fingerprint, SharedDocument},
    hash::Hashed,
    open::OpenError,
    title::{HEAD_BYTES, title},
};
use crate::documents::rfc_number::rfc_number;
use p2pdi::{
    content::PieceHashes,
    document::DocumentName,
    platform::{FileStat, LookupError, read_exact_at},
};
use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};
use tokio::time::timeout;

/// How often [`Share::has`] looks at the index if its version does not change.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Share {
    /// The folder that is shared; `None`: nothing is.
    pub fn folder(&self) -> Option<&Path> {
        self.shared.root.path()
    }

    /// Offers a file that was just put into the folder and whose content has `hashes`, which the caller has verified. Only the first bytes
    /// are read, for the title. The document gets the modification time `modified`, if given: copies of one content have one time. The
    /// index has it a moment later, see [`Self::has`]. Blocking.
    ///
    /// # Errors
    /// When the file is gone, has another size, or cannot be read. The indexer then scans it.
    pub fn adopt(
        &self,
        name: &DocumentName,
        hashes: &PieceHashes,
        modified: Option<SystemTime>,
    ) -> Result<SharedDocument, OpenError> {
        let read = self.adopted(name, hashes, modified);
        match &read {
            Ok((document, hashed)) => self.shared.signal.adopted(document.clone(), hashed.clone()),
            Err(_) => self.rescan_name(name),
        }
        read.map(|(document, _)| document)
    }

    fn adopted(
        &self,
        name: &DocumentName,
        hashes: &PieceHashes,
        modified: Option<SystemTime>,
    ) -> Result<(SharedDocument, Hashed), OpenError> {
        let lookup = |error: LookupError| match error {
            LookupError::NotFound => OpenError::Gone,
            error => OpenError::Unreadable(error.into()),
        };
        let root = self.shared.root.open().map_err(LookupError::from).map_err(lookup)?;
        let (file, before) = root.open_file(&name.to_relative_path()).map_err(lookup)?;
        let size = hashes.pieces().size();
        if before.size != size {
            return Err(OpenError::Changed);
        }
        if let Some(modified) = modified
            && let Err(error) = file.set_modified(modified)
        {
            tracing::debug!(document = %name, %error, "cannot set the modification time");
        }
        let stat = FileStat::of(&file).map_err(OpenError::Unreadable)?;
        let mut head = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(HEAD_BYTES)];
        read_exact_at(&file, &mut head, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => OpenError::Changed,
            _ => OpenError::Unreadable(error),
        })?;
        // Written to meanwhile: the scan finds the new fingerprint.
        if FileStat::of(&file).map_err(OpenError::Unreadable)? != stat {
            return Err(OpenError::Changed);
        }
        let (fingerprint, hash) = (Fingerprint::of(&stat), hashes.merge());
        let number = rfc_number(name.file_name());
        let title: Box<str> = title(name.file_name(), &head).into();
        let pieces = (hashes.pieces().count() > 1).then(|| hashes.clone());
        let hashed = Hashed { hash, pieces, number, title: title.clone() };
        let modified = fingerprint.modified();
        Ok((SharedDocument { name: name.clone(), number, title, size, hash, modified, fingerprint }, hashed))
    }

    /// Waits until the index has this document.
    pub async fn has(&self, document: &SharedDocument) {
        let mut changes = self.changes();
        loop {
            let index = self.index();
            if index.by_name(document.name.as_str()).is_some_and(|found| **found == *document) {
                return;
            }
            // An index with the same documents has the same version, though a file has another fingerprint.
            let _ = timeout(LOOK_EVERY, changes.changed()).await;
        }
    }

    /// Removes a document's file, if it is still the one that was indexed. Blocking.
    ///
    /// # Errors
    /// When the file is gone or changed, or cannot be removed.
    pub fn remove(&self, document: &SharedDocument) -> Result<(), OpenError> {
        let lookup = |error: LookupError| match error {
            LookupError::NotFound => OpenError::Gone,
            error => OpenError::Unreadable(error.into()),
        };
        let root = self.shared.root.open().map_err(LookupError::from).map_err(lookup)?;
        let path = document.name.to_relative_path();
        let (file, stat) = root.open_file(&path).map_err(lookup)?;
        drop(file);
        if Fingerprint::of(&stat) != document.fingerprint {
            self.rescan(document);
            return Err(OpenError::Changed);
        }
        root.remove_file(&path).map_err(lookup)?;
        self.rescan(document);
        Ok(())
    }
}
