//! Files that are left out of the index are counted by reason.

use super::*;
use peerd::documents::restrictions::Restrictions;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::{
    ffi::OsStr,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
};

#[tokio::test]
async fn hidden_files_and_folders_are_counted_and_left_out() {
    let folders = Folders::new();
    for name in ["visible", ".hidden", ".folder/a", ".folder/b", "sub/.hidden"] {
        folders.write(name, name);
    }
    let running = folders.settled().await;
    assert_eq!((running.names(), running.share.status().hidden), (vec!["visible".to_owned()], 3));
    // A rename hides one, and shows another.
    fs::rename(folders.path("visible"), folders.path(".visible")).unwrap();
    fs::rename(folders.path("sub/.hidden"), folders.path("sub/visible")).unwrap();
    running.until_offered(&["sub/visible"]).await;
    running.until("the counts", |running| running.share.status().hidden == 3).await;
    running.stop().await;
}

#[tokio::test]
async fn links_are_followed_inside_the_share_only() {
    let folders = Folders::new();
    fs::write(folders.outer.path().join("secret"), "secret").unwrap();
    fs::create_dir(folders.outer.path().join("other")).unwrap();
    fs::write(folders.outer.path().join("other/x"), "x").unwrap();
    folders.write("real/a", "a");
    symlink("real/a", folders.path("file-link")).unwrap();
    symlink("real", folders.path("folder-link")).unwrap();
    symlink(folders.path("real/a"), folders.path("absolute-link")).unwrap();
    symlink("../secret", folders.path("outside-1")).unwrap();
    symlink(folders.outer.path().join("other"), folders.path("outside-2")).unwrap();
    symlink("nowhere", folders.path("outside-3")).unwrap();
    symlink("outside-4", folders.path("outside-4")).unwrap();
    let running = folders.settled().await;
    assert_eq!(running.names(), ["absolute-link", "file-link", "folder-link/a", "real/a"]);
    assert_eq!(running.share.status().outside, 4);
    for name in running.names() {
        assert!(running.share.open_document(&running.document(&name)).unwrap().unchanged(), "{name}");
    }
    // A change of the file shows under all its names.
    folders.write("real/a", "changed");
    running.until("the change under all names", |running| running.index().bytes() == 4 * 7).await;
    // A link that is replaced by one to the outside.
    fs::remove_file(folders.path("file-link")).unwrap();
    symlink("../secret", folders.path("file-link")).unwrap();
    running.until_offered(&["absolute-link", "folder-link/a", "real/a"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_link_that_would_change_for_whom_something_is_is_left_out() {
    let mut folders = Folders::new();
    for name in ["open/a", "team/a", "team/deep/a", "dept/inner/a"] {
        folders.write(name, name);
    }
    for (link, target) in [
        ("to-file", "team/a"),
        ("to-folder", "team"),
        ("to-below", "team/deep"),
        ("to-above", "dept"),
        ("to-link", "to-folder"),
        ("open/to-file", "../team/a"),
        ("team/out", "../open/a"),
        ("team/same", "deep/a"),
        ("open-too", "open"),
    ] {
        symlink(target, folders.path(link)).unwrap();
    }
    let share = folders.path("").canonicalize().unwrap();
    let rules = ["team", "dept/inner"].map(|folder| format!("{}=somebody", share.join(folder).display()).parse().unwrap());
    folders.config.restrictions = Restrictions::new(&share, rules).unwrap();
    let running = folders.settled().await;
    let kept = ["dept/inner/a", "open-too/a", "open/a", "team/a", "team/deep/a", "team/same"];
    assert_eq!(running.names(), kept);
    // Also what the link in the folder that is linked leads to.
    assert_eq!(running.share.status().outside, 8);
    let left_out = running.share.left_out();
    assert!(left_out.iter().all(|left_out| left_out.rule.contains("--share-to")), "{left_out:?}");
    // A link that changes.
    fs::remove_file(folders.path("open-too")).unwrap();
    symlink("team", folders.path("open-too")).unwrap();
    running.until_offered(&["dept/inner/a", "open/a", "team/a", "team/deep/a", "team/same"]).await;
    running.stop().await;
}

#[tokio::test]
async fn loops_of_folder_links_are_scanned_once() {
    let folders = Folders::new();
    folders.write("a/file", "1");
    symlink("..", folders.path("a/up")).unwrap();
    symlink(".", folders.path("a/here")).unwrap();
    for (from, to) in [("b", "c"), ("c", "b")] {
        folders.write(&format!("{from}/file-{from}"), "2");
        for i in 0..3 {
            symlink(format!("../{to}"), folders.path(&format!("{from}/{i}"))).unwrap();
        }
    }
    let running = folders.settled().await;
    let names = running.names();
    assert!(names.contains(&"b/0/file-c".to_owned()) && names.contains(&"c/2/file-b".to_owned()), "{names:?}");
    assert_eq!(names.len(), 1 + 2 * (1 + 3));
    assert!(running.share.status().outside >= 2);
    running.stop().await;
}

#[tokio::test]
async fn fifos_and_sockets_are_left_out_and_never_block() {
    let folders = Folders::new();
    folders.write("file", "1");
    mknodat(CWD, folders.path("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    let _socket = UnixListener::bind(folders.path("socket")).unwrap();
    symlink("fifo", folders.path("fifo-link")).unwrap();
    let running = folders.settled().await;
    assert_eq!((running.names(), running.share.status().unsupported), (vec!["file".to_owned()], 3));
    // A document's file is replaced by a FIFO.
    let document = running.document("file");
    fs::remove_file(folders.path("file")).unwrap();
    mknodat(CWD, folders.path("file"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    assert!(running.share.open_document(&document).is_err());
    running.until("the withdrawal", |running| running.share.status().unsupported == 4 && running.index().is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn files_with_invalid_names_are_counted() {
    let folders = Folders::new();
    for name in ["back\\slash", "colon:", "new\nline", "right\u{202e}left", &"x".repeat(201), "bad\\folder/file", "ünïcode ok"]
    {
        folders.write(name, "1");
    }
    fs::write(folders.outer.path().join("share").join(OsStr::from_bytes(b"latin-\xe9")), "1").unwrap();
    let deep = "d/".repeat(40);
    folders.write(&format!("{deep}file"), "1");
    let running = folders.settled().await;
    assert_eq!(running.names(), ["ünïcode ok"]);
    // Each counts once; of the deep path, the first folder beyond the limit.
    assert_eq!(running.share.status().unsupported, 8);
    running.until("their names", |running| running.share.left_out().len() == 8).await;
    for (name, rule) in [
        ("colon:", "colon"),
        ("new\nline", "control"),
        (&"x".repeat(201), "200 bytes"),
        ("latin-\u{fffd}", "not UTF-8"),
        (deep.get(..33 * 2 - 1).unwrap(), "32 folders"),
    ] {
        let left_out = running.share.left_out();
        let found = left_out.iter().find(|left_out| left_out.name == name);
        assert!(found.is_some_and(|found| found.rule.contains(rule)), "{name:?}: {left_out:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn unreadable_files_are_counted_until_they_are_readable() {
    let folders = Folders::new();
    folders.write("open", "1");
    folders.write("closed", "22");
    folders.write("closed-folder/file", "333");
    for name in ["closed", "closed-folder"] {
        fs::set_permissions(folders.path(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    if fs::read(folders.path("closed")).is_ok() {
        println!("skipped: this user can read every file");
        return;
    }
    let running = folders.settled().await;
    assert_eq!((running.names(), running.share.status().unreadable), (vec!["open".to_owned()], 2));
    for name in ["closed", "closed-folder"] {
        fs::set_permissions(folders.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    running.until_offered(&["closed", "closed-folder/file", "open"]).await;
    assert_eq!(running.share.status().unreadable, 0);
    running.stop().await;
}
