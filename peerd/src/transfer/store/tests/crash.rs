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
    let died = Command::new(env::current_exe().unwrap())
        .args(["--exact", "transfer::store::tests::crash::a_process_that_dies"])
        .env(FOLDER, folder)
        .output()
        .unwrap();
    assert_eq!(died.status.signal(), Some(6), "{}", String::from_utf8_lossy(&died.stdout));
    large()
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
