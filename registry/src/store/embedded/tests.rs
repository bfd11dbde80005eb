//! The file after failures, and files of other versions.

use super::{
    file::{CEILING_KEY_V1, NEW_FILE_NAME, RECORDS_V1, SCHEMA_KEY, create},
    *,
};
use crate::store::conformance::{contents, peer};
use redb::TableDefinition;
use std::fs;

#[test]
fn a_start_that_was_killed_while_it_created_the_file_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for begun in [&b""[..], b"redb", &[0; 100_000]] {
        let folder = folder.path().join(begun.len().to_string());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(NEW_FILE_NAME), begun).unwrap();
        let mut store = Embedded::open(&folder).unwrap();
        store.try_commit(&[Change::put(peer(7, true), 0)]).unwrap();
        drop(store);
        assert!(!folder.join(NEW_FILE_NAME).exists());
        assert_eq!(contents(&mut Embedded::open(&folder).unwrap()).len(), 1);
    }
}

#[test]
fn after_a_failure_only_the_same_file_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let aside = folder.path().join("aside");
    let mut store = Embedded::open(folder.path()).unwrap();
    store.try_commit(&[Change::put(peer(7, true), 0)]).unwrap();
    // As after a write error, with the volume gone.
    store.database = None;
    fs::rename(&path, &aside).unwrap();
    store.recover().unwrap_err();
    assert!(!path.exists(), "no new file is created in the bare mount point");
    // Another registry's file.
    drop(create(&path).unwrap());
    store.failed_at = None;
    let error = store.recover().unwrap_err();
    assert!(error.to_string().contains("not the file"), "{error}");
    fs::rename(&aside, &path).unwrap();
    store.failed_at = None;
    store.try_commit(&[Change::put(peer(8, true), 0)]).unwrap();
    drop(store);
    assert_eq!(contents(&mut Embedded::open(folder.path()).unwrap()).len(), 2);
}

#[test]
fn a_failed_commit_that_reached_the_disk_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(folder.path()).unwrap();
    store.try_commit(&[Change::put(peer(1, true), 0), Change::put(peer(2, true), 0)]).unwrap();
    let before = contents(&mut store);
    let revision = |name: &str| before[name].1;
    let batch = [
        Change::put(peer(1, false), revision("peer-1")),
        Change::remove("peer-2", revision("peer-2")),
        Change::put(peer(3, true), 0),
    ];
    // The commit reaches the disk, and its sync reports an error.
    let (database, mut slots) = (store.database.take().unwrap(), store.slots.take().unwrap());
    let mut written = Batch::new(&mut slots, &mut store.revision, batch.len());
    written.write(&database, &batch).unwrap();
    store.undo = written.undo;
    drop(database);
    store.recover().unwrap();
    assert_eq!(contents(&mut store), before);
    drop(store);
    assert_eq!(contents(&mut Embedded::open(folder.path()).unwrap()), before);
}

#[test]
fn a_failed_commit_that_did_not_reach_the_disk_needs_no_undo() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(folder.path()).unwrap();
    store.try_commit(&[Change::put(peer(1, true), 0)]).unwrap();
    let before = contents(&mut store);
    store.undo = vec![OldRow { slot: 0, row: None }];
    store.database = None;
    store.recover().unwrap();
    assert_eq!(contents(&mut store), before);
    let accepted = store.try_commit(&[Change::put(peer(1, false), before["peer-1"].1)]).unwrap();
    assert!(accepted[0].as_ref().is_ok_and(|revision| *revision > before["peer-1"].1));
}

#[test]
fn after_a_commit_that_failed_half_way_the_next_one_finds_every_record() {
    const WRONG: TableDefinition<'_, u32, u32> = TableDefinition::new("numbers");
    let folder = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(folder.path()).unwrap();
    store.try_commit(&[1, 2, 3].map(|number| Change::put(peer(number, true), 0))).unwrap();
    let before = contents(&mut store);
    let revision = |name: &str| before[name].1;
    let durable_revision = store.durable_revision;
    let change_tables = |database: &Database, damage: bool| {
        let transaction = database.begin_write().unwrap();
        if damage {
            transaction.delete_table(NUMBERS).unwrap();
            transaction.open_table(WRONG).unwrap();
        } else {
            transaction.delete_table(WRONG).unwrap();
            let mut numbers = transaction.open_table(NUMBERS).unwrap();
            numbers.insert(SCHEMA_KEY, 2).unwrap();
            numbers.insert(REVISION_KEY, durable_revision).unwrap();
        }
        transaction.commit().unwrap();
    };
    // The records are written, and then the revision cannot be.
    change_tables(store.database.as_ref().unwrap(), true);
    let batch = [
        Change::remove("peer-2", revision("peer-2")),
        Change::put(peer(4, true), 0),
        Change::put(peer(5, true), 0),
        Change::remove("peer-1", revision("peer-1")),
    ];
    store.try_commit(&batch).unwrap_err();
    change_tables(&Database::create(folder.path().join(FILE_NAME)).unwrap(), false);
    store.failed_at = None;
    let next = [
        Change::put(peer(1, false), revision("peer-1")),
        Change::put(peer(2, false), revision("peer-2")),
        Change::put(peer(5, true), 0),
    ];
    assert!(store.try_commit(&next).unwrap().iter().all(Result::is_ok));
    let found = contents(&mut store);
    let active: Vec<_> = found.iter().map(|(key, (peer, _))| (key.as_str(), peer.active)).collect();
    assert_eq!(active, [("peer-1", false), ("peer-2", false), ("peer-3", true), ("peer-5", true)]);
}

