//! The long-lived driver of a share: looks at the folder, has files hashed, publishes the index, and starts over with what
//! changed.

use super::{
    cache::Published,
    document::{Fingerprint, SharedDocument},
    file_states::{FileStates, Now},
    hash::{Failure, Job, Outcome, Pool},
    index::Index,
    root::{FolderId, OpenRoot},
    scan::{ENTRIES_MAX, ScanResult, Walk},
    state::{ScanProgress, Shared},
    watch::{PendingEvents, Watcher},
};
use crate::documents::rfc_number::rfc_number;
use p2pdi::{content::ContentHash, document::DocumentName};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// Changes are gathered this long, so that a burst costs one look.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The index is published at most this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// And looking and publishing take at most one part in this many of the time, however large the share.
const DUTY: u32 = 10;
/// How often it is checked that the folder is still there, and whether it is back.
const ROOT_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often the whole folder is looked at where the system does not tell of every change.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How often writing the cache is tried again.
const RETRY_WRITING_EVERY: Duration = Duration::from_secs(10);
/// How often files missing for long are dropped from the cache.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// How often a terminal's progress line changes.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Most files in the hands of the hashing threads. Enough that they never wait for the next.
const HASHING_MAX: usize = 1024;

/// Keeps a [`super::Share`] up to date while it runs.
pub struct Indexer {
    pub(super) shared: Arc<Shared>,
}

