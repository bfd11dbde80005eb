//! Keeps a share's index up to date: scans the folder, has files hashed, publishes the index, and repeats for what changed.

mod scanning;

use super::{
    cache::Published,
    cache_database::retry_after,
    document::{Fingerprint, SharedDocument},
    file_states::{FileStates, Now},
    hash::{Failure, Job, Outcome, Pool},
    index::Index,
    left_out::{listed, log_line},
    state::{ScanProgress, Shared},
    watch::{PendingEvents, Watcher},
};
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    platform::{FileId, is_shortage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// Least time between two versions of the index.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// Scanning and publishing take at most about one part in this many of the time, however large the share.
const DUTY: u32 = 10;
/// Pause before what a shortage of descriptors or memory prevented is tried again.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);
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
    /// There is a folder to share.
    has_folder: bool,
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
    /// How many of the scans that were asked for have begun.
    scans_begun: u64,
    /// Writes of the cache that failed since the last that did not.
    failed_writes: u32,
    /// Documents whose piece hashes the cache has lost or cannot read. They are hashed again, and offered meanwhile.
    lost: BTreeSet<Box<str>>,
    /// Documents were hashed again, which the cache has not written yet.
    rehashed: bool,
    problems: Problems,
    /// The left-out files that were logged last.
    logged_left_out: Option<String>,
}

