//! Events for the indexer: from the operating system, from uploads, and from the hashing threads.

use super::{
    document::SharedDocument,
    hash::{Hashed, Outcome},
};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use p2pdi::platform::is_shortage;
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Most changed paths that are kept; with more, the whole folder is scanned.
const DIRTY_MAX: usize = 4096;

/// The indexer is woken for this many outcomes at a time while more are expected: waking a thread costs as much as hashing a small file.
const OUTCOMES_AT_ONCE: usize = 64;

/// Everything that happened since the indexer last took events.
#[derive(Debug, Default)]
pub(super) struct PendingEvents {
    /// Absolute paths that changed.
    pub(super) dirty: BTreeSet<PathBuf>,
    /// The whole folder must be scanned: too many changes, or the system lost some.
    pub(super) whole: bool,
    pub(super) outcomes: Vec<Outcome>,
    /// How many outcomes are still expected, including those in `outcomes`.
    expected: usize,
    /// Names of documents whose piece hashes the cache has lost.
    pub(super) lost: BTreeSet<Box<str>>,
    /// Files that were written by this process, whose content is known.
    pub(super) adopted: Vec<(SharedDocument, Hashed)>,
}

impl PendingEvents {
    fn has_enough_outcomes(&self) -> bool {
        self.outcomes.len() >= self.expected.clamp(1, OUTCOMES_AT_ONCE)
    }
}

/// Collects events and wakes the indexer. Bounded: changed paths by [`DIRTY_MAX`], outcomes by the files being hashed, lost hashes by the
/// number of documents, adopted files by the fetches under way.
#[derive(Debug, Default)]
pub(super) struct Signal {
    pending: Mutex<PendingEvents>,
    woken: Condvar,
    stopping: AtomicBool,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, PendingEvents> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self, path: PathBuf) {
        let mut pending = self.lock();
        if pending.dirty.len() < DIRTY_MAX {
            pending.dirty.insert(path);
        } else {
            pending.whole = true;
        }
        self.woken.notify_one();
    }

    pub(super) fn changed_somewhere(&self) {
        self.lock().whole = true;
        self.woken.notify_one();
    }

    /// More files are being hashed: expect this many more outcomes.
    pub(super) fn expect(&self, outcomes: usize) {
        self.lock().expected += outcomes;
    }

    pub(super) fn hashed(&self, outcome: Outcome) {
        let mut pending = self.lock();
        pending.outcomes.push(outcome);
        if pending.has_enough_outcomes() {
            self.woken.notify_one();
        }
    }

    pub(super) fn hashes_lost(&self, name: &str) {
        self.lock().lost.insert(name.into());
        self.woken.notify_one();
    }

    pub(super) fn adopted(&self, document: SharedDocument, hashed: Hashed) {
        self.lock().adopted.push((document, hashed));
        self.woken.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // With the lock, so that the indexer is not between its check of the flag and its wait.
        drop(self.lock());
        self.woken.notify_one();
    }

    pub(super) fn stopping(&self) -> &AtomicBool {
        &self.stopping
    }

    /// Waits for events until `deadline` and takes them. Changed paths stay, and do not end the wait, unless `take_changes`.
    pub(super) fn wait(&self, deadline: Instant, take_changes: bool) -> PendingEvents {
        let mut pending = self.lock();
        loop {
            let changed = take_changes && (pending.whole || !pending.dirty.is_empty());
            let left = deadline.saturating_duration_since(Instant::now());
            let happened = changed || pending.has_enough_outcomes() || !pending.lost.is_empty() || !pending.adopted.is_empty();
            if happened || left.is_zero() || self.stopping.load(Ordering::Relaxed) {
                break;
            }
            pending = self.woken.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut taken = std::mem::take(&mut *pending);
        pending.expected = taken.expected - taken.outcomes.len();
        if !take_changes {
            pending.dirty = std::mem::take(&mut taken.dirty);
            pending.whole = std::mem::take(&mut taken.whole);
        }
        taken
    }
}

/// Watches folders through the operating system. Where that does not report every change, the folder must be scanned often.
pub(super) struct Watcher {
    /// Whom to report to; `None` if nothing is to be watched.
    signal: Option<Weak<Signal>>,
    /// `None` if the system gave none. The next scan of everything tries again.
    inner: Option<RecommendedWatcher>,
    /// Why some folder is not watched; empty if each is.
    problem: String,
    /// The problem that was logged last.
    logged: String,
}

impl Watcher {
    /// A watcher that reports to `signal`. It watches no folder yet.
    pub(super) fn new(signal: Weak<Signal>) -> Self {
        Self { signal: Some(signal), inner: None, problem: String::new(), logged: String::new() }
    }

    /// A watcher that reports nothing.
    pub(super) fn none() -> Self {
        Self { signal: None, inner: None, problem: String::new(), logged: String::new() }
    }

