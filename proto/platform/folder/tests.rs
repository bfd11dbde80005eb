//! The ways of opening agree: the system's own call, steps by descriptor, steps by path.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic, in its helpers too")]

use super::{Folder, LookupError, portable};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::Path,
};

/// A file's content, or the name of the error.
fn read(result: Result<File, LookupError>) -> Result<String, &'static str> {
    match result {
        Ok(file) => Ok(io::read_to_string(file).unwrap()),
        Err(LookupError::Outside) => Err("outside"),
        Err(LookupError::NotFound) => Err("not found"),
        Err(LookupError::Loop) => Err("loop"),
        Err(LookupError::NotAFile) => Err("not a file"),
        Err(LookupError::Io(error)) => panic!("{error}"),
    }
}

#[test]
fn links_are_followed_inside_and_refused_outside() {
    let outer = tempfile::tempdir().unwrap();
    let share = outer.path().join("share");
    fs::create_dir_all(share.join("a/b")).unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    fs::write(share.join("a/b/file"), "file").unwrap();
    symlink("b/file", share.join("a/inside")).unwrap();
    symlink("../a/./b/../b/file", share.join("a/roundabout")).unwrap();
    symlink("a/b", share.join("folder")).unwrap();
    symlink(fs::canonicalize(&share).unwrap().join("a/b/file"), share.join("absolute")).unwrap();
    symlink("../secret", share.join("outside")).unwrap();
    symlink("a/../../share/a/b/file", share.join("out-and-in")).unwrap();
    symlink(outer.path().join("secret"), share.join("absolute-outside")).unwrap();
    symlink("/proc/self/root", share.join("magic")).unwrap();
    symlink("loop", share.join("loop")).unwrap();
    symlink("nowhere", share.join("dangling")).unwrap();

    let (folder, by_path) = (Folder::open(&share).unwrap(), portable::Folder::open(&share).unwrap());
    let every_way = |path: &str| {
        let path = Path::new(path);
        let ways = [
            read(folder.open_file(path).map(|(file, _)| file)),
            read(folder.open_file_by_steps(path)),
            read(by_path.open_file(path).map(|(file, _)| file)),
        ];
        assert!(ways.iter().all(|way| *way == ways[0]), "{path:?}: {ways:?}");
        ways[0].clone()
    };
    for inside in ["a/b/file", "a/inside", "a/roundabout", "folder/file", "absolute"] {
        assert_eq!(every_way(inside).as_deref(), Ok("file"), "{inside}");
    }
    for outside in ["../secret", "outside", "out-and-in", "absolute-outside", "magic/etc/passwd", "a/../../secret"] {
        assert_eq!(every_way(outside), Err("outside"), "{outside}");
    }
    assert_eq!(every_way("loop"), Err("loop"));
    assert_eq!(every_way("dangling"), Err("not found"));
    assert_eq!(every_way("a/b/file/x"), Err("not found"));
    assert_eq!(folder.open_file(Path::new("a")).map_err(|error| error.to_string()).unwrap_err(), "not a regular file");
    assert!(matches!(by_path.open_file(Path::new("a")), Err(LookupError::NotAFile)));
    assert_eq!(folder.stat(Path::new("folder")).unwrap().id, Some(folder.open_folder(Path::new("a/b")).unwrap().id()));
    assert_eq!(by_path.stat(Path::new("folder")).unwrap().id, Some(by_path.open_folder(Path::new("a/b")).unwrap().id()));
}

#[test]
fn entries_are_listed_with_their_kinds_and_links_count_as_themselves() {
    let outer = tempfile::tempdir().unwrap();
    fs::create_dir(outer.path().join("folder")).unwrap();
    fs::write(outer.path().join("file"), "12345").unwrap();
    symlink("folder", outer.path().join("link")).unwrap();
    let (folder, by_path) = (Folder::open(outer.path()).unwrap(), portable::Folder::open(outer.path()).unwrap());
    let sorted = |mut names: Vec<_>| {
        names.sort();
        names
    };
    let names = sorted(folder.entries().unwrap().map(|entry| entry.unwrap().name).collect());
    assert_eq!(names, ["file", "folder", "link"]);
    assert_eq!(sorted(by_path.entries().unwrap().map(|entry| entry.unwrap().name).collect()), names);
    for name in &names {
        let (one, other) = (folder.entry_stat(name).unwrap(), by_path.entry_stat(name).unwrap());
        assert_eq!((one.kind, one.size, one.modified_ns), (other.kind, other.size, other.modified_ns));
    }
    assert!(folder.entry_folder(OsStr::new("folder")).is_ok() && by_path.entry_folder(OsStr::new("folder")).is_ok());
    assert!(folder.entry_folder(OsStr::new("link")).is_err() && by_path.entry_folder(OsStr::new("link")).is_err());
    assert_eq!(Folder::id_at(outer.path()).unwrap(), folder.id());
}
