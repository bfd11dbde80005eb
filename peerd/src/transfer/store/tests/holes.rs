//! Sparse documents.

use super::*;
use p2pdi::platform::allocated_bytes;

/// Data and holes in turn: two pieces each.
fn sparse(pieces: usize) -> Vec<u8> {
    let mut data = data(pieces * PIECE);
    for (index, piece) in data.chunks_mut(PIECE).enumerate() {
        if index % 4 >= 2 {
            piece.fill(0);
        } else {
            piece[0] |= 1;
        }
    }
    data
}

fn allocated(path: &Path) -> u64 {
    allocated_bytes(&File::open(path).unwrap()).unwrap()
}

#[test]
fn zeros_are_received_as_holes() {
    let folder = tempfile::tempdir().unwrap();
    let data = sparse(64);
    let store = open(folder.path(), &data).unwrap();
    if allocated(store.path()) == 0 {
        println!("skipped: the file system reserves no room, and may have no holes");
        return;
    }
    // Out of order: the last piece, zeros, comes first.
    for piece in (0..64).rev() {
        fill(&store, &data, piece..piece + 1);
    }
    let path = store.finish().unwrap();
    assert!(fs::read(&path).unwrap() == data);
    assert!(allocated(&path) <= 33 * PIECE as u64, "{} bytes", allocated(&path));
}

#[test]
fn zeros_replace_other_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = sparse(8);
    let store = open(folder.path(), &data).unwrap();
    let mut liar = PieceWriter::new(&store);
    assert_eq!(liar.write(2 * PIECE as u64, &vec![9; PIECE]).unwrap(), Err(WrongPiece { index: 2 }));
    drop(liar);
    fill(&store, &data, 0..8);
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
}

#[test]
fn holes_are_verified_again_without_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let data = sparse(16);
    let store = open(folder.path(), &data).unwrap();
    // Zeros at the end of the file, too.
    fill(&store, &data, 2..4);
    fill(&store, &data, 6..8);
    drop(store);
    let store = open(folder.path(), &data).unwrap();
    assert_eq!(store.verified(), set(16, [2, 3, 6, 7]));
    let mut read = vec![1; PIECE];
    store.read_verified_at(&mut read, 7 * PIECE as u64).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
}

#[test]
fn a_large_file_of_zeros_is_verified_without_reading_and_only_if_zeros_are_expected() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = vec![0; 256 << 20];
    let store = open(folder.path(), &zeros).unwrap();
    let path = store.path().to_owned();
    drop(store);
    fs::write(&path, "").unwrap();
    File::options().write(true).open(&path).unwrap().set_len(zeros.len() as u64).unwrap();
    let store = open_at_once(folder.path(), &zeros);
    assert!(!store.is_complete());
    store.wait_checked();
    let path = store.finish().unwrap();
    assert!(fs::metadata(&path).unwrap().len() == zeros.len() as u64 && allocated(&path) < 1 << 20);

    let other = data(8 * PIECE);
    let store = open(&folder.path().join("b"), &other).unwrap();
    let path = store.path().to_owned();
    drop(store);
    fs::write(&path, "").unwrap();
    File::options().write(true).open(&path).unwrap().set_len(other.len() as u64).unwrap();
    assert!(open(&folder.path().join("b"), &other).unwrap().verified().is_empty());
}
