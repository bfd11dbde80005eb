//! What jobs fetch, where it appears, and what makes room.

use super::{support::mount::Mount, *};
use p2pdi::{content::PIECE_SIZE_MIN, v1::JobPriority};
use std::time::SystemTime;

const PIECE: usize = PIECE_SIZE_MIN as usize;

#[tokio::test]
async fn what_matches_appears_with_its_folders_and_is_shared_on_without_being_read_again() {
    let large = bytes(3 * PIECE + 7);
    let files: [(&str, &[u8]); 4] =
        [("a/rfc1.txt", b"one"), ("a/b/large.bin", &large), ("a/skip.tmp", b"no"), ("other.txt", b"no")];
    let seed = peer("seed", &files, &[], |_| {}).await;
    let fetcher = peer("fetcher", &[], &[&seed], |_| {}).await;
    let request = FetchRequest { exclude: vec!["*.tmp".into()], priority: JobPriority::High.into(), ..request(&["A/**"]) };
    let job = fetch(&fetcher, request).await;
    assert_eq!((job.state(), job.documents, job.documents_done), (JobState::Done, 2, 2), "{job:?}");
    assert_eq!((job.bytes, job.bytes_done), (3 + large.len() as u64, 3 + large.len() as u64));
    assert_eq!(job.priority(), JobPriority::High);
    assert_eq!(read(&fetcher.share(), "a/b/large.bin").as_deref(), Some(&large[..]));
    assert_eq!(read(&fetcher.share(), "a/skip.tmp"), None);
    assert_eq!(fetcher.handle.share().progress().borrow().hashed_bytes, 0);
    fetcher.assert_serves("a/b/large.bin", &large).await;
    // Copies have the time of the original, so that the newest of several versions can be told.
    let modified = |peer: &Peer| fs::metadata(peer.share().join("a/rfc1.txt")).unwrap().modified().unwrap();
    assert_eq!(modified(&fetcher), modified(&seed));
    let status = fetcher.handle.jobs().fetched();
    assert_eq!((status.documents, status.bytes), (2, 3 + large.len() as u64));
    // A second time there is nothing to do.
    let job = fetch(&fetcher, super::request(&["a/**", "rfc:1"])).await;
    assert_eq!((job.state(), job.documents_done), (JobState::Done, 4), "{job:?}");
    assert_eq!(fetcher.handle.downloads().count(), 0);
}

#[tokio::test]
async fn what_several_patterns_match_counts_once_and_peers_that_do_not_answer_are_named() {
    let seed = numbered("seed", 3).await;
    let fetcher = peer("fetcher", &[], &[&seed], |_| {}).await;
    // Nobody listens on port 1.
    let from = ["seed", "127.0.0.1:1"].map(str::to_owned).to_vec();
    let job = fetch(&fetcher, FetchRequest { from, ..request(&["*.bin", "0*"]) }).await;
    assert_eq!((job.state(), job.documents_done, job.bytes_done), (JobState::Done, 3, 120_000), "{job:?}");
    assert!(job.detail.starts_with("what these peers share is not known: 127.0.0.1:1 ("), "{job:?}");
    let job = fetch(&fetcher, request(&["1*", "*.bin"])).await;
    assert_eq!((job.state(), job.documents_done, job.detail.as_str()), (JobState::Done, 3, ""), "{job:?}");
}

#[tokio::test]
async fn a_document_that_cannot_be_fetched_does_not_end_the_others() {
    let seed = peer("seed", &[("a.txt", b"theirs"), ("b.txt", b"b")], &[], |_| {}).await;
    let fetcher = peer("fetcher", &[("A.txt", b"mine")], &[&seed], |_| {}).await;
    let job = fetch(&fetcher, request(&["*.txt"])).await;
    assert_eq!((job.state(), job.documents, job.documents_done), (JobState::Failed, 2, 1), "{job:?}");
    assert!(job.failed[0].name == "a.txt" && job.failed[0].why.contains("did not fetch"), "{job:?}");
    assert_eq!(read(&fetcher.share(), "A.txt").as_deref(), Some(&b"mine"[..]));
    assert_eq!(read(&fetcher.share(), "b.txt").as_deref(), Some(&b"b"[..]));
}

