//! Hashes the pieces that a partial file may hold from an earlier fetch, in threads of its own, while others are fetched.
//!
//! Pieces in holes come first: they are hashed without reading, and most of them turn out to be missing, so that there is something to
//! fetch.

use super::{destination::HASH_READ_BYTES, partial_file::PartialFile, piece_table::PieceTable, states::Check};
use crate::transfer::piece_set::PieceSet;
use p2pdi::{content::PieceHashes, platform::read_exact_at};
use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    sync::{Arc, Weak},
    thread,
};

/// Most threads that hash one file: beyond that the disk is the limit, and other fetches want cores too.
const THREADS_MAX: usize = 4;
/// Pieces for which a further thread is worth its start, so that a small file has one.
const PIECES_PER_THREAD: usize = 16;

/// What a hole reads as.
static ZEROS: [u8; HASH_READ_BYTES] = [0; HASH_READ_BYTES];

/// What a file may hold of a document.
#[derive(Debug)]
pub(super) struct Held {
    /// Pieces without any data: holes within the file.
    pub(super) holes: Vec<usize>,
    /// Pieces with data in a part at least.
    pub(super) filled: Vec<usize>,
    /// Pieces where nothing was written, also those beyond the file's end.
    pub(super) fresh: PieceSet,
}

/// What a file of this size, with data in these ranges, may hold.
pub(super) fn held(hashes: &PieceHashes, file_size: u64, data: &[Range<u64>]) -> Held {
    let pieces = hashes.pieces();
    let mut held = Held { holes: Vec::new(), filled: Vec::new(), fresh: PieceSet::empty(pieces.count()) };
    let mut data = data.iter().peekable();
    for index in 0..pieces.count() {
        let range = pieces.range(index);
        while data.next_if(|data| data.end <= range.start).is_some() {}
        let is_hole = data.peek().is_none_or(|data| data.start >= range.end);
        if is_hole {
            held.fresh.insert(index);
        }
        // What ends beyond the file's end was not received.
        if range.end <= file_size {
            if is_hole { &mut held.holes } else { &mut held.filled }.push(index);
        }
    }
    held
}

/// The holes of a file without a record in an order in which one that was never received is soon found, so that there is something to fetch:
/// first those that no fetch `noted` to be zeros, and of both from all over the file.
pub(super) fn missing_first(mut holes: Vec<usize>, noted: &BTreeSet<usize>) -> Vec<usize> {
    holes.sort_by_cached_key(|piece| (noted.contains(piece), piece.reverse_bits()));
    holes
}

/// Checks the pieces that the table wants checked, in the background. The threads end with the file.
pub(super) fn start(file: &Arc<PartialFile>, table: &Arc<PieceTable>, hashes: &Arc<PieceHashes>) {
    let waiting = table.states().unchecked().len();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(THREADS_MAX).min(waiting.div_ceil(PIECES_PER_THREAD));
    let mut started = 0;
    for _ in 0..threads {
        let (file, table, hashes) = (Arc::downgrade(file), Arc::clone(table), Arc::clone(hashes));
        let thread = thread::Builder::new().name("check-pieces".to_owned());
        started += usize::from(thread.spawn(move || run(&file, &table, &hashes)).is_ok());
    }
    if threads > 0 && started == 0 {
        // The process may start no more threads: what is there is fetched again.
        while let Some(check) = table.next_check() {
            table.checked(check, false);
        }
    }
}

fn run(file: &Weak<PartialFile>, table: &PieceTable, hashes: &PieceHashes) {
    let mut buffer = Vec::new();
    while let Some(check) = table.next_check() {
        // Held for one piece only: with the last owner the lock of the file goes.
        let Some(file) = file.upgrade() else { return };
        let matches = matches(&file, hashes, check, &mut buffer).unwrap_or_else(|error| {
            tracing::warn!(path = %file.path().display(), piece = check.index, %error, "cannot read a piece; fetching it again");
            false
        });
        // Before the result is known: who learns that all is checked may close the file and open it again.
        drop(file);
        table.checked(check, matches);
    }
}

fn matches(file: &PartialFile, hashes: &PieceHashes, check: Check, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let pieces = hashes.pieces();
    let range = pieces.range(check.index);
    let mut hasher = pieces.hasher(check.index);
    if buffer.is_empty() && !check.hole {
        *buffer = vec![0; HASH_READ_BYTES];
    }
    let mut offset = range.start;
    while offset < range.end {
        let length = usize::try_from(range.end - offset).unwrap_or(HASH_READ_BYTES).min(HASH_READ_BYTES);
        if check.hole {
            // The hash of zeros depends on their offset, so it is computed for each piece.
            hasher.update(&ZEROS[..length]);
        } else {
            read_exact_at(file.file(), &mut buffer[..length], offset)?;
            hasher.update(&buffer[..length]);
        }
        offset += length as u64;
    }
    Ok(Some(hasher.finalize()) == hashes.get(check.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_received_is_soon_found_wherever_it_is() {
        let holes = || (0..5_000).collect::<Vec<usize>>();
        for missing in [0..500, 2_000..2_500, 4_500..5_000] {
            let order = missing_first(holes(), &BTreeSet::new());
            let first = order.iter().position(|piece| missing.contains(piece)).unwrap();
            assert!(first < 20, "{first} other pieces come before {missing:?}");
            let noted = (0..5_000).filter(|piece| !missing.contains(piece)).collect();
            let order = missing_first(holes(), &noted);
            assert!(order[..missing.len()].iter().all(|piece| missing.contains(piece)));
            assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 5_000);
        }
    }
}
