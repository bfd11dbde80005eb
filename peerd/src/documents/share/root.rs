//! The shared folder. Opens files and folders below it, and nothing else.

use p2pdi::document::DocumentName;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat},
    io::Errno,
};
use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
};

/// Most symbolic links in one path, as in Linux (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How often an open is retried that raced with a rename elsewhere in the tree (openat2(2), `EAGAIN`).
const RETRIES_MAX: usize = 8;
/// `NONBLOCK`: opening a FIFO does not wait for its other end. `NOCTTY`: no terminal becomes this process's controlling terminal.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Opens for `fstat` only: opening a FIFO or a device for reading can have side effects.
#[cfg(target_os = "linux")]
const STAT: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const STAT: OFlags = READ;

/// The path of the shared folder. It is opened again for each use, so that the folder can be renamed, replaced and unmounted.
#[derive(Debug, Clone)]
pub(super) struct Root {
    path: PathBuf,
}

/// Device and inode: identifies a folder whatever its path.
pub(super) type FolderId = (u64, u64);

/// The shared folder, open.
#[derive(Debug)]
pub(super) struct OpenRoot {
    folder: OwnedFd,
    path: PathBuf,
    id: FolderId,
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn open(&self) -> io::Result<OpenRoot> {
        let folder = openat(CWD, &self.path, FOLDER, Mode::empty())?;
        let id = folder_id(&fstat(&folder)?);
        Ok(OpenRoot { folder, path: self.path.clone(), id })
    }

    /// The id of the folder that is at the path now.
    pub(super) fn id(&self) -> io::Result<FolderId> {
        let stat = statat(CWD, &self.path, AtFlags::empty())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(folder_id(&stat)),
            _ => Err(Errno::NOTDIR.into()),
        }
    }
}

impl OpenRoot {
    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// The folder's path with all symbolic links resolved.
    pub(super) fn real_path(&self) -> io::Result<PathBuf> {
        self.path.canonicalize()
    }

    pub(super) fn id(&self) -> FolderId {
        self.id
    }

    /// Metadata of what a link at `path` leads to. [`Errno::XDEV`] if that is outside the root. Opens nothing for reading.
    pub(super) fn stat(&self, path: &str) -> Result<Stat, Errno> {
        fstat(self.beneath(Path::new(path), STAT)?)
    }

    /// Opens a folder below the root for listing.
    pub(super) fn open_folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.beneath(Path::new(path), FOLDER)
    }

    /// Opens a regular file below the root for reading.
    pub(super) fn open_file(&self, name: &DocumentName) -> io::Result<(File, Stat)> {
        let file = self.beneath(&name.to_relative_path(), READ)?;
        let stat = fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((File::from(file), stat)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file any more")),
        }
    }

    /// Opens a relative path so that neither `..` nor a link leads out of the root, even while other processes rename and relink.
    /// Linux does that with `openat2`. It refuses absolute links, although they can lead back inside, and older kernels and some
    /// sandboxes lack the call; then the path is walked part by part.
    #[cfg(target_os = "linux")]
    fn beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        use rustix::fs::{ResolveFlags, openat2};
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match openat2(&self.folder, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < RETRIES_MAX => tries += 1,
                Err(Errno::XDEV | Errno::NOSYS | Errno::PERM | Errno::AGAIN) => return self.beneath_by_steps(path, flags),
                result => return result,
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.beneath_by_steps(path, flags)
    }

    /// The same without `openat2`: opens one part of the path after the other without following links, and replaces each link by its
    /// target. `..` goes back to the folder opened before, never above the root. [`Errno::XDEV`] if the path leads outside.
    fn beneath_by_steps(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut opened: Vec<OwnedFd> = Vec::new();
        let mut rest: Vec<OsString> = Vec::new();
        push_parts(&mut rest, path)?;
        let mut links = 0;
        loop {
            let here = opened.last().unwrap_or(&self.folder).as_fd();
            let Some(part) = rest.pop() else {
                return openat(here, ".", flags | OFlags::CLOEXEC, Mode::empty());
            };
            if part == ".." {
                opened.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            let kind = FileType::from_raw_mode(statat(here, &*part, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
            if kind == FileType::Symlink {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(here, &*part, Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    opened.clear();
                    let root = self.real_path().map_err(|_| Errno::NOENT)?;
                    push_parts(&mut rest, target.strip_prefix(root).map_err(|_| Errno::XDEV)?)?;
                } else {
                    push_parts(&mut rest, &target)?;
                }
            } else if rest.is_empty() {
                return openat(here, &*part, flags | OFlags::NOFOLLOW, Mode::empty());
            } else {
                let next = openat(here, &*part, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                opened.push(next);
            }
        }
    }
}

/// Pushes the parts of a relative path on a stack, the first part on top.
fn push_parts(stack: &mut Vec<OsString>, path: &Path) -> Result<(), Errno> {
    // A trailing slash or dot would ask for a folder; here the caller's flags decide.
    for part in path.components().rev() {
        match part {
            Component::Normal(part) => stack.push(OsString::from_vec(part.as_bytes().to_vec())),
            Component::ParentDir => stack.push("..".into()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV),
        }
    }
    // More parts than any path of the system: links that expand to each other.
    if stack.len() > 4096 { Err(Errno::NAMETOOLONG) } else { Ok(()) }
}

pub(super) fn folder_id(stat: &Stat) -> FolderId {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn read(result: Result<OwnedFd, Errno>) -> Result<String, Errno> {
        io::read_to_string(File::from(result?)).map_err(|_| Errno::IO)
    }

    #[test]
    fn openat2_and_the_walk_agree_on_what_is_inside_the_share() {
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

        let root = Root::new(share).open().unwrap();
        let both = |path: &str| {
            let results = [root.beneath(Path::new(path), READ), root.beneath_by_steps(Path::new(path), READ)].map(read);
            assert_eq!(results[0], results[1], "{path}");
            results[0].clone()
        };
        for inside in ["a/b/file", "a/inside", "a/roundabout", "folder/file", "absolute"] {
            assert_eq!(both(inside).as_deref(), Ok("file"), "{inside}");
        }
        for outside in ["../secret", "outside", "out-and-in", "absolute-outside", "magic/etc/passwd", "a/../../secret"] {
            assert_eq!(both(outside), Err(Errno::XDEV), "{outside}");
        }
        assert_eq!(both("loop"), Err(Errno::LOOP));
        assert_eq!(both("dangling"), Err(Errno::NOENT));
        assert_eq!(both("a/b/file/x"), Err(Errno::NOTDIR));
    }
}
