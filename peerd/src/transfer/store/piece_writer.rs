//! What one stream writes to a piece store.
//!
//! Each stream has a writer of its own. The first one that receives a piece writes its bytes to the file as they come. Another one that
//! receives the same piece meanwhile keeps its bytes in memory; whoever has the whole piece first, and right, wins. So no two streams write
//! the same bytes, and nothing writes to a verified piece. A writer hashes on the thread that calls it. Blocking; call it off the runtime.

use super::{
    error::WriteError,
    piece_store::PieceStore,
    states::{Claim, WriterId},
};
use crate::transfer::chunk::CHUNK_BYTES;
use p2pdi::content::PieceHasher;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// As many zeros as a chunk of a stream has at most.
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// A piece whose received bytes do not match its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongPiece {
    /// The piece's index.
    pub(crate) index: usize,
}

/// Tells a writer, from any thread, where to end.
#[derive(Debug, Clone)]
pub(crate) struct WriterEnd(Arc<AtomicUsize>);

impl WriterEnd {
    /// The writer skips `piece` and those after it. Moving the end back has no effect.
    pub(crate) fn before(&self, piece: usize) {
        self.0.fetch_min(piece, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Writes the bytes of one stream. When dropped, it releases the piece it was writing.
#[derive(Debug)]
pub(crate) struct PieceWriter {
    store: Arc<PieceStore>,
    id: WriterId,
    end: WriterEnd,
    has_ended: bool,
    current: Option<Current>,
}

/// The piece whose bytes are arriving.
#[derive(Debug)]
struct Current {
    index: usize,
    /// Offset of the next byte.
    next: u64,
    hasher: PieceHasher,
    place: Place,
}

/// Where the bytes go.
#[derive(Debug)]
enum Place {
    /// To the file: this writer has the piece.
    File(InFile),
    /// To memory: another writer has it.
    Memory(Buffer),
    /// Nowhere.
    Skipped,
}

#[derive(Debug)]
struct InFile {
    /// The file has a hole where the next bytes go.
    fresh: bool,
    /// Zeros that were not written, in ascending order.
    holes: Vec<Range<u64>>,
}

impl InFile {
    fn new(fresh: bool) -> Self {
        Self { fresh, holes: Vec::new() }
    }

    fn skip(&mut self, range: Range<u64>) {
        match self.holes.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.holes.push(range),
        }
    }
}

/// The first bytes of a piece, in memory that counts against the store's limit.
#[derive(Debug)]
struct Buffer {
    store: Arc<PieceStore>,
    bytes: Vec<u8>,
}

impl Buffer {
    /// Returns whether there is room.
    fn add(&mut self, data: &[u8]) -> bool {
        let has_room = self.store.reserve_buffer(data.len() as u64);
        if has_room {
            self.bytes.extend_from_slice(data);
        }
        has_room
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.store.release_buffer(self.bytes.len() as u64);
    }
}

impl PieceWriter {
    /// A writer for one stream.
    pub(crate) fn new(store: &Arc<PieceStore>) -> Self {
        let end = WriterEnd(Arc::new(AtomicUsize::new(usize::MAX)));
        Self { store: Arc::clone(store), id: store.next_writer(), end, has_ended: false, current: None }
    }

    /// Tells this writer, from any thread, where to end.
    pub(crate) fn end(&self) -> WriterEnd {
        self.end.clone()
    }

    /// Whether bytes arrived at or after the end that [`WriterEnd::before`] set: all that follows is skipped.
    #[cfg(test)]
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes the next bytes of the stream, which begin where the last ones ended or at a piece's start. Returns how many bytes
    /// became verified.
    ///
    /// Bytes of a piece that is verified already are skipped.
    ///
    /// # Errors
    /// The outer error is the disk's; the inner one names a piece whose bytes are wrong: it stays missing.
    pub(crate) fn write(&mut self, mut offset: u64, mut data: &[u8]) -> Result<Result<u64, WrongPiece>, WriteError> {
        let pieces = self.store.pieces();
        let mut verified_bytes = 0;
        loop {
            let index = pieces.index_at(offset).min(pieces.count() - 1);
            if index >= self.end.get() {
                self.release();
                self.has_ended = true;
                break;
            }
            let range = pieces.range(index);
            if self.current.as_ref().is_none_or(|current| current.index != index || current.next != offset) {
                self.release();
                self.begin(index, offset);
            }
            let Some(current) = &mut self.current else { break };
            let length = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
            let (now, rest) = data.split_at(length);
            if let Err(error) = current.add(&self.store, self.id, now) {
                self.release();
                return Err(error);
            }
            offset += length as u64;
            if current.next == range.end {
                match current.complete(&self.store, self.id) {
                    Ok(Ok(true)) => verified_bytes += range.end - range.start,
                    Ok(Ok(false)) => {}
                    Ok(Err(wrong)) => {
                        self.release();
                        return Ok(Err(wrong));
                    }
                    Err(error) => {
                        self.release();
                        return Err(error);
                    }
                }
                self.release();
            }
            data = rest;
            if data.is_empty() || length == 0 {
                break;
            }
        }
        Ok(Ok(verified_bytes))
    }

    fn begin(&mut self, index: usize, offset: u64) {
        let pieces = self.store.pieces();
        if offset != pieces.range(index).start {
            // Bytes that do not begin with a piece prove nothing, and nobody is to blame.
            self.current = Some(Current { index, next: offset, hasher: pieces.hasher(index), place: Place::Skipped });
            return;
        }
        let place = match self.store.table().claim(index, self.id) {
            Claim::Granted { fresh } => Place::File(InFile::new(fresh)),
            Claim::Taken | Claim::Busy => Place::Memory(Buffer { store: Arc::clone(&self.store), bytes: Vec::new() }),
            Claim::Verified => Place::Skipped,
        };
        self.current = Some(Current { index, next: offset, hasher: pieces.hasher(index), place });
    }

    /// Releases the piece being written, so that any writer may receive it from its start.
    fn release(&mut self) {
        if let Some(Current { index, place: Place::File(_), .. }) = self.current.take() {
            self.store.release(index, self.id);
        }
    }
}

impl Drop for PieceWriter {
    fn drop(&mut self) {
        self.release();
    }
}

impl Current {
    /// Takes the next bytes of the piece.
    fn add(&mut self, store: &PieceStore, id: WriterId, data: &[u8]) -> Result<(), WriteError> {
        let offset = self.next;
        self.next += data.len() as u64;
        if let Place::Memory(buffer) = &mut self.place {
            // The other writer may be done, or gone.
            match store.table().claim(self.index, id) {
                Claim::Verified => self.place = Place::Skipped,
                Claim::Taken | Claim::Busy => {
                    if !buffer.add(data) {
                        self.place = Place::Skipped;
                    }
                }
                Claim::Granted { fresh } => {
                    let before = std::mem::take(&mut buffer.bytes);
                    store.release_buffer(before.len() as u64);
                    self.place = Place::File(InFile::new(fresh));
                    self.write(store, id, offset - before.len() as u64, &before)?;
                }
            }
        }
        if !matches!(self.place, Place::Skipped) {
            self.hasher.update(data);
        }
        self.write(store, id, offset, data)
    }

    /// Writes to the file, if the bytes go there.
    fn write(&mut self, store: &PieceStore, id: WriterId, mut offset: u64, data: &[u8]) -> Result<(), WriteError> {
        for data in data.chunks(ZEROS.len()) {
            let Place::File(place) = &mut self.place else { return Ok(()) };
            let range = offset..offset + data.len() as u64;
            let zeros = *data == ZEROS[..data.len()];
            let has = store.write(self.index, id, zeros, data.len() as u64, |file| match (zeros, place.fresh) {
                (true, true) => Ok(()),
                (true, false) => file.write_zeros(range.clone(), data),
                (false, _) => file.write_at(data, offset),
            })?;
            if !has {
                // Another writer had the whole piece first.
                self.place = Place::Skipped;
            } else if zeros {
                place.skip(range.clone());
            }
            offset = range.end;
        }
        Ok(())
    }

    /// The piece has all its bytes. Returns whether they count: not if another writer was first.
    fn complete(&mut self, store: &PieceStore, id: WriterId) -> Result<Result<bool, WrongPiece>, WriteError> {
        if matches!(self.place, Place::Skipped) {
            return Ok(Ok(false));
        }
        if Some(self.hasher.finalize()) != store.hashes().get(self.index) {
            return Ok(Err(WrongPiece { index: self.index }));
        }
        if let Place::Memory(buffer) = &mut self.place {
            let Claim::Granted { fresh } = store.table().take_over(self.index, id) else { return Ok(Ok(false)) };
            let bytes = std::mem::take(&mut buffer.bytes);
            store.release_buffer(bytes.len() as u64);
            self.place = Place::File(InFile::new(fresh));
            self.write(store, id, self.next - bytes.len() as u64, &bytes)?;
        }
        if let Place::File(place) = &mut self.place {
            let holes = std::mem::take(&mut place.holes);
            let is_zeros = *holes == [store.pieces().range(self.index)];
            for hole in holes {
                store.write(self.index, id, true, 0, |file| file.leave_hole(hole))?;
            }
            if is_zeros {
                store.note_zeros(self.index);
            }
        }
        Ok(Ok(store.table().verify(self.index, id)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::transfer::store::destination::locate;
    use p2pdi::{
        content::{ContentHash, PieceHashes, Pieces},
        document::DocumentName,
    };
    use std::{fs, path::Path, thread};

    pub(in crate::transfer) const PIECE: usize = 262_144;

    pub(in crate::transfer) fn hashes(data: &[u8]) -> PieceHashes {
        let pieces = Pieces::of_size(data.len() as u64).unwrap();
        let hash = |index: usize| {
            let range = pieces.range(index);
            let mut hasher = pieces.hasher(index);
            hasher.update(&data[range.start as usize..range.end as usize]);
            hasher.finalize()
        };
        PieceHashes::new(pieces, (0..pieces.count()).map(hash).collect()).unwrap()
    }

    pub(in crate::transfer) fn open(folder: &Path, data: &[u8]) -> Result<Arc<PieceStore>, WriteError> {
        let name = DocumentName::parse("a/doc.bin").unwrap();
        let (_, complete) = locate(folder, &name, &ContentHash::of(data), data.len() as u64, false, &mut None)?;
        assert!(!complete);
        let store = PieceStore::open(folder, &name, hashes(data), false)?;
        store.wait_checked();
        Ok(store)
    }

    pub(in crate::transfer) fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7 % 256) as u8).collect()
    }

    #[test]
    fn a_wrong_byte_never_counts() {
        let folder = tempfile::tempdir().unwrap();
        let good = data(300_000);
        let mut bad = good.clone();
        bad[270_000] ^= 1;
        let store = open(folder.path(), &good).unwrap();
        assert_eq!(PieceWriter::new(&store).write(0, &bad).unwrap(), Err(WrongPiece { index: 1 }));
        assert_eq!(store.next_missing(), Some(PIECE as u64..300_000));
    }

    #[test]
    fn streams_fill_one_document_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let data = data(16 * PIECE - 5);
        let store = open(folder.path(), &data).unwrap();
        let verified: u64 = thread::scope(|scope| {
            let streams: Vec<_> = (0..4)
                .map(|stream| {
                    let (mut writer, data) = (PieceWriter::new(&store), &data);
                    scope.spawn(move || {
                        let mine = data.chunks(PIECE).enumerate().filter(|(index, _)| index % 4 == stream);
                        mine.map(|(index, piece)| {
                            let halves = piece.split_at(piece.len() / 2);
                            let offset = (index * PIECE) as u64;
                            assert_eq!(writer.write(offset, halves.0).unwrap(), Ok(0));
                            writer.write(offset + halves.0.len() as u64, halves.1).unwrap().unwrap()
                        })
                        .sum::<u64>()
                    })
                })
                .collect();
            streams.into_iter().map(|stream| stream.join().unwrap()).sum()
        });
        assert_eq!((verified, store.next_missing()), (data.len() as u64, None));
        assert_eq!(fs::read(store.finish().unwrap()).unwrap(), data);
    }

    #[test]
    fn a_piece_has_one_writer_and_is_free_again_when_that_one_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let data = data(2 * PIECE);
        let store = open(folder.path(), &data).unwrap();
        let (mut first, mut second) = (PieceWriter::new(&store), PieceWriter::new(&store));
        first.write(0, &data[..100]).unwrap().unwrap();
        assert_eq!(store.next_missing(), Some(PIECE as u64..2 * PIECE as u64));
        let wrong = vec![b'!'; PIECE];
        assert_eq!(second.write(0, &wrong).unwrap(), Err(WrongPiece { index: 0 }), "kept in memory, and nothing of it written");
        assert_eq!(first.write(100, &data[100..PIECE]).unwrap(), Ok(PIECE as u64));
        assert_eq!(second.write(0, &wrong).unwrap(), Ok(0), "a verified piece is not written to");
        first.write(PIECE as u64, &data[PIECE..PIECE + 1]).unwrap().unwrap();
        drop(first);
        assert_eq!(second.write(PIECE as u64, &data[PIECE..]).unwrap(), Ok(PIECE as u64));
        assert_eq!(fs::read(store.finish().unwrap()).unwrap(), data);
    }
}
