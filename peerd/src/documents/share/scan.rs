//! Looking at the shared folder, or a part of it: which files are there, and which are left out.

use super::{
    document::Fingerprint,
    file_states::{Entry, Reason},
    root::{FolderId, OpenRoot, folder_id},
};
use p2pdi::{content::DOCUMENT_SIZE_MAX, document::DocumentName};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Most entries that are looked at: each costs some 100 bytes as long as the peer runs.
pub(super) const ENTRIES_MAX: usize = 4_000_000;
/// Most linked folders on the way to a file. Links that lead to each other multiply; circles are found without this limit.
const LINKED_FOLDERS_MAX: usize = 4;

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    pub(super) entries: BTreeMap<Box<str>, Entry>,
    /// Links that were followed: what they lead to has a second name.
    pub(super) links: usize,
    /// There are more than [`ENTRIES_MAX`].
    pub(super) truncated: bool,
}

/// A look in progress.
pub(super) struct Walk<'a> {
    root: &'a OpenRoot,
    /// Called with each real folder before it is read, so that no change after the reading is missed.
    on_folder: &'a mut dyn FnMut(&str),
    stopping: &'a AtomicBool,
    sight: ScanResult,
}

/// Where the walk is.
struct Place<'a> {
    /// Path below the share; empty at the top.
    path: &'a str,
    /// The folder there and those above.
    above: Vec<FolderId>,
    linked: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a OpenRoot, stopping: &'a AtomicBool, on_folder: &'a mut dyn FnMut(&str)) -> Self {
        Self { root, on_folder, stopping, sight: ScanResult::default() }
    }

    /// Looks at the whole share.
    ///
    /// # Errors
    /// When the folder itself cannot be read.
    pub(super) fn whole(mut self) -> Result<ScanResult, Errno> {
        let folder = openat(self.root.folder(), ".", FOLDER, Mode::empty())?;
        (self.on_folder)("");
        self.list(folder, &Place { path: "", above: vec![self.root.id()], linked: 0 })?;
        Ok(self.sight)
    }

    /// Looks at `path` and what is below. Nothing is found where a folder on the way is hidden, a link, or gone.
    pub(super) fn below(mut self, path: &str) -> ScanResult {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if parent.split('/').any(|part| part.starts_with('.')) {
            return self.sight;
        }
        let mut above = vec![self.root.id()];
        let mut folder: Option<OwnedFd> = None;
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            let here = folder.as_ref().unwrap_or(self.root.folder());
            let Ok(next) = openat(here, part, FOLDER, Mode::empty()) else { return self.sight };
            let Ok(stat) = fstat(&next) else { return self.sight };
            above.push(folder_id(&stat));
            folder = Some(next);
        }
        let here = folder.as_ref().unwrap_or(self.root.folder());
        self.entry(here.as_fd(), name.as_bytes(), FileType::Unknown, &Place { path: parent, above, linked: 0 });
        self.sight
    }

    fn list(&mut self, folder: OwnedFd, place: &Place<'_>) -> Result<(), Errno> {
        let mut folder = Dir::new(folder)?;
        while let Some(entry) = folder.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.sight.entries.len() >= ENTRIES_MAX {
                self.sight.truncated = true;
                return Ok(());
            }
            self.entry(folder.fd()?, name, entry.file_type(), place);
        }
        Ok(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &[u8], kind: FileType, place: &Place<'_>) {
        let text = String::from_utf8_lossy(name);
        let path = if place.path.is_empty() { text.into_owned() } else { format!("{}/{text}", place.path) };
        let seen = if name.starts_with(b".") {
            // Nothing is hidden where nothing is.
            if kind == FileType::Unknown && statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
                return;
            }
            Some(Entry::Left(Reason::Hidden))
        } else {
            match self.visit(folder, name, kind, &path, place) {
                Ok(seen) => seen,
                // It went away meanwhile.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                Err(_) => Some(Entry::Left(Reason::Unreadable)),
            }
        };
        if let Some(seen) = seen {
            self.sight.entries.insert(path.into(), seen);
        }
    }

    /// `None` for a folder, whose files speak for themselves.
    fn visit(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        path: &str,
        place: &Place<'_>,
    ) -> Result<Option<Entry>, Errno> {
        // A folder needs no look of its own.
        let stat = match kind {
            FileType::Directory => None,
            _ => Some(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?),
        };
        let kind = stat.map_or(kind, |stat| FileType::from_raw_mode(stat.st_mode));
        // Bounds the depth of this recursion, too: a name has only so many parts.
        if std::str::from_utf8(name).is_err() || DocumentName::parse(path).is_err() {
            return Ok(Some(Entry::Left(Reason::Unsupported)));
        }
        match (kind, stat) {
            (FileType::Directory, _) => {
                (self.on_folder)(path);
                let opened = openat(folder, name, FOLDER, Mode::empty())?;
                let id = folder_id(&fstat(&opened)?);
                self.descend(opened, id, path, place, 0)?;
                Ok(None)
            }
            (FileType::Symlink, _) => self.link(path, place),
            (FileType::RegularFile, Some(stat)) => Ok(Some(file(&stat))),
            _ => Ok(Some(Entry::Left(Reason::Unsupported))),
        }
    }

    fn link(&mut self, path: &str, place: &Place<'_>) -> Result<Option<Entry>, Errno> {
        let outside = Ok(Some(Entry::Left(Reason::Outside)));
        let stat = match self.root.look(path) {
            Ok(stat) => stat,
            Err(Errno::XDEV | Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return outside,
            Err(error) => return Err(error),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                self.sight.links += 1;
                Ok(Some(file(&stat)))
            }
            FileType::Directory if place.linked < LINKED_FOLDERS_MAX && !place.above.contains(&folder_id(&stat)) => {
                let opened = self.root.open_folder(path)?;
                // What was looked at may have been exchanged since.
                let id = folder_id(&fstat(&opened)?);
                if place.above.contains(&id) {
                    return outside;
                }
                self.sight.links += 1;
                self.descend(opened, id, path, place, 1)?;
                Ok(None)
            }
            FileType::Directory => outside,
            _ => Ok(Some(Entry::Left(Reason::Unsupported))),
        }
    }

    fn descend(&mut self, folder: OwnedFd, id: FolderId, path: &str, place: &Place<'_>, link: usize) -> Result<(), Errno> {
        let mut above = place.above.clone();
        above.push(id);
        self.list(folder, &Place { path, above, linked: place.linked + link })
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn file(stat: &Stat) -> Entry {
    let fingerprint = Fingerprint::of(stat);
    if fingerprint.size > DOCUMENT_SIZE_MAX { Entry::Left(Reason::Unsupported) } else { Entry::File(fingerprint) }
}
