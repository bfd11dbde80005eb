//! The verified pieces of one document under way, in a partial file that any number of streams fill.
//!
//! Opening the store returns at once, whatever the file's size: pieces that an earlier fetch may have written are *pending* until they are
//! hashed in the background. A pending piece is neither served nor part of [`PieceStore::next_missing`]; a writer may receive it all the
//! same, and then its bytes count. Which pieces are verified and synced is recorded beside the partial file; they need no hashing unless
//! somebody else changed the file. So a crash at any moment, or a change by another program, costs at most the pieces it touched.
//!
//! Streams write to it through [`PieceWriter`](super::piece_writer::PieceWriter)s. Blocking, but for what is said to be not; call it off the
//! runtime.

use super::{
    check,
    error::WriteError,
    flush::Flusher,
    partial_file::PartialFile,
    piece_table::{PieceChanges, PieceTable},
    reservation::{Reservation, release},
    sidecar_file::Sidecar,
    states::{PieceStates, WriterId},
    superseded,
    zeros_file::ZerosFile,
};
use crate::transfer::piece_set::PieceSet;
use p2pdi::{
    content::{ContentHash, PieceHashes, Pieces},
    document::DocumentName,
    platform::read_exact_at,
};
use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

/// Most bytes that writers keep in memory, for pieces that another writer has: sixteen pieces of a document of up to 8 GiB. Beyond it their
/// bytes are skipped.
pub(super) const BUFFERED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The partial file of a document, its lock, and which pieces are verified. Shared by all streams that fill it, and by those that read what is
/// verified. Dropping the last reference releases the lock.
#[derive(Debug)]
pub(crate) struct PieceStore {
    name: DocumentName,
    hash: ContentHash,
    hashes: Arc<PieceHashes>,
    /// Whether a file of other content at the target may be replaced.
    replace: bool,
    file: Arc<PartialFile>,
    table: Arc<PieceTable>,
    last_writer: AtomicU64,
    /// Bytes that writers keep in memory.
    buffered: AtomicU64,
    opened: Instant,
    /// Whether the partial file has another name, or none.
    is_gone: AtomicBool,
    sidecar: Arc<Sidecar>,
    /// What a document of more than one piece has beside: a smaller one is written in one go.
    large: Option<Large>,
}

#[derive(Debug)]
struct Large {
    reservation: Reservation,
    flusher: Flusher,
    zeros: ZerosFile,
}

impl PieceStore {
    /// Opens or creates the partial file of the document `name` below `folder`. Pieces that the file may hold already are checked in the
    /// background.
    ///
    /// `replace`: whether a file of other content at the target may be replaced.
    ///
    /// # Errors
    /// When the folder cannot be created or written, lacks free space, or another fetch has locked the file or just finished it.
    pub(crate) fn open(folder: &Path, name: &DocumentName, hashes: PieceHashes, replace: bool) -> Result<Arc<Self>, WriteError> {
        let hash = hashes.merge();
        let hashes = Arc::new(hashes);
        let count = hashes.pieces().count();
        let file = Arc::new(PartialFile::open(folder, name, &hash)?);
        superseded::opened(file.folder(), file.name());
        let is_large = count > 1;
        let sidecar = Arc::new(Sidecar::new(&file, &hashes, hash));
        let recorded = if is_large && file.opened().size > 0 { sidecar.take(&file) } else { None };
        let data = file.data().map_err(WriteError::io("read", file.path()))?;
        let held = check::held(&hashes, file.opened().size, &data);
        let zeros = ZerosFile::new(&file);
        let noted: BTreeSet<_> = zeros.read(&file).into_iter().collect();
        let holes = match recorded {
            // A hole that is neither recorded nor noted was never received.
            Some(_) => held.holes.into_iter().filter(|piece| noted.contains(piece)).collect(),
            None => check::missing_first(held.holes, &noted),
        };
        let unchecked = [holes, held.filled].concat();
        let mut verified = recorded.unwrap_or_else(|| PieceSet::empty(count));
        if hashes.pieces().size() == 0 && Some(hashes.pieces().hasher(0).finalize()) == hashes.get(0) {
            verified.insert(0);
        }
        let table = Arc::new(PieceTable::new(PieceStates::new(verified, held.fresh, &unchecked)));
        let large = if is_large {
            let missing = runs(&hashes.pieces(), &table, PieceStates::needs_room);
            let reservation = Reservation::new(&file, name, &missing).inspect_err(|_| leave(&file, &table, &sidecar, None))?;
            let flusher = Flusher::new(&table, &sidecar);
            flusher.open(&file);
            Some(Large { reservation, flusher, zeros })
        } else {
            None
        };
        let store = Arc::new(Self {
            name: name.clone(),
            hash,
            hashes,
            replace,
            file,
            table,
            last_writer: AtomicU64::new(0),
            buffered: AtomicU64::new(0),
            opened: Instant::now(),
            is_gone: AtomicBool::new(false),
            sidecar,
            large,
        });
        check::start(&store.file, &store.table, &store.hashes);
        Ok(store)
    }

