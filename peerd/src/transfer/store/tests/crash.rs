//! A process that dies in the middle of a fetch. It is this test program, run again.

use super::*;
use std::{env, os::unix::process::ExitStatusExt as _, process::Command, time::SystemTime};

/// The folder that the dying process writes to.
const FOLDER: &str = "P2PDI_TEST_CRASH_FOLDER";

/// Pieces that are not written.
const MISSING: usize = 3;

#[test]
fn a_process_that_dies() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let data = large();
    let count = LARGE.div_ceil(PIECE);
    let store = open_at_once(Path::new(&folder), &data);
    let record = record(&store);
    fill(&store, &data, 0..count - MISSING - 2);
    until("record", || record.exists());
    fill(&store, &data, count - MISSING - 2..count - MISSING - 1);
    // On a busy machine a write can begin after the lease.
    let is_leased = || {
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        modified(store.path()) <= modified(&record)
    };
    let mut last = count - MISSING - 1;
    while last == count - MISSING - 1 || !is_leased() {
        fill(&store, &data, last..last + 1);
        last += 1;
        assert!(last < count, "the machine is too busy");
    }
    std::process::abort();
}

/// Returns the data of the document that a process wrote to `folder` before it died.
fn crash(folder: &Path) -> Vec<u8> {
    run_and_die("a_process_that_dies", folder);
    large()
}

/// Runs a test of this file as a process that dies.
fn run_and_die(test: &str, folder: &Path) {
    let died = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("transfer::store::tests::crash::{test}")])
        .env(FOLDER, folder)
        .output()
        .unwrap();
    assert_eq!(died.status.signal(), Some(6), "{}", String::from_utf8_lossy(&died.stdout));
}

/// [`large`] and pieces of zeros after it.
fn large_and_zeros() -> Vec<u8> {
    let mut data = large();
    data.resize(LARGE + 32 * PIECE, 0);
    data
}

#[test]
fn a_process_that_dies_after_zeros() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let data = large_and_zeros();
    let store = open_at_once(Path::new(&folder), &data);
    let record = record(&store);
    fill(&store, &data, 0..LARGE / PIECE);
    until("record", || record.exists());
    // Two of them did not arrive.
    let count = data.len() / PIECE;
    fill(&store, &data, LARGE / PIECE + 1..count - 1);
    std::process::abort();
}

#[test]
fn after_a_crash_pieces_of_zeros_are_verified_that_no_record_has() {
    let folder = tempfile::tempdir().unwrap();
    run_and_die("a_process_that_dies_after_zeros", folder.path());
    let data = large_and_zeros();
    let count = data.len() / PIECE;
    // The second time after an orderly end that wrote no further record.
    for _ in 0..2 {
        let store = open_at_once(folder.path(), &data);
        store.wait_checked();
        let missing: Vec<_> = store.verified().missing().collect();
        assert_eq!(missing, [LARGE / PIECE, count - 1]);
    }
    let store = open_at_once(folder.path(), &data);
    store.wait_checked();
    fill(&store, &data, LARGE / PIECE..LARGE / PIECE + 1);
    fill(&store, &data, count - 1..count);
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
    let left: Vec<_> = fs::read_dir(folder.path().join("a")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["doc.bin"]);
}

#[test]
fn after_a_crash_what_was_synced_is_verified_at_once_and_the_rest_after_a_check() {
    let folder = tempfile::tempdir().unwrap();
    let data = crash(folder.path());
    let count = LARGE.div_ceil(PIECE);
    let store = open_at_once(folder.path(), &data);
    assert!(store.verified().len() >= 200, "{} pieces", store.verified().len());
    assert!(store.next_missing().is_some(), "what is missing can be fetched at once");
    store.wait_checked();
    assert!(store.verified().len() >= count - MISSING);
    let missing = store.next_missing();
    if let Some(missing) = missing {
        fill(&store, &data, missing.start as usize / PIECE..count);
    }
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
}

#[test]
fn a_change_by_another_program_after_a_crash_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let data = crash(folder.path());
    let files: Vec<_> = fs::read_dir(folder.path().join("a")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let find = |end: &str| files.iter().find(|path| path.to_str().unwrap().ends_with(end)).unwrap();
    let lease = fs::metadata(find(".pieces")).unwrap().modified().unwrap();
    until("end of the lease", || SystemTime::now() > lease + Duration::from_millis(20));
    write_all_at(&File::options().write(true).open(find(".part")).unwrap(), b"!", 5).unwrap();
    let store = open_at_once(folder.path(), &data);
    store.wait_checked();
    assert_eq!(store.next_missing(), Some(0..PIECE as u64));
    assert!(store.verified().len() >= LARGE.div_ceil(PIECE) - MISSING - 1);
}