    /// Whether every folder is watched.
    pub(super) fn complete(&self) -> bool {
        self.inner.is_some() && self.problem.is_empty()
    }

    /// Why some folder is not watched, and what to do; empty if each is.
    pub(super) fn problem(&self) -> &str {
        &self.problem
    }

    /// To be called before a scan of everything, which watches each folder anew: a limit that was in the way may have been raised.
    pub(super) fn begin(&mut self) {
        let Some(signal) = self.signal.clone() else { return };
        self.problem.clear();
        if self.inner.is_none() {
            // Folders are watched one by one: hidden ones need no watch, and each is watched just before it is scanned.
            let config = Config::default().with_follow_symlinks(false);
            match RecommendedWatcher::new(move |event| report(&signal, event), config) {
                Ok(inner) => self.inner = Some(inner),
                Err(error) => self.problem = problem(&error),
            }
        }
    }

    /// To be called after it. Logs a new problem, and its end.
    pub(super) fn end(&mut self) {
        if self.problem == self.logged {
            return;
        }
        match self.problem.as_str() {
            "" => tracing::info!("every folder of the share is watched again"),
            problem => tracing::warn!("{problem}"),
        }
        self.logged.clone_from(&self.problem);
    }

    /// Watches a folder. Watching it again is harmless, and is needed after a folder above it was renamed.
    pub(super) fn watch(&mut self, folder: &Path) {
        let Some(inner) = &mut self.inner else { return };
        match inner.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            // It is gone or cannot be read; the scan finds that too.
            Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
            Err(error) if matches!(&error.kind, notify::ErrorKind::Io(error) if is_found_by_scan(error.kind())) => {}
            Err(error) => {
                if self.problem.is_empty() {
                    self.problem = problem(&error);
                }
            }
        }
    }
}

/// What is wrong and what to do about it. The same text for the same problem, whichever folder it was found at.
fn problem(error: &notify::Error) -> String {
    const MEANWHILE: &str = "until then the whole folder is scanned every second";
    let limit = |name: &str| {
        let now = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap_or_default();
        let now = if now.is_empty() { now } else { format!(" (now {})", now.trim()) };
        format!("raise the sysctl fs.inotify.{name}{now}")
    };
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            format!("the system watches no more folders for this user: {}; {MEANWHILE}", limit("max_user_watches"))
        }
        // inotify_init(2) gives EMFILE for both limits.
        notify::ErrorKind::Io(error) if is_shortage(error) => format!(
            "the share cannot be watched: {error}; {}, or the limit of open files; {MEANWHILE}",
            limit("max_user_instances")
        ),
        _ => format!("not every folder of the share can be watched: {error}; {MEANWHILE}"),
    }
}

fn is_found_by_scan(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn report(signal: &Weak<Signal>, event: notify::Result<Event>) {
    let Some(signal) = signal.upgrade() else { return };
    match event {
        Ok(event) if event.need_rescan() => signal.changed_somewhere(),
        // Reads change nothing. Of all accesses only closing a file that was open for writing matters.
        Ok(Event { kind: EventKind::Access(access), .. })
            if !matches!(access, notify::event::AccessKind::Close(notify::event::AccessMode::Write)) => {}
        Ok(event) => event.paths.into_iter().for_each(|path| signal.changed(path)),
        Err(error) => {
            tracing::debug!(%error, "error from the watcher of the share");
            signal.changed_somewhere();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};

    #[test]
    fn too_many_changed_paths_become_one_scan_of_everything() {
        let signal = Signal::default();
        for i in 0..=DIRTY_MAX {
            signal.changed(PathBuf::from(i.to_string()));
        }
        // Changes stay while it is too early for the next scan.
        let pending = signal.wait(Instant::now(), false);
        assert!(!pending.whole && pending.dirty.is_empty());
        let pending = signal.wait(Instant::now() + Duration::from_secs(60), true);
        assert!(pending.whole && pending.dirty.len() == DIRTY_MAX);
    }

    #[test]
    fn a_limit_of_watches_is_named_with_its_sysctl() {
        let watches = problem(&notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        assert!(watches.contains("fs.inotify.max_user_watches"), "{watches}");
        let instances = problem(&notify::Error::io(rustix::io::Errno::MFILE.into()));
        assert!(instances.contains("fs.inotify.max_user_instances"), "{instances}");
    }

    #[test]
    fn a_watcher_that_lost_events_asks_for_a_scan_of_everything() {
        let signal = Arc::new(Signal::default());
        let weak = Arc::downgrade(&signal);
        report(&weak, Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
        assert!(signal.wait(Instant::now(), true).whole);
        let open = notify::event::AccessKind::Open(notify::event::AccessMode::Any);
        report(&weak, Ok(Event::new(EventKind::Access(open)).add_path("a".into())));
        let pending = signal.wait(Instant::now(), true);
        assert!(!pending.whole && pending.dirty.is_empty(), "a read is not a change");
    }
}
