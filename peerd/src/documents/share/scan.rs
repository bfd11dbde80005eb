//! Scans the shared folder, or a part of it: finds the files to offer and those to leave out.

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

/// Most entries of a scan. Each takes about 100 bytes while the peer runs.
pub(super) const ENTRIES_MAX: usize = 4_000_000;
/// Most linked folders in the path of a file. Folders that link to each other multiply; loops are detected without this limit.
const LINKED_FOLDERS_MAX: usize = 4;

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    pub(super) entries: BTreeMap<Box<str>, Entry>,
    /// Links that were followed. Their targets have a second name.
    pub(super) links: usize,
    /// There are more than [`ENTRIES_MAX`] entries.
    pub(super) truncated: bool,
}

/// A scan in progress.
pub(super) struct Scan<'a> {
    root: &'a OpenRoot,
    /// Called with each folder that is not behind a link before it is read, so that changes after the read are reported.
    on_folder: &'a mut dyn FnMut(&str),
    stopping: &'a AtomicBool,
    result: ScanResult,
}

/// The folder that is scanned.
struct Location<'a> {
    /// Path below the share; empty for the share itself.
    path: &'a str,
    /// The ids of this folder and of those above, to detect loops.
    ancestors: Vec<FolderId>,
    /// How many of them are behind a link.
    linked: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(root: &'a OpenRoot, stopping: &'a AtomicBool, on_folder: &'a mut dyn FnMut(&str)) -> Self {
        Self { root, on_folder, stopping, result: ScanResult::default() }
    }

    /// Scans the whole share.
    ///
    /// # Errors
    /// When the folder itself cannot be read.
    pub(super) fn whole(mut self) -> Result<ScanResult, Errno> {
        let folder = openat(self.root.folder(), ".", FOLDER, Mode::empty())?;
        (self.on_folder)("");
        self.list(folder, &Location { path: "", ancestors: vec![self.root.id()], linked: 0 })?;
        Ok(self.result)
    }

    /// Scans `path` and what is below it. Finds nothing if a folder above it is hidden, a link, or gone.
    pub(super) fn below(mut self, path: &str) -> ScanResult {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if parent.split('/').any(|part| part.starts_with('.')) {
            return self.result;
        }
        let mut ancestors = vec![self.root.id()];
        let mut folder: Option<OwnedFd> = None;
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            let here = folder.as_ref().unwrap_or(self.root.folder());
            let Ok(next) = openat(here, part, FOLDER, Mode::empty()) else { return self.result };
            let Ok(stat) = fstat(&next) else { return self.result };
            ancestors.push(folder_id(&stat));
            folder = Some(next);
        }
        let here = folder.as_ref().unwrap_or(self.root.folder());
        self.entry(here.as_fd(), name.as_bytes(), FileType::Unknown, &Location { path: parent, ancestors, linked: 0 });
        self.result
    }

    fn list(&mut self, folder: OwnedFd, location: &Location<'_>) -> Result<(), Errno> {
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
            if self.result.entries.len() >= ENTRIES_MAX {
                self.result.truncated = true;
                return Ok(());
            }
            self.entry(folder.fd()?, name, entry.file_type(), location);
        }
        Ok(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &[u8], kind: FileType, location: &Location<'_>) {
        let text = String::from_utf8_lossy(name);
        let path = if location.path.is_empty() { text.into_owned() } else { format!("{}/{text}", location.path) };
        let found = if name.starts_with(b".") {
            // `below` can be called for a file that is gone, which does not count as hidden.
            if kind == FileType::Unknown && statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
                return;
            }
            Some(Entry::LeftOut(Reason::Hidden))
        } else {
            match self.visit(folder, name, kind, &path, location) {
                Ok(found) => found,
                // It disappeared during the scan.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                Err(_) => Some(Entry::LeftOut(Reason::Unreadable)),
            }
        };
        if let Some(found) = found {
            self.result.entries.insert(path.into(), found);
        }
    }

    /// `None` for a folder: its files are entries of their own.
    fn visit(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        path: &str,
        location: &Location<'_>,
    ) -> Result<Option<Entry>, Errno> {
        // A folder needs no metadata.
        let stat = match kind {
            FileType::Directory => None,
            _ => Some(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?),
        };
        let kind = stat.map_or(kind, |stat| FileType::from_raw_mode(stat.st_mode));
        // This bounds the recursion, too: a document name has at most `DOCUMENT_NAME_PARTS_MAX` parts.
        if std::str::from_utf8(name).is_err() || DocumentName::parse(path).is_err() {
            return Ok(Some(Entry::LeftOut(Reason::Unsupported)));
        }
        match (kind, stat) {
            (FileType::Directory, _) => {
                (self.on_folder)(path);
                let opened = openat(folder, name, FOLDER, Mode::empty())?;
                let id = folder_id(&fstat(&opened)?);
                self.descend(opened, id, path, location, 0)?;
                Ok(None)
            }
            (FileType::Symlink, _) => self.link(path, location),
            (FileType::RegularFile, Some(stat)) => Ok(Some(file(&stat))),
            _ => Ok(Some(Entry::LeftOut(Reason::Unsupported))),
        }
    }

    fn link(&mut self, path: &str, location: &Location<'_>) -> Result<Option<Entry>, Errno> {
        let outside = Ok(Some(Entry::LeftOut(Reason::Outside)));
        let stat = match self.root.stat(path) {
            Ok(stat) => stat,
            Err(Errno::XDEV | Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return outside,
            Err(error) => return Err(error),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                self.result.links += 1;
                Ok(Some(file(&stat)))
            }
            FileType::Directory if location.linked < LINKED_FOLDERS_MAX && !location.ancestors.contains(&folder_id(&stat)) => {
                let opened = self.root.open_folder(path)?;
                // The link can lead to another folder by now.
                let id = folder_id(&fstat(&opened)?);
                if location.ancestors.contains(&id) {
                    return outside;
                }
                self.result.links += 1;
                self.descend(opened, id, path, location, 1)?;
                Ok(None)
            }
            FileType::Directory => outside,
            _ => Ok(Some(Entry::LeftOut(Reason::Unsupported))),
        }
    }

    fn descend(&mut self, folder: OwnedFd, id: FolderId, path: &str, location: &Location<'_>, link: usize) -> Result<(), Errno> {
        let mut ancestors = location.ancestors.clone();
        ancestors.push(id);
        self.list(folder, &Location { path, ancestors, linked: location.linked + link })
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn file(stat: &Stat) -> Entry {
    let fingerprint = Fingerprint::of(stat);
    if fingerprint.size > DOCUMENT_SIZE_MAX { Entry::LeftOut(Reason::Unsupported) } else { Entry::File(fingerprint) }
}
