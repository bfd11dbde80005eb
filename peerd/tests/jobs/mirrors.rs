//! Mirrors: what appears, changes and is removed elsewhere.

use super::*;
use peerd::{config::Mirror, documents::pattern::DocumentPattern};
use std::io::Write as _;

fn mirror(pattern: &str, from: Option<&str>, delete: bool) -> Mirror {
    Mirror { pattern: DocumentPattern::parse(pattern).unwrap(), from: from.map(|from| from.parse().unwrap()), delete }
}

/// A peer with the documents `a.txt` ("one") and `b.txt` ("two"), and one that mirrors its documents, and removals, and has them.
async fn one_and_two() -> (Peer, Peer) {
    let origin = peer("origin", &[("a.txt", b"one"), ("b.txt", b"two")], &[], |_| {}).await;
    let copy = peer("copy", &[], &[&origin], |config| config.mirrors = vec![mirror("*.txt", Some("origin"), true)]).await;
    until_shared(&copy, "a.txt", Some(b"one")).await;
    until_shared(&copy, "b.txt", Some(b"two")).await;
    (origin, copy)
}

#[tokio::test]
async fn a_mirror_follows_what_a_peer_adds_changes_and_removes() {
    let files: [(&str, &[u8]); 3] = [("m/a.txt", b"a1"), ("m/mine.txt", b"theirs"), ("other.txt", b"no")];
    let origin = peer("origin", &files, &[], |_| {}).await;
    let own: [(&str, &[u8]); 2] = [("m/mine.txt", b"mine"), ("m/only-here.txt", b"mine too")];
    let copy = peer("copy", &own, &[&origin], |config| config.mirrors = vec![mirror("m/**", Some("origin"), true)]).await;
    until_shared(&copy, "m/a.txt", Some(b"a1")).await;
    fs::write(origin.share().join("m/b.txt"), "b1").unwrap();
    until_shared(&copy, "m/b.txt", Some(b"b1")).await;
    fs::write(origin.share().join("m/a.txt"), "a2 is longer").unwrap();
    until_shared(&copy, "m/a.txt", Some(b"a2 is longer")).await;
    fs::remove_file(origin.share().join("m/b.txt")).unwrap();
    until_shared(&copy, "m/b.txt", None).await;
    // The user's files are left alone, and the one in the way is named.
    assert_eq!(read(&copy.share(), "m/mine.txt").as_deref(), Some(&b"mine"[..]));
    assert_eq!(read(&copy.share(), "m/only-here.txt").as_deref(), Some(&b"mine too"[..]));
    assert_eq!(read(&copy.share(), "other.txt"), None);
    let status = eventually("the status", async || {
        let status = copy.handle.jobs().mirrors().remove(0);
        (status.present == 2 && status.missing == 0).then_some(status)
    })
    .await;
    assert!(status.failed[0].name == "m/mine.txt" && status.failed[0].why.contains("did not fetch"), "{status:?}");
    // A peer that is away has removed nothing.
    origin.stop().await;
    eventually("the status", async || {
        let status = copy.handle.jobs().mirrors().remove(0);
        status.detail.contains("nothing is removed").then_some(())
    })
    .await;
    assert_eq!(read(&copy.share(), "m/a.txt").as_deref(), Some(&b"a2 is longer"[..]));
}

#[tokio::test]
async fn a_file_that_the_user_changed_is_the_users() {
    let (origin, copy) = one_and_two().await;
    fs::write(copy.share().join("a.txt"), "edited here").unwrap();
    until_shared(&copy, "a.txt", Some(b"edited here")).await;
    fs::remove_file(origin.share().join("a.txt")).unwrap();
    fs::write(origin.share().join("b.txt"), "changed there").unwrap();
    until_shared(&copy, "b.txt", Some(b"changed there")).await;
    eventually("the removal to be seen", async || {
        let status = copy.handle.jobs().mirrors().remove(0);
        (status.present == 2 && status.failed.is_empty()).then_some(())
    })
    .await;
    assert_eq!(read(&copy.share(), "a.txt").as_deref(), Some(&b"edited here"[..]));
}

#[tokio::test]
async fn a_mirror_of_everybody_keeps_what_appears_after_a_restart() {
    let first = peer("first", &[("x/1", b"1")], &[], |_| {}).await;
    let keep = |config: &mut NodeConfig| config.mirrors = vec![mirror("x/**", None, false)];
    let copy = peer("copy", &[], &[&first], keep).await;
    until_shared(&copy, "x/1", Some(b"1")).await;
    let folder = copy.stop().await;
    let mut config = NodeConfig { bootnodes: vec![first.address.to_string().parse().unwrap()], ..config("copy", &folder) };
    keep(&mut config);
    let copy = Peer::start(config, folder).await;
    let _second = peer("second", &[("x/2", b"2")], &[&copy], |_| {}).await;
    until_shared(&copy, "x/2", Some(b"2")).await;
    assert_eq!(copy.handle.share().progress().borrow().hashed_bytes, 0, "what was fetched before is not read again");
    assert_eq!(copy.handle.jobs().fetched().documents, 2);
}

#[tokio::test]
async fn a_file_whose_time_was_set_back_after_a_change_is_the_users() {
    let (origin, copy) = one_and_two().await;
    let path = copy.share().join("a.txt");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"own").unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    until_shared(&copy, "a.txt", Some(b"own")).await;
    fs::remove_file(origin.share().join("a.txt")).unwrap();
    fs::write(origin.share().join("b.txt"), "changed there").unwrap();
    until_shared(&copy, "b.txt", Some(b"changed there")).await;
    assert_eq!(read(&copy.share(), "a.txt").as_deref(), Some(&b"own"[..]));
}

#[tokio::test]
async fn a_mirror_of_more_than_the_quota_keeps_what_it_has_room_for() {
    let origin = numbered("origin", 4).await;
    let copy = peer("copy", &[], &[&origin], |config| {
        config.mirrors = vec![mirror("*.bin", None, false)];
        config.quota = Some(100_000);
    })
    .await;
    let status = eventually("all that has room", async || {
        let status = copy.handle.jobs().mirrors().remove(0);
        (status.present == 2 && status.detail.contains("quota of 100000")).then_some(status)
    })
    .await;
    assert_eq!(status.missing, 2, "{status:?}");
    let fetched = copy.handle.jobs().fetched();
    assert_eq!((fetched.documents, fetched.evicted), (2, 0), "{fetched:?}");
}

#[tokio::test]
async fn of_two_names_that_differ_in_case_a_mirror_keeps_both_and_removes_the_one_that_goes() {
    let origin = peer("origin", &[("Readme", b"one"), ("x", b"x")], &[], |_| {}).await;
    if origin.share().join("README").exists() {
        println!("skipped: this file system ignores case");
        return;
    }
    fs::write(origin.share().join("README"), "two").unwrap();
    until_shared(&origin, "README", Some(b"two")).await;
    let copy = peer("copy", &[], &[&origin], |config| config.mirrors = vec![mirror("**", Some("origin"), true)]).await;
    until_shared(&copy, "Readme", Some(b"one")).await;
    until_shared(&copy, "README", Some(b"two")).await;
    // What is removed before it was seen in a listing stays: a look that brings a change has seen all.
    fs::write(origin.share().join("x"), "x is longer").unwrap();
    until_shared(&copy, "x", Some(b"x is longer")).await;
    fs::remove_file(origin.share().join("README")).unwrap();
    eventually("the removal", async || read(&copy.share(), "README").is_none().then_some(())).await;
    assert_eq!(read(&copy.share(), "Readme").as_deref(), Some(&b"one"[..]));
}
