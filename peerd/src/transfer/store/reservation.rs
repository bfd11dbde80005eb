//! Room on the disk for what a fetch is still to write, reserved before its first byte.
//!
//! Two fetches that do not fit side by side would both end in the middle, and neither could go on later. So the file system is asked to
//! set the room aside. Where it cannot, free space is counted, less what the fetches of this process are still to write.
//!
//! A sparse document reserves its whole size, too: nobody knows before which of its pieces are zeros. Each hole gives its room back when
//! it arrives. A fetch that ends early gives back all room but that of its pieces.

use super::{error::WriteError, partial_file::PartialFile};
use p2pdi::{
    document::DocumentName,
    platform::{FileKind, allocate, allocated_bytes, punch_hole},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What must stay free on the target's file system beside the document: metadata and other programs' work.
pub(super) const SPARE_BYTES: u64 = 1024 * 1024;
/// Most partial files of others that an error names.
const NAMED_MAX: usize = 5;

/// The fetches of this process, by a number of their own.
static RUNNING: Mutex<Running> = Mutex::new(Running { last: 0, fetches: BTreeMap::new() });

struct Running {
    last: u64,
    fetches: BTreeMap<u64, Fetch>,
}

struct Fetch {
    /// The file system.
    device: u64,
    path: PathBuf,
    /// Bytes to be written when it began.
    needed: u64,
    /// Bytes still to be written for which no room is set aside.
    owed: u64,
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room of one fetch. Dropping it ends the count; [`release`] gives the room back.
#[derive(Debug)]
pub(super) struct Reservation {
    id: u64,
    /// Whether the file system set room aside.
    is_allocated: bool,
}

impl Reservation {
    /// Reserves room for `missing` parts of a document's file.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`], and what the file system reports.
    pub(super) fn new(file: &PartialFile, name: &DocumentName, missing: &[Range<u64>]) -> Result<Self, WriteError> {
        Self::by(allocate, file, name, missing)
    }

    fn by(
        allocate: impl Fn(&File, Range<u64>) -> io::Result<bool>,
        file: &PartialFile,
        name: &DocumentName,
        missing: &[Range<u64>],
    ) -> Result<Self, WriteError> {
        let needed: u64 = missing.iter().map(|range| range.end - range.start).sum();
        let device = file.opened().id.map_or(0, |id| id.device);
        // One at a time, in this process and, by the folder's lock, in others: two that reserve at once could both fail.
        let _one_at_a_time = file.folder().lock();
        let mut running = running();
        let owed: u64 = running.fetches.values().filter(|fetch| fetch.device == device).map(|fetch| fetch.owed).sum();
        let free = file.folder().free_bytes().ok().flatten().map(|free| free.saturating_sub(owed));
        let refused = |running: &Running| {
            let folder = file.folder().path().to_owned();
            let others = others(file, running, device);
            WriteError::NoSpace { name: name.clone(), folder, needed, available: free.unwrap_or(0), others }
        };
        // An earlier fetch may have reserved some of it.
        let already = room_for(file, missing);
        if free.is_some_and(|free| needed.saturating_sub(already).saturating_add(SPARE_BYTES) > free) {
            return Err(refused(&running));
        }
        let mut is_allocated = true;
        for range in missing {
            match allocate(file.file(), range.clone()) {
                Ok(true) => {}
                Ok(false) => {
                    is_allocated = false;
                    break;
                }
                Err(error) => {
                    release(file, missing);
                    return Err(match error.kind() {
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => refused(&running),
                        _ => WriteError::io("reserve room for", file.target())(error),
                    });
                }
            }
        }
        running.last += 1;
        let id = running.last;
        let owed = if is_allocated { 0 } else { needed };
        running.fetches.insert(id, Fetch { device, path: file.path().to_owned(), needed, owed });
        Ok(Self { id, is_allocated })
    }

    /// Whether the file system set room aside.
    pub(super) fn is_allocated(&self) -> bool {
        self.is_allocated
    }

    /// Bytes were written, or are zeros that take no room.
    pub(super) fn wrote(&self, bytes: u64) {
        if !self.is_allocated
            && let Some(fetch) = running().fetches.get_mut(&self.id)
        {
            fetch.owed = fetch.owed.saturating_sub(bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        running().fetches.remove(&self.id);
    }
}

/// Room that a file has already for what is `missing`, in ascending order: not that of the pieces it keeps.
fn room_for(file: &PartialFile, missing: &[Range<u64>]) -> u64 {
    let allocated = allocated_bytes(file.file()).unwrap_or(0);
    if allocated == 0 {
        return 0;
    }
    let Ok(data) = file.data() else { return 0 };
    let (mut kept, mut missing) = (0_u64, missing.iter().peekable());
    for data in data {
        kept += data.end - data.start;
        while let Some(range) = missing.peek() {
            kept -= data.end.min(range.end).saturating_sub(data.start.max(range.start));
            if range.end > data.end {
                break;
            }
            missing.next();
        }
    }
    allocated.saturating_sub(kept)
}

/// Gives back the room of `missing` parts of a file, and what is reserved beyond its end.
pub(super) fn release(file: &PartialFile, missing: &[Range<u64>]) {
    let Ok(end) = file.file().metadata().map(|metadata| metadata.len()) else { return };
    for range in missing.iter().filter(|range| range.start < end) {
        let _kept = punch_hole(file.file(), range.start..range.end.min(end));
    }
    // Room beyond the end goes with a new length, even an equal one (ext4, XFS, tmpfs).
    let _kept = file.file().set_len(end);
}

/// Partial files of other fetches on the same file system that an error can name, those with most room first.
fn others(file: &PartialFile, running: &Running, device: u64) -> Vec<(PathBuf, u64)> {
    let mut others: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for entry in file.folder().entries().into_iter().flatten().flatten() {
        let is_partial = entry.name.to_str().is_some_and(|name| super::partial_file::parse_part_name(name).is_some());
        if is_partial
            && entry.name != file.name()
            && entry.kind != Some(FileKind::Folder)
            && let Ok((partial, _)) = file.folder().entry_file(&entry.name)
        {
            others.insert(file.folder().path().join(&entry.name), allocated_bytes(&partial).unwrap_or(0));
        }
    }
    for fetch in running.fetches.values().filter(|fetch| fetch.device == device && fetch.path != file.path()) {
        others.entry(fetch.path.clone()).or_insert(fetch.needed);
    }
    let mut others: Vec<_> = others.into_iter().collect();
    others.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    others.truncate(NAMED_MAX);
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::content::ContentHash;

    fn partial(folder: &std::path::Path, name: &str) -> (PartialFile, DocumentName) {
        let name = DocumentName::parse(name).unwrap();
        (PartialFile::open(folder, &name, &ContentHash::of(b"x")).unwrap(), name)
    }

    #[test]
    fn where_room_cannot_be_set_aside_what_running_fetches_still_need_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let free = p2pdi::platform::free_bytes(folder.path()).unwrap().unwrap();
        // Others use the disk meanwhile, but hardly a quarter of it.
        let half = free / 8 * 5;
        let none = |_: &File, _: Range<u64>| Ok(false);
        let ((first, first_name), (second, second_name)) = (partial(folder.path(), "first"), partial(folder.path(), "b/second"));
        let reserved = Reservation::by(none, &first, &first_name, &ranges(0..half)).unwrap();
        let error = Reservation::by(none, &second, &second_name, &[0..half / 2, half..half + half / 2]).unwrap_err();
        let WriteError::NoSpace { needed, available, others, .. } = &error else { panic!("{error}") };
        assert!(error.is_no_room() && *needed == half / 2 * 2 && *available < half, "{error}");
        assert!(others.contains(&(first.path().to_owned(), half)), "{others:?}");
        // What is written needs no room any more. It is not really written here.
        reserved.wrote(half - 1);
        drop(Reservation::by(none, &second, &second_name, &ranges(0..half)).unwrap());
        drop(reserved);
        assert!(!running().fetches.values().any(|fetch| fetch.path.starts_with(folder.path())));
    }

    #[test]
    fn the_room_of_pieces_that_are_kept_is_none_for_those_that_are_missing() {
        const MIB: u64 = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = partial(folder.path(), "doc");
        file.write_at(&[1; 1 << 20], 0).unwrap();
        file.write_at(&[1; 1 << 20], 3 * MIB).unwrap();
        file.sync().unwrap();
        assert_eq!(room_for(&file, &[MIB..3 * MIB, 4 * MIB..9 * MIB]), 0);
        // Bytes that are to be written again have their room.
        assert_eq!(room_for(&file, &ranges(MIB / 2..9 * MIB)), MIB / 2 + MIB);
        if allocate(file.file(), MIB..2 * MIB).unwrap() {
            assert_eq!(room_for(&file, &[MIB..3 * MIB, 4 * MIB..9 * MIB]), MIB);
        }
    }

    fn ranges(one: Range<u64>) -> Vec<Range<u64>> {
        std::iter::once(one).collect()
    }

    #[test]
    fn a_file_system_that_refuses_in_the_middle_gets_everything_back() {
        let folder = tempfile::tempdir().unwrap();
        let (file, name) = partial(folder.path(), "doc");
        let second_fails = |file: &File, range: Range<u64>| {
            if range.start > 0 { Err(io::ErrorKind::StorageFull.into()) } else { allocate(file, range) }
        };
        let error = Reservation::by(second_fails, &file, &name, &[0..1 << 20, 2 << 20..3 << 20]).unwrap_err();
        assert!(matches!(error, WriteError::NoSpace { .. }), "{error}");
        assert_eq!(allocated_bytes(file.file()).unwrap(), 0);
        let fails = |_: &File, _: Range<u64>| Err(io::ErrorKind::FileTooLarge.into());
        let message = Reservation::by(fails, &file, &name, &ranges(0..1 << 20)).unwrap_err().to_string();
        assert!(message.starts_with("cannot reserve room for "), "{message}");
    }
}
