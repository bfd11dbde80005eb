//! What one stream writes to a piece store.
//!
//! Each stream has a writer of its own, which holds at most one piece exclusively: no two streams write the same bytes, and nothing
//! writes to a verified piece. Blocking; call it off the runtime.

use super::{
    destination::WriteError,
    piece_store::{Piece, PieceStore},
};
use p2pdi::content::PieceHasher;
use std::sync::Arc;

/// A piece whose received bytes do not match its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongPiece {
    /// The piece's index.
    pub(crate) index: usize,
}

/// Writes the bytes of one stream. When dropped, it releases the piece it was writing.
#[derive(Debug)]
pub(crate) struct PieceWriter {
    store: Arc<PieceStore>,
    current: Option<Current>,
}

/// The piece whose bytes are arriving.
#[derive(Debug)]
struct Current {
    index: usize,
    /// Offset of the next byte.
    next: u64,
    hasher: PieceHasher,
    /// Whether this writer has the piece; else its bytes are skipped.
    claimed: bool,
}

impl PieceWriter {
    /// A writer for one stream.
    pub(crate) fn new(store: &Arc<PieceStore>) -> Self {
        Self { store: Arc::clone(store), current: None }
    }

    /// Takes the next bytes of the stream, which begin where the last ones ended or at a piece's start. Returns how many bytes
    /// became verified.
    ///
    /// Bytes of a piece that is verified already, or that another writer receives, are skipped.
    ///
    /// # Errors
    /// The outer error is the disk's; the inner one names a piece whose bytes are wrong: it stays missing.
    pub(crate) fn write(&mut self, mut offset: u64, mut data: &[u8]) -> Result<Result<u64, WrongPiece>, WriteError> {
        let pieces = self.store.hashes().pieces();
        let mut verified_bytes = 0;
        loop {
            let index = pieces.index_at(offset).min(pieces.count() - 1);
            let range = pieces.range(index);
            if self.current.as_ref().is_none_or(|current| current.index != index || current.next != offset) {
                self.release();
                let claimed = self.store.claim(index);
                self.current = Some(Current { index, next: offset, hasher: pieces.hasher(index), claimed });
            }
            let Some(current) = &mut self.current else { break };
            let length = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
            let (now, rest) = data.split_at(length);
            if current.claimed {
                self.store.write_at(now, offset)?;
                current.hasher.update(now);
            }
            current.next += length as u64;
            offset += length as u64;
            if current.next == range.end {
                let matches = !current.claimed || Some(current.hasher.finalize()) == self.store.hashes().get(index);
                if !matches {
                    self.release();
                    return Ok(Err(WrongPiece { index }));
                }
                if current.claimed {
                    self.store.set(index, Piece::Verified);
                    verified_bytes += range.end - range.start;
                }
                self.current = None;
            }
            data = rest;
            if data.is_empty() || length == 0 {
                break;
            }
        }
        Ok(Ok(verified_bytes))
    }

    /// Releases the piece being written, so that any writer may receive it from its start.
    fn release(&mut self) {
        if let Some(current) = self.current.take()
            && current.claimed
        {
            self.store.set(current.index, Piece::Missing);
        }
    }
}

impl Drop for PieceWriter {
    fn drop(&mut self) {
        self.release();
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

    fn hashes(data: &[u8]) -> PieceHashes {
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
        let (path, complete) = locate(folder, &name, &ContentHash::of(data), data.len() as u64, false, &mut None)?;
        assert!(!complete);
        PieceStore::open(folder, path, &name, hashes(data), false).map(Arc::new)
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
        assert_eq!(second.write(0, &wrong).unwrap(), Ok(0), "another writer has the piece: these bytes are skipped");
        assert_eq!(first.write(100, &data[100..PIECE]).unwrap(), Ok(PIECE as u64));
        assert_eq!(second.write(0, &wrong).unwrap(), Ok(0), "a verified piece is not written to");
        first.write(PIECE as u64, &data[PIECE..PIECE + 1]).unwrap().unwrap();
        drop(first);
        assert_eq!(second.write(PIECE as u64, &data[PIECE..]).unwrap(), Ok(PIECE as u64));
        assert_eq!(fs::read(store.finish().unwrap()).unwrap(), data);
    }
}