#[test]
fn a_file_of_schema_1_is_converted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let peers = [peer(1, true), peer(2, false)];
    for (slot, peer) in [0, 70_000].into_iter().zip(&peers) {
        transaction.open_table(RECORDS_V1).unwrap().insert(slot, codec::encode(peer).as_slice()).unwrap();
    }
    // A record that this version refuses does not stand in the way.
    let refused = codec::renamed(&peer(3, true), "no name");
    transaction.open_table(RECORDS_V1).unwrap().insert(5, refused.as_slice()).unwrap();
    let far = u64::MAX / 2;
    transaction.open_table(NUMBERS).unwrap().insert(SCHEMA_KEY, 1).unwrap();
    transaction.open_table(NUMBERS).unwrap().insert(CEILING_KEY_V1, far).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let mut store = Embedded::open(folder.path()).unwrap();
        let found = contents(&mut store);
        assert_eq!(found.values().map(|(peer, _)| peer).collect::<Vec<_>>(), peers.iter().collect::<Vec<_>>());
        assert!(found.values().all(|(_, revision)| *revision > far), "{found:?}");
        assert_eq!(store.load(&mut |_, _| {}).unwrap().revision, far + 3);
    }
}

/// Writes a row into the file, as another version of the program may have.
fn write_row(folder: &Path, slot: u32, revision: u64, bytes: &[u8]) {
    let database = Database::open(folder.join(FILE_NAME)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(RECORDS).unwrap().insert(slot, (revision, bytes)).unwrap();
    transaction.commit().unwrap();
}

fn row(folder: &Path, slot: u32) -> Option<(u64, Vec<u8>)> {
    let database = Database::open(folder.join(FILE_NAME)).unwrap();
    let records = database.begin_read().unwrap().open_table(RECORDS).unwrap();
    records.get(slot).unwrap().map(|row| (row.value().0, row.value().1.to_vec()))
}

#[test]
fn records_that_this_version_refuses_are_skipped_and_stay_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(folder.path()).unwrap();
    store.try_commit(&[1, 2, 3].map(|number| Change::put(peer(number, true), 0))).unwrap();
    let before = contents(&mut store);
    drop(store);
    let refused = codec::renamed(&peer(7, true), "no\u{202e} <b>name\n");
    write_row(folder.path(), 1, 77, &refused);
    write_row(folder.path(), 6, 78, &refused);
    let mut store = Embedded::open(folder.path()).unwrap();
    let Loaded { skipped, .. } = store.load(&mut |_, _| {}).unwrap();
    assert_eq!(skipped.count, 2);
    assert!(skipped.first.starts_with("no? ?b?name? ("), "{}", skipped.first);
    let found = contents(&mut store);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["peer-1", "peer-3"]);
    assert_eq!(found["peer-3"], before["peer-3"]);
    // Neither new records, nor a failure and what follows it, touch them.
    let batch: Vec<_> = (10..20).map(|number| Change::put(peer(number, true), 0)).collect();
    assert!(store.try_commit(&batch).unwrap().iter().all(Result::is_ok));
    (store.database, store.slots) = (None, None);
    store.failed_at = None;
    let batch: Vec<_> = (20..30).map(|number| Change::put(peer(number, true), 0)).collect();
    assert!(store.try_commit(&batch).unwrap().iter().all(Result::is_ok));
    assert_eq!(contents(&mut store).len(), 22);
    drop(store);
    assert_eq!(row(folder.path(), 1), Some((77, refused.clone())));
    assert_eq!(row(folder.path(), 6), Some((78, refused)));
}

#[test]
fn of_two_records_of_one_name_the_one_with_the_higher_revision_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(folder.path()).unwrap();
    store.try_commit(&[Change::put(peer(1, true), 0)]).unwrap();
    let revision = contents(&mut store)["peer-1"].1;
    drop(store);
    // As after a version that refused one of them; both orders of the slots.
    write_row(folder.path(), 4, revision - 1, &codec::encode(&peer(1, false)));
    write_row(folder.path(), 5, 7, &codec::encode(&peer(2, true)));
    write_row(folder.path(), 6, 8, &codec::encode(&peer(2, false)));
    let mut store = Embedded::open(folder.path()).unwrap();
    let mut last = std::collections::BTreeMap::new();
    let mut keep = |peer: Peer, revision| {
        last.insert(peer.strings.name().to_owned(), (peer.active, revision));
    };
    store.load(&mut keep).unwrap();
    assert_eq!(last["Peer-1"], (true, revision));
    assert_eq!(last["Peer-2"], (false, 8));
    let outcomes = store.try_commit(&[Change::put(peer(1, false), revision), Change::remove("peer-2", 8)]).unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}
