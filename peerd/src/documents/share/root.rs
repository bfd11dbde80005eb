//! The one folder that is shared, and opening what lies below it, and only that.

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

/// Most links on the way to one file, as Linux has it (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How often an opening is tried again that a rename elsewhere in the tree disturbed (openat2(2), `EAGAIN`).
const RETRIES_MAX: usize = 8;
/// Never waits for the other end of a FIFO, never becomes the terminal of this process.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// To look at something without touching it: opening a FIFO or a device can have effects.
#[cfg(target_os = "linux")]
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = READ;

/// Where the shared folder is. It is opened anew each time, so that it can be renamed, replaced and unmounted.
#[derive(Debug, Clone)]
pub(super) struct Root {
    path: PathBuf,
}

/// Which folder it is, whatever its path: device and inode.
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

    /// Which folder is there now.
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

    /// The folder's path without links.
    pub(super) fn real_path(&self) -> io::Result<PathBuf> {
        self.path.canonicalize()
    }

    pub(super) fn id(&self) -> FolderId {
        self.id
    }

    /// What a link at `path` leads to, if it stays below the root; nothing is opened for reading.
    pub(super) fn look(&self, path: &str) -> Result<Stat, Errno> {
        fstat(self.beneath(Path::new(path), LOOK)?)
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
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file any more")),
        }
    }

    /// Opens a relative path such that no `..` and no link leads out of the root, also while others rename and relink.
    /// Linux does that itself; it refuses absolute links, which may lead back inside, and older kernels and some sandboxes
    /// do not know the call. Then we walk.
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

    /// The same by hand: opens one part after the other without following links, and puts each link's target in its place.
    /// `..` goes back to the folder that we came from, and never beyond the root. [`Errno::XDEV`] when it leads outside.
    fn beneath_by_steps(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut way: Vec<OwnedFd> = Vec::new();
        let mut rest: Vec<OsString> = Vec::new();
        push_parts(&mut rest, path)?;
        let mut links = 0;
        loop {
            let here = way.last().unwrap_or(&self.folder).as_fd();
            let Some(part) = rest.pop() else {
                return openat(here, ".", flags | OFlags::CLOEXEC, Mode::empty());
            };
            if part == ".." {
                way.pop().ok_or(Errno::XDEV)?;
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
                    way.clear();
                    let root = self.real_path().map_err(|_| Errno::NOENT)?;
                    push_parts(&mut rest, target.strip_prefix(root).map_err(|_| Errno::XDEV)?)?;
                } else {
                    push_parts(&mut rest, &target)?;
                }
            } else if rest.is_empty() {
                return openat(here, &*part, flags | OFlags::NOFOLLOW, Mode::empty());
            } else {
                let next = openat(here, &*part, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                way.push(next);
            }
        }
    }
}

/// Puts the parts of a relative path on a stack, the first on top.
fn push_parts(stack: &mut Vec<OsString>, path: &Path) -> Result<(), Errno> {
    // A trailing slash or dot asks for a folder; the caller's flags ask for what it wants anyway.
    for part in path.components().rev() {
        match part {
            Component::Normal(part) => stack.push(OsString::from_vec(part.as_bytes().to_vec())),
            Component::ParentDir => stack.push("..".into()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV),
        }
    }
    // Longer than any path the system takes: a link that doubles itself.
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
    fn both_ways_of_opening_agree_on_what_is_inside() {
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
            let ways = [root.beneath(Path::new(path), READ), root.beneath_by_steps(Path::new(path), READ)].map(read);
            assert_eq!(ways[0], ways[1], "{path}");
            ways[0].clone()
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
