//! A store that was closed before the document was complete, and is opened again.

use super::*;

#[test]
fn a_document_appears_under_its_name_only_when_complete() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(700_000);
    let store = open(folder.path(), &data).unwrap();
    let mut writer = PieceWriter::new(&store);
    for (index, chunk) in data.chunks(100_001).enumerate() {
        assert!(!folder.path().join("a/doc.bin").exists());
        assert!(matches!(store.finish(), Err(WriteError::Incomplete { .. })));
        writer.write(index as u64 * 100_001, chunk).unwrap().unwrap();
    }
    assert!(store.is_complete());
    let path = store.finish().unwrap();
    assert_eq!((fs::read(&path).unwrap(), path.as_path()), (data.clone(), store.target()));
    assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
    let mut read = vec![0; PIECE];
    store.read_verified_at(&mut read, 1).unwrap();
    assert_eq!(read, data[1..=PIECE], "the same file, under its new name");
}

#[test]
fn verified_pieces_survive_and_damaged_ones_are_missing_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(1_000_000);
    let store = open(folder.path(), &data).unwrap();
    assert_eq!(PieceWriter::new(&store).write(0, &data[..600_000]).unwrap(), Ok(2 * PIECE as u64));
    let path = store.path().to_owned();
    drop(store);
    let store = open(folder.path(), &data).unwrap();
    assert_eq!(store.next_missing(), Some(2 * PIECE as u64..1_000_000));
    drop(store);
    write_all_at(&File::options().write(true).open(path).unwrap(), b"!", 5).unwrap();
    let store = open(folder.path(), &data).unwrap();
    assert_eq!(store.next_missing(), Some(0..PIECE as u64));
    PieceWriter::new(&store).write(0, &data[..PIECE]).unwrap().unwrap();
    assert_eq!(store.missing_bytes(), 1_000_000 - 2 * PIECE as u64);
}

#[test]
fn an_empty_document_is_complete_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), b"").unwrap();
    assert!(store.is_complete());
    assert_eq!(fs::metadata(store.finish().unwrap()).unwrap().len(), 0);
}

#[test]
fn a_second_fetch_of_the_same_document_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path(), b"x").unwrap();
    assert!(matches!(open(folder.path(), b"x"), Err(WriteError::Locked { .. })));
}

#[test]
fn a_copy_of_the_descriptor_keeps_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(1_000_000);
    let store = open(folder.path(), &data).unwrap();
    fill(&store, &data, 0..1);
    // A process that is being started has one.
    let copy = store.file().file().try_clone().unwrap();
    drop(store);
    let store = open(folder.path(), &data).unwrap();
    assert_eq!(store.missing_bytes(), 1_000_000 - PIECE as u64);
    drop((store, copy));
}

#[test]
fn a_fetch_that_received_nothing_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for data in [data(10), data(3 * PIECE)] {
        let store = open(folder.path(), &data).unwrap();
        PieceWriter::new(&store).write(0, &data[..9]).unwrap().unwrap();
        drop(store);
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 0);
    }
}

#[test]
fn only_verified_bytes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(3 * PIECE - 7);
    let store = open(folder.path(), &data).unwrap();
    fill(&store, &data, 1..3);
    let piece = PIECE as u64;
    assert!(store.is_verified(&(piece..data.len() as u64)) && store.has_pieces(1..3));
    assert!(
        !store.is_verified(&(piece - 1..piece + 1))
            && !store.is_verified(&(piece..data.len() as u64 + 1))
            && !store.has_pieces(0..2)
    );
    let mut read = vec![0; PIECE];
    store.read_verified_at(&mut read, piece + 9).unwrap();
    assert_eq!(read, data[PIECE + 9..2 * PIECE + 9]);
    assert_eq!(store.read_verified_at(&mut read, piece - 1).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    // Another program cuts the file off: what is gone is missing again.
    File::options().write(true).open(store.path()).unwrap().set_len(2 * piece).unwrap();
    store.read_verified_at(&mut read, piece + 9).unwrap_err();
    assert_eq!(store.verified(), set(3, [1]));
}

