//! Room on the disk for several documents, reserved before the first of them begins.
//!
//! Each fetch reserves room for its own document when it begins. Until then the room is set aside by a file without a name, which shrinks as
//! documents begin, and goes with this process, however it ends.

use crate::{
    failure::{Failure, Outcome},
    printer::bytes,
};
use p2pdi::{
    phrases::counted,
    platform::{allocate, free_bytes},
};
use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// What must stay free beside the documents: metadata and other programs' work.
const SPARE_BYTES: u64 = 1024 * 1024;

/// Room for documents that have not begun.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// `None`: nothing is set aside, such as where the file system cannot.
    file: Option<File>,
    bytes: u64,
}

impl Room {
    /// Reserves `needed` bytes for `documents` documents below `out`.
    ///
    /// # Errors
    /// When there is too little room.
    pub(super) fn reserve(needed: u64, documents: usize, out: &Path) -> Outcome<Self> {
        // Small documents may still fit on a nearly full disk; the write itself shows it.
        if needed <= SPARE_BYTES {
            return Ok(Self::default());
        }
        let free = free(out);
        let refused = || {
            let free = free.map(|free| format!(", {} are free", bytes(free))).unwrap_or_default();
            Failure::refused(format!(
                "not enough space for {}: {} are still to be written under {}{free}",
                counted(documents as u64, "document"),
                bytes(needed),
                out.display(),
            ))
            .hint("free some space, choose another folder with --out, or fewer documents with --exclude")
        };
        if free.is_some_and(|free| needed.saturating_add(SPARE_BYTES) > free) {
            return Err(refused());
        }
        match set_aside(needed, out) {
            Ok(file) => Ok(Self { file, bytes: needed }),
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Err(refused()),
            Err(error) => Err(Failure::refused(format!("cannot write under {}: {error}", out.display()))),
        }
    }

    /// A document begins, which reserves `bytes` of its own.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        // A file that cannot shrink takes room from the documents: it goes.
        if self.file.as_ref().is_some_and(|file| file.set_len(self.bytes).is_err()) {
            self.file = None;
        }
    }
}

/// A file of that size without a name. `None` where the file system cannot reserve.
fn set_aside(bytes: u64, out: &Path) -> io::Result<Option<File>> {
    fs::create_dir_all(out)?;
    let file = tempfile::tempfile_in(out)?;
    file.set_len(bytes)?;
    Ok(allocate(&file, 0..bytes)?.then_some(file))
}

/// Bytes free where `out` is or will be.
pub(super) fn free(out: &Path) -> Option<u64> {
    let mut folders = out.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    free_bytes(folders.find(|path| path.is_dir())?).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::platform::allocated_bytes;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_does_not_fit_is_refused_before_anything_begins() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Room::reserve(1 << 60, 3, folder.path()).unwrap_err();
        let words = failure.to_string();
        for part in ["not enough space for 3 documents: 1.0 EiB are still to be written", " are free", "hint: free some space"] {
            assert!(words.contains(part), "{words}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn room_is_taken_without_a_name_and_shrinks_as_documents_begin() {
        let folder = tempfile::tempdir().unwrap();
        let mut room = Room::reserve(8 * MIB, 2, &folder.path().join("out")).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
        if let Some(file) = &room.file {
            assert!(allocated_bytes(file).unwrap() >= 8 * MIB);
        }
        room.give_back(5 * MIB);
        if let Some(file) = &room.file {
            assert!(allocated_bytes(file).unwrap() < 4 * MIB);
        }
        room.give_back(u64::MAX);
        assert_eq!(room.bytes, 0);
    }

    #[test]
    fn the_room_of_a_folder_that_is_not_there_yet_is_that_of_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(free(&folder.path().join("a/b")).is_some(), free(folder.path()).is_some());
        assert!(free(Path::new("./out-that-is-not-there")).is_some());
    }
}
