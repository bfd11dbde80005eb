//! What is left out, and counted.

use super::*;
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
    let place = Place::new();
    for name in ["seen", ".hidden", ".folder/a", ".folder/b", "sub/.hidden"] {
        place.write(name, name);
    }
    let running = place.settled().await;
    assert_eq!((running.names(), running.share.status().hidden), (vec!["seen".to_owned()], 3));
    // Hidden later, and seen later.
    fs::rename(place.path("seen"), place.path(".seen")).unwrap();
    fs::rename(place.path("sub/.hidden"), place.path("sub/seen")).unwrap();
    running.until_offered(&["sub/seen"]).await;
    running.until("the counts", |running| running.share.status().hidden == 3).await;
    running.stop().await;
}

#[tokio::test]
async fn links_are_followed_inside_the_share_only() {
    let place = Place::new();
    fs::write(place.outer.path().join("secret"), "secret").unwrap();
    fs::create_dir(place.outer.path().join("other")).unwrap();
    fs::write(place.outer.path().join("other/x"), "x").unwrap();
    place.write("real/a", "a");
    symlink("real/a", place.path("file-link")).unwrap();
    symlink("real", place.path("folder-link")).unwrap();
    symlink(place.path("real/a"), place.path("absolute-link")).unwrap();
    symlink("../secret", place.path("outside-1")).unwrap();
    symlink(place.outer.path().join("other"), place.path("outside-2")).unwrap();
    symlink("nowhere", place.path("outside-3")).unwrap();
    symlink("outside-4", place.path("outside-4")).unwrap();
    let running = place.settled().await;
    assert_eq!(running.names(), ["absolute-link", "file-link", "folder-link/a", "real/a"]);
    assert_eq!(running.share.status().outside, 4);
    for name in running.names() {
        assert!(running.share.open_document(&running.document(&name)).unwrap().unchanged(), "{name}");
    }
    // All names follow the one file.
    place.write("real/a", "changed");
    running.until("the change under all names", |running| running.index().bytes() == 4 * 7).await;
    // A link that turns round.
    fs::remove_file(place.path("file-link")).unwrap();
    symlink("../secret", place.path("file-link")).unwrap();
    running.until_offered(&["absolute-link", "folder-link/a", "real/a"]).await;
    running.stop().await;
}

#[tokio::test]
async fn folder_links_in_circles_come_to_an_end() {
    let place = Place::new();
    place.write("a/file", "1");
    symlink("..", place.path("a/up")).unwrap();
    symlink(".", place.path("a/here")).unwrap();
    for (from, to) in [("b", "c"), ("c", "b")] {
        place.write(&format!("{from}/file-{from}"), "2");
        for i in 0..3 {
            symlink(format!("../{to}"), place.path(&format!("{from}/{i}"))).unwrap();
        }
    }
    let running = place.settled().await;
    let names = running.names();
    assert!(names.contains(&"b/0/file-c".to_owned()) && names.contains(&"c/2/file-b".to_owned()), "{names:?}");
    assert_eq!(names.len(), 1 + 2 * (1 + 3));
    assert!(running.share.status().outside >= 2);
    running.stop().await;
}

#[tokio::test]
async fn what_is_not_a_regular_file_is_never_waited_for() {
    let place = Place::new();
    place.write("file", "1");
    mknodat(CWD, place.path("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    let _socket = UnixListener::bind(place.path("socket")).unwrap();
    symlink("fifo", place.path("fifo-link")).unwrap();
    let running = place.settled().await;
    assert_eq!((running.names(), running.share.status().unsupported), (vec!["file".to_owned()], 3));
    // A document whose file turns into a FIFO.
    let document = running.document("file");
    fs::remove_file(place.path("file")).unwrap();
    mknodat(CWD, place.path("file"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    assert!(running.share.open_document(&document).is_err());
    running.until("the withdrawal", |running| running.share.status().unsupported == 4 && running.index().is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn names_that_cannot_be_offered_are_counted() {
    let place = Place::new();
    for name in ["back\\slash", "colon:", "new\nline", "right\u{202e}left", &"x".repeat(201), "bad\\folder/file", "ünïcode ok"]
    {
        place.write(name, "1");
    }
    fs::write(place.outer.path().join("share").join(OsStr::from_bytes(b"latin-\xe9")), "1").unwrap();
    let deep = "d/".repeat(40);
    place.write(&format!("{deep}file"), "1");
    let running = place.settled().await;
    assert_eq!(running.names(), ["ünïcode ok"]);
    // Each once, and of the deep path the first folder that is too deep.
    assert_eq!(running.share.status().unsupported, 8);
    running.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_read_are_counted_until_they_can() {
    let place = Place::new();
    place.write("open", "1");
    place.write("closed", "22");
    place.write("closed-folder/file", "333");
    for name in ["closed", "closed-folder"] {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    if fs::read(place.path("closed")).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    let running = place.settled().await;
    assert_eq!((running.names(), running.share.status().unreadable), (vec!["open".to_owned()], 2));
    for name in ["closed", "closed-folder"] {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    running.until_offered(&["closed", "closed-folder/file", "open"]).await;
    assert_eq!(running.share.status().unreadable, 0);
    running.stop().await;
}
