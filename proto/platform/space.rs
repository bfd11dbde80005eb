//! Room of files on their file system: reserved bytes, holes, and making many files durable at once.

use std::{fs::File, io, ops::Range};

/// Whether the disk is full, or the user has as much of it as it may.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reserves room on the file system for the bytes `range` of `file`, whose size and content stay. Returns whether that was possible: not on
/// systems other than Linux, and on some file systems.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] when there is too little room, of which some may be reserved then, and what the file system reports.
pub fn allocate(file: &File, range: Range<u64>) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    return linux::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, range);
    #[cfg(not(target_os = "linux"))]
    portable::allocate(file, range)
}

/// Makes the bytes `range` of `file` zero, and gives their room back. The size of the file stays. Returns whether that was possible: not on
/// systems other than Linux, and on some file systems. Room beyond the end of the file may stay (ext4); setting the length gives it back,
/// even if the length is the same.
///
/// # Errors
/// What the file system reports.
pub fn punch_hole(file: &File, range: Range<u64>) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::FallocateFlags;
        linux::fallocate(file, FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE, range)
    }
    #[cfg(not(target_os = "linux"))]
    portable::punch_hole(file, range)
}

/// The bytes of `file` that are not in holes, in ascending order. Reserved room that was never written counts as a hole. Where the file system
/// does not tell, everything counts as data. Moves the cursor of `file`.
///
/// # Errors
/// What the file system reports.
pub fn data_ranges(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(data) = next_data(file, offset)?.filter(|data| !data.is_empty()) {
        offset = data.end;
        found.push(data);
    }
    Ok(found)
}

/// The first run of bytes from `offset` on that is no hole; `None` when nothing but a hole follows.
fn next_data(file: &File, offset: u64) -> io::Result<Option<Range<u64>>> {
    #[cfg(target_os = "linux")]
    {
        use rustix::{
            fs::{SeekFrom, seek},
            io::Errno,
        };
        let start = match seek(file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            // There is no data up to the end, or the end is before `offset`.
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => return portable::next_data(file, offset),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(start..seek(file, SeekFrom::Hole(start))?))
    }
    #[cfg(not(target_os = "linux"))]
    portable::next_data(file, offset)
}

/// Bytes that `file` takes on its file system, reserved room included. Where the system does not tell: its size.
///
/// # Errors
/// What the file system reports.
pub fn allocated_bytes(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    #[cfg(unix)]
    {
        // st_blocks counts units of 512 bytes (stat(2)), whatever the file system's block size.
        Ok(std::os::unix::fs::MetadataExt::blocks(&metadata).saturating_mul(512))
    }
    #[cfg(not(unix))]
    Ok(metadata.len())
}

/// Makes everything that was written to the file system of `file` durable, whoever wrote it. Returns whether that was possible: not on
/// systems other than Linux.
///
/// # Errors
/// Any failure to write to that file system since `file` was opened (syncfs(2), Linux 5.8).
pub fn sync_file_system(file: &File) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    return rustix::fs::syncfs(file).map(|()| true).map_err(io::Error::from);
    #[cfg(not(target_os = "linux"))]
    portable::sync_file_system(file)
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use rustix::{fs::FallocateFlags, io::Errno};

    pub(super) fn fallocate(file: &File, flags: FallocateFlags, range: Range<u64>) -> io::Result<bool> {
        if range.is_empty() {
            return Ok(true);
        }
        loop {
            match rustix::fs::fallocate(file, flags, range.start, range.end - range.start) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The same with the standard library only.
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "only its tests use all of it here"))]
mod portable {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the system's")]
    pub(super) fn allocate(_: &File, _: Range<u64>) -> io::Result<bool> {
        Ok(false)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the system's")]
    pub(super) fn punch_hole(_: &File, _: Range<u64>) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn next_data(file: &File, offset: u64) -> io::Result<Option<Range<u64>>> {
        let end = file.metadata()?.len();
        Ok((offset < end).then_some(offset..end))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the system's")]
    pub(super) fn sync_file_system(_: &File) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{read_exact_at, write_all_at};

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_hole_is_told_from_data_and_a_punched_one_reads_as_zeros() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, &[1; 4096], 2 * MIB).unwrap();
        write_all_at(&file, &[1; 4096], 5 * MIB).unwrap();
        assert_eq!(next_data(&file, 6 * MIB).unwrap(), None);
        if punch_hole(&file, 5 * MIB..6 * MIB).unwrap() {
            let mut bytes = [1; 4096];
            read_exact_at(&file, &mut bytes, 5 * MIB).unwrap();
            assert_eq!((bytes, file.metadata().unwrap().len()), ([0; 4096], 5 * MIB + 4096));
            let data = next_data(&file, 0).unwrap().unwrap();
            assert!(data.start <= 2 * MIB && data.end >= 2 * MIB + 4096 && data.end <= 5 * MIB, "{data:?}");
            assert_eq!(next_data(&file, 5 * MIB).unwrap(), None);
        }
        assert_eq!(portable::next_data(&file, MIB).unwrap(), Some(MIB..5 * MIB + 4096));
        assert_eq!(portable::next_data(&file, 6 * MIB).unwrap(), None);
    }

    #[test]
    fn reserved_room_is_taken_and_changes_neither_size_nor_content() {
        let file = tempfile::tempfile().unwrap();
        if allocate(&file, 0..4 * MIB).unwrap() {
            assert!(allocated_bytes(&file).unwrap() >= 4 * MIB);
            assert_eq!(file.metadata().unwrap().len(), 0);
            write_all_at(&file, &[1; 4096], MIB).unwrap();
            let data = next_data(&file, 0).unwrap().unwrap();
            assert!(data.start > 0 && data.contains(&MIB), "reserved room counts as a hole: {data:?}");
            // Room beyond the end is given back with the length, room within it by a hole.
            file.set_len(MIB + 4096).unwrap();
            assert!(allocated_bytes(&file).unwrap() < 2 * MIB);
            assert!(punch_hole(&file, 0..MIB).unwrap());
            assert!(allocated_bytes(&file).unwrap() < MIB);
        }
        assert!(!portable::allocate(&file, 0..1).unwrap() && !portable::punch_hole(&file, 0..1).unwrap());
    }

    #[test]
    fn a_file_system_is_synced_where_the_system_can() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(sync_file_system(&file).unwrap(), cfg!(target_os = "linux"));
        assert!(!portable::sync_file_system(&file).unwrap());
    }
}
