//! Keeps a share's index up to date: scans the folder, has files hashed, publishes the index, and repeats for what changed.

use super::{
    cache::Published,
    document::{Fingerprint, SharedDocument},
    file_states::{FileStates, Now},
    hash::{Failure, Job, Outcome, Pool},
    index::Index,
    scan::{ENTRIES_MAX, Scan, ScanResult},
    state::{ScanProgress, Shared},
    watch::{PendingEvents, Watcher},
};
use crate::documents::rfc_number::rfc_number;
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    platform::{FileId, Folder},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// Least time between two scans, so that a burst of changes costs one scan.
const SCAN_EVERY: Duration = Duration::from_millis(100);
/// Least time between two versions of the index.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// Scanning and publishing take at most about one part in this many of the time, however large the share.
const DUTY: u32 = 10;
/// How often the indexer checks that the folder is still there, or is back.
const ROOT_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often the whole folder is scanned if the system does not report every change.
const SCAN_ALL_EVERY: Duration = Duration::from_secs(1);
/// Pause before a failed write of the cache is retried.
const RETRY_WRITING_EVERY: Duration = Duration::from_secs(10);
/// How often files that have been missing for too long are removed from the cache.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// How often the progress is reported: often enough for a progress line on a terminal.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Most files given to the hashing threads at once: enough that they never wait for the next.
const HASHING_MAX: usize = 1024;

/// Keeps a [`super::Share`] up to date while it runs.
pub struct Indexer {
    pub(super) shared: Arc<Shared>,
}

