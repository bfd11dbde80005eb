//! Single files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    path::Path,
};

/// Fills `buffer` with the bytes of `file` from `offset` on, whatever its cursor's position. Blocking.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when the file ends before, and what the file system reports.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    #[cfg(not(unix))]
    portable::read_exact_at(file, buffer, offset)
}

/// Writes all of `bytes` at `offset`, whatever the position of the cursor of `file`. Blocking.
///
/// # Errors
/// What the file system reports.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(not(unix))]
    portable::write_all_at(file, bytes, offset)
}

/// Has `options` create files that only this user may read and write (mode 0600). On systems other than Unix a new file has the
/// permissions of its folder.
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Creates `folder`, and those above it, for this user only (mode 0700). On systems other than Unix it has the permissions of the folder
/// above.
///
/// # Errors
/// What the file system reports.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Who may read a file, by its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readers {
    /// Its owner.
    Owner,
    /// Its group, too.
    Group,
    /// Every user of the machine.
    Everyone,
}

/// Who may read the file at `path`. Of what is no regular file, such as a pipe of a shell, and on systems other than Unix: its owner.
pub fn readers(path: &Path) -> Readers {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        match fs::metadata(path).ok().filter(fs::Metadata::is_file).map_or(0, |metadata| metadata.permissions().mode()) {
            mode if mode & 0o004 != 0 => Readers::Everyone,
            mode if mode & 0o040 != 0 => Readers::Group,
            _ => Readers::Owner,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Readers::Owner
    }
}

/// Makes new names in `folder` durable. Systems other than Unix cannot sync a folder.
///
/// # Errors
/// What the file system reports.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Opens `path` with `options`, but not through a symbolic link at its end. On systems other than Unix a link that appears between
/// check and opening is followed.
///
/// # Errors
/// When there is a link, and what the file system reports.
pub fn open_no_follow(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags).open(path)
    }
    #[cfg(not(unix))]
    portable::open_no_follow(options, path)
}

/// Renames `from` to `to`, unless something is there already. Both are on one file system.
///
/// Linux and macOS do it in one step where the file system can. Otherwise a hard link is made and the old name removed: the new name
/// appears in one step, and a crash in between leaves both names. A file system without hard links (FAT) leaves a gap between the check
/// and the rename.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when something is at `to`, and what the file system reports; `from` is still there then.
pub fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::{
            fs::{CWD, RenameFlags, renameat_with},
            io::Errno,
        };
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // The kernel or the file system has no such rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            result => return Ok(result?),
        }
    }
    portable::rename_no_replace(from, to)
}

/// Bytes that this user may still write to the file system of `folder`; `None` where that cannot be asked.
///
/// # Errors
/// What the file system reports.
pub fn free_bytes(folder: &Path) -> io::Result<Option<u64>> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder)?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        Ok(None)
    }
}

/// Bytes that the file system of `folder` has in all; `None` where that cannot be asked.
///
/// # Errors
/// What the file system reports.
pub fn disk_bytes(folder: &Path) -> io::Result<Option<u64>> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder)?;
        Ok(Some(disk.f_blocks.saturating_mul(disk.f_frsize)))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        Ok(None)
    }
}

/// The same with the standard library only.
mod portable {
    use super::*;
    #[cfg(any(test, not(unix)))]
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

    /// Moves the cursor: one user at a time.
    #[cfg(any(test, not(unix)))]
    pub(super) fn read_exact_at(mut file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }

    /// Moves the cursor: one user at a time.
    #[cfg(any(test, not(unix)))]
    pub(super) fn write_all_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    #[cfg(any(test, not(unix)))]
    pub(super) fn open_no_follow(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
        if fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is a symbolic link"));
        }
        options.open(path)
    }

    pub(super) fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
        match fs::hard_link(from, to) {
            Ok(()) => return fs::remove_file(from),
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => return Err(error),
            // The file system has no hard links.
            Err(_) => {}
        }
        if fs::symlink_metadata(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_replaces_nothing() {
        for rename in [rename_no_replace, portable::rename_no_replace] {
            let folder = tempfile::tempdir().unwrap();
            let (from, to) = (folder.path().join("from"), folder.path().join("to"));
            fs::write(&from, "new").unwrap();
            fs::write(&to, "old").unwrap();
            assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!((fs::read_to_string(&from).unwrap(), fs::read_to_string(&to).unwrap()), ("new".into(), "old".into()));
            fs::remove_file(&to).unwrap();
            rename(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(&to).unwrap(), "new");
            assert!(!from.exists());
            assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn bytes_are_read_and_written_at_offsets() {
        type Ways = [(fn(&File, &mut [u8], u64) -> io::Result<()>, fn(&File, &[u8], u64) -> io::Result<()>); 2];
        let ways: Ways = [(read_exact_at, write_all_at), (portable::read_exact_at, portable::write_all_at)];
        for (read, write) in ways {
            let file = tempfile::tempfile().unwrap();
            write(&file, b"world", 6).unwrap();
            write(&file, b"hello ", 0).unwrap();
            let mut bytes = [0; 5];
            read(&file, &mut bytes, 4).unwrap();
            assert_eq!(&bytes, b"o wor");
            assert_eq!(read(&file, &mut bytes, 7).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_not_opened_through_a_link_and_a_private_one_is_for_its_user_only() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        symlink(&file, &link).unwrap();
        for open in [open_no_follow, portable::open_no_follow] {
            let options = || File::options().create(true).append(true).clone();
            assert!(open(&mut options(), &link).is_err());
            open(private(&mut options()), &file).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            fs::remove_file(&file).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_mode_says_who_reads_a_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for (mode, expected) in
            [(0o600, Readers::Owner), (0o622, Readers::Owner), (0o640, Readers::Group), (0o604, Readers::Everyone)]
        {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(readers(&file), expected, "{mode:o}");
        }
        assert_eq!((readers(folder.path()), readers(&folder.path().join("none"))), (Readers::Owner, Readers::Owner));
    }

    #[cfg(unix)]
    #[test]
    fn free_space_can_be_asked() {
        let free = free_bytes(&std::env::temp_dir()).unwrap();
        assert!(free.is_some() && free <= disk_bytes(&std::env::temp_dir()).unwrap());
        assert!(free_bytes(Path::new("/does/not/exist")).is_err());
    }
}
