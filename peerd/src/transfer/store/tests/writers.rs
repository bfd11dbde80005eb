//! Several writers of one document.

use super::*;
use crate::transfer::store::piece_store::BUFFERED_BYTES_MAX;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

#[test]
fn whoever_has_the_whole_piece_first_wins_and_nothing_of_the_other_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(2 * PIECE);
    let store = open(folder.path(), &data).unwrap();
    let (mut slow, mut fast) = (PieceWriter::new(&store), PieceWriter::new(&store));
    slow.write(0, &data[..100]).unwrap().unwrap();
    assert_eq!(fast.write(0, &data[..PIECE]).unwrap(), Ok(PIECE as u64));
    assert_eq!(slow.write(100, &vec![b'!'; PIECE - 100]).unwrap(), Ok(0), "the piece is verified");
    assert_eq!(slow.write(PIECE as u64, &data[PIECE..]).unwrap(), Ok(PIECE as u64));
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
}

#[test]
fn a_second_writer_goes_on_where_the_first_one_ended_and_a_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(2 * PIECE);
    let store = open(folder.path(), &data).unwrap();
    let [mut first, mut second, mut liar] = [(); 3].map(|()| PieceWriter::new(&store));
    first.write(0, &[b'!'; 1000]).unwrap().unwrap();
    second.write(0, &data[..500]).unwrap().unwrap();
    assert_eq!(liar.write(0, &vec![b'?'; PIECE]).unwrap(), Err(WrongPiece { index: 0 }));
    drop(first);
    second.write(500, &data[500..600]).unwrap().unwrap();
    assert_eq!(liar.write(0, &data[..PIECE]).unwrap(), Ok(PIECE as u64), "in memory, faster than the second");
    assert_eq!(second.write(600, &data[600..PIECE]).unwrap(), Ok(0));
    fill(&store, &data, 1..2);
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
}

#[test]
fn memory_for_second_writers_is_limited_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let most = (BUFFERED_BYTES_MAX / PIECE as u64) as usize;
    let data = data((most + 2) * PIECE);
    let store = open(folder.path(), &data).unwrap();
    let writers = |length: usize| -> Vec<PieceWriter> {
        let writer = |piece: usize| {
            let mut writer = PieceWriter::new(&store);
            writer.write((piece * PIECE) as u64, &data[piece * PIECE..piece * PIECE + length]).unwrap().unwrap();
            writer
        };
        (0..most + 2).map(writer).collect()
    };
    let first = writers(1);
    let mut second = writers(PIECE - 1);
    let mut third = writers(PIECE - 1);
    let last = |writers: &mut Vec<PieceWriter>, piece: usize| {
        let end = (piece + 1) * PIECE - 1;
        writers[piece].write(end as u64, &data[end..=end]).unwrap().unwrap()
    };
    assert_eq!(last(&mut second, 0), PIECE as u64);
    assert_eq!(last(&mut second, most + 1), 0, "there was no room for it");
    assert_eq!(last(&mut third, 1), 0, "nor for any third");
    drop((second, third));
    let mut second = writers(PIECE - 1);
    assert_eq!(last(&mut second, most - 1), PIECE as u64);
    drop(first);
}

#[test]
fn a_writer_ends_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(6 * PIECE);
    let store = open(folder.path(), &data).unwrap();
    let mut writer = PieceWriter::new(&store);
    let end = writer.end();
    writer.write(0, &data[..PIECE + 10]).unwrap().unwrap();
    end.before(3);
    end.before(5);
    assert_eq!(writer.write(PIECE as u64 + 10, &data[PIECE + 10..5 * PIECE]).unwrap(), Ok(2 * PIECE as u64));
    assert!(writer.has_ended());
    assert_eq!(store.verified(), set(6, 0..3));
    end.before(0);
    assert_eq!(writer.write(5 * PIECE as u64, &data[5 * PIECE..]).unwrap(), Ok(0));
}

#[test]
fn bytes_that_begin_within_a_piece_prove_nothing_and_blame_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(2 * PIECE);
    let store = open(folder.path(), &data).unwrap();
    assert_eq!(PieceWriter::new(&store).write(10, &data[10..]).unwrap(), Ok(PIECE as u64));
    assert_eq!(store.verified(), set(2, [1]));
}

#[test]
fn many_writers_of_the_same_pieces_some_of_them_wrong_make_the_right_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut data = data(24 * PIECE - 1000);
    data[5 * PIECE..9 * PIECE].fill(0);
    let store = open(folder.path(), &data).unwrap();
    let verified: u64 = thread::scope(|scope| {
        let writing: Vec<_> = (0..8)
            .map(|seed| {
                let (store, data) = (&store, &data);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed);
                    let mut verified = 0;
                    while !store.is_complete() {
                        let piece = random.random_range(0..24);
                        let start = piece * PIECE;
                        let mut bytes = data[start..data.len().min(start + PIECE)].to_vec();
                        let lies = random.random_bool(0.3);
                        if lies {
                            let at = random.random_range(0..bytes.len());
                            bytes[at] ^= 0xff;
                        }
                        let mut writer = PieceWriter::new(store);
                        let mut at = 0;
                        for chunk in bytes.chunks(random.random_range(20_000..PIECE + 1)) {
                            if random.random_bool(0.02) {
                                break;
                            }
                            match writer.write((start + at) as u64, chunk).unwrap() {
                                Ok(bytes) => verified += bytes,
                                Err(wrong) => assert!(lies && wrong.index == piece),
                            }
                            at += chunk.len();
                        }
                    }
                    verified
                })
            })
            .collect();
        writing.into_iter().map(|writing| writing.join().unwrap()).sum()
    });
    assert_eq!(verified, data.len() as u64, "each piece counts once");
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
}