#[test]
fn what_was_synced_is_verified_at_once_and_a_change_by_others_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let data = large();
    let count = LARGE.div_ceil(PIECE);
    let store = open_at_once(folder.path(), &data);
    let (path, record) = (store.path().to_owned(), record(&store));
    fill(&store, &data, 0..count - 2);
    until("record", || record.exists());
    drop(store);

    let store = open_at_once(folder.path(), &data);
    let synced = store.verified();
    assert!(synced.len() >= 200 && synced.len() + store.pending().len() >= count - 2, "{} pieces", synced.len());
    store.wait_checked();
    assert_eq!(store.verified(), set(count, 0..count - 2));
    drop(store);

    // At once, so that times alone would not tell.
    write_all_at(&File::options().write(true).open(&path).unwrap(), b"!", 5).unwrap();
    let store = open_at_once(folder.path(), &data);
    let first = store.next_missing().unwrap();
    assert!(first.start == 0 || first.end == LARGE as u64, "what is missing can be fetched before the check is over");
    store.wait_checked();
    assert_eq!(store.verified(), set(count, 1..count - 2));
    fill(&store, &data, 0..1);
    fill(&store, &data, count - 2..count);
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
    assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1, "no record stays");
}

#[test]
fn a_record_that_is_damaged_or_of_another_file_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let data = large();
    let count = LARGE.div_ceil(PIECE);
    let store = open_at_once(folder.path(), &data);
    let (path, record) = (store.path().to_owned(), record(&store));
    fill(&store, &data, 0..count - 1);
    until("record", || record.exists());
    drop(store);
    let good = fs::read(&record).unwrap();
    let spoil: [&dyn Fn(); 4] = [
        &|| fs::write(&record, &good[..good.len() - 1]).unwrap(),
        &|| fs::write(&record, vec![7; 1 << 20]).unwrap(),
        &|| {
            fs::remove_file(&record).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &record).unwrap();
        },
        &|| {
            // The same bytes in another file.
            fs::write(&record, &good).unwrap();
            fs::copy(&path, folder.path().join("copy")).unwrap();
            fs::rename(folder.path().join("copy"), &path).unwrap();
        },
    ];
    for spoil in spoil {
        let _gone = fs::remove_file(&record);
        fs::write(&record, &good).unwrap();
        spoil();
        let store = open_at_once(folder.path(), &data);
        store.wait_checked();
        assert_eq!(store.verified(), set(count, 0..count - 1));
        drop(store);
        assert!(fs::symlink_metadata(&record).is_err(), "it was removed, and nothing new was synced");
    }
}

#[test]
fn a_piece_that_waits_for_its_check_can_be_received() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(40 * PIECE);
    let store = open_at_once(folder.path(), &data);
    fill(&store, &data, 0..39);
    drop(store);
    let store = open_at_once(folder.path(), &data);
    let mut writer = PieceWriter::new(&store);
    // Bytes that are not right: the piece is checked again if the check was not over.
    let bad = writer.write(5 * PIECE as u64, &vec![1; PIECE]).unwrap();
    assert!(bad == Err(WrongPiece { index: 5 }) || bad == Ok(0), "{bad:?}");
    fill_any(&store, &data, 39..40);
    store.wait_checked();
    assert!(store.verified().len() >= 39);
    fill_any(&store, &data, 0..40);
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
}

/// As [`fill`], whatever is verified already.
fn fill_any(store: &Arc<PieceStore>, data: &[u8], pieces: std::ops::Range<usize>) {
    let mut writer = PieceWriter::new(store);
    for piece in pieces {
        writer.write((piece * PIECE) as u64, &data[piece * PIECE..(piece + 1) * PIECE]).unwrap().unwrap();
    }
}
