//! What is remembered of a partial file across restarts: a small file beside it, with a bit for each piece that was verified and synced.
//!
//! It is believed only if the partial file is as its last owner left it. While the owner lives it writes all the time, so the record's own
//! file has a modification time a little in the future, the *lease*, which the owner renews before it writes: a change of the partial file
//! after the lease is somebody else's. When the owner ends, it *seals* the record: it sets the partial file's modification time back to
//! a time that no later write can give it, and records it. In doubt, the pieces are hashed again.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::transfer::piece_set::PieceSet;
use p2pdi::{
    content::{ContentHash, HASH_BYTES, Pieces},
    platform::FileStat,
};

/// Begins the file. Another format of the rest has another number at its end.
const MAGIC: &[u8; 8] = b"p2ppcs\0\x01";
/// Bytes before the bits: magic, size, piece size, hash, inode, length, sealed, modified, changed.
const HEADER_BYTES: usize = MAGIC.len() + 8 + 8 + HASH_BYTES + 8 + 8 + 1 + 8 + 8;
/// Longest valid file: the header, a bit for each of 8,192 pieces, the checksum.
pub(super) const RECORD_BYTES_MAX: usize = HEADER_BYTES + 1024 + HASH_BYTES;

/// What a record says of a partial file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Of the partial file.
    pub(super) inode: u64,
    /// Of the partial file, in bytes.
    pub(super) length: u64,
    /// Modification and change time of the partial file when its owner closed it, in nanoseconds since 1970; `None` while it had one.
    pub(super) sealed: Option<(i64, i64)>,
    /// Pieces that were verified and synced.
    pub(super) pieces: PieceSet,
}

impl Record {
    pub(super) fn encode(&self, pieces: &Pieces, hash: &ContentHash) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_BYTES_MAX);
        bytes.extend(MAGIC);
        bytes.extend(pieces.size().to_le_bytes());
        bytes.extend(pieces.piece_size().to_le_bytes());
        bytes.extend(hash.as_bytes());
        bytes.extend(self.inode.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.push(u8::from(self.sealed.is_some()));
        let (modified_ns, changed_ns) = self.sealed.unwrap_or((0, 0));
        bytes.extend(modified_ns.to_le_bytes());
        bytes.extend(changed_ns.to_le_bytes());
        bytes.extend(self.pieces.as_bytes());
        let checksum = ContentHash::of(&bytes);
        bytes.extend(checksum.as_bytes());
        bytes
    }

    /// `None` if it is damaged, or is not about this document.
    pub(super) fn decode(bytes: &[u8], pieces: &Pieces, hash: &ContentHash) -> Option<Self> {
        let (bytes, checksum) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
        if ContentHash::of(bytes).as_bytes() != checksum {
            return None;
        }
        let (header, bits) = bytes.split_at_checked(HEADER_BYTES)?;
        let (magic, mut rest) = header.split_at(MAGIC.len());
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*number))
        };
        if magic != MAGIC || number()? != pieces.size() || number()? != pieces.piece_size() {
            return None;
        }
        let (found, after) = rest.split_at_checked(HASH_BYTES)?;
        if found != hash.as_bytes() {
            return None;
        }
        rest = after;
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*number))
        };
        let (inode, length) = (number()?, number()?);
        let (is_sealed, mut rest) = rest.split_first()?;
        let mut time = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(i64::from_le_bytes(*number))
        };
        let times = (time()?, time()?);
        let pieces = PieceSet::from_field(pieces.count(), bits).ok()?;
        Some(Self { inode, length, sealed: (*is_sealed == 1).then_some(times), pieces })
    }

    /// Whether the partial file, as it is now, is as its last owner left it. `lease_ns`: the modification time of the record's file.
    pub(super) fn is_true_of(&self, file: &FileStat, lease_ns: i64) -> bool {
        let same = self.inode == inode(file);
        same && match self.sealed {
            Some(times) => file.size == self.length && times == (file.modified_ns, file.changed_ns),
            None => file.size >= self.length && file.modified_ns <= lease_ns && file.changed_ns <= lease_ns,
        }
    }
}

/// Zero where the system tells none.
pub(super) fn inode(file: &FileStat) -> u64 {
    file.id.map_or(0, |id| id.inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::platform::{FileId, FileKind};
    use proptest::prelude::*;

    fn pieces() -> Pieces {
        Pieces::of_size(5_000_000).unwrap()
    }

    fn record(sealed: Option<(i64, i64)>) -> Record {
        let mut set = PieceSet::empty(pieces().count());
        set.insert(3);
        Record { inode: 7, length: 100, sealed, pieces: set }
    }

    fn file(inode: u64, size: u64, modified_ns: i64, changed_ns: i64) -> FileStat {
        FileStat { kind: FileKind::File, id: Some(FileId { device: 1, inode }), size, modified_ns, changed_ns }
    }

    #[test]
    fn a_record_survives_its_form_on_disk_and_any_damage_is_noticed() {
        let hash = ContentHash::of(b"x");
        for sealed in [None, Some((5, -6))] {
            let bytes = record(sealed).encode(&pieces(), &hash);
            assert_eq!(Record::decode(&bytes, &pieces(), &hash), Some(record(sealed)));
            for index in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1;
                assert_eq!(Record::decode(&damaged, &pieces(), &hash), None, "byte {index}");
                assert_eq!(Record::decode(&bytes[..index], &pieces(), &hash), None, "cut to {index}");
            }
            assert_eq!(Record::decode(&bytes, &pieces(), &ContentHash::of(b"y")), None);
            assert_eq!(Record::decode(&bytes, &Pieces::of_size(5_000_001).unwrap(), &hash), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Record::decode(&bytes, &pieces(), &ContentHash::of(b"x")), None);
        }
    }

    #[test]
    fn a_record_is_true_of_the_file_that_its_owner_left() {
        let leased = record(None);
        assert!(leased.is_true_of(&file(7, 200, 50, 50), 50));
        assert!(!leased.is_true_of(&file(8, 200, 50, 50), 50), "another file");
        assert!(!leased.is_true_of(&file(7, 99, 50, 50), 50), "cut off");
        assert!(!leased.is_true_of(&file(7, 200, 51, 51), 50), "written after the lease");
        assert!(!leased.is_true_of(&file(7, 200, 40, 51), 50), "its time was set back");
        let sealed = record(Some((5, 60)));
        assert!(sealed.is_true_of(&file(7, 100, 5, 60), 0));
        for other in [file(8, 100, 5, 60), file(7, 101, 5, 60), file(7, 100, 60, 60), file(7, 100, 5, 61)] {
            assert!(!sealed.is_true_of(&other, i64::MAX), "{other:?}");
        }
    }
}