    /// Whether an earlier fetch left something of this content, or a file has the document's name.
    pub(crate) fn is_begun(folder: &Path, name: &DocumentName, hash: &ContentHash) -> bool {
        PartialFile::is_begun(folder, name, hash)
    }

    /// The document's name. Does not block.
    pub(crate) fn name(&self) -> &DocumentName {
        &self.name
    }

    /// The document's hash. Does not block.
    pub(crate) fn hash(&self) -> &ContentHash {
        &self.hash
    }

    /// The hashes of the pieces. Does not block.
    pub(crate) fn hashes(&self) -> &Arc<PieceHashes> {
        &self.hashes
    }

    /// How the document is divided. Does not block.
    pub(crate) fn pieces(&self) -> Pieces {
        self.hashes.pieces()
    }

    /// Bytes of the document. Does not block.
    pub(crate) fn size(&self) -> u64 {
        self.pieces().size()
    }

    /// Whether the file system set room aside for all of it. Does not block.
    pub(crate) fn has_room(&self) -> bool {
        self.large.as_ref().is_some_and(|large| large.reservation.is_allocated())
    }

    /// Where the complete document goes. Does not block.
    pub(crate) fn target(&self) -> &Path {
        self.file.target()
    }

    /// The partial file. Does not block.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The verified pieces at this moment. Does not block.
    pub(crate) fn verified(&self) -> PieceSet {
        self.table.states().verified().clone()
    }

