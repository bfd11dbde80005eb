//! Target folders that are missing, blocked by a file, read-only or full.

use super::*;
use crate::support::{
    holder::{Step, sending},
    mount::Mount,
};

#[tokio::test]
async fn missing_folders_are_created() {
    let sample = Sample::new("a/b/c.txt", 0, b"deep".to_vec());
    let honest = Holder::honest(&sample).await;
    let mut target = Target::new();
    target.out = target.out.join("not/there/yet");
    let fetched = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap();
    assert_eq!(fetched.path, target.out.join("a/b/c.txt"));
    assert_eq!(target.files(), [("out/not/there/yet/a/b/c.txt".to_owned(), b"deep".to_vec())]);
}

#[tokio::test]
async fn a_file_at_the_target_path_is_named_and_left_unchanged() {
    let sample = Sample::new("a/rfc48.txt", 48, b"text".to_vec());
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    // In place of the folder itself, of a folder in it, and of the document.
    fs::write(&target.out, "mine").unwrap();
    let message = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap_err().to_string();
    assert!(message.starts_with("cannot ") && message.contains("out"), "{message}");
    fs::remove_file(&target.out).unwrap();
    fs::create_dir(&target.out).unwrap();
    fs::write(target.out.join("a"), "mine").unwrap();
    let message = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap_err().to_string();
    assert!(message.starts_with("cannot ") && message.contains("out/a"), "{message}");
    assert_eq!(target.files(), [("out/a".to_owned(), b"mine".to_vec())]);
    fs::remove_file(target.out.join("a")).unwrap();
    fs::create_dir(target.out.join("a")).unwrap();
    fs::write(target.out.join("a/rfc48.txt"), "mine").unwrap();
    let message = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap_err().to_string();
    assert!(message.ends_with("rfc48.txt exists with other content"), "{message}");
    assert_eq!(target.files(), [("out/a/rfc48.txt".to_owned(), b"mine".to_vec())]);
}

#[tokio::test]
async fn symbolic_links_below_the_folder_are_not_followed() {
    let sample = Sample::new("a/rfc48.txt", 48, b"text".to_vec());
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(&target.out).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), target.out.join("a")).unwrap();
    let message = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap_err().to_string();
    assert!(message.contains("is a symbolic link"), "{message}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    // A link in place of the document counts as an existing file, whatever its target.
    fs::remove_file(target.out.join("a")).unwrap();
    fs::create_dir(target.out.join("a")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("new"), target.out.join("a/rfc48.txt")).unwrap();
    let message = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap_err().to_string();
    assert!(message.contains("exists"), "{message}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_read_only_folder_is_named() {
    let sample = Sample::rfc48(2);
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    fs::create_dir(&target.out).unwrap();
    let Some(read_only) = Mount::over(&target.out, "size=1m,ro") else { return };
    let message = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap_err().to_string();
    assert!(message.starts_with("cannot write ") && message.contains("Read-only file system"), "{message}");
    assert_eq!(target.files(), []);
    drop(read_only);
    target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
}

#[tokio::test]
async fn a_document_larger_than_the_free_space_is_refused_before_the_fetch() {
    let sample = Sample::rfc48(20);
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    fs::create_dir(&target.out).unwrap();
    let Some(_small) = Mount::over(&target.out, "size=2m") else { return };
    let message = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap_err().to_string();
    assert!(message.starts_with("not enough space for rfc48.txt: "), "{message}");
    assert!(message.contains(&sample.size().to_string()) && message.contains("free"), "{message}");
    target.assert_nothing_visible();
}

#[tokio::test]
async fn a_disk_that_fills_up_during_the_fetch_keeps_verified_pieces() {
    let sample = Sample::rfc48(20);
    let target = Target::new();
    fs::create_dir(&target.out).unwrap();
    let Some(small) = Mount::over(&target.out, "size=8m") else { return };
    let (ballast, progress) = (target.out.join("ballast"), Arc::clone(&target.progress));
    // There is space when the fetch begins; another program takes it after four pieces, the reserved room included: as where a file
    // system reserves none.
    let (filler, out) = (ballast.clone(), target.out.clone());
    let slow = sample.clone();
    let filling = Holder::start(move |_, request| {
        let mut steps = sending(slow.answer(request));
        let (filler, out, progress, size) = (filler.clone(), out.clone(), Arc::clone(&progress), slow.size());
        let full = move || {
            let is_time = progress.verified() >= 4 * PIECE;
            if is_time {
                take_reserved_room(&out, 4 * PIECE..size);
                let _full = fs::write(&filler, vec![1; 8 << 20]);
            }
            is_time
        };
        steps.insert(5, Step::Until(Box::new(full)));
        steps
    })
    .await;
    let error = target.fetch(&hash(&sample), vec![filling.source("filling")]).await.unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, FetchError::Write { .. }), "{message}");
    assert!(message.starts_with("cannot write ") && message.contains("No space left"), "{message}");
    assert!(target.visible().iter().all(|(name, _)| name == "out/ballast"));

    // Still full: the error comes before any request.
    let honest = Holder::honest(&sample).await;
    let message = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap_err().to_string();
    assert!(message.starts_with("not enough space") || message.contains("No space left"), "{message}");
    let before = honest.sent_bytes();

    fs::remove_file(&ballast).unwrap();
    let fetched = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert!(fetched.resumed_bytes >= 4 * PIECE, "{fetched:?}");
    assert_eq!(fetched.fetched_bytes + fetched.resumed_bytes, sample.size());
    assert_eq!(asked_pieces(&honest), (fetched.resumed_bytes / PIECE..20).collect::<Vec<_>>(), "what is missing, and no more");
    assert!(honest.sent_bytes() > before);
    drop(small);
}

/// Gives the room of a part of the partial file in a folder back to the file system.
fn take_reserved_room(folder: &Path, range: std::ops::Range<u64>) {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let partial = paths.into_iter().find(|path| path.to_str().unwrap().ends_with(".part")).unwrap();
    let file = fs::File::options().write(true).open(partial).unwrap();
    file.set_len(range.end).unwrap();
    p2pdi::platform::punch_hole(&file, range).unwrap();
}
