//! Syncs what was written to a partial file while more is written, so that the final sync is short, and records which pieces are verified
//! and synced.

use super::{partial_file::PartialFile, piece_table::PieceTable, sidecar_file::Sidecar};
use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// After this many bytes written, they are synced: what a crash can make a fetch hash again.
const FLUSH_BYTES: u64 = 64 * 1024 * 1024;
/// After this time, too, if anything was written: about what a slow fetch receives in it is hashed again.
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);

/// Syncs one partial file.
#[derive(Debug)]
pub(super) struct Flusher {
    table: Arc<PieceTable>,
    sidecar: Arc<Sidecar>,
    unflushed_bytes: AtomicU64,
    /// The document is about to be complete: no further record is written.
    is_ending: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Instant,
    running: Option<JoinHandle<()>>,
    /// The partial file, opened again: a clone would keep the lock for as long as the disk takes, and would consume a write error that the
    /// final sync must report (Linux reports one once to each open file description). `None` after an error: what was synced is unknown
    /// from then on.
    file: Option<Arc<File>>,
    is_opened: bool,
}

impl Flusher {
    pub(super) fn new(table: &Arc<PieceTable>, sidecar: &Arc<Sidecar>) -> Self {
        let state = State { last: Instant::now(), running: None, file: None, is_opened: false };
        let (table, sidecar) = (Arc::clone(table), Arc::clone(sidecar));
        Self { table, sidecar, unflushed_bytes: AtomicU64::new(0), is_ending: Arc::default(), state: Mutex::new(state) }
    }

    /// Opens the file that is synced: before anything is written, so that no error of a write is missed.
    pub(super) fn open(&self, file: &PartialFile) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_opened {
            state.is_opened = true;
            state.file = file.folder().entry_file(file.name()).ok().map(|(file, _)| Arc::new(file));
        }
    }

    /// Called after each write to the partial file. Syncs in a thread of its own if it is time, unless one still does.
    pub(super) fn wrote(&self, file: &Arc<PartialFile>, bytes: u64) {
        let unflushed = self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if unflushed < FLUSH_BYTES && state.last.elapsed() < FLUSH_INTERVAL {
            return;
        }
        if state.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        self.unflushed_bytes.store(0, Ordering::Relaxed);
        state.last = Instant::now();
        if state.running.take().is_some_and(|ended| ended.join().is_err()) {
            state.file = None;
        }
        let Some(synced) = state.file.clone() else { return };
        let (file, table, sidecar) = (Arc::downgrade(file), Arc::clone(&self.table), Arc::clone(&self.sidecar));
        let is_ending = Arc::clone(&self.is_ending);
        // If none can be started, the final sync takes longer.
        let thread = thread::Builder::new().name("flush".to_owned());
        state.running = thread.spawn(move || flush(&file, &synced, &table, &sidecar, &is_ending)).ok();
    }

    /// Waits for the sync that is under way, if any, and ends the records.
    pub(super) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        let running = self.state.lock().unwrap_or_else(PoisonError::into_inner).running.take();
        if let Some(running) = running {
            // It reports no result: the final sync does.
            let _ended = running.join();
        }
    }
}

fn flush(file: &Weak<PartialFile>, synced: &File, table: &PieceTable, sidecar: &Sidecar, is_ending: &AtomicBool) {
    let verified = table.states().verified().clone();
    let saved = synced.sync_data().and_then(|()| {
        // Not held during the sync: with its last owner the lock of the file goes.
        let Some(file) = file.upgrade().filter(|_| !is_ending.load(Ordering::Relaxed)) else { return Ok(()) };
        sidecar.save(&file, &verified)
    });
    if let Err(error) = saved {
        report(file, &error, sidecar);
    }
}

/// After an error of a sync it is unknown what is on the disk. Without a record it is found out by hashing.
fn report(file: &Weak<PartialFile>, error: &io::Error, sidecar: &Sidecar) {
    let Some(file) = file.upgrade() else { return };
    tracing::debug!(path = %file.path().display(), %error, "cannot record which pieces are verified");
    if error.kind() != io::ErrorKind::StorageFull {
        sidecar.close();
        sidecar.remove(&file);
    }
}