#[tokio::test]
async fn the_least_recently_used_makes_room_and_pinned_and_own_documents_stay() {
    let names = ["0.bin", "1.bin", "2.bin", "3.bin", "4.bin"];
    let seed = numbered("seed", 5).await;
    let fetcher = peer("fetcher", &[("own.bin", &[9; 90_000])], &[&seed], |config| config.quota = Some(130_000)).await;
    for name in ["0.bin", "1.bin", "2.bin"] {
        assert_eq!(fetch(&fetcher, request(&[name])).await.state(), JobState::Done);
    }
    let jobs = fetcher.handle.jobs();
    assert!(!jobs.pin("0.BIN", true).await.unwrap());
    assert!(jobs.pin("0.bin", true).await.unwrap(), "it was pinned before");
    // Times of use have whole seconds.
    let second = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let before = second();
    eventually("the next second", async || (second() > before).then_some(())).await;
    fetcher.assert_serves("1.bin", &[1; 40_000]).await;
    assert_eq!(fetch(&fetcher, request(&["3.bin"])).await.state(), JobState::Done);
    let there: Vec<_> = names.iter().filter(|name| fetcher.share().join(name).exists()).collect();
    assert_eq!(there, [&"0.bin", &"1.bin", &"3.bin"]);
    assert!(fetcher.share().join("own.bin").exists());
    let status = jobs.fetched();
    assert_eq!((status.evicted, status.pinned, status.quota), (1, 1, 130_000));
    // With all pinned there is no room; unpinning one makes it.
    for name in ["1.bin", "3.bin"] {
        jobs.pin(name, true).await.unwrap();
    }
    let mut job = jobs.submit(JobRequest::try_from(request(&["4.bin"])).unwrap()).await.unwrap();
    let waiting = until(&fetcher, &job.id(), JobState::Waiting).await;
    assert!(waiting.detail.contains("quota of 130000") && waiting.detail.contains("3 documents are pinned"), "{waiting:?}");
    jobs.pin("0.bin", false).await.unwrap();
    assert_eq!(within("the job", job.ended()).await.unwrap().state(), JobState::Done);
    assert!(!fetcher.share().join("0.bin").exists());
    // What never fits fails.
    fs::write(seed.share().join("huge.bin"), vec![1; 140_000]).unwrap();
    until_shared(&seed, "huge.bin", Some(&[1; 140_000])).await;
    let job = fetch(&fetcher, FetchRequest { from: vec!["seed".into()], ..request(&["huge.bin"]) }).await;
    assert!(job.state() == JobState::Failed && job.detail.contains("more than the quota"), "{job:?}");
}

