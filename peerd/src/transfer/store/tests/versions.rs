//! Other files at the target and beside it.

use super::*;
use std::os::unix::fs::{MetadataExt as _, symlink};

fn version(folder: &Path, data: &[u8]) -> Arc<PieceStore> {
    PieceStore::open(folder, &DocumentName::parse("a/doc.bin").unwrap(), hashes(data), true).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_a_fetch_left_of_another_version_goes_when_the_new_one_is_complete_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let (old, locked, new) = (data(3 * PIECE), data(4 * PIECE), data(5 * PIECE));
    let store = version(folder.path(), &old);
    fill(&store, &old, 0..1);
    let old_path = store.path().to_owned();
    drop(store);
    let running = version(folder.path(), &locked);
    let mine = [".doc.bin.part", ".doc.bin.0123456789abcdeF.part", ".other.bin.0123456789abcdef.part"];
    for name in mine {
        fs::write(folder.path().join("a").join(name), "mine").unwrap();
    }
    let store = version(folder.path(), &new);
    fill(&store, &new, 0..2);
    assert!(old_path.exists(), "it stays while nothing better is there");
    fill(&store, &new, 2..5);
    store.finish().unwrap();
    let left = names(&folder.path().join("a"));
    let mut expected: Vec<_> = mine.map(str::to_owned).into();
    expected.push(running.path().file_name().unwrap().to_str().unwrap().to_owned());
    expected.push("doc.bin".to_owned());
    expected.sort();
    assert_eq!(left, expected);
    fill(&running, &locked, 0..4);
    assert!(fs::read(running.finish().unwrap()).unwrap() == locked);
}

#[test]
fn another_link_to_the_replaced_file_keeps_its_content() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    let (target, link) = (folder.path().join("a/doc.bin"), folder.path().join("link"));
    fs::write(&target, "old").unwrap();
    fs::hard_link(&target, &link).unwrap();
    let data = data(2 * PIECE);
    let store = version(folder.path(), &data);
    fill(&store, &data, 0..2);
    store.finish().unwrap();
    assert!(fs::read(&target).unwrap() == data);
    assert_eq!((fs::read_to_string(&link).unwrap(), fs::metadata(&link).unwrap().nlink()), ("old".to_owned(), 1));
}

#[test]
fn a_file_that_appears_meanwhile_is_replaced_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(2 * PIECE);
    let store = open_at_once(folder.path(), &data);
    fill(&store, &data, 0..2);
    fs::write(store.target(), "mine").unwrap();
    assert!(matches!(store.finish(), Err(WriteError::TargetExists { .. })));
    assert_eq!(fs::read_to_string(store.target()).unwrap(), "mine");
    drop(store);
    let store = version(folder.path(), &data);
    store.wait_checked();
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
}

#[test]
fn no_link_below_the_folder_is_followed_and_one_to_the_folder_is() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = DocumentName::parse("a/doc.bin").unwrap();
    symlink(elsewhere.path(), folder.path().join("a")).unwrap();
    let error = PieceStore::open(folder.path(), &name, hashes(b"x"), false).unwrap_err();
    assert!(matches!(error, WriteError::LeadsOutside { .. }), "{error}");
    assert_eq!(names(elsewhere.path()), Vec::<String>::new());
    let link = folder.path().join("link");
    symlink(elsewhere.path(), &link).unwrap();
    let store = PieceStore::open(&link, &name, hashes(b"x"), false).unwrap();
    // The folder is the one that was opened, whatever its name leads to later.
    fs::rename(elsewhere.path().join("a"), elsewhere.path().join("b")).unwrap();
    symlink("/", elsewhere.path().join("a")).unwrap();
    PieceWriter::new(&store).write(0, b"x").unwrap().unwrap();
    store.finish().unwrap();
    assert_eq!(names(&elsewhere.path().join("b")), ["doc.bin"]);
}
