//! Scans the shared folder, or a part of it: finds the files to offer and those to leave out.

use super::{document::Fingerprint, file_states::Entry, left_out::Reason};
use crate::documents::restrictions::Restrictions;
use p2pdi::{
    content::DOCUMENT_SIZE_MAX,
    platform::{FileId, FileKind, FileStat, Folder, LookupError, is_shortage},
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::Path,
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
    root: &'a Folder,
    path: &'a Path,
    /// Called with each folder that is not behind a link before it is read, so that changes after the read are reported.
    on_folder: &'a mut dyn FnMut(&str),
    stopping: &'a AtomicBool,
    restrictions: &'a Restrictions,
    result: ScanResult,
}

/// The folder that is scanned.
struct Location<'a> {
    /// Path below the share; empty for the share itself.
    path: &'a str,
    /// The ids of this folder and of those above, to detect loops.
    ancestors: Vec<FileId>,
    /// How many of them are behind a link.
    linked: usize,
}

impl<'a> Scan<'a> {
    /// `path`: that of `root`, which stays as long as the scan.
    pub(super) fn new(
        root: &'a Folder,
        path: &'a Path,
        restrictions: &'a Restrictions,
        stopping: &'a AtomicBool,
        on_folder: &'a mut dyn FnMut(&str),
    ) -> Self {
        Self { root, path, on_folder, stopping, restrictions, result: ScanResult::default() }
    }

    /// Scans the whole share.
    ///
    /// # Errors
    /// When the folder itself cannot be read, or the process is short of descriptors or memory: then the scan says nothing about any file.
    pub(super) fn whole(mut self) -> Result<ScanResult, LookupError> {
        let root = self.root;
        (self.on_folder)("");
        self.list(root, &Location { path: "", ancestors: vec![root.id()], linked: 0 })?;
        Ok(self.result)
    }