#[tokio::test]
async fn a_job_waits_while_the_disk_is_full_and_goes_on_when_there_is_room() {
    let large = bytes(5 << 20);
    let seed = peer("seed", &[("large.bin", &large)], &[], |_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("share");
    fs::create_dir(&share).unwrap();
    let Some(_disk) = Mount::over(&share, "size=8m") else { return };
    let filler = share.join("filler");
    fs::write(&filler, vec![1; 5 << 20]).unwrap();
    let fetcher = again("fetcher", folder, &[&seed]).await;
    let hash = format!("b3:{}", p2pdi::content::ContentHash::of(&large));
    let mut job = fetcher.handle.jobs().submit(JobRequest::try_from(request(&[&hash])).unwrap()).await.unwrap();
    let waiting = until(&fetcher, &job.id(), JobState::Waiting).await;
    assert!(waiting.detail.contains("space") || waiting.detail.contains("full"), "{waiting:?}");
    assert!(!share.join("large.bin").exists());
    fs::remove_file(&filler).unwrap();
    assert_eq!(within("the job", job.ended()).await.unwrap().state(), JobState::Done);
    assert_eq!(read(&share, "large.bin"), Some(large));
    fetcher.stop().await;
}

#[tokio::test]
async fn a_job_of_more_than_the_quota_is_refused_and_removes_nothing() {
    let seed = numbered("seed", 4).await;
    let fetcher = peer("fetcher", &[], &[&seed], |config| config.quota = Some(100_000)).await;
    assert_eq!(fetch(&fetcher, request(&["0.bin"])).await.state(), JobState::Done);
    let job = fetch(&fetcher, request(&["*.bin"])).await;
    assert_eq!(job.state(), JobState::Failed, "{job:?}");
    assert!(job.failed.iter().all(|failed| failed.why.contains("160000 bytes in all, more than the quota of 100000")), "{job:?}");
    let fetched = fetcher.handle.jobs().fetched();
    assert_eq!((fetched.documents, fetched.evicted), (1, 0), "{fetched:?}");
    // Another job makes room by what no unfinished job wants.
    assert_eq!(fetch(&fetcher, request(&["1.bin", "2.bin"])).await.state(), JobState::Done);
    assert_eq!(fetcher.handle.jobs().fetched().evicted, 1);
}

#[tokio::test]
async fn a_name_of_the_users_own_file_is_not_taken_for_what_others_have() {
    let seed = peer("seed", &[("a.txt", b"theirs")], &[], |_| {}).await;
    let fetcher = peer("fetcher", &[("a.txt", b"mine")], &[&seed], |_| {}).await;
    let job = fetch(&fetcher, request(&["*.txt"])).await;
    assert!(job.state() == JobState::Failed && job.failed[0].why.contains("did not fetch"), "{job:?}");
    // By now it has learned of the other one.
    let job = fetch(&fetcher, request(&["a.txt"])).await;
    assert!(job.state() == JobState::Failed && job.failed[0].why.contains("did not fetch"), "{job:?}");
}

#[tokio::test]
async fn a_file_that_changes_after_a_pattern_found_it_is_fetched_as_it_is_then() {
    let seed = peer("seed", &[("0.bin", &[0; 40_000]), ("1.bin", &[1; 40_000]), ("a.txt", &[2; 40_000])], &[], |_| {}).await;
    let fetcher = peer("fetcher", &[], &[&seed], |config| config.quota = Some(100_000)).await;
    let jobs = fetcher.handle.jobs();
    for name in ["0.bin", "1.bin"] {
        assert_eq!(fetch(&fetcher, request(&[name])).await.state(), JobState::Done);
        jobs.pin(name, true).await.unwrap();
    }
    let mut job = jobs.submit(JobRequest::try_from(request(&["*.txt"])).unwrap()).await.unwrap();
    // Its content is known, and waits for room.
    until(&fetcher, &job.id(), JobState::Waiting).await;
    fs::write(seed.share().join("a.txt"), [3; 30_000]).unwrap();
    until_shared(&seed, "a.txt", Some(&[3; 30_000])).await;
    jobs.pin("0.bin", false).await.unwrap();
    let job = within("the job", job.ended()).await.unwrap();
    assert_eq!((job.state(), job.documents, job.bytes_done), (JobState::Done, 1, 30_000), "{job:?}");
    assert_eq!(read(&fetcher.share(), "a.txt").as_deref(), Some(&[3; 30_000][..]));
}

#[tokio::test]
async fn names_that_differ_in_case_are_fetched_as_the_two_documents_that_they_are() {
    let seed = peer("seed", &[("Readme", b"one")], &[], |_| {}).await;
    if seed.share().join("README").exists() {
        println!("skipped: this file system ignores case");
        return;
    }
    fs::write(seed.share().join("README"), "two").unwrap();
    until_shared(&seed, "README", Some(b"two")).await;
    let fetcher = peer("fetcher", &[], &[&seed], |_| {}).await;
    for _ in 0..2 {
        let job = fetch(&fetcher, request(&["**"])).await;
        assert_eq!((job.state(), job.documents, job.documents_done), (JobState::Done, 2, 2), "{job:?}");
        assert_eq!(read(&fetcher.share(), "Readme").as_deref(), Some(&b"one"[..]));
        assert_eq!(read(&fetcher.share(), "README").as_deref(), Some(&b"two"[..]));
    }
}
