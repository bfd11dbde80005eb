//! The cache keeps hashes and versions across restarts.

use super::*;
use p2pdi::content::ContentHash;

#[tokio::test]
async fn a_restart_hashes_nothing_again_and_keeps_the_version() {
    let folders = Folders::new();
    folders.write("a", "1");
    folders.write("sub/large", vec![7; 20 << 20]);
    let running = folders.settled().await;
    let (version, documents) = (running.index().version(), running.index().documents().to_vec());
    assert_eq!(running.hashed_bytes(), 1 + (20 << 20));
    running.stop().await;

    let running = folders.settled().await;
    assert_eq!((running.hashed_bytes(), running.index().version()), (0, version));
    assert_eq!(running.index().documents(), documents);
    let large = running.document("sub/large");
    assert_eq!(running.share.piece_hashes(&large).unwrap().merge(), ContentHash::of(&vec![7; 20 << 20]));
    running.stop().await;
}

#[tokio::test]
async fn after_a_restart_only_what_changed_meanwhile_is_hashed() {
    let folders = Folders::new();
    for name in ["kept", "changed", "removed"] {
        folders.write(name, name);
    }
    let running = folders.settled().await;
    let version = running.index().version();
    running.stop().await;
    folders.write("changed", "after");
    folders.write("added", "new");
    fs::remove_file(folders.path("removed")).unwrap();
    let running = folders.settled().await;
    assert_eq!(running.names(), ["added", "changed", "kept"]);
    assert_eq!(running.hashed_bytes(), 5 + 3);
    assert!(running.index().version() > version);
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_cache_is_rebuilt() {
    let folders = Folders::new();
    for i in 0..50 {
        folders.write(&format!("{i}"), format!("content {i}"));
    }
    folders.settled().await.stop().await;
    let cache = folders.state().join("share.redb");
    let sound = fs::read(&cache).unwrap();
    let running = folders.settled().await;
    let bytes = running.index().bytes();
    running.stop().await;
    let mut damages: Vec<Vec<u8>> =
        vec![Vec::new(), b"not a database".to_vec(), vec![0; sound.len()], sound[..sound.len() / 2].to_vec()];
    // Wrong bytes at ten places.
    for tenth in 0..10 {
        let mut damaged = sound.clone();
        let start = tenth * sound.len() / 10;
        damaged[start..start + 300].iter_mut().for_each(|byte| *byte ^= 0x5a);
        damages.push(damaged);
    }
    for (case, damage) in damages.into_iter().enumerate() {
        fs::write(&cache, damage).unwrap();
        let running = folders.settled().await;
        assert_eq!(running.index().len(), 50, "case {case}");
        for document in running.index().documents() {
            assert_eq!(document.hash, ContentHash::of(format!("content {}", document.name).as_bytes()), "case {case}");
        }
        let hashed = running.hashed_bytes();
        assert!(hashed == 0 || hashed == bytes, "case {case}: {hashed}");
        running.stop().await;
        // The cache works again.
        let running = folders.settled().await;
        assert_eq!(running.hashed_bytes(), 0, "case {case}");
        running.stop().await;
    }
}

#[tokio::test]
async fn files_that_are_missing_for_long_are_removed_from_the_cache() {
    let mut folders = Folders::new();
    folders.write("a", "1");
    folders.write("b", "22");
    folders.settled().await.stop().await;
    // Missing for one run: the entry is kept.
    let away = folders.outer.path().join("away");
    fs::create_dir(&away).unwrap();
    let move_away = |folders: &Folders, to: bool| {
        let (inside, outside) = (folders.path("folder"), away.join("folder"));
        if to { fs::rename(inside, outside).unwrap() } else { fs::rename(outside, inside).unwrap() }
    };
    folders.write("folder/c", "333");
    folders.settled().await.stop().await;
    move_away(&folders, true);
    folders.settled().await.stop().await;
    move_away(&folders, false);
    let running = folders.settled().await;
    assert_eq!((running.index().len(), running.hashed_bytes()), (3, 0));
    running.stop().await;
    // Missing for longer than entries are kept.
    folders.config.keep_missing = Duration::ZERO;
    move_away(&folders, true);
    folders.settled().await.stop().await;
    move_away(&folders, false);
    let running = folders.settled().await;
    assert_eq!((running.index().len(), running.hashed_bytes()), (3, 3));
    running.stop().await;
}

#[tokio::test]
async fn stopping_while_hashing_is_quick_and_loses_nothing() {
    let folders = Folders::new();
    folders.write("large", vec![1; 64 << 20]);
    for i in 0..500 {
        folders.write(&format!("{i}"), format!("{i}"));
    }
    let running = folders.open();
    within("some hashing", running.share.progress().wait_for(|progress| progress.hashed_bytes > 0)).await.unwrap();
    running.stop().await;
    let running = folders.settled().await;
    assert_eq!(running.index().len(), 501);
    running.stop().await;
}
