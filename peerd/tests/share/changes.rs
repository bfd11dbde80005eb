//! The index follows changes of the folder.

use super::*;
use p2pdi::content::ContentHash;
use std::{
    fs::{File, FileTimes},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    time::Instant,
};

#[tokio::test]
async fn new_changed_and_removed_files_appear_in_the_index() {
    let folders = Folders::new();
    folders.write("a", "1");
    let running = folders.settled().await;
    let first = running.index().version();
    folders.write("b", "2");
    running.until_offered(&["a", "b"]).await;
    let second = running.index().version();
    assert!(second > first);
    folders.write("a", "changed");
    running.until("the change", |running| running.index().by_hash(&ContentHash::of(b"changed")).len() == 1).await;
    fs::remove_file(folders.path("b")).unwrap();
    running.until_offered(&["a"]).await;
    assert!(running.index().version() > second);
    running.stop().await;
}

#[tokio::test]
async fn new_moved_and_removed_folders_appear_in_the_index() {
    let folders = Folders::new();
    let running = folders.settled().await;
    folders.write("a/b/c/one", "1");
    running.until_offered(&["a/b/c/one"]).await;
    // A folder that moves keeps its watch under its new name.
    fs::rename(folders.path("a"), folders.path("z")).unwrap();
    running.until_offered(&["z/b/c/one"]).await;
    folders.write("z/b/c/two", "2");
    running.until_offered(&["z/b/c/one", "z/b/c/two"]).await;
    // A whole folder moves in from outside, and another one out.
    fs::create_dir_all(folders.outer.path().join("in/deep")).unwrap();
    fs::write(folders.outer.path().join("in/deep/three"), "3").unwrap();
    fs::rename(folders.outer.path().join("in"), folders.path("in")).unwrap();
    running.until_offered(&["in/deep/three", "z/b/c/one", "z/b/c/two"]).await;
    fs::rename(folders.path("z"), folders.outer.path().join("out")).unwrap();
    running.until_offered(&["in/deep/three"]).await;
    fs::remove_dir_all(folders.path("in")).unwrap();
    running.until_offered(&[]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_offered_until_it_is_quiet() {
    let mut folders = Folders::new();
    folders.config.quiet = Duration::from_secs(1);
    let running = folders.settled().await;
    let mut file = File::create(folders.path("growing")).unwrap();
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut content = Vec::new();
    let mut late = false;
    while started.elapsed() < Duration::from_secs(3) {
        let before = Instant::now();
        file.write_all(b"more").unwrap();
        content.extend(b"more");
        ticks.tick().await;
        // If this test itself was suspended, the file was quiet.
        late |= before.elapsed() > Duration::from_millis(800);
        assert!(late || running.names().is_empty(), "offered after {:?}", started.elapsed());
    }
    drop(file);
    running.until("the whole file", |running| running.index().by_hash(&ContentHash::of(&content)).len() == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_file_renamed_into_place_replaces_the_old_one() {
    let folders = Folders::new();
    folders.write("a", "old");
    let running = folders.settled().await;
    fs::write(folders.outer.path().join("new"), "new").unwrap();
    fs::rename(folders.outer.path().join("new"), folders.path("a")).unwrap();
    running.until("the new content", |running| running.index().by_hash(&ContentHash::of(b"new")).len() == 1).await;
    assert_eq!(running.names(), ["a"]);
    running.stop().await;
}

#[tokio::test]
async fn a_change_that_keeps_size_and_modification_time_is_detected() {
    let folders = Folders::new();
    folders.write("a", "one");
    let running = folders.settled().await;
    let before = fs::metadata(folders.path("a")).unwrap();
    let mut file = File::options().write(true).open(folders.path("a")).unwrap();
    file.write_all(b"two").unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    drop(file);
    let after = fs::metadata(folders.path("a")).unwrap();
    assert_eq!((before.mtime_nsec(), before.len(), before.ino()), (after.mtime_nsec(), after.len(), after.ino()));
    running.until("the new content", |running| running.index().by_hash(&ContentHash::of(b"two")).len() == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn touching_a_file_changes_its_time_and_not_its_hash() {
    let folders = Folders::new();
    folders.write("a", "one");
    let running = folders.settled().await;
    let before = running.document("a");
    let version = running.index().version();
    let file = File::options().write(true).open(folders.path("a")).unwrap();
    file.set_times(FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(86_400))).unwrap();
    running
        .until("the new time", |running| {
            running.index().by_name("a").is_some_and(|document| document.modified != before.modified)
        })
        .await;
    assert_eq!(running.document("a").hash, before.hash);
    assert!(running.index().version() > version);
    running.stop().await;
}

#[tokio::test]
async fn a_missing_folder_withdraws_everything_until_it_is_back() {
    let folders = Folders::new();
    folders.write("a", "1");
    folders.write("sub/b", "22");
    let running = folders.settled().await;
    let (away, home) = (folders.outer.path().join("away"), folders.outer.path().join("share"));
    for round in 0..2 {
        let document = running.document("a");
        fs::rename(&home, &away).unwrap();
        assert!(running.share.open_document(&document).is_err());
        running.until_offered(&[]).await;
        assert!(running.share.status().detail.contains("nothing is shared"), "{:?}", running.share.status());
        fs::rename(&away, &home).unwrap();
        running.until("the documents to be back", |running| running.index().len() == 2 + round).await;
        assert_eq!(running.share.status().detail, "");
        // It is watched again.
        folders.write(&format!("new{round}"), "333");
        running.until("the new file", |running| running.index().len() == 3 + round).await;
    }
    // No file was hashed twice.
    assert_eq!(running.hashed_bytes(), 1 + 2 + 3 + 3);
    running.stop().await;
}

#[tokio::test]
async fn a_folder_that_replaces_the_shared_one_is_shared_instead() {
    let folders = Folders::new();
    folders.write("a", "1");
    let running = folders.settled().await;
    let home = folders.outer.path().join("share");
    fs::rename(&home, folders.outer.path().join("away")).unwrap();
    fs::create_dir(&home).unwrap();
    folders.write("b", "2");
    running.until_offered(&["b"]).await;
    folders.write("c", "3");
    running.until_offered(&["b", "c"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_burst_of_changes_gives_few_versions() {
    let folders = Folders::new();
    let running = folders.settled().await;
    let mut changes = running.share.changes();
    let count = tokio::spawn(async move {
        let mut versions = 0;
        while changes.changed().await.is_ok() {
            versions += 1;
        }
        versions
    });
    for i in 0..1000 {
        folders.write(&format!("{i:04}"), format!("{i}"));
    }
    running.until("all of them", |running| running.index().len() == 1000).await;
    let started = Instant::now();
    running.stop().await;
    assert!(started.elapsed() < PATIENCE);
    let versions = count.await.unwrap();
    assert!((1..100).contains(&versions), "{versions}");
}

#[tokio::test]
async fn changes_are_found_without_file_system_events() {
    let mut folders = Folders::new();
    folders.config.watch = false;
    folders.write("a", "1");
    let running = folders.settled().await;
    folders.write("sub/b", "2");
    running.until_offered(&["a", "sub/b"]).await;
    fs::remove_file(folders.path("a")).unwrap();
    running.until_offered(&["sub/b"]).await;
    running.stop().await;
}

#[tokio::test]
async fn opening_a_changed_document_makes_the_indexer_scan_it_again() {
    let mut folders = Folders::new();
    folders.config.watch = false;
    folders.write("a", "old");
    let running = folders.settled().await;
    let document = running.document("a");
    fs::remove_file(folders.path("a")).unwrap();
    folders.write("a", "brand new");
    assert!(running.share.open_document(&document).is_err());
    running.until("the new content", |running| running.index().by_hash(&ContentHash::of(b"brand new")).len() == 1).await;
    running.stop().await;
}