    /// Scans `path` and what is below it. Finds nothing if a folder above it is hidden, a link, or gone.
    ///
    /// # Errors
    /// When the process is short of descriptors or memory: then the scan says nothing about any file.
    pub(super) fn below(mut self, path: &str) -> Result<ScanResult, LookupError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if parent.split('/').any(|part| part.starts_with('.')) {
            return Ok(self.result);
        }
        let root = self.root;
        let mut ancestors = vec![root.id()];
        let mut folder: Option<Folder> = None;
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            let next = match folder.as_ref().unwrap_or(root).entry_folder(OsStr::new(part)) {
                Ok(next) => next,
                Err(error) if says_nothing(&error) => return Err(error),
                Err(_) => return Ok(self.result),
            };
            ancestors.push(next.id());
            folder = Some(next);
        }
        let folder = folder.as_ref().unwrap_or(root);
        self.entry(folder, OsStr::new(name), None, &Location { path: parent, ancestors, linked: 0 })?;
        Ok(self.result)
    }

    fn list(&mut self, folder: &Folder, location: &Location<'_>) -> Result<(), LookupError> {
        for entry in folder.entries()? {
            let entry = entry?;
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.result.entries.len() >= ENTRIES_MAX {
                self.result.truncated = true;
                return Ok(());
            }
            self.entry(folder, &entry.name, entry.kind, location)?;
        }
        Ok(())
    }

    /// Adds what is at a name in `folder`. `kind` is its kind in the folder's listing, if that has it.
    fn entry(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        kind: Option<FileKind>,
        location: &Location<'_>,
    ) -> Result<(), LookupError> {
        let text = name.to_string_lossy();
        let path = if location.path.is_empty() { text.to_string() } else { format!("{}/{text}", location.path) };
        let found = if text.starts_with('.') {
            // `below` can be called for a file that is gone, which does not count as hidden.
            if kind.is_none() && folder.entry_stat(name).is_err() {
                return Ok(());
            }
            Some(Entry::LeftOut(Reason::Hidden))
        } else {
            match self.visit(folder, name, kind, &path, location) {
                Ok(found) => found,
                // It disappeared during the scan.
                Err(LookupError::NotFound | LookupError::Loop) => None,
                Err(error) if says_nothing(&error) => return Err(error),
                Err(_) => Some(Entry::LeftOut(Reason::Unreadable)),
            }
        };
        if let Some(found) = found {
            self.result.entries.insert(path.into(), found);
        }
        Ok(())
    }

    /// `None` for a folder: its files are entries of their own.
    fn visit(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        kind: Option<FileKind>,
        path: &str,
        location: &Location<'_>,
    ) -> Result<Option<Entry>, LookupError> {
        // A folder needs no metadata.
        let stat = match kind {
            Some(FileKind::Folder) => None,
            _ => Some(folder.entry_stat(name)?),
        };
        let kind = stat.map_or(kind, |stat| Some(stat.kind));
        // This bounds the recursion, too: a document name has at most 32 parts.
        if let Some(rule) = Reason::of_name(name, path) {
            return Ok(Some(Entry::LeftOut(rule)));
        }
        match (kind, stat) {
            (Some(FileKind::Folder), _) => {
                (self.on_folder)(path);
                self.descend(&folder.entry_folder(name)?, path, location, 0)?;
                Ok(None)
            }
            (Some(FileKind::Link), _) => self.link(path, location),
            (Some(FileKind::File), Some(stat)) => Ok(Some(file(&stat))),
            _ => Ok(Some(Entry::LeftOut(Reason::NotAFile))),
        }
    }

    fn link(&mut self, path: &str, location: &Location<'_>) -> Result<Option<Entry>, LookupError> {
        let outside = Ok(Some(Entry::LeftOut(Reason::Outside)));
        if !self.restrictions.is_empty() {
            match self.target(path) {
                Some(target) if self.restrictions.allow_link(path, &target) => {}
                Some(_) => return Ok(Some(Entry::LeftOut(Reason::ForOthers))),
                None => return outside,
            }
        }
        let stat = match self.root.stat(Path::new(path)) {
            Ok(stat) => stat,
            Err(LookupError::Outside | LookupError::NotFound | LookupError::Loop) => return outside,
            Err(error) => return Err(error),
        };
        match stat.kind {
            FileKind::File => {
                self.result.links += 1;
                Ok(Some(file(&stat)))
            }
            FileKind::Folder
                if location.linked < LINKED_FOLDERS_MAX && !stat.id.is_some_and(|id| location.ancestors.contains(&id)) =>
            {
                let opened = self.root.open_folder(Path::new(path))?;
                // The link can lead to another folder by now.
                if location.ancestors.contains(&opened.id()) {
                    return outside;
                }
                self.result.links += 1;
                self.descend(&opened, path, location, 1)?;
                Ok(None)
            }
            FileKind::Folder => outside,
            FileKind::Link | FileKind::Other => Ok(Some(Entry::LeftOut(Reason::NotAFile))),
        }
    }

    /// What in the share a link leads to; `None`: nothing there, or nothing that has a name.
    fn target(&self, link: &str) -> Option<String> {
        let (root, target) = (self.path.canonicalize().ok()?, self.path.join(link).canonicalize().ok()?);
        target.strip_prefix(root).ok()?.to_str().map(str::to_owned)
    }

    /// Scans a folder at `path`, which is `links` (0 or 1) more links away than `location`.
    fn descend(&mut self, folder: &Folder, path: &str, location: &Location<'_>, links: usize) -> Result<(), LookupError> {
        let mut ancestors = location.ancestors.clone();
        ancestors.push(folder.id());
        self.list(folder, &Location { path, ancestors, linked: location.linked + links })
    }
}

fn file(stat: &FileStat) -> Entry {
    let fingerprint = Fingerprint::of(stat);
    if fingerprint.size > DOCUMENT_SIZE_MAX { Entry::LeftOut(Reason::TooLarge) } else { Entry::File(fingerprint) }
}

/// Whether an error says nothing about the file or folder, because the process is short of descriptors or memory.
pub(super) fn says_nothing(error: &LookupError) -> bool {
    matches!(error, LookupError::Io(error) if is_shortage(error))
}