impl Indexer {
    /// Looks, hashes and watches until `stop`. Without it the share stays empty. Panics of the driver come out here.
    pub async fn run(self, stop: CancellationToken) {
        /// Also when the future is dropped.
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
    /// Something changed that is not looked at yet.
    dirty: BTreeSet<PathBuf>,
    whole: bool,
    next_look: Instant,
    next_publish: Instant,
    next_rescan: Instant,
    next_root_check: Instant,
    next_prune: Instant,
    next_progress: Instant,
    settled: bool,
    /// The cache could not be written.
    unwritten: bool,
}

/// The folder that is shared now.
struct Watched {
    id: FolderId,
    /// Without links, as the watcher tells of it.
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
            next_look: now,
            next_publish: now,
            next_rescan: now,
            next_root_check: now,
            next_prune: now,
            next_progress: now,
            settled: false,
            unwritten: false,
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
            // After the report, so that who waits for it sees all of it.
            self.shared.settled.send_if_modified(|settled| std::mem::replace(settled, self.settled) != self.settled);
            let inbox = self.shared.signal.wait(self.next_wake(), Instant::now() >= self.next_look);
            self.take(inbox);
        }
    }

    fn next_wake(&self) -> Instant {
        let mut next = match self.shared.config.folder {
            Some(_) => self.next_root_check.min(self.next_rescan),
            // Nothing to look at, ever.
            None => Instant::now() + self.shared.config.rescan,
        };
        if Instant::now() < self.next_look {
            next = next.min(self.next_look);
        }
        if self.hashing < HASHING_MAX {
            next = next.min(self.file_states.next_due().unwrap_or(next));
        }
        if self.file_states.has_changes() || self.unwritten {
            next = next.min(self.next_publish);
        }
        if self.hashing > 0 {
            next = next.min(self.next_progress);
        }
        next
    }

    fn take(&mut self, inbox: PendingEvents) {
        self.whole |= inbox.whole;
        self.dirty.extend(inbox.dirty);
        let now = Instant::now();
        for name in inbox.lost {
            if let Some(document) = self.index.by_name(&name).filter(|document| *document.name.as_str() == *name) {
                tracing::warn!(document = %document.name, "its piece hashes are lost; hashing it again");
                self.shared.cache.forget(&name);
                let fingerprint = document.fingerprint;
                self.file_states.postpone(&name, &fingerprint, now);
            }
        }
        for outcome in inbox.outcomes {
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
                tracing::warn!(document = %name, error = %failure, "not shared");
                self.file_states.fail(name.as_str(), &fingerprint);
            }
        }
    }

    /// Looks at what changed, or at everything, as far as it is time.
    fn scan(&mut self) {
        let started = Instant::now();
        if started >= self.next_root_check {
            self.next_root_check = started + ROOT_CHECK_EVERY;
            self.check_root();
        }
        // A file behind a link has more than one name, and the system tells of one of them.
        let unclear = self.whole || (self.links > 0 && !self.dirty.is_empty());
        let whole = unclear || started >= self.next_rescan;
        if (!whole && self.dirty.is_empty()) || started < self.next_look {
            return;
        }
        let Some(Watched { path, mut watcher, .. }) = self.watched.take() else {
            self.next_rescan = started + self.shared.config.rescan;
            return;
        };
        let root = match self.shared.root.open() {
            Ok(root) if root.real_path().is_ok_and(|real| real == path) => root,
            // Another folder is there, or none. The check of the root finds that none has this id.
            _ => {
                self.watched = Some(Watched { id: (0, 0), path, watcher });
                self.next_root_check = started;
                return;
            }
        };
        let dirty = std::mem::take(&mut self.dirty);
        if whole {
            self.look_at_all(&root, &path, &mut watcher);
        } else {
            for changed in dirty {
                self.look_at(&root, &path, &mut watcher, &changed);
            }
        }
        let took = started.elapsed();
        self.next_look = started + LOOK_EVERY.max(took * DUTY);
        if whole {
            let every = if watcher.complete() { self.shared.config.rescan } else { POLL_EVERY };
            self.next_rescan = started + every.max(took * DUTY);
        }
        self.watched = Some(Watched { id: root.id(), path, watcher });
    }

    /// Whether the folder is still the one that is watched; if not, begins anew or withdraws everything.
    fn check_root(&mut self) {
        let id = self.shared.root.id();
        match (&id, &self.watched) {
            (Ok(id), Some(watched)) if *id == watched.id => return,
            (Err(_), None) if self.file_states.looked() => return,
            _ => {}
        }
        self.watched = None;
        let opened = id.and_then(|_| self.shared.root.open()).and_then(|root| Ok((root.id(), root.real_path()?)));
        match opened {
            Ok((id, path)) => {
                tracing::info!(folder = %path.display(), "sharing");
                let watched = self.shared.config.watch;
                let watcher = if watched { Watcher::new(Arc::downgrade(&self.shared.signal)) } else { Watcher::none() };
                self.watched = Some(Watched { id, path, watcher });
                self.whole = true;
                self.next_look = Instant::now();
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

    fn look_at_all(&mut self, root: &OpenRoot, path: &Path, watcher: &mut Watcher) {
        let mut on_folder = |folder: &str| watcher.watch(&path.join(folder));
        match Walk::new(root, self.shared.signal.stopping(), &mut on_folder).whole() {
            Ok(sight) => {
                self.whole = false;
                self.links = sight.links;
                let detail = if sight.truncated {
                    format!("only the first {ENTRIES_MAX} entries of the folder are shared")
                } else {
                    String::new()
                };
                self.shared.set_detail(detail);
                self.observe("", sight);
            }
            Err(error) => self.withdraw_all(&error.to_string()),
        }
    }

    fn look_at(&mut self, root: &OpenRoot, path: &Path, watcher: &mut Watcher, changed: &Path) {
        // A name that is not UTF-8 is not offered under any other.
        match changed.strip_prefix(path).map(Path::to_string_lossy).as_deref() {
            // The folder itself changed: its permissions, say.
            Ok("") | Err(_) => self.whole = true,
            Ok(name) => {
                let mut on_folder = |folder: &str| watcher.watch(&path.join(folder));
                let sight = Walk::new(root, self.shared.signal.stopping(), &mut on_folder).below(name);
                self.links += sight.links;
                self.observe(name, sight);
            }
        }
    }

    fn observe(&mut self, scope: &str, sight: ScanResult) {
        if self.stopping() {
            return;
        }
        let fresh = self.file_states.observe(scope, sight.entries, now());
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

    /// Hands quiet files to the hashing threads.
    fn hash(&mut self) {
        let due = self.file_states.take_due(Instant::now(), HASHING_MAX - self.hashing);
        if due.is_empty() {
            return;
        }
        let lookup = self.shared.cache.lookup();
        let mut jobs = Vec::with_capacity(due.len());
        for (name, fingerprint) in due {
            let known = lookup.as_ref().and_then(|lookup| lookup.get(&name, &fingerprint)).map(|known| known.hash);
            // Names were checked when they were seen.
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
        let changed = self.file_states.has_changes() || self.unwritten;
        let first = self.file_states.settled() && !self.settled;
        if first || (changed && self.file_states.looked() && Instant::now() >= self.next_publish) {
            self.publish();
        }
        self.settled |= first;
        if self.settled && self.watched.is_some() && Instant::now() >= self.next_prune {
            self.next_prune = Instant::now() + PRUNE_EVERY;
            let keep_s = self.shared.config.keep_missing.as_secs();
            let pruned = self.shared.cache.prune(|name| self.file_states.knows(name), since_1970().as_secs(), keep_s);
            if let Err(error) = pruned {
                tracing::warn!(%error, "cannot tidy the share's cache");
            }
        }
    }

    /// Puts the changes on disk, and then before everybody's eyes: a version that was seen is never given again to other
    /// content, not even after a crash.
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
            && !self.unwritten
        {
            tracing::warn!(%error, "cannot write the share's cache; files will be hashed again after a restart");
        }
        self.unwritten = written.is_err();
        self.index = Arc::new(next.at_version(version));
        self.shared.publish(Arc::clone(&self.index));
        let every = if self.unwritten { RETRY_WRITING_EVERY } else { PUBLISH_EVERY };
        self.next_publish = started + every.max(started.elapsed() * DUTY);
    }

    fn report(&mut self) {
        let now = Instant::now();
        let settling = self.settled != *self.shared.settled.borrow();
        if self.hashing > 0 && now < self.next_progress && !settling {
            return;
        }
        self.next_progress = now + PROGRESS_EVERY;
        let total_bytes = self.finished_bytes + self.file_states.counts().pending_bytes;
        self.shared.report(self.file_states.counts(), |hashed_bytes| ScanProgress {
            files: self.file_states.counts().files as u64,
            pending: self.file_states.counts().pending as u64,
            hashed_files: self.hashed_files,
            // Files that changed meanwhile were read for nothing.
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
    fn without_a_folder_there_is_nothing_to_wake_up_for() {
        let state = tempfile::tempdir().unwrap();
        let (_share, indexer) = Share::open(ShareConfig::new(None, state.path().to_owned()), &Metrics::default()).unwrap();
        let mut driver = Driver::new(indexer.shared);
        driver.file_states.observe("", BTreeMap::new(), now());
        driver.publish_if_due();
        assert!(driver.next_wake() > Instant::now() + Duration::from_secs(10), "it would never sleep");
    }
}
