//! The store as its users see it.

mod closed;
mod crash;
mod follow;
mod holes;
mod room;
mod versions;
mod writers;

use super::{
    error::WriteError,
    piece_store::PieceStore,
    piece_writer::{
        PieceWriter, WrongPiece,
        tests::{PIECE, data, hashes, open},
    },
};
use crate::transfer::piece_set::PieceSet;
use p2pdi::{document::DocumentName, platform::write_all_at};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// More than is written between two records.
const LARGE: usize = 66 << 20;

/// [`LARGE`] bytes.
fn large() -> Vec<u8> {
    data(PIECE).repeat(LARGE / PIECE)
}

/// Opens the store of `data` without waiting for checks.
fn open_at_once(folder: &Path, data: &[u8]) -> Arc<PieceStore> {
    PieceStore::open(folder, &DocumentName::parse("a/doc.bin").unwrap(), hashes(data), false).unwrap()
}

/// Writes pieces of `data`, in chunks as a stream has them.
fn fill(store: &Arc<PieceStore>, data: &[u8], pieces: std::ops::Range<usize>) {
    let mut writer = PieceWriter::new(store);
    for piece in pieces {
        let range = piece * PIECE..data.len().min((piece + 1) * PIECE);
        let length = range.len() as u64;
        assert_eq!(writer.write(range.start as u64, &data[range]).unwrap(), Ok(length));
    }
}

fn set(count: usize, pieces: impl IntoIterator<Item = usize>) -> PieceSet {
    let mut set = PieceSet::empty(count);
    for piece in pieces {
        set.insert(piece);
    }
    set
}

fn record(store: &PieceStore) -> PathBuf {
    let mut name = store.path().as_os_str().to_owned();
    name.push(".pieces");
    name.into()
}

#[track_caller]
fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !check() {
        assert!(Instant::now() < deadline, "no {what}");
        thread::yield_now();
    }
}