impl Indexer {
    /// Scans, hashes and watches until `stop`. The share stays empty until this runs. A panic of the indexer's thread continues here.
    pub async fn run(self, stop: CancellationToken) {
        /// Stops the thread also when the future is dropped.
        struct StopOnDrop(Arc<Shared>);
        impl Drop for StopOnDrop {
            fn drop(&mut self) {
                self.0.signal.stop();
            }
        }
        let guard = StopOnDrop(Arc::clone(&self.shared));
        let mut driver = tokio::task::spawn_blocking(move || Driver::new(self.shared).run());
        let early = tokio::select! {
            () = stop.cancelled() => None,
            ended = &mut driver => Some(ended),
        };
        drop(guard);
        let ended = match early {
            Some(ended) => ended,
            None => driver.await,
        };
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Driver {
    shared: Arc<Shared>,
    file_states: FileStates,
    pool: Pool,
    /// `None` while there is no folder.
    watched: Option<Watched>,
    index: Arc<Index>,
    hashing: usize,
    hashed_files: u64,
    finished_bytes: u64,
    links: usize,
    /// Changed paths that are not scanned yet.
    dirty: BTreeSet<PathBuf>,
    /// Everything must be scanned.
    whole: bool,
    next_scan: Instant,
    next_publish: Instant,
    next_rescan: Instant,
    next_root_check: Instant,
    next_prune: Instant,
    next_progress: Instant,
    settled: bool,
    /// The last write of the cache failed.
    cache_is_stale: bool,
}

/// The folder that is shared now.
struct Watched {
    /// `None` if another folder was found at the path, so that the next check of the root starts again.
    id: Option<FileId>,
    /// With symbolic links resolved, as the watcher reports it.
    path: PathBuf,
    watcher: Watcher,
}

impl Driver {
    fn new(shared: Arc<Shared>) -> Self {
        let signal = Arc::clone(&shared.signal);
        let deliver = move |outcome| signal.hashed(outcome);
        let pool = Pool::new(shared.root.clone(), Arc::clone(&shared.hashed_bytes), deliver);
        let now = Instant::now();
        Self {
            file_states: FileStates::new(shared.config.quiet),
            pool,
            watched: None,
            index: shared.index(),
            hashing: 0,
            hashed_files: 0,
            finished_bytes: 0,
            links: 0,
            dirty: BTreeSet::new(),
            whole: false,
            next_scan: now,
            next_publish: now,
            next_rescan: now,
            next_root_check: now,
            next_prune: now,
            next_progress: now,
            settled: false,
            cache_is_stale: false,
            shared,
        }
    }

    fn run(mut self) {
        if self.shared.config.folder.is_none() {
            self.file_states.observe("", BTreeMap::new(), now());
        }
        while !self.stopping() {
            if self.shared.config.folder.is_some() {
                self.scan();
            }
            self.hash();
            self.publish_if_due();
            self.report();
            // After the report, so that a caller that waits for `settled` sees the final progress.
            self.shared.settled.send_if_modified(|settled| std::mem::replace(settled, self.settled) != self.settled);
            let pending = self.shared.signal.wait(self.next_wake(), Instant::now() >= self.next_scan);
            self.take(pending);
        }
    }

    fn next_wake(&self) -> Instant {
        let mut next = match self.shared.config.folder {
            Some(_) => self.next_root_check.min(self.next_rescan),
            // There is nothing to scan, ever.
            None => Instant::now() + self.shared.config.rescan,
        };
        if Instant::now() < self.next_scan {
            next = next.min(self.next_scan);
        }
        if self.hashing < HASHING_MAX {
            next = next.min(self.file_states.next_due().unwrap_or(next));
        }
        if self.file_states.has_changes() || self.cache_is_stale {
            next = next.min(self.next_publish);
        }
        if self.hashing > 0 {
            next = next.min(self.next_progress);
        }
        next
    }

    fn take(&mut self, pending: PendingEvents) {
        self.whole |= pending.whole;
        self.dirty.extend(pending.dirty);
        let now = Instant::now();
        for name in pending.lost {
            if let Some(document) = self.index.by_name(&name).filter(|document| *document.name.as_str() == *name) {
                tracing::warn!(document = %document.name, "the cache has lost its piece hashes; hashing it again");
                self.shared.cache.forget(&name);
                let fingerprint = document.fingerprint;
                self.file_states.postpone(&name, &fingerprint, now);
            }
        }
        for outcome in pending.outcomes {
            self.hashing -= 1;
            self.take_outcome(outcome, now);
        }
    }

    fn take_outcome(&mut self, Outcome { job, result }: Outcome, now: Instant) {
        let Job { name, fingerprint, .. } = job;
        match result {
            Ok(hashed) => {
                self.hashed_files += 1;
                self.finished_bytes += fingerprint.size;
                let document = document(name, fingerprint, hashed.number, hashed.title.clone(), hashed.hash);
                let document = Arc::new(document);
                if self.file_states.offer(Arc::clone(&document)) {
                    self.shared.cache.put(&document, hashed);
                }
            }
            Err(Failure::Changed) => {
                self.file_states.postpone(name.as_str(), &fingerprint, now);
                self.dirty.extend(self.watched.as_ref().map(|watched| watched.path.join(name.to_relative_path())));
            }
            Err(failure) => {
                tracing::warn!(document = %name, error = %failure, "a document is not shared");
                self.file_states.fail(name.as_str(), &fingerprint);
            }
        }
    }

    /// Scans what changed, or everything, if it is time.
    fn scan(&mut self) {
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
        let Some(Watched { path, mut watcher, .. }) = self.watched.take() else {
            self.next_rescan = started + self.shared.config.rescan;
            return;
        };
        let root = match self.shared.root.open() {
            Ok(root) if root.path().canonicalize().is_ok_and(|real| real == path) => root,
            // Another folder is there, or none.
            _ => {
                self.watched = Some(Watched { id: None, path, watcher });
                self.next_root_check = started;
                return;
            }
        };
        let dirty = std::mem::take(&mut self.dirty);
        if whole {
            self.scan_all(&root, &path, &mut watcher);
        } else {
            for changed in dirty {
                self.scan_path(&root, &path, &mut watcher, &changed);
            }
        }
        let elapsed = started.elapsed();
        self.next_scan = started + SCAN_EVERY.max(elapsed * DUTY);
        if whole {
            let every = if watcher.complete() { self.shared.config.rescan } else { SCAN_ALL_EVERY };
            self.next_rescan = started + every.max(elapsed * DUTY);
        }
        self.watched = Some(Watched { id: Some(root.id()), path, watcher });
    }

    /// If the folder is not the one that is watched any more, starts again with the new one, or withdraws everything.
    fn check_root(&mut self) {
        let id = self.shared.root.id();
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
            Err(error) => self.withdraw_all(&error.to_string()),
        }
    }

    fn withdraw_all(&mut self, problem: &str) {
        let folder = self.shared.root.path().display();
        let detail = format!("nothing is shared: the folder {folder} cannot be read: {problem}");
        tracing::warn!("{detail}");
        self.shared.set_detail(detail);
        self.file_states.observe("", BTreeMap::new(), now());
        self.dirty.clear();
        self.whole = false;
    }

    fn scan_all(&mut self, root: &Folder, path: &Path, watcher: &mut Watcher) {
        let mut on_folder = |folder: &str| watcher.watch(&path.join(folder));
        match Scan::new(root, self.shared.signal.stopping(), &mut on_folder).whole() {
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
                let result = Scan::new(root, self.shared.signal.stopping(), &mut on_folder).below(name);
                self.links += result.links;
                self.observe(name, result);
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

    /// Gives quiet files to the hashing threads.
    fn hash(&mut self) {
        let due = self.file_states.take_due(Instant::now(), HASHING_MAX - self.hashing);
        if due.is_empty() {
            return;
        }
        let lookup = self.shared.cache.lookup();
        let mut jobs = Vec::with_capacity(due.len());
        for (name, fingerprint) in due {
            let known = lookup.as_ref().and_then(|lookup| lookup.get(&name, &fingerprint)).map(|known| known.hash);
            // The scan has checked all names.
            match DocumentName::parse(&name) {
                Ok(name) => jobs.push(Job { name, fingerprint, known }),
                Err(_) => self.file_states.fail(&name, &fingerprint),
            }
        }
        self.hashing += jobs.len();
        self.shared.signal.expect(jobs.len());
        self.pool.submit(jobs);
    }

    fn publish_if_due(&mut self) {
        let changed = self.file_states.has_changes() || self.cache_is_stale;
        let first = self.file_states.settled() && !self.settled;
        if first || (changed && self.file_states.scanned() && Instant::now() >= self.next_publish) {
            self.publish();
        }
        self.settled |= first;
        if self.settled && self.watched.is_some() && Instant::now() >= self.next_prune {
            self.next_prune = Instant::now() + PRUNE_EVERY;
            let keep_s = self.shared.config.keep_missing.as_secs();
            let pruned = self.shared.cache.prune(|name| self.file_states.knows(name), since_1970().as_secs(), keep_s);
            if let Err(error) = pruned {
                tracing::warn!(%error, "cannot remove old entries from the share's cache");
            }
        }
    }

    /// Writes the changes to disk and then publishes them, so that a published version never stands for other content, even after a
    /// crash.
    fn publish(&mut self) {
        let started = Instant::now();
        let next = self.index.with(&self.file_states.take_changes());
        let before = match self.index.version() {
            0 => self.shared.cache.published(),
            version => Some(Published { version, digest: self.index.digest() }),
        };
        let version = match before {
            Some(before) if before.digest == next.digest() => before.version,
            before => {
                let clock = u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX);
                clock.max(before.map_or(1, |before| before.version.saturating_add(1)))
            }
        };
        let written = self.shared.cache.commit(Published { version, digest: next.digest() });
        if let Err(error) = &written
            && !self.cache_is_stale
        {
            tracing::warn!(%error, "cannot write the share's cache; files will be hashed again after a restart");
        }
        self.cache_is_stale = written.is_err();
        self.index = Arc::new(next.at_version(version));
        self.shared.publish(Arc::clone(&self.index));
        let every = if self.cache_is_stale { RETRY_WRITING_EVERY } else { PUBLISH_EVERY };
        self.next_publish = started + every.max(started.elapsed() * DUTY);
    }

    fn report(&mut self) {
        let now = Instant::now();
        let settles_now = self.settled != *self.shared.settled.borrow();
        if self.hashing > 0 && now < self.next_progress && !settles_now {
            return;
        }
        self.next_progress = now + PROGRESS_EVERY;
        let total_bytes = self.finished_bytes + self.file_states.counts().pending_bytes;
        self.shared.report(self.file_states.counts(), |hashed_bytes| ScanProgress {
            files: self.file_states.counts().files as u64,
            pending: self.file_states.counts().pending as u64,
            hashed_files: self.hashed_files,
            // Files that changed while they were read count twice.
            hashed_bytes: hashed_bytes.min(total_bytes),
            total_bytes,
            settled: self.settled,
        });
    }

    fn stopping(&self) -> bool {
        self.shared.signal.stopping().load(Ordering::Relaxed)
    }
}

fn document(
    name: DocumentName,
    fingerprint: Fingerprint,
    number: Option<u32>,
    title: Box<str>,
    hash: ContentHash,
) -> SharedDocument {
    SharedDocument { name, number, title, size: fingerprint.size, hash, modified: fingerprint.modified(), fingerprint }
}

fn now() -> Now {
    Now { instant: Instant::now(), wall: SystemTime::now() }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::share::{Share, ShareConfig};
    use p2pdi::metrics::Metrics;

    #[test]
    fn without_a_folder_the_indexer_sleeps() {
        let state = tempfile::tempdir().unwrap();
        let (_share, indexer) = Share::open(ShareConfig::new(None, state.path().to_owned()), &Metrics::default()).unwrap();
        let mut driver = Driver::new(indexer.shared);
        driver.file_states.observe("", BTreeMap::new(), now());
        driver.publish_if_due();
        assert!(driver.next_wake() > Instant::now() + Duration::from_secs(10), "it never sleeps");
    }
}