/// What goes wrong while the share is served; each is empty while all is well.
#[derive(Debug, Default)]
struct Problems {
    scan: String,
    /// The last scan, or what was hashed since, met a shortage.
    short: bool,
    watch: String,
    cache: String,
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
            has_folder: false,
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
            scans_begun: 0,
            failed_writes: 0,
            lost: BTreeSet::new(),
            rehashed: false,
            problems: Problems::default(),
            logged_left_out: None,
            shared,
        }
    }

    fn run(mut self) {
        self.has_folder = self.shared.root.path().is_some();
        if !self.has_folder {
            self.file_states.observe("", BTreeMap::new(), now());
        }
        while !self.stopping() {
            if self.shared.root.path().is_some() {
                if !self.has_folder {
                    self.begin();
                }
                self.scan();
            }
            self.hash();
            self.publish_if_due();
            self.report();
            // After the report, so that a caller that waits for `settled` sees the final progress.
            self.shared.settled.send_if_modified(|settled| {
                // What is settled now says nothing of a scan that was asked for since.
                let now = self.settled && self.scans_begun == self.shared.scans_asked.load(Ordering::SeqCst);
                std::mem::replace(settled, now) != now
            });
            let pending = self.shared.signal.wait(self.next_wake(), Instant::now() >= self.next_scan);
            self.take(pending);
        }
    }

    /// There is a folder now: it is scanned for the first time.
    fn begin(&mut self) {
        self.has_folder = true;
        self.settled = false;
        self.file_states = FileStates::new(self.shared.config.quiet);
        self.next_root_check = Instant::now();
    }

    fn next_wake(&self) -> Instant {
        let mut next = match self.shared.root.path() {
            Some(_) => self.next_root_check.min(self.next_rescan.max(self.next_scan)),
            // There is nothing to scan; the signal wakes this when there is.
            None => Instant::now() + self.shared.config.rescan,
        };
        if Instant::now() < self.next_scan {
            next = next.min(self.next_scan);
        }
        if self.hashing < HASHING_MAX {
            if !self.lost.is_empty() {
                return Instant::now();
            }
            next = next.min(self.file_states.next_due().unwrap_or(next));
        }
        if self.has_unpublished() {
            next = next.min(self.next_publish);
        }
        if self.hashing > 0 {
            next = next.min(self.next_progress);
        }
        next
    }

    fn take(&mut self, pending: PendingEvents) {
        let asked = self.shared.scans_asked.load(Ordering::SeqCst);
        if std::mem::replace(&mut self.scans_begun, asked) != asked {
            self.settled = false;
            self.whole = true;
            self.file_states.begin_anew();
        }
        self.whole |= pending.whole;
        self.dirty.extend(pending.dirty);
        let now = Instant::now();
        self.lost.extend(pending.lost);
        for (document, hashed) in pending.adopted {
            let document = Arc::new(document);
            self.shared.cache.put(&document, hashed);
            self.file_states.adopt(document);
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
                let rehashed = self.file_states.offers(&document);
                if rehashed || self.file_states.offer(Arc::clone(&document)) {
                    self.shared.cache.put(&document, hashed);
                }
                self.rehashed |= rehashed;
            }
            Err(Failure::Changed) => {
                self.file_states.postpone(name.as_str(), &fingerprint, now);
                self.dirty.extend(self.watched.as_ref().map(|watched| watched.path.join(name.to_relative_path())));
            }
            Err(Failure::Unreadable(error)) if is_shortage(&error) => {
                self.short(&error);
                self.file_states.retry(name.as_str(), &fingerprint, now + SHORTAGE_PAUSE);
            }
            Err(failure) => {
                tracing::warn!(document = %name, error = %failure, "a document is not shared");
                self.file_states.fail(name.as_str(), &fingerprint);
            }
        }
    }

    /// Gives quiet files, and those whose piece hashes are lost, to the hashing threads.
    fn hash(&mut self) {
        let due = self.file_states.take_due(Instant::now(), HASHING_MAX - self.hashing);
        let mut jobs = Vec::with_capacity(due.len());
        while jobs.len() + due.len() + self.hashing < HASHING_MAX
            && let Some(name) = self.lost.pop_first()
        {
            // One that was asked for twice is in memory by now.
            let document = self.index.by_name(&name).filter(|document| *document.name.as_str() == *name);
            if let Some(document) = document.filter(|document| !self.shared.cache.has_piece_hashes(document)) {
                tracing::debug!(document = %document.name, "the cache cannot give its piece hashes; hashing it again");
                jobs.push(Job { name: document.name.clone(), fingerprint: document.fingerprint, known: None });
            }
        }
        if due.is_empty() && jobs.is_empty() {
            return;
        }
        let lookup = self.shared.cache.lookup();
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

    fn has_unpublished(&self) -> bool {
        // That a file waits is published with the next change: until then its document is not missing.
        let completed = self.is_complete() && !self.index.is_complete();
        self.file_states.has_changes() || self.rehashed || self.failed_writes > 0 || completed
    }

    /// Whether every file of the folder is in the index.
    fn is_complete(&self) -> bool {
        self.watched.is_some() && self.file_states.complete()
    }

    fn publish_if_due(&mut self) {
        let first = self.file_states.settled() && !self.settled;
        if first || (self.has_unpublished() && self.file_states.scanned() && Instant::now() >= self.next_publish) {
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

    /// Writes the changes to disk and then publishes them, so that a published version never denotes other content, even after a
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
        match &written {
            Ok(()) if self.failed_writes > 0 => tracing::info!("the share's cache is written again"),
            Err(error) if self.failed_writes == 0 => {
                tracing::warn!(%error, "cannot write the share's cache; trying again, and hashing files again after a restart until then");
            }
            _ => {}
        }
        self.rehashed = false;
        self.problems.cache = match &written {
            Ok(()) => String::new(),
            Err(error) => format!("the share's cache in the state folder cannot be written: {error}; it is tried again"),
        };
        self.failed_writes = if written.is_ok() { 0 } else { self.failed_writes.saturating_add(1) };
        self.index = Arc::new(next.at_version(version, self.is_complete()));
        self.shared.publish(Arc::clone(&self.index));
        let every = if self.failed_writes > 0 { retry_after(self.failed_writes) } else { PUBLISH_EVERY };
        self.next_publish = started + every.max(started.elapsed() * DUTY);
    }

    fn report(&mut self) {
        let now = Instant::now();
        let settles_now = self.settled != *self.shared.settled.borrow();
        if self.hashing > 0 && now < self.next_progress && !settles_now {
            return;
        }
        self.next_progress = now + PROGRESS_EVERY;
        let Problems { scan, watch, cache, .. } = &self.problems;
        self.shared.set_problems([scan, watch, cache].into_iter().filter(|problem| !problem.is_empty()).cloned().collect());
        self.report_left_out();
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

    /// Names what is left out: all of it for the status, a few for the log.
    fn report_left_out(&mut self) {
        if !self.file_states.scanned() || !self.file_states.take_left_out_changed() {
            return;
        }
        self.shared.set_left_out(listed(self.file_states.left_out()));
        let counts = self.file_states.counts();
        let (unreadable, outside, unsupported) = (counts.unreadable, counts.outside, counts.unsupported);
        let line = log_line(unreadable + outside + unsupported, self.file_states.left_out());
        if let Some(files) = line.as_ref().filter(|_| line != self.logged_left_out) {
            tracing::warn!(hidden = counts.hidden, unreadable, outside, unsupported, "files are left out: {files}");
        }
        self.logged_left_out = line;
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
