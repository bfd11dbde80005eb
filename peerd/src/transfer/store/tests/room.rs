//! Disks with too little room.

use super::*;
use p2pdi::platform::{allocated_bytes, punch_hole};
use std::process::Command;

const MIB: usize = 1 << 20;

/// A small file system of its own, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, where this user cannot mount one.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: this user cannot mount a small file system");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _result = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

fn named(folder: &Path, name: &str, data: &[u8]) -> Result<Arc<PieceStore>, WriteError> {
    PieceStore::open(folder, &DocumentName::parse(name).unwrap(), hashes(data), false)
}

#[test]
fn of_two_fetches_that_do_not_fit_one_is_refused_with_the_others_name_and_the_other_ends() {
    let Some(disk) = SmallDisk::mount("10m") else { return };
    let (first, second) = (data(6 * MIB), data(6 * MIB + 1));
    let store = named(disk.path(), "first.bin", &first).unwrap();
    let error = named(disk.path(), "second.bin", &second).unwrap_err();
    assert!(error.is_no_room());
    let message = error.to_string();
    assert!(message.starts_with("not enough space for second.bin: ") && message.contains("6291457"), "{message}");
    assert!(message.contains(store.path().to_str().unwrap()), "{message}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1, "the refused one leaves no file");
    // Other programs get what is not reserved, and no more.
    fs::write(disk.path().join("ballast"), vec![1; 5 * MIB]).unwrap_err();
    fill(&store, &first, 0..24);
    assert!(fs::read(store.finish().unwrap()).unwrap() == first);
    drop(store);
    fs::remove_file(disk.path().join("ballast")).unwrap();
    fs::remove_file(disk.path().join("first.bin")).unwrap();
    named(disk.path(), "second.bin", &second).unwrap();
}

#[test]
fn a_fetch_that_ends_early_gives_its_room_back_and_a_later_one_reserves_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(32 * MIB);
    let store = named(folder.path(), "doc.bin", &data).unwrap();
    let allocated = |path: &Path| allocated_bytes(&File::open(path).unwrap()).unwrap();
    let path = store.path().to_owned();
    if allocated(&path) == 0 {
        println!("skipped: the file system reserves no room");
        return;
    }
    assert!(allocated(&path) >= data.len() as u64);
    fill(&store, &data, 0..1);
    fill(&store, &data, 100..101);
    drop(store);
    assert!(allocated(&path) <= 3 * PIECE as u64, "{} bytes", allocated(&path));
    let store = named(folder.path(), "doc.bin", &data).unwrap();
    store.wait_checked();
    assert!(allocated(&path) >= data.len() as u64);
    assert_eq!(store.verified(), set(128, [0, 100]));
}

#[test]
fn a_disk_that_fills_up_all_the_same_keeps_what_is_verified_and_the_fetch_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("8m") else { return };
    let data = data(5 * MIB);
    let store = named(disk.path(), "doc.bin", &data).unwrap();
    fill(&store, &data, 0..4);
    // As on a file system that reserves no room.
    let file = File::options().write(true).open(store.path()).unwrap();
    file.set_len(data.len() as u64).unwrap();
    assert!(punch_hole(&file, 4 * PIECE as u64..data.len() as u64).unwrap());
    fs::write(disk.path().join("ballast"), vec![1; 8 * MIB]).unwrap_err();
    let mut writer = PieceWriter::new(&store);
    let error = writer.write(4 * PIECE as u64, &data[4 * PIECE..5 * PIECE]).unwrap_err();
    assert!(error.is_no_room());
    let message = error.to_string();
    assert!(message.starts_with("cannot write ") && message.contains("No space left"), "{message}");
    assert!(
        message.contains(disk.path().join("doc.bin: ").to_str().unwrap()) && message.ends_with("what is verified is kept"),
        "{message}"
    );
    assert_eq!(store.verified(), set(20, 0..4));
    fs::remove_file(disk.path().join("ballast")).unwrap();
    drop(writer);
    fill(&store, &data, 4..20);
    assert!(fs::read(store.finish().unwrap()).unwrap() == data);
}