    /// The pieces at this moment whose check is not over. Does not block.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> PieceSet {
        self.table.states().unchecked().clone()
    }

    /// Whether all pieces of a range of bytes are verified. Does not block.
    pub(crate) fn is_verified(&self, range: &Range<u64>) -> bool {
        let pieces = self.pieces();
        range.start <= range.end
            && range.end <= pieces.size()
            && (range.is_empty() || self.has_pieces(pieces.index_at(range.start)..pieces.index_at(range.end - 1) + 1))
    }

    /// Whether all pieces of a range of pieces are verified. Does not block.
    pub(crate) fn has_pieces(&self, mut range: Range<usize>) -> bool {
        let states = self.table.states();
        range.all(|piece| states.verified().contains(piece))
    }

    /// Bytes of verified pieces. Does not block.
    pub(crate) fn verified_bytes(&self) -> u64 {
        self.table.states().verified().bytes(self.pieces())
    }

    /// Bytes of pieces not verified yet. Does not block.
    #[cfg(test)]
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.size() - self.verified_bytes()
    }

    /// Whether every piece is verified. Does not block.
    pub(crate) fn is_complete(&self) -> bool {
        self.table.states().verified().is_full()
    }

    /// The first run of pieces that are neither verified nor pending nor being received, as a range of bytes. Does not block.
    #[cfg(test)]
    pub(crate) fn next_missing(&self) -> Option<Range<u64>> {
        let run = self.table.states().next_missing()?;
        Some(self.pieces().range(run.start).start..self.pieces().range(run.end - 1).end)
    }

    /// Follows which pieces become verified, are lost, or turn out to be missing, from now on. Does not block.
    pub(crate) fn subscribe(&self) -> PieceChanges {
        self.table.subscribe()
    }

    /// Waits until no piece is pending.
    pub(crate) fn wait_checked(&self) {
        self.table.wait_checked();
    }

    /// Fills `buffer` with verified bytes from `offset` on, also after [`Self::finish`].
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when a piece of the range is not verified, and what the file system reports. Pieces of which the file has
    /// lost bytes are missing from then on.
    pub(crate) fn read_verified_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset..offset.saturating_add(buffer.len() as u64);
        if !self.is_verified(&range) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "these pieces are not verified"));
        }
        read_exact_at(self.file.file(), buffer, offset).inspect_err(|error| {
            // Another program cut the file off.
            if error.kind() == io::ErrorKind::UnexpectedEof {
                let end = self.file.file().metadata().map_or(0, |metadata| metadata.len());
                let pieces = self.pieces();
                for piece in (0..pieces.count()).filter(|piece| pieces.range(*piece).end > end) {
                    self.table.lose(piece);
                }
            }
        })
    }

    /// Makes the complete document appear under its name: sync, then rename. Partial files of other versions are removed.
    ///
    /// # Errors
    /// When pieces are missing, or the disk refuses; the partial file stays.
    pub(crate) fn finish(&self) -> Result<PathBuf, WriteError> {
        self.prepare_finish()?;
        self.sync()?;
        self.publish()
    }

    /// All of [`Self::finish`] that precedes the sync.
    pub(super) fn prepare_finish(&self) -> Result<(), WriteError> {
        if !self.is_complete() {
            return Err(WriteError::Incomplete { path: self.path().to_owned() });
        }
        if let Some(large) = &self.large {
            large.flusher.end();
        }
        self.file.set_size(self.size())?;
        // Room for pieces that a check found to be zeros.
        let holes = runs(&self.pieces(), &self.table, PieceStates::is_hole);
        if !holes.is_empty() {
            release(&self.file, &holes);
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), WriteError> {
        self.file.sync()
    }

    /// The rest of [`Self::finish`], after the sync.
    pub(super) fn publish(&self) -> Result<PathBuf, WriteError> {
        // The folder is not synced: the content is on the disk, so a power failure leaves it under one of its two names.
        self.file.rename(self.replace)?;
        self.forget();
        superseded::remove(self.file.folder(), self.name.file_name(), self.file.name());
        Ok(self.target().to_owned())
    }

    /// Removes the partial file: there is no such document.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn discard(&self) -> Result<(), WriteError> {
        self.file.remove()?;
        self.forget();
        Ok(())
    }

    /// The partial file has another name, or none: its record goes.
    fn forget(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        self.sidecar.close();
        if let Some(large) = &self.large {
            large.flusher.end();
            self.sidecar.remove(&self.file);
        }
    }

    /// When the partial file was opened.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// The file system of the partial file.
    pub(super) fn device(&self) -> u64 {
        self.file.opened().id.map_or(0, |id| id.device)
    }

    pub(super) fn file(&self) -> &PartialFile {
        &self.file
    }

    pub(super) fn table(&self) -> &PieceTable {
        &self.table
    }

    pub(super) fn next_writer(&self) -> WriterId {
        WriterId(self.last_writer.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes back a piece from a writer.
    pub(super) fn release(&self, index: usize, writer: WriterId) {
        if self.table.release(index, writer) {
            check::start(&self.file, &self.table, &self.hashes);
        }
    }

    /// Changes the file by `write`, which begins to write `bytes` bytes of a piece, if the writer still has the piece. Returns whether it has.
    pub(super) fn write(
        &self,
        index: usize,
        writer: WriterId,
        zeros: bool,
        bytes: u64,
        write: impl FnOnce(&PartialFile) -> Result<(), WriteError>,
    ) -> Result<bool, WriteError> {
        if !self.table.begin_write(index, writer, zeros) {
            return Ok(false);
        }
        self.sidecar.before_write();
        let written = write(&self.file);
        self.table.end_write(index, writer);
        written?;
        if let Some(large) = &self.large {
            large.flusher.wrote(&self.file, bytes);
            large.reservation.wrote(bytes);
        }
        Ok(true)
    }

    /// Notes that a piece is zeros, before it counts as verified.
    pub(super) fn note_zeros(&self, index: usize) {
        if let Some(large) = &self.large {
            large.zeros.note(&self.file, index);
        }
    }

    /// Asks for room in memory for `bytes` bytes more.
    pub(super) fn reserve_buffer(&self, bytes: u64) -> bool {
        let room = |used: u64| Some(used + bytes).filter(|used| *used <= BUFFERED_BYTES_MAX);
        self.buffered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    pub(super) fn release_buffer(&self, bytes: u64) {
        self.buffered.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for PieceStore {
    fn drop(&mut self) {
        if !self.is_gone.load(Ordering::Relaxed) {
            let is_allocated = self.large.as_ref().is_some_and(|large| large.reservation.is_allocated());
            let holes = is_allocated.then(|| runs(&self.pieces(), &self.table, PieceStates::is_hole));
            leave(&self.file, &self.table, &self.sidecar, holes.as_deref());
        }
    }
}

/// Leaves a partial file to a later fetch: without the room that was reserved for `holes`, and with a record of what is there. One that holds
/// nothing of use is removed.
fn leave(file: &PartialFile, table: &PieceTable, sidecar: &Sidecar, holes: Option<&[Range<u64>]>) {
    let is_useful = {
        let states = table.states();
        !(states.verified().is_empty() && states.unchecked().is_empty())
    };
    if !is_useful {
        sidecar.close();
        sidecar.remove(file);
        if let Err(error) = file.remove() {
            tracing::debug!(%error, "cannot remove a partial file that holds nothing");
        }
        return;
    }
    if let Some(holes) = holes {
        release(file, holes);
    }
    sidecar.seal(file);
}

/// Runs of pieces for which `is` holds, as ranges of bytes.
fn runs(pieces: &Pieces, table: &PieceTable, is: impl Fn(&PieceStates, usize) -> bool) -> Vec<Range<u64>> {
    let states = table.states();
    let mut runs: Vec<Range<u64>> = Vec::new();
    for index in (0..pieces.count()).filter(|index| is(&states, *index)) {
        let range = pieces.range(index);
        match runs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => runs.push(range),
        }
    }
    runs
}
