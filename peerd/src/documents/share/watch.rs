//! Hearing of changes: from the operating system, from those who serve, and from the threads that hash.

use super::hash::Outcome;
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Most changed paths that are kept apart; beyond them the whole folder is looked at.
const DIRTY_MAX: usize = 4096;

/// Outcomes are gathered up to this many, as long as more are to come: waking somebody costs as much as hashing a small file.
const OUTCOMES_AT_ONCE: usize = 64;

/// Everything that happened since the indexer last looked.
#[derive(Debug, Default)]
pub(super) struct PendingEvents {
    /// Absolute paths that changed.
    pub(super) dirty: BTreeSet<PathBuf>,
    /// So much changed, or so unclear, that everything must be looked at.
    pub(super) whole: bool,
    pub(super) outcomes: Vec<Outcome>,
    /// How many outcomes are to come, with those that are here.
    expected: usize,
    /// Names of documents whose cached piece hashes are lost.
    pub(super) lost: BTreeSet<Box<str>>,
}

impl PendingEvents {
    fn has_enough_outcomes(&self) -> bool {
        self.outcomes.len() >= self.expected.clamp(1, OUTCOMES_AT_ONCE)
    }
}

/// Wakes the indexer. Bounded: changed paths by [`DIRTY_MAX`], outcomes by the files in the indexer's hands, lost ones by
/// the documents there are.
#[derive(Debug, Default)]
pub(super) struct Signal {
    inbox: Mutex<PendingEvents>,
    woken: Condvar,
    stopping: AtomicBool,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, PendingEvents> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self, path: PathBuf) {
        let mut inbox = self.lock();
        if inbox.dirty.len() < DIRTY_MAX {
            inbox.dirty.insert(path);
        } else {
            inbox.whole = true;
        }
        self.woken.notify_one();
    }

    pub(super) fn changed_somewhere(&self) {
        self.lock().whole = true;
        self.woken.notify_one();
    }

    /// So many more outcomes are to come.
    pub(super) fn expect(&self, outcomes: usize) {
        self.lock().expected += outcomes;
    }

    pub(super) fn hashed(&self, outcome: Outcome) {
        let mut inbox = self.lock();
        inbox.outcomes.push(outcome);
        if inbox.has_enough_outcomes() {
            self.woken.notify_one();
        }
    }

    pub(super) fn lost(&self, name: &str) {
        self.lock().lost.insert(name.into());
        self.woken.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Not between the indexer's last look at the flag and its wait.
        drop(self.lock());
        self.woken.notify_one();
    }

    pub(super) fn stopping(&self) -> &AtomicBool {
        &self.stopping
    }

    /// Waits until something happened or it is `deadline`, and takes it. Changed paths stay where they are, and wake nobody,
    /// unless `looking`.
    pub(super) fn wait(&self, deadline: Instant, looking: bool) -> PendingEvents {
        let mut inbox = self.lock();
        loop {
            let changed = looking && (inbox.whole || !inbox.dirty.is_empty());
            let left = deadline.saturating_duration_since(Instant::now());
            let happened = changed || inbox.has_enough_outcomes() || !inbox.lost.is_empty();
            if happened || left.is_zero() || self.stopping.load(Ordering::Relaxed) {
                break;
            }
            inbox = self.woken.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut taken = std::mem::take(&mut *inbox);
        inbox.expected = taken.expected - taken.outcomes.len();
        if !looking {
            inbox.dirty = std::mem::take(&mut taken.dirty);
            inbox.whole = std::mem::take(&mut taken.whole);
        }
        taken
    }
}

/// The operating system's notices of changes in folders. Where there are none, or not enough, somebody has to look often.
pub(super) struct Watcher {
    inner: Option<RecommendedWatcher>,
    complete: bool,
}

impl Watcher {
    /// A watcher that tells `signal`, of no folder yet.
    pub(super) fn new(signal: Weak<Signal>) -> Self {
        // Each folder is watched by itself: hidden ones need no watch, and none is taken up before it is walked.
        let config = Config::default().with_follow_symlinks(false);
        let inner = RecommendedWatcher::new(move |event| tell(&signal, event), config);
        let inner = inner.map_err(|error| tracing::warn!(%error, "cannot watch the share; looking at it often instead")).ok();
        Self { complete: inner.is_some(), inner }
    }

    /// A watcher that never tells of anything.
    pub(super) fn none() -> Self {
        Self { inner: None, complete: false }
    }

    /// Every folder is watched.
    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// Watches a folder. Watching it again does no harm, and is needed after a rename on the way to it.
    pub(super) fn watch(&mut self, folder: &Path) {
        let Some(inner) = &mut self.inner else { return };
        match inner.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            // It went away, or may not be read, which the walk finds too.
            Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
            Err(error) if matches!(&error.kind, notify::ErrorKind::Io(error) if error.raw_os_error().is_some_and(harmless)) => {}
            Err(error) => {
                if self.complete {
                    tracing::warn!(%error, folder = %folder.display(), "cannot watch every folder of the share; looking at it often instead");
                }
                self.complete = false;
            }
        }
    }
}

fn harmless(errno: i32) -> bool {
    use rustix::io::Errno;
    [Errno::ACCESS, Errno::NOENT, Errno::NOTDIR].iter().any(|harmless| harmless.raw_os_error() == errno)
}

fn tell(signal: &Weak<Signal>, event: notify::Result<Event>) {
    let Some(signal) = signal.upgrade() else { return };
    match event {
        Ok(event) if event.need_rescan() => signal.changed_somewhere(),
        // Reading changes nothing; of all access, only the end of a writer's work matters.
        Ok(Event { kind: EventKind::Access(access), .. })
            if !matches!(access, notify::event::AccessKind::Close(notify::event::AccessMode::Write)) => {}
        Ok(event) => event.paths.into_iter().for_each(|path| signal.changed(path)),
        Err(error) => {
            tracing::debug!(%error, "watching the share");
            signal.changed_somewhere();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};

    #[test]
    fn too_many_changes_to_keep_apart_become_one_look_at_everything() {
        let signal = Signal::default();
        for i in 0..=DIRTY_MAX {
            signal.changed(PathBuf::from(i.to_string()));
        }
        // Not while looking has to wait.
        let inbox = signal.wait(Instant::now(), false);
        assert!(!inbox.whole && inbox.dirty.is_empty());
        let inbox = signal.wait(Instant::now() + Duration::from_secs(60), true);
        assert!(inbox.whole && inbox.dirty.len() == DIRTY_MAX);
    }

    #[test]
    fn a_watcher_that_lost_events_asks_for_a_look_at_everything() {
        let signal = Arc::new(Signal::default());
        let weak = Arc::downgrade(&signal);
        tell(&weak, Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
        assert!(signal.wait(Instant::now(), true).whole);
        let open = notify::event::AccessKind::Open(notify::event::AccessMode::Any);
        tell(&weak, Ok(Event::new(EventKind::Access(open)).add_path("a".into())));
        let inbox = signal.wait(Instant::now(), true);
        assert!(!inbox.whole && inbox.dirty.is_empty(), "reading is no change");
    }
}
