//! Files whose content is known before the scan finds them.

use super::*;
use p2pdi::{
    content::{ContentHash, PIECE_SIZE_MIN, PieceHashes, Pieces},
    document::DocumentName,
};
use peerd::documents::share::OpenError;
use std::time::SystemTime;
use tokio::time::timeout;

const PIECE: usize = PIECE_SIZE_MIN as usize;

fn hashes(content: &[u8]) -> PieceHashes {
    let pieces = Pieces::of_size(content.len() as u64).unwrap();
    let piece = |index: usize| {
        let mut hasher = pieces.hasher(index);
        let range = pieces.range(index);
        hasher.update(&content[range.start as usize..range.end as usize]);
        hasher.finalize()
    };
    PieceHashes::new(pieces, (0..pieces.count()).map(piece).collect()).unwrap()
}

fn name(text: &str) -> DocumentName {
    DocumentName::parse(text).unwrap()
}

#[tokio::test]
async fn an_adopted_file_is_offered_without_being_read_again_now_and_after_a_restart() {
    let folders = Folders::new();
    let running = folders.settled().await;
    assert!(running.index().is_complete());
    let large = vec![7; 3 * PIECE + 5];
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (path, content) in [("deep/large.bin", large.as_slice()), ("rfc48.txt", b"hello")] {
        folders.write(path, content);
        let adopted = running.share.adopt(&name(path), &hashes(content), Some(modified)).unwrap();
        timeout(PATIENCE, running.share.has(&adopted)).await.expect("the index has it");
        let document = running.document(path);
        assert_eq!((document.hash, document.modified), (ContentHash::of(content), modified));
        assert_eq!(running.share.piece_hashes(&document).unwrap().merge(), document.hash);
    }
    assert_eq!(running.document("rfc48.txt").number, Some(48));
    assert_eq!(running.hashed_bytes(), 0);
    running.stop().await;
    let again = folders.settled().await;
    assert_eq!((again.names().len(), again.hashed_bytes()), (2, 0));
    again.stop().await;
}

#[tokio::test]
async fn a_file_that_is_gone_or_has_another_size_is_not_adopted() {
    let folders = Folders::new();
    let running = folders.settled().await;
    assert!(matches!(running.share.adopt(&name("a"), &hashes(b"a"), None), Err(OpenError::Gone)));
    folders.write("a", "longer");
    assert!(matches!(running.share.adopt(&name("a"), &hashes(b"a"), None), Err(OpenError::Changed)));
    running.stop().await;
}

#[tokio::test]
async fn a_document_is_removed_unless_its_file_changed() {
    let folders = Folders::new();
    folders.write("a/b", "one");
    folders.write("c", "two");
    let running = folders.settled().await;
    let (first, second) = (running.document("a/b"), running.document("c"));
    folders.write("c", "another");
    running.share.remove(&first).unwrap();
    assert!(!folders.path("a/b").exists());
    assert!(matches!(running.share.remove(&second), Err(OpenError::Changed)));
    assert!(folders.path("c").exists());
    running.stop().await;
}
