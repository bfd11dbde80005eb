//! The record of a partial file, on disk: see [`sidecar`](super::sidecar). Blocking.

use super::{
    partial_file::PartialFile,
    sidecar::{RECORD_BYTES_MAX, Record, inode},
};
use crate::transfer::piece_set::PieceSet;
use p2pdi::{
    content::{ContentHash, PieceHashes},
    platform::{FileStat, write_all_at},
};
use std::{
    ffi::{OsStr, OsString},
    fs::{File, FileTimes},
    io::{self, Read as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// Ends the record's name, after that of the partial file.
const EXTENSION: &str = ".pieces";
const ZEROS_EXTENSION: &str = ".zeros";
/// How far in the future a lease ends: what another program changes within this time after a crash is not noticed.
const LEASE: Duration = Duration::from_millis(100);
/// A lease that ends sooner is renewed before a write: time for the write to begin on a busy machine.
const LEASE_LEFT_MIN: Duration = Duration::from_millis(50);
/// How far in the past a seal is: more than any file system rounds times, or the clock of a file server is behind.
const SEAL_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The record of one partial file. Its writers are one process; the partial file's lock keeps others out.
#[derive(Debug)]
pub(super) struct Sidecar {
    hashes: Arc<PieceHashes>,
    hash: ContentHash,
    name: OsString,
    /// When the lease ends, in nanoseconds since 1970. Zero: no record is on disk.
    lease_ns: AtomicI64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The record's file and the pieces in it.
    written: Option<(File, PieceSet)>,
    /// No record is written any more.
    closed: bool,
}

impl Sidecar {
    pub(super) fn new(file: &PartialFile, hashes: &Arc<PieceHashes>, hash: ContentHash) -> Self {
        let name = with(file.name(), EXTENSION);
        Self { hashes: Arc::clone(hashes), hash, name, lease_ns: AtomicI64::new(0), state: Mutex::default() }
    }

    /// The pieces that the record says are verified and synced, if it can be believed: then this process has the lease from now on. Else
    /// the record is removed.
    pub(super) fn take(&self, file: &PartialFile) -> Option<PieceSet> {
        let taken = self.read(file).filter(|pieces| {
            // A seal is not a time for a document.
            let touched = file.file().set_modified(SystemTime::now());
            touched.and_then(|()| self.write(file, pieces, false)).is_ok()
        });
        if taken.is_none() {
            let _gone = file.folder().remove_entry(&self.name);
        }
        taken
    }

    fn read(&self, file: &PartialFile) -> Option<PieceSet> {
        let (record, stat) = file.folder().entry_file(&self.name).ok()?;
        let mut bytes = Vec::new();
        record.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
        let record = Record::decode(&bytes, &self.hashes.pieces(), &self.hash)?;
        record.is_true_of(file.opened(), stat.modified_ns).then_some(record.pieces)
    }

    /// Records that `pieces` are verified, after they were synced.
    pub(super) fn save(&self, file: &PartialFile, pieces: &PieceSet) -> io::Result<()> {
        if self.state().written.as_ref().is_some_and(|(_, written)| written == pieces) {
            return Ok(());
        }
        self.write(file, pieces, true)
    }

    fn write(&self, file: &PartialFile, pieces: &PieceSet, durable: bool) -> io::Result<()> {
        let stat = FileStat::of(file.file())?;
        let record = Record { inode: inode(&stat), length: stat.size, sealed: None, pieces: pieces.clone() };
        let (temporary, new) = self.create(file, &record, ".new", durable)?;
        let mut state = self.state();
        if state.closed {
            return file.folder().remove_entry(&temporary);
        }
        file.folder().rename_entry(&temporary, &self.name)?;
        state.written = Some((new, pieces.clone()));
        self.renew(&state);
        Ok(())
    }

    /// Writes a record to a file of its own. Returns the file's name, too.
    fn create(&self, file: &PartialFile, record: &Record, extension: &str, durable: bool) -> io::Result<(OsString, File)> {
        let name = with(&self.name, extension);
        let (new, _) = file.folder().entry_file_for_writing(&name)?;
        new.set_len(0)?;
        write_all_at(&new, &record.encode(&self.hashes.pieces(), &self.hash), 0)?;
        if durable {
            new.sync_data()?;
        }
        Ok((name, new))
    }

    /// Called before each write to the partial file.
    pub(super) fn before_write(&self) {
        let lease_ns = self.lease_ns.load(Ordering::Relaxed);
        if lease_ns != 0 && lease_ns < ns(SystemTime::now() + LEASE_LEFT_MIN) {
            self.renew(&self.state());
        }
    }

    fn renew(&self, state: &State) {
        let Some((record, _)) = &state.written else { return };
        let end = SystemTime::now() + LEASE;
        if record.set_times(FileTimes::new().set_modified(end)).is_ok() {
            self.lease_ns.store(ns(end), Ordering::Relaxed);
        }
    }

    /// The last record: nobody writes to the partial file any more. Only pieces that were synced before are in it; the next owner hashes the
    /// others.
    pub(super) fn seal(&self, file: &PartialFile) {
        let Some((_, pieces)) = self.close() else { return };
        let sealed = || {
            file.file().set_modified(SystemTime::now() - SEAL_AGE)?;
            let stat = FileStat::of(file.file())?;
            let sealed = Some((stat.modified_ns, stat.changed_ns));
            let record = Record { inode: inode(&stat), length: stat.size, sealed, pieces };
            let (temporary, _) = self.create(file, &record, ".end", false)?;
            file.folder().rename_entry(&temporary, &self.name)
        };
        if let Err(error) = sealed() {
            tracing::debug!(path = %file.path().display(), %error, "cannot record which pieces are verified");
        }
    }

    /// No record is written any more. Returns the last one's file and pieces.
    pub(super) fn close(&self) -> Option<(File, PieceSet)> {
        let mut state = self.state();
        state.closed = true;
        self.lease_ns.store(0, Ordering::Relaxed);
        state.written.take()
    }

    /// Removes the record of a partial file that is gone.
    pub(super) fn remove(&self, file: &PartialFile) {
        for name in names(file.name()) {
            let _gone = file.folder().remove_entry(&name);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of all files beside a partial file: its records, from their making on, and its notes of zeros.
pub(super) fn names(partial: &OsStr) -> [OsString; 4] {
    let [record, new, end] = ["", ".new", ".end"].map(|extension| with(&with(partial, EXTENSION), extension));
    [record, new, end, zeros_name(partial)]
}

/// The name of the notes of zeros: see [`zeros_file`](super::zeros_file).
pub(super) fn zeros_name(partial: &OsStr) -> OsString {
    with(partial, ZEROS_EXTENSION)
}

fn with(name: &OsStr, extension: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(extension);
    name
}

fn ns(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
