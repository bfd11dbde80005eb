//! Content identity: the plain BLAKE3 of a whole document, and piece hashes that merge to it.
//!
//! BLAKE3 is a tree over chunks of 1 KiB (BLAKE3 paper, section 2.1). A piece is an aligned power-of-two range of the document
//! and so a whole subtree; its hash is that subtree's chaining value, which depends on the piece's offset. Merging the chaining
//! values of all pieces gives the document's own hash, so a list of piece hashes proves itself against the one hash that
//! identifies the document, and each piece can then be checked alone.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::{field::InvalidField, hex};
use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::{fmt, ops::Range, str::FromStr};

/// Smallest piece, in bytes: one chunk of a GetRFC stream, and large enough that the hashes are 1/8192 of the data.
pub const PIECE_SIZE_MIN: u64 = 256 * 1024;
/// Most pieces of a document: their hashes then fill at most 256 KiB, which fits in one header message.
pub const PIECES_MAX: u64 = 8192;
/// Largest document, in bytes. Pieces double up to 8,192 of them; this bound keeps a piece within 4 GiB.
pub const DOCUMENT_SIZE_MAX: u64 = PIECES_MAX << 32;
/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// The BLAKE3 hash of a whole document.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash([u8; HASH_BYTES]);

impl ContentHash {
    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The hash of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(*blake3::hash(data).as_bytes())
    }

    /// Reads the 32 bytes of a field called `blake3`.
    ///
    /// # Errors
    /// When there are more or fewer.
    pub fn from_field(bytes: &[u8]) -> Result<Self, InvalidField> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(InvalidField::new("blake3", format!("has {} bytes; a BLAKE3 hash has 32", bytes.len()))),
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// The 32 bytes as a message carries them.
    pub fn to_field(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Display for ContentHash {
    /// 64 lower-case hexadecimal digits, as `b3sum` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::display(&self.0).fmt(f)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        match blake3::Hash::from_hex(text) {
            Ok(hash) => Ok(Self(*hash.as_bytes())),
            Err(_) => Err(InvalidField::new("blake3", "a BLAKE3 hash is 64 hexadecimal digits, as b3sum prints it")),
        }
    }
}

/// Hashes a whole document as its bytes arrive.
#[derive(Debug, Clone, Default)]
pub struct DocumentHasher(blake3::Hasher);

impl DocumentHasher {
    /// A hasher without input.
    pub fn new() -> Self {
        Self::default()
    }

    /// The hash of all bytes written so far.
    pub fn finalize(&self) -> ContentHash {
        ContentHash(*self.0.finalize().as_bytes())
    }
}

impl std::io::Write for DocumentHasher {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How a document of a given size is divided into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    size: u64,
    piece_size: u64,
}

impl Pieces {
    /// The pieces of a document of `size` bytes.
    ///
    /// # Errors
    /// When the document is larger than [`DOCUMENT_SIZE_MAX`].
    pub fn of_size(size: u64) -> Result<Self, InvalidField> {
        if size > DOCUMENT_SIZE_MAX {
            return Err(InvalidField::new("size", format!("{size} bytes; at most {DOCUMENT_SIZE_MAX} can be shared")));
        }
        let mut piece_size = PIECE_SIZE_MIN;
        while size.div_ceil(piece_size) > PIECES_MAX {
            piece_size *= 2;
        }
        Ok(Self { size, piece_size })
    }

    /// Size of the document, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Size of every piece but the last, in bytes.
    pub fn piece_size(&self) -> u64 {
        self.piece_size
    }

    /// The number of pieces; an empty document has one empty piece.
    pub fn count(&self) -> usize {
        // At most 8,192.
        usize::try_from(self.size.div_ceil(self.piece_size).max(1)).unwrap_or(usize::MAX)
    }

    /// The byte range of piece `index` in the document; empty when there is no such piece.
    pub fn range(&self, index: usize) -> Range<u64> {
        let start = (index as u64).saturating_mul(self.piece_size).min(self.size);
        start..start.saturating_add(self.piece_size).min(self.size)
    }

    /// The piece that holds byte `offset`.
    pub fn index_at(&self, offset: u64) -> usize {
        usize::try_from(offset / self.piece_size).unwrap_or(usize::MAX)
    }

    /// A hasher for piece `index`, to be given the piece's bytes in order.
    pub fn hasher(&self, index: usize) -> PieceHasher {
        let mut inner = blake3::Hasher::new();
        let root = self.count() == 1;
        if !root {
            inner.set_input_offset(self.range(index).start);
        }
        PieceHasher { inner, root }
    }
}

/// Hashes one piece as its bytes arrive.
#[derive(Debug, Clone)]
pub struct PieceHasher {
    inner: blake3::Hasher,
    root: bool,
}

impl PieceHasher {
    /// Adds the next bytes of the piece. The caller gives no more than the piece's length.
    pub fn update(&mut self, data: &[u8]) {
        self.inner.update(data);
    }

    /// The piece's hash: its chaining value, or the document's hash when the document is this one piece.
    pub fn finalize(&self) -> PieceHash {
        if self.root { PieceHash(*self.inner.finalize().as_bytes()) } else { PieceHash(self.inner.finalize_non_root()) }
    }
}

/// Hash of one piece.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PieceHash([u8; HASH_BYTES]);

impl fmt::Debug for PieceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&ContentHash(self.0), f)
    }
}

/// The hashes of all pieces of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceHashes {
    pieces: Pieces,
    hashes: Vec<PieceHash>,
}

