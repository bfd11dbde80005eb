//! A state folder whose disk is full for a while.

use super::{mount::Mount, *};
use p2pdi::content::PIECE_SIZE_MIN;

#[tokio::test]
async fn a_share_is_served_while_its_cache_cannot_be_written_and_the_cache_is_written_later() {
    let folders = Folders::new();
    let Some(_disk) = Mount::over(folders.state(), "size=8m") else { return };
    let large = |byte: u8| vec![byte; usize::try_from(PIECE_SIZE_MIN).unwrap() + 1];
    folders.write("old", large(1));
    let running = folders.settled().await;
    // As much as fits.
    let filler = folders.state().join("filler");
    fs::write(&filler, vec![0; 16 << 20]).unwrap_err();
    let names: Vec<_> = (0..3_000).map(|n| format!("many/{}-{n:04}", "x".repeat(150))).collect();
    for name in &names {
        folders.write(name, name);
    }
    folders.write("new", large(2));
    running.until("the new files", |running| running.index().len() == names.len() + 2).await;
    running.until("the full disk in the status", |running| !running.share.status().problems.is_empty()).await;
    for name in ["old", "new"] {
        let document = running.document(name);
        running.until("piece hashes", |running| running.share.piece_hashes(&document).is_some()).await;
        assert!(running.share.open_document(&document).unwrap().unchanged(), "{name}");
    }
    fs::remove_file(&filler).unwrap();
    running.until("the write of the cache", |running| running.share.status().problems.is_empty()).await;
    running.stop().await;
    let running = folders.settled().await;
    assert_eq!((running.index().len(), running.hashed_bytes()), (names.len() + 2, 0));
    running.stop().await;
}
