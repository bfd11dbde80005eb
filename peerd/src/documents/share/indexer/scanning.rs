//! The indexer's scans of the shared folder, and what they change.

use super::{
    super::{
        scan::{ENTRIES_MAX, Scan, ScanResult, says_nothing},
        watch::Watcher,
    },
    DUTY, Driver, SHORTAGE_PAUSE, Watched, document, now,
};
use crate::documents::rfc_number::rfc_number;
use p2pdi::{
    document::DocumentName,
    platform::{Folder, is_shortage},
};
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Least time between two scans, so that a burst of changes costs one scan.
const SCAN_EVERY: Duration = Duration::from_millis(100);
/// How often the indexer checks that the folder is still there, or is back.
const ROOT_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often the whole folder is scanned if the system does not report every change.
const SCAN_ALL_EVERY: Duration = Duration::from_secs(1);

impl Driver {
    /// Scans what changed, or everything, if it is time.
    pub(super) fn scan(&mut self) {
        let started = Instant::now();
        if started >= self.next_root_check {
            self.next_root_check = started + ROOT_CHECK_EVERY;
            self.check_root();
        }
        // A file behind a link has several names, and the system reports one of them.
        let needs_all = self.whole || (self.links > 0 && !self.dirty.is_empty());
        let whole = needs_all || started >= self.next_rescan;
        if (!whole && self.dirty.is_empty()) || started < self.next_scan {
            return;
        }
        let Some(Watched { id, path, mut watcher }) = self.watched.take() else {
            self.next_rescan = started + self.shared.config.rescan;
            return;
        };
        let root = match self.shared.root.open() {
            Ok(root) if root.path().canonicalize().is_ok_and(|real| real == path) => root,
            Err(error) if is_shortage(&error) => {
                self.watched = Some(Watched { id, path, watcher });
                self.whole |= whole;
                self.next_scan = started + SHORTAGE_PAUSE;
                self.short(&error);
                return;
            }
            // Another folder is there, or none.
            _ => {
                self.watched = Some(Watched { id: None, path, watcher });
                self.next_root_check = started;
                return;
            }
        };
        let dirty = std::mem::take(&mut self.dirty);
        self.problems.short = false;
        if whole {
            watcher.begin();
            self.scan_all(&root, &path, &mut watcher);
            watcher.end();
        } else {
            for changed in dirty {
                self.scan_path(&root, &path, &mut watcher, &changed);
            }
        }
        let elapsed = started.elapsed();
        let least = if self.problems.short { SHORTAGE_PAUSE } else { SCAN_EVERY };
        if !self.problems.short && !self.problems.scan.is_empty() {
            tracing::info!("the share can be read again");
            self.problems.scan.clear();
        }
        self.next_scan = started + least.max(elapsed * DUTY);
        watcher.problem().clone_into(&mut self.problems.watch);
        if whole {
            let every = if watcher.complete() { self.shared.config.rescan } else { SCAN_ALL_EVERY };
            self.next_rescan = started + every.max(elapsed * DUTY);
        }
        self.watched = Some(Watched { id: Some(root.id()), path, watcher });
    }

    /// If the folder is not the one that is watched any more, starts again with the new one, or withdraws everything.
    fn check_root(&mut self) {
        let id = self.shared.root.id();
        if let Err(error) = &id
            && is_shortage(error)
        {
            self.short(error);
            return;
        }
        match (&id, &self.watched) {
            (Ok(id), Some(watched)) if Some(*id) == watched.id => return,
            (Err(_), None) if self.file_states.scanned() => return,
            _ => {}
        }
        self.watched = None;
        let opened = id.and_then(|_| self.shared.root.open()).and_then(|root| Ok((root.id(), root.path().canonicalize()?)));
        match opened {
            Ok((id, path)) => {
                tracing::info!(folder = %path.display(), "sharing");
                let watched = self.shared.config.watch;
                let watcher = if watched { Watcher::new(Arc::downgrade(&self.shared.signal)) } else { Watcher::none() };
                self.watched = Some(Watched { id: Some(id), path, watcher });
                self.whole = true;
                self.next_scan = Instant::now();
            }
            Err(error) if is_shortage(&error) => self.short(&error),
            Err(error) => self.withdraw_all(&error.to_string()),
        }
    }

    /// The process is short of descriptors or memory. That says nothing about any file, so nothing is withdrawn.
    pub(super) fn short(&mut self, error: &io::Error) {
        if self.problems.scan.is_empty() {
            tracing::warn!(%error, "the share cannot be read now; what is shared stays shared");
        }
        self.problems.scan = format!("the share cannot be read now: {error}; what is shared stays shared");
        self.problems.short = true;
        self.next_rescan = self.next_rescan.min(Instant::now() + SHORTAGE_PAUSE);
    }

    fn withdraw_all(&mut self, problem: &str) {
        let folder = self.shared.root.path().unwrap_or(Path::new("")).display();
        let detail = format!("nothing is shared: the folder {folder} cannot be read: {problem}");
        tracing::warn!("{detail}");
        self.shared.set_detail(detail);
        self.file_states.observe("", BTreeMap::new(), now());
        self.dirty.clear();
        self.whole = false;
    }

    fn scan_all(&mut self, root: &Folder, path: &Path, watcher: &mut Watcher) {
        let mut on_folder = |folder: &str| watcher.watch(&path.join(folder));
        match Scan::new(root, path, &self.shared.config.restrictions, self.shared.signal.stopping(), &mut on_folder).whole() {
            Ok(result) => {
                self.whole = false;
                self.links = result.links;
                let detail = if result.truncated {
                    format!("the folder has more than {ENTRIES_MAX} entries; only the first {ENTRIES_MAX} are shared")
                } else {
                    String::new()
                };
                self.shared.set_detail(detail);
                self.observe("", result);
            }
            Err(error) if says_nothing(&error) => {
                self.whole = true;
                self.short(&error.into());
            }
            Err(error) => self.withdraw_all(&error.to_string()),
        }
    }

    fn scan_path(&mut self, root: &Folder, path: &Path, watcher: &mut Watcher, changed: &Path) {
        // A name that is not UTF-8 is never offered, so nothing is lost here.
        match changed.strip_prefix(path).map(Path::to_string_lossy).as_deref() {
            // The share's folder itself changed, such as its permissions.
            Ok("") | Err(_) => self.whole = true,
            Ok(name) => {
                let mut on_folder = |folder: &str| watcher.watch(&path.join(folder));
                match Scan::new(root, path, &self.shared.config.restrictions, self.shared.signal.stopping(), &mut on_folder)
                    .below(name)
                {
                    Ok(result) => {
                        self.links += result.links;
                        self.observe(name, result);
                    }
                    Err(error) => {
                        self.whole = true;
                        self.short(&error.into());
                    }
                }
            }
        }
    }

    fn observe(&mut self, scope: &str, result: ScanResult) {
        if self.stopping() {
            return;
        }
        let fresh = self.file_states.observe(scope, result.entries, now());
        let lookup = if fresh.is_empty() { None } else { self.shared.cache.lookup() };
        let Some(lookup) = lookup else { return };
        for (name, fingerprint) in fresh {
            let known = lookup.get(&name, &fingerprint).and_then(|known| Some((known.hash, known.title?)));
            if let (Some((hash, title)), Ok(name)) = (known, DocumentName::parse(&name)) {
                let number = rfc_number(name.file_name());
                self.file_states.offer(Arc::new(document(name, fingerprint, number, title, hash)));
            }
        }
    }
}
