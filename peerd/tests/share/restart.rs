//! What a restart keeps.

use super::*;
use p2pdi::content::ContentHash;

#[tokio::test]
async fn a_restart_hashes_nothing_again_and_keeps_the_version() {
    let place = Place::new();
    place.write("a", "1");
    place.write("sub/large", vec![7; 20 << 20]);
    let running = place.settled().await;
    let (version, documents) = (running.index().version(), running.index().documents().to_vec());
    assert_eq!(running.hashed_bytes(), 1 + (20 << 20));
    running.stop().await;

    let running = place.settled().await;
    assert_eq!((running.hashed_bytes(), running.index().version()), (0, version));
    assert_eq!(running.index().documents(), documents);
    let large = running.document("sub/large");
    assert_eq!(running.share.piece_hashes(&large).unwrap().merge(), ContentHash::of(&vec![7; 20 << 20]));
    running.stop().await;
}

#[tokio::test]
async fn after_a_restart_only_what_changed_meanwhile_is_hashed() {
    let place = Place::new();
    for name in ["kept", "changed", "removed"] {
        place.write(name, name);
    }
    let running = place.settled().await;
    let version = running.index().version();
    running.stop().await;
    place.write("changed", "after");
    place.write("added", "new");
    fs::remove_file(place.path("removed")).unwrap();
    let running = place.settled().await;
    assert_eq!(running.names(), ["added", "changed", "kept"]);
    assert_eq!(running.hashed_bytes(), 5 + 3);
    assert!(running.index().version() > version);
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_cache_is_made_anew() {
    let place = Place::new();
    for i in 0..50 {
        place.write(&format!("{i}"), format!("content {i}"));
    }
    place.settled().await.stop().await;
    let cache = place.state().join("share.redb");
    let sound = fs::read(&cache).unwrap();
    let running = place.settled().await;
    let bytes = running.index().bytes();
    running.stop().await;
    let mut damages: Vec<Vec<u8>> =
        vec![Vec::new(), b"not a database".to_vec(), vec![0; sound.len()], sound[..sound.len() / 2].to_vec()];
    // A run of wrong bytes, here and there.
    for tenth in 0..10 {
        let mut damaged = sound.clone();
        let start = tenth * sound.len() / 10;
        damaged[start..start + 300].iter_mut().for_each(|byte| *byte ^= 0x5a);
        damages.push(damaged);
    }
    for (case, damage) in damages.into_iter().enumerate() {
        fs::write(&cache, damage).unwrap();
        let running = place.settled().await;
        assert_eq!(running.index().len(), 50, "case {case}");
        for document in running.index().documents() {
            assert_eq!(document.hash, ContentHash::of(format!("content {}", document.name).as_bytes()), "case {case}");
        }
        let hashed = running.hashed_bytes();
        assert!(hashed == 0 || hashed == bytes, "case {case}: {hashed}");
        running.stop().await;
        // And it is a cache again.
        let running = place.settled().await;
        assert_eq!(running.hashed_bytes(), 0, "case {case}");
        running.stop().await;
    }
}

#[tokio::test]
async fn files_that_are_gone_for_long_are_forgotten() {
    let mut place = Place::new();
    place.write("a", "1");
    place.write("b", "22");
    place.settled().await.stop().await;
    // Gone for one run, and remembered.
    let away = place.outer.path().join("away");
    fs::create_dir(&away).unwrap();
    let hidden = |place: &Place, to: bool| {
        let (inside, outside) = (place.path("folder"), away.join("folder"));
        if to { fs::rename(inside, outside).unwrap() } else { fs::rename(outside, inside).unwrap() }
    };
    place.write("folder/c", "333");
    place.settled().await.stop().await;
    hidden(&place, true);
    place.settled().await.stop().await;
    hidden(&place, false);
    let running = place.settled().await;
    assert_eq!((running.index().len(), running.hashed_bytes()), (3, 0));
    running.stop().await;
    // Gone for longer than it is remembered.
    place.config.keep_missing = Duration::ZERO;
    hidden(&place, true);
    place.settled().await.stop().await;
    hidden(&place, false);
    let running = place.settled().await;
    assert_eq!((running.index().len(), running.hashed_bytes()), (3, 3));
    running.stop().await;
}

#[tokio::test]
async fn stopping_in_the_middle_of_hashing_is_quick_and_loses_nothing() {
    let place = Place::new();
    place.write("large", vec![1; 64 << 20]);
    for i in 0..500 {
        place.write(&format!("{i}"), format!("{i}"));
    }
    let running = place.open();
    within("some hashing", running.share.progress().wait_for(|progress| progress.hashed_bytes > 0)).await.unwrap();
    running.stop().await;
    let running = place.settled().await;
    assert_eq!(running.index().len(), 501);
    running.stop().await;
}
