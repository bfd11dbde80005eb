//! Documents that are offered, and reading them.

use super::*;
use p2pdi::content::{ContentHash, PIECE_SIZE_MIN};
use peerd::documents::share::{OpenError, ShareError};
use std::time::SystemTime;

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 253) as u8 ^ (i >> 12) as u8).collect()
}

#[tokio::test]
async fn every_regular_file_is_offered_with_its_hash_number_and_size() {
    let folders = Folders::new();
    folders.write("rfc48.txt", "hello");
    folders.write("deep/er/RFC0048.txt", "hello");
    folders.write("empty", "");
    let running = folders.settled().await;
    assert_eq!(running.names(), ["deep/er/RFC0048.txt", "empty", "rfc48.txt"]);
    let index = running.index();
    assert_eq!((index.len(), index.bytes()), (3, 10));
    assert_eq!(index.by_number(48).len(), 2);
    assert_eq!(index.by_hash(&ContentHash::of(b"hello")).len(), 2);
    let document = running.document("RFC48.TXT");
    assert_eq!((document.number, document.size, document.hash), (Some(48), 5, ContentHash::of(b"hello")));
    assert_eq!(document.modified, fs::metadata(folders.path("rfc48.txt")).unwrap().modified().unwrap());
    let empty = running.document("empty");
    assert_eq!((empty.size, empty.hash, empty.number), (0, ContentHash::of(b""), None));
    assert_eq!(running.share.piece_hashes(&empty).unwrap().merge(), empty.hash);
    running.stop().await;
}

#[tokio::test]
async fn piece_hashes_of_documents_of_all_sizes_merge_to_their_hash() {
    const PIECE: usize = PIECE_SIZE_MIN as usize;
    let folders = Folders::new();
    // One piece, several pieces, and enough pieces for all threads.
    let sizes = [1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 17, 8 << 20, (8 << 20) + 1, (21 << 20) + 12_345];
    for size in sizes {
        folders.write(&format!("{size}"), noise(size));
    }
    let running = folders.settled().await;
    for size in sizes {
        let document = running.document(&size.to_string());
        assert_eq!(document.hash, ContentHash::of(&noise(size)), "{size} bytes");
        let hashes = running.share.piece_hashes(&document).unwrap();
        assert_eq!((hashes.merge(), hashes.pieces().size()), (document.hash, size as u64));
    }
    assert_eq!(running.hashed_bytes(), sizes.iter().sum::<usize>() as u64);
    running.stop().await;
}

#[tokio::test]
async fn a_document_is_read_until_its_file_changes() {
    let folders = Folders::new();
    folders.write("a", "0123456789");
    let running = folders.settled().await;
    let document = running.document("a");
    let open = running.share.open_document(&document).unwrap();
    let mut buffer = [0; 4];
    open.read_at(&mut buffer, 3).unwrap();
    assert_eq!((&buffer, open.unchanged(), open.size()), (b"3456", true, 10));
    assert!(open.read_at(&mut buffer, 8).is_err());
    folders.write("a", "9876543210");
    assert!(!open.unchanged());
    assert!(matches!(running.share.open_document(&document), Err(OpenError::Modified | OpenError::Changed)));
    fs::remove_file(folders.path("a")).unwrap();
    assert!(matches!(running.share.open_document(&document), Err(OpenError::Gone)));
    running.stop().await;
}

#[tokio::test]
async fn a_document_replaced_by_a_link_to_the_outside_is_not_read() {
    let folders = Folders::new();
    folders.write("a", "mine");
    let running = folders.settled().await;
    let document = running.document("a");
    fs::write(folders.outer.path().join("secret"), "none").unwrap();
    fs::remove_file(folders.path("a")).unwrap();
    std::os::unix::fs::symlink("../secret", folders.path("a")).unwrap();
    assert!(running.share.open_document(&document).is_err());
    running.stop().await;
}

#[tokio::test]
async fn names_that_differ_in_case_are_two_documents() {
    let folders = Folders::new();
    folders.write("Readme", "1");
    if folders.path("README").exists() {
        println!("skipped: this file system ignores case");
        return;
    }
    folders.write("README", "22");
    let running = folders.settled().await;
    assert_eq!(running.names(), ["README", "Readme"]);
    assert_eq!((running.document("Readme").size, running.document("README").size), (1, 2));
    assert_eq!(running.document("readme").size, 2);
    running.stop().await;
}

#[tokio::test]
async fn without_a_folder_nothing_is_offered() {
    let mut folders = Folders::new();
    folders.config.folder = None;
    let running = folders.settled().await;
    assert!(running.index().is_empty() && running.index().version() > 0);
    running.stop().await;
}

#[tokio::test]
async fn a_share_that_cannot_be_opened_is_refused_with_the_reason() {
    let folders = Folders::new();
    folders.write("file", "");
    let open = |config: &ShareConfig| Share::open(config.clone(), &Metrics::default()).map(|_| ()).unwrap_err();
    let with = |folder: PathBuf| ShareConfig { folder: Some(folder), ..folders.config.clone() };
    let missing = open(&with(folders.path("missing")));
    assert!(matches!(missing, ShareError::Folder { .. }), "{missing}");
    let file = open(&with(folders.path("file")));
    assert!(file.to_string().contains("share the folder that it is in"), "{file}");
    let first = Share::open(folders.config.clone(), &Metrics::default()).unwrap();
    let second = open(&folders.config);
    assert!(matches!(second, ShareError::StateInUse { .. }), "{second}");
    drop(first);
    let no_state = open(&ShareConfig { state: folders.path("nowhere"), ..folders.config.clone() });
    assert!(matches!(no_state, ShareError::State { .. }), "{no_state}");
}

#[tokio::test]
async fn an_index_of_ten_thousand_files_is_complete() {
    let folders = Folders::new();
    for i in 0..10_000 {
        folders.write(&format!("{}/rfc{i}.txt", i % 100), format!("text {i}"));
    }
    let running = folders.open();
    let mut progress = running.share.progress();
    let mut last = 0;
    within(
        "the first scan",
        progress.wait_for(|progress| {
            assert!(progress.hashed_bytes >= last && progress.hashed_bytes <= progress.total_bytes);
            last = progress.hashed_bytes;
            progress.settled
        }),
    )
    .await
    .unwrap();
    assert_eq!(running.index().len(), 10_000);
    for i in [1, 77, 9_999] {
        assert_eq!(running.index().by_number(i)[0].hash, ContentHash::of(format!("text {i}").as_bytes()));
    }
    running.stop().await;
}

#[tokio::test]
async fn a_file_with_a_time_in_the_future_is_offered() {
    let folders = Folders::new();
    folders.write("a", "a");
    let file = fs::File::options().append(true).open(folders.path("a")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(1_000_000)).unwrap();
    let running = folders.settled().await;
    assert_eq!(running.names(), ["a"]);
    running.stop().await;
}