/// A list of piece hashes that does not belong to its document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PieceHashesError {
    /// Too few or too many bytes for the document's size.
    #[error("{got} bytes of piece hashes, where a document of {size} bytes has {expected}")]
    Length {
        /// Bytes of the document.
        size: u64,
        /// Bytes of hashes that such a document has.
        expected: usize,
        /// Bytes received.
        got: usize,
    },
    /// They merge to another document's hash.
    #[error("the piece hashes merge to {merged}, not to the document's hash {expected}")]
    Mismatch {
        /// What they merge to.
        merged: ContentHash,
        /// The document's hash.
        expected: ContentHash,
    },
}

impl PieceHashes {
    /// The hashes of a document that was hashed piece by piece; `None` when their number is not the number of pieces.
    pub fn new(pieces: Pieces, hashes: Vec<PieceHash>) -> Option<Self> {
        (hashes.len() == pieces.count()).then_some(Self { pieces, hashes })
    }

    /// Reads the hashes of a header and checks that they merge to `expected`.
    ///
    /// # Errors
    /// When they merge to another hash, or their number does not match the document's size.
    pub fn verified(pieces: Pieces, joined: &[u8], expected: &ContentHash) -> Result<Self, PieceHashesError> {
        let length = pieces.count() * HASH_BYTES;
        if joined.len() != length {
            return Err(PieceHashesError::Length { size: pieces.size(), expected: length, got: joined.len() });
        }
        let hashes = joined.as_chunks::<HASH_BYTES>().0.iter().map(|chunk| PieceHash(*chunk)).collect();
        let read = Self { pieces, hashes };
        let merged = read.merge();
        if merged == *expected { Ok(read) } else { Err(PieceHashesError::Mismatch { merged, expected: *expected }) }
    }

    /// How the document is divided.
    pub fn pieces(&self) -> Pieces {
        self.pieces
    }

    /// The hash of piece `index`.
    pub fn get(&self, index: usize) -> Option<PieceHash> {
        self.hashes.get(index).copied()
    }

    /// 32 bytes for each piece, concatenated, as a header carries them.
    pub fn joined(&self) -> bytes::Bytes {
        self.hashes.iter().flat_map(|hash| hash.0).collect::<Vec<_>>().into()
    }

    /// The document's hash.
    pub fn merge(&self) -> ContentHash {
        match self.hashes.as_slice() {
            [only] => ContentHash(only.0),
            all => {
                let (left, right) = split(all);
                ContentHash(*merge_subtrees_root(&chaining_value(left), &chaining_value(right), Mode::Hash).as_bytes())
            }
        }
    }
}

/// The left subtree holds the largest power of two of pieces that leaves the right one at least one (BLAKE3 paper, section 2.1).
fn split(hashes: &[PieceHash]) -> (&[PieceHash], &[PieceHash]) {
    hashes.split_at(hashes.len().next_power_of_two() / 2)
}

/// Depth is at most 13: there are at most 8,192 pieces.
fn chaining_value(hashes: &[PieceHash]) -> [u8; HASH_BYTES] {
    match hashes {
        [only] => only.0,
        all => {
            let (left, right) = split(all);
            merge_subtrees_non_root(&chaining_value(left), &chaining_value(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    fn hash_by_pieces(data: &[u8]) -> PieceHashes {
        let pieces = Pieces::of_size(data.len() as u64).unwrap();
        let hashes = (0..pieces.count())
            .map(|index| {
                let range = pieces.range(index);
                let mut hasher = pieces.hasher(index);
                for part in data[range.start as usize..range.end as usize].chunks(100_000) {
                    hasher.update(part);
                }
                hasher.finalize()
            })
            .collect();
        PieceHashes::new(pieces, hashes).unwrap()
    }

    #[test]
    fn piece_hashes_merge_to_the_plain_blake3_of_the_document() {
        const PIECE: usize = PIECE_SIZE_MIN as usize;
        for len in [0, 1, 1024, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE, 5 * PIECE + 17, 8 * PIECE, 9 * PIECE - 1] {
            let data = sample(len);
            let hashes = hash_by_pieces(&data);
            assert_eq!(hashes.merge(), ContentHash::of(&data), "{len} bytes");
            let read = PieceHashes::verified(hashes.pieces(), &hashes.joined(), &ContentHash::of(&data)).unwrap();
            assert_eq!(read, hashes);
        }
    }

    #[test]
    fn a_forged_piece_hash_does_not_merge() {
        let data = sample(3 * PIECE_SIZE_MIN as usize);
        let hashes = hash_by_pieces(&data);
        let mut joined = hashes.joined().to_vec();
        joined[40] ^= 1;
        let error = PieceHashes::verified(hashes.pieces(), &joined, &ContentHash::of(&data)).unwrap_err();
        assert!(matches!(error, PieceHashesError::Mismatch { .. }), "{error}");
        let error = PieceHashes::verified(hashes.pieces(), &joined[1..], &ContentHash::of(&data)).unwrap_err();
        assert!(matches!(error, PieceHashesError::Length { expected: 96, got: 95, .. }), "{error}");
    }

    #[test]
    fn pieces_double_until_there_are_at_most_8192() {
        let gib = 1 << 30;
        for (size, piece, count) in [
            (0, PIECE_SIZE_MIN, 1),
            (2 * gib, PIECE_SIZE_MIN, 8192),
            (2 * gib + 1, 2 * PIECE_SIZE_MIN, 4097),
            (100 * gib, 16 << 20, 6400),
        ] {
            let pieces = Pieces::of_size(size).unwrap();
            assert_eq!((pieces.piece_size(), pieces.count()), (piece, count), "{size}");
            assert_eq!(pieces.range(count - 1).end, size);
        }
        assert!(Pieces::of_size(DOCUMENT_SIZE_MAX).is_ok());
        assert!(Pieces::of_size(DOCUMENT_SIZE_MAX + 1).is_err());
        assert!(Pieces::of_size(10).unwrap().range(5).is_empty());
    }
}
