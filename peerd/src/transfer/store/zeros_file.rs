//! Notes beside a partial file which of its pieces were verified to be zeros. Such a piece is a hole, as is one that was never received: after a
//! crash nothing else tells them apart until the next record of verified pieces is written.
//!
//! A note is not synced and has no checksum: what it names is hashed before it counts. The notes of a process that is killed are there.
//! Blocking.

use super::{partial_file::PartialFile, sidecar_file};
use p2pdi::platform::write_all_at;
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    sync::{Mutex, PoisonError},
};

/// One note: the index of a piece, little endian.
const NOTE_BYTES: usize = 4;
/// Notes that are read: those of two fetches of 8,192 pieces. Past that, the oldest are written over.
const NOTES_MAX: u64 = 2 * 8_192;

/// The notes of one partial file. Its writers are one process; the partial file's lock keeps others out.
#[derive(Debug)]
pub(super) struct ZerosFile {
    name: OsString,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Opened with the first note.
    file: Option<File>,
    /// Notes that were written, those of earlier processes included.
    written: u64,
    /// It cannot be written.
    failed: bool,
}

impl ZerosFile {
    pub(super) fn new(file: &PartialFile) -> Self {
        Self { name: sidecar_file::zeros_name(file.name()), state: Mutex::default() }
    }

    /// The pieces that earlier processes noted.
    pub(super) fn read(&self, file: &PartialFile) -> Vec<usize> {
        let Ok((notes, _)) = file.folder().entry_file(&self.name) else { return Vec::new() };
        let mut bytes = Vec::new();
        if notes.take(NOTES_MAX * NOTE_BYTES as u64).read_to_end(&mut bytes).is_err() {
            return Vec::new();
        }
        let (notes, _torn) = bytes.as_chunks::<NOTE_BYTES>();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).written = notes.len() as u64;
        notes.iter().filter_map(|note| usize::try_from(u32::from_le_bytes(*note)).ok()).collect()
    }

    /// Notes that a piece is zeros, before it counts as verified.
    pub(super) fn note(&self, file: &PartialFile, piece: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            return;
        }
        if let Err(error) = state.write(file, &self.name, piece) {
            // Without a note it is fetched again after a crash.
            state.failed = true;
            tracing::debug!(path = %file.path().display(), %error, "cannot note which pieces are zeros");
        }
    }
}

impl State {
    fn write(&mut self, file: &PartialFile, name: &OsString, piece: usize) -> io::Result<()> {
        let notes = match &mut self.file {
            Some(notes) => notes,
            none => none.insert(file.folder().entry_file_for_writing(name)?.0),
        };
        let note = u32::try_from(piece).unwrap_or(u32::MAX).to_le_bytes();
        write_all_at(notes, &note, self.written % NOTES_MAX * NOTE_BYTES as u64)?;
        self.written += 1;
        Ok(())
    }
}
