//! How the index follows the folder.

use super::*;
use p2pdi::content::ContentHash;
use std::{
    fs::{File, FileTimes},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    time::Instant,
};

#[tokio::test]
async fn files_that_come_change_and_go_are_followed() {
    let place = Place::new();
    place.write("a", "1");
    let running = place.settled().await;
    let first = running.index().version();
    place.write("b", "2");
    running.until_offered(&["a", "b"]).await;
    let second = running.index().version();
    assert!(second > first);
    place.write("a", "changed");
    running.until("the change", |running| running.index().by_hash(&ContentHash::of(b"changed")).len() == 1).await;
    fs::remove_file(place.path("b")).unwrap();
    running.until_offered(&["a"]).await;
    assert!(running.index().version() > second);
    running.stop().await;
}

#[tokio::test]
async fn folders_that_come_move_and_go_are_followed() {
    let place = Place::new();
    let running = place.settled().await;
    place.write("a/b/c/one", "1");
    running.until_offered(&["a/b/c/one"]).await;
    // A folder that moves keeps its watch under its new name.
    fs::rename(place.path("a"), place.path("z")).unwrap();
    running.until_offered(&["z/b/c/one"]).await;
    place.write("z/b/c/two", "2");
    running.until_offered(&["z/b/c/one", "z/b/c/two"]).await;
    // In from outside, with everything in it, and out again.
    fs::create_dir_all(place.outer.path().join("in/deep")).unwrap();
    fs::write(place.outer.path().join("in/deep/three"), "3").unwrap();
    fs::rename(place.outer.path().join("in"), place.path("in")).unwrap();
    running.until_offered(&["in/deep/three", "z/b/c/one", "z/b/c/two"]).await;
    fs::rename(place.path("z"), place.outer.path().join("out")).unwrap();
    running.until_offered(&["in/deep/three"]).await;
    fs::remove_dir_all(place.path("in")).unwrap();
    running.until_offered(&[]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_offered_until_it_is_quiet() {
    let mut place = Place::new();
    place.config.quiet = Duration::from_secs(1);
    let running = place.settled().await;
    let mut file = File::create(place.path("growing")).unwrap();
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut content = Vec::new();
    let mut late = false;
    while started.elapsed() < Duration::from_secs(3) {
        let before = Instant::now();
        file.write_all(b"more").unwrap();
        content.extend(b"more");
        ticks.tick().await;
        // Where this test itself was kept from writing, the file was quiet.
        late |= before.elapsed() > Duration::from_millis(800);
        assert!(late || running.names().is_empty(), "offered after {:?}", started.elapsed());
    }
    drop(file);
    running.until("the whole file", |running| running.index().by_hash(&ContentHash::of(&content)).len() == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_file_renamed_into_place_replaces_the_old_one() {
    let place = Place::new();
    place.write("a", "old");
    let running = place.settled().await;
    fs::write(place.outer.path().join("new"), "new").unwrap();
    fs::rename(place.outer.path().join("new"), place.path("a")).unwrap();
    running.until("the new content", |running| running.index().by_hash(&ContentHash::of(b"new")).len() == 1).await;
    assert_eq!(running.names(), ["a"]);
    running.stop().await;
}

#[tokio::test]
async fn a_change_that_keeps_size_and_modification_time_is_noticed() {
    let place = Place::new();
    place.write("a", "one");
    let running = place.settled().await;
    let before = fs::metadata(place.path("a")).unwrap();
    let mut file = File::options().write(true).open(place.path("a")).unwrap();
    file.write_all(b"two").unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    drop(file);
    let after = fs::metadata(place.path("a")).unwrap();
    assert_eq!((before.mtime_nsec(), before.len(), before.ino()), (after.mtime_nsec(), after.len(), after.ino()));
    running.until("the new content", |running| running.index().by_hash(&ContentHash::of(b"two")).len() == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn touching_a_file_changes_its_time_and_not_its_hash() {
    let place = Place::new();
    place.write("a", "one");
    let running = place.settled().await;
    let before = running.document("a");
    let version = running.index().version();
    let file = File::options().write(true).open(place.path("a")).unwrap();
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
async fn a_share_that_vanishes_withdraws_everything_and_comes_back() {
    let place = Place::new();
    place.write("a", "1");
    place.write("sub/b", "22");
    let running = place.settled().await;
    let (away, home) = (place.outer.path().join("away"), place.outer.path().join("share"));
    for round in 0..2 {
        let document = running.document("a");
        fs::rename(&home, &away).unwrap();
        assert!(running.share.open_document(&document).is_err());
        running.until_offered(&[]).await;
        assert!(running.share.status().detail.contains("nothing is shared"), "{:?}", running.share.status());
        fs::rename(&away, &home).unwrap();
        running.until("the return", |running| running.index().len() == 2 + round).await;
        assert_eq!(running.share.status().detail, "");
        // Watched again.
        place.write(&format!("new{round}"), "333");
        running.until("what is new", |running| running.index().len() == 3 + round).await;
    }
    // Nothing was hashed twice.
    assert_eq!(running.hashed_bytes(), 1 + 2 + 3 + 3);
    running.stop().await;
}

#[tokio::test]
async fn another_folder_in_the_place_of_the_share_is_shared_instead() {
    let place = Place::new();
    place.write("a", "1");
    let running = place.settled().await;
    let home = place.outer.path().join("share");
    fs::rename(&home, place.outer.path().join("away")).unwrap();
    fs::create_dir(&home).unwrap();
    place.write("b", "2");
    running.until_offered(&["b"]).await;
    place.write("c", "3");
    running.until_offered(&["b", "c"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_burst_of_changes_costs_few_versions() {
    let place = Place::new();
    let running = place.settled().await;
    let mut changes = running.share.changes();
    let count = tokio::spawn(async move {
        let mut versions = 0;
        while changes.changed().await.is_ok() {
            versions += 1;
        }
        versions
    });
    for i in 0..1000 {
        place.write(&format!("{i:04}"), format!("{i}"));
    }
    running.until("all of them", |running| running.index().len() == 1000).await;
    let started = Instant::now();
    running.stop().await;
    assert!(started.elapsed() < PATIENCE);
    let versions = count.await.unwrap();
    assert!((1..100).contains(&versions), "{versions}");
}

#[tokio::test]
async fn changes_are_found_where_the_system_tells_of_none() {
    let mut place = Place::new();
    place.config.watch = false;
    place.write("a", "1");
    let running = place.settled().await;
    place.write("sub/b", "2");
    running.until_offered(&["a", "sub/b"]).await;
    fs::remove_file(place.path("a")).unwrap();
    running.until_offered(&["sub/b"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_changed_document_is_found_by_those_who_serve_it() {
    let mut place = Place::new();
    place.config.watch = false;
    place.write("a", "old");
    let running = place.settled().await;
    let document = running.document("a");
    fs::remove_file(place.path("a")).unwrap();
    place.write("a", "brand new");
    assert!(running.share.open_document(&document).is_err());
    running.until("the new content", |running| running.index().by_hash(&ContentHash::of(b"brand new")).len() == 1).await;
    running.stop().await;
}
