//! The state of every file in the share: offered, waiting until it is quiet, being hashed, or left out with the reason.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    document::{Fingerprint, SharedDocument},
    index::Changes,
    left_out::{Group, Reason},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// What a scan found under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A regular file.
    File(Fingerprint),
    /// Something that is not offered.
    LeftOut(Reason),
}

/// The current time on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

/// Number of files in each state, and bytes still to be hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) files: usize,
    pub(super) pending: usize,
    pub(super) pending_bytes: u64,
    pub(super) hidden: usize,
    pub(super) unreadable: usize,
    pub(super) outside: usize,
    pub(super) unsupported: usize,
    /// Pending since the first scan.
    unsettled: usize,
}

#[derive(Debug)]
enum FileState {
    Offered(Arc<SharedDocument>),
    Pending(Box<Pending>),
    /// Reading it failed. Retried when it changes or the whole folder is scanned.
    Failed(Box<Fingerprint>),
    LeftOut(Reason),
}

impl FileState {
    /// Why the file is left out; `None` if it is offered or will be.
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Offered(_) | Self::Pending(_) => None,
            Self::Failed(_) => Some(Reason::Unreadable),
            Self::LeftOut(reason) => Some(*reason),
        }
    }
}

#[derive(Debug)]
struct Pending {
    fingerprint: Fingerprint,
    /// When it will have been quiet long enough; `None` while it is being hashed.
    due: Option<Instant>,
    /// Found by the first scan, and not changed since.
    first: bool,
}

/// The states of all files by name, and the changes to the index that follow from them.
#[derive(Debug)]
pub(super) struct FileStates {
    quiet: Duration,
    entries: BTreeMap<Box<str>, FileState>,
    due: BTreeSet<(Instant, Box<str>)>,
    changes: Changes,
    counts: Counts,
    scanned: bool,
    left_out_changed: bool,
}

impl FileStates {
    pub(super) fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            changes: Changes::new(),
            counts: Counts::default(),
            scanned: false,
            left_out_changed: false,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the whole share was scanned at least once.
    pub(super) fn scanned(&self) -> bool {
        self.scanned
    }

    /// Whether every file that the first scan found is offered or left out.
    pub(super) fn settled(&self) -> bool {
        self.scanned && self.counts.unsettled == 0
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Takes the changes to the index since the last call.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether a file was left out since the last call, or is not left out any more.
    pub(super) fn take_left_out_changed(&mut self) -> bool {
        std::mem::take(&mut self.left_out_changed)
    }

    /// The files that are left out, by name.
    pub(super) fn left_out(&self) -> impl Iterator<Item = (&str, Reason)> + Clone {
        self.entries.iter().filter_map(|(name, state)| state.reason().map(|reason| (&**name, reason)))
    }

    /// Records what a scan of `scope` found (the empty scope is the whole share). Files of the scope that are not in `found` are gone.
    /// Returns the new and changed files. They wait until they are quiet, unless [`Self::offer`] is called first.
    pub(super) fn observe(&mut self, scope: &str, found: BTreeMap<Box<str>, Entry>, now: Now) -> Vec<(Box<str>, Fingerprint)> {
        let whole = scope.is_empty();
        let gone: Vec<_> = self.names_in(scope).filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            self.replace(name, None);
        }
        let mut fresh = Vec::new();
        for (name, entry) in found {
            match entry {
                Entry::LeftOut(reason) => self.replace(name, Some(FileState::LeftOut(reason))),
                Entry::File(fingerprint) => {
                    let old = match self.entries.get(&name) {
                        Some(FileState::Offered(document)) => Some(document.fingerprint),
                        Some(FileState::Pending(pending)) => Some(pending.fingerprint),
                        Some(FileState::Failed(failed)) if !whole => Some(**failed),
                        _ => None,
                    };
                    if old == Some(fingerprint) {
                        continue;
                    }
                    // A file that changes between two scans is being written, whatever its timestamps.
                    let written = old.is_some_and(|old| old.inode == fingerprint.inode);
                    let wait =
                        if written { self.quiet_time(&fingerprint) } else { self.remaining_quiet_time(&fingerprint, now.wall) };
                    let due = Some(now.instant + wait);
                    self.replace(
                        name.clone(),
                        Some(FileState::Pending(Box::new(Pending { fingerprint, due, first: !self.scanned }))),
                    );
                    fresh.push((name, fingerprint));
                }
            }
        }
        self.scanned |= whole;
        fresh
    }

    /// How long a file must not change before it is hashed.
    fn quiet_time(&self, fingerprint: &Fingerprint) -> Duration {
        self.quiet.max(fingerprint.tick())
    }

    /// How much of that is left by the file's timestamps: zero for a file that was written long ago.
    fn remaining_quiet_time(&self, fingerprint: &Fingerprint, wall: SystemTime) -> Duration {
        let quiet = self.quiet_time(fingerprint);
        let since = |ns: i64| {
            let wall = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
            // A time in the future was set by another clock and carries no information, so it counts as now.
            u64::try_from(i128::try_from(wall).unwrap_or(i128::MAX) - i128::from(ns)).map_or(Duration::ZERO, Duration::from_nanos)
        };
        // A rename changes the change time only. Then it is enough that a later change gets another change time.
        let content = quiet.saturating_sub(since(fingerprint.modified_ns));
        let metadata = fingerprint.tick().saturating_sub(since(fingerprint.changed_ns));
        content.max(metadata)
    }

    /// When the next waiting file will have been quiet long enough.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes at most `limit` files that are quiet now, to be hashed.
    pub(super) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<(Box<str>, Fingerprint)> {
        let mut quiet = Vec::new();
        while quiet.len() < limit {
            let Some((_, name)) = self.due.first().filter(|(at, _)| *at <= now) else { break };
            let name = name.clone();
            self.due.pop_first();
            if let Some(FileState::Pending(pending)) = self.entries.get_mut(&name) {
                pending.due = None;
                quiet.push((name, pending.fingerprint));
            }
        }
        quiet
    }

    /// Offers `document` if the file still has its fingerprint; returns whether it has.
    pub(super) fn offer(&mut self, document: Arc<SharedDocument>) -> bool {
        let expected = self.pending(document.name.as_str(), &document.fingerprint);
        if expected {
            self.replace(document.name.as_str().into(), Some(FileState::Offered(document)));
        }
        expected
    }

    /// Offers a document whose content is known from elsewhere, whatever is known of the file. The next scan compares its fingerprint.
    pub(super) fn adopt(&mut self, document: Arc<SharedDocument>) {
        self.replace(document.name.as_str().into(), Some(FileState::Offered(document)));
    }

    /// Whether every file is offered, or left out for a reason other than that it cannot be read.
    pub(super) fn complete(&self) -> bool {
        self.settled() && self.counts.pending == 0 && self.counts.unreadable == 0
    }

    /// Whether exactly this document is offered.
    pub(super) fn offers(&self, document: &SharedDocument) -> bool {
        matches!(self.entries.get(document.name.as_str()), Some(FileState::Offered(offered)) if **offered == *document)
    }

    /// Leaves a file out that could not be read, if it still has this fingerprint.
    pub(super) fn fail(&mut self, name: &str, fingerprint: &Fingerprint) {
        if self.pending(name, fingerprint) {
            self.replace(name.into(), Some(FileState::Failed(Box::new(*fingerprint))));
        }
    }

    /// Hashes a file at `due` that could not be opened, for a reason that says nothing about it, if it still has this fingerprint.
    pub(super) fn retry(&mut self, name: &str, fingerprint: &Fingerprint, due: Instant) {
        if let Some(FileState::Pending(pending)) = self.entries.get(name)
            && pending.fingerprint == *fingerprint
        {
            let pending = Pending { fingerprint: *fingerprint, due: Some(due), first: pending.first };
            self.replace(name.into(), Some(FileState::Pending(Box::new(pending))));
        }
    }

    /// Hashes the file again after it has been quiet from now on, if it still has this fingerprint.
    pub(super) fn postpone(&mut self, name: &str, fingerprint: &Fingerprint, now: Instant) {
        let known = match self.entries.get(name) {
            Some(FileState::Offered(document)) => document.fingerprint == *fingerprint,
            _ => self.pending(name, fingerprint),
        };
        if known {
            let due = Some(now + self.quiet_time(fingerprint));
            let pending = Pending { fingerprint: *fingerprint, due, first: false };
            self.replace(name.into(), Some(FileState::Pending(Box::new(pending))));
        }
    }

    fn pending(&self, name: &str, fingerprint: &Fingerprint) -> bool {
        matches!(self.entries.get(name), Some(FileState::Pending(pending)) if pending.fingerprint == *fingerprint)
    }

    fn names_in<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Box<str>> {
        let below = if scope.is_empty() {
            (Bound::Unbounded, Bound::Unbounded)
        } else {
            // '0' is the character after '/'.
            (Bound::Included(format!("{scope}/")), Bound::Excluded(format!("{scope}0")))
        };
        let below = (below.0.map(String::into_boxed_str), below.1.map(String::into_boxed_str));
        let itself = self.entries.get_key_value(scope).map(|(name, _)| name);
        itself.into_iter().chain(self.entries.range::<Box<str>, _>(below).map(|(name, _)| name))
    }

    /// The only place where an entry changes, so that the counts stay correct.
    fn replace(&mut self, name: Box<str>, new: Option<FileState>) {
        let old = self.entries.remove(&name);
        if let Some(old) = &old {
            self.count(old, |count, by| *count -= by, |bytes, by| *bytes -= by);
            if let FileState::Pending(pending) = old
                && let Some(due) = pending.due
            {
                self.due.remove(&(due, name.clone()));
            }
        }
        let reason = |state: &Option<FileState>| state.as_ref().and_then(FileState::reason);
        self.left_out_changed |= reason(&old) != reason(&new);
        let mut offered = None;
        if let Some(new) = new {
            self.count(&new, |count, by| *count += by, |bytes, by| *bytes += by);
            match &new {
                FileState::Pending(pending) => self.due.extend(pending.due.map(|due| (due, name.clone()))),
                FileState::Offered(document) => offered = Some(Arc::clone(document)),
                FileState::Failed(_) | FileState::LeftOut(_) => {}
            }
            self.entries.insert(name.clone(), new);
        }
        if offered.is_some() || matches!(old, Some(FileState::Offered(_))) {
            self.changes.insert(name, offered);
        }
    }

    fn count(&mut self, entry: &FileState, step: fn(&mut usize, usize), bytes: fn(&mut u64, u64)) {
        let counts = &mut self.counts;
        match entry {
            FileState::Offered(_) => step(&mut counts.files, 1),
            FileState::Pending(pending) => {
                step(&mut counts.files, 1);
                step(&mut counts.pending, 1);
                step(&mut counts.unsettled, usize::from(pending.first));
                bytes(&mut counts.pending_bytes, pending.fingerprint.size);
            }
            FileState::Failed(_) => step(&mut counts.unreadable, 1),
            FileState::LeftOut(reason) => match reason.group() {
                Group::Hidden => step(&mut counts.hidden, 1),
                Group::Unreadable => step(&mut counts.unreadable, 1),
                Group::Outside => step(&mut counts.outside, 1),
                Group::Unsupported => step(&mut counts.unsupported, 1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::{content::ContentHash, document::DocumentName};

    const QUIET: Duration = Duration::from_millis(500);
    const SECOND_NS: i64 = 1_000_000_000;
    /// A time, in nanoseconds since 1970.
    const T: i64 = 1_700_000_000 * SECOND_NS + 123;

    struct Clock(Instant);

    impl Clock {
        fn at(&self, after: Duration) -> Now {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(T.unsigned_abs()) + after;
            Now { instant: self.0 + after, wall }
        }
    }

    fn print(size: u64, modified_ns: i64, changed_ns: i64) -> Fingerprint {
        Fingerprint { size, inode: 7, modified_ns, changed_ns }
    }

    fn found(entries: &[(&str, Entry)]) -> BTreeMap<Box<str>, Entry> {
        entries.iter().map(|(name, entry)| ((*name).into(), *entry)).collect()
    }

    fn document(name: &str, fingerprint: Fingerprint) -> Arc<SharedDocument> {
        Arc::new(SharedDocument {
            name: DocumentName::parse(name).unwrap(),
            number: None,
            title: name.into(),
            size: fingerprint.size,
            hash: ContentHash::of(name.as_bytes()),
            modified: fingerprint.modified(),
            fingerprint,
        })
    }

    /// How long a file found at time T waits before it is hashed.
    fn wait(fingerprint: Fingerprint) -> Duration {
        let clock = Clock(Instant::now());
        let mut file_states = FileStates::new(QUIET);
        file_states.observe("", found(&[("a", Entry::File(fingerprint))]), clock.at(Duration::ZERO));
        file_states.next_due().unwrap() - clock.0
    }

    #[test]
    fn a_file_waits_until_it_has_been_quiet_by_its_timestamps() {
        let ms = |ms: i64| T - ms * 1_000_000;
        assert_eq!(wait(print(1, ms(3_600_000), ms(3_600_000))), Duration::ZERO, "an old file");
        assert_eq!(wait(print(1, ms(100), ms(100))), Duration::from_millis(400), "a file written just now");
        assert_eq!(wait(print(1, ms(3_600_000), ms(10))), Duration::from_millis(40), "an old file renamed just now");
        assert_eq!(wait(print(1, ms(-3_600_000), ms(-3_600_000))), QUIET, "a file with a time in the future");
        let whole = T / SECOND_NS * SECOND_NS;
        assert!(wait(print(1, whole, whole)) > Duration::from_secs(1), "a file system that stores whole seconds");
    }

    #[test]
    fn a_file_that_changes_between_scans_waits_again_whatever_its_timestamps() {
        let clock = Clock(Instant::now());
        let mut file_states = FileStates::new(QUIET);
        let old = T - 3600 * SECOND_NS;
        for step in 0..5 {
            let now = clock.at(Duration::from_millis(300 * step));
            file_states.observe("a", found(&[("a", Entry::File(print(step, old, old)))]), now);
            if step > 0 {
                assert!(file_states.take_due(now.instant, 10).is_empty(), "step {step}");
            }
        }
        let later = clock.at(Duration::from_millis(300 * 4) + QUIET);
        assert_eq!(file_states.take_due(later.instant, 10), [("a".into(), print(4, old, old))]);
        // A document of an earlier version of the file is not offered.
        assert!(!file_states.offer(document("a", print(3, old, old))));
        assert!(file_states.offer(document("a", print(4, old, old))));
        assert_eq!(file_states.take_changes().len(), 1);
    }

    #[test]
    fn a_scan_of_a_part_does_not_change_the_rest() {
        let clock = Clock(Instant::now());
        let mut file_states = FileStates::new(QUIET);
        let file = Entry::File(print(1, 1, 1));
        let names = ["a", "a-b", "a/x", "a/y/z", "a0", "b"];
        let all: Vec<_> = names.iter().map(|name| (*name, file)).collect();
        file_states.observe("", found(&all), clock.at(Duration::ZERO));
        file_states.observe("a", found(&[("a/y/z", file)]), clock.at(Duration::ZERO));
        let left: Vec<_> = names.into_iter().filter(|name| file_states.knows(name)).collect();
        assert_eq!(left, ["a-b", "a/y/z", "a0", "b"]);
    }

    #[test]
    fn a_file_that_failed_is_retried_by_a_scan_of_everything() {
        let clock = Clock(Instant::now());
        let mut file_states = FileStates::new(QUIET);
        let scan = || found(&[("a", Entry::File(print(1, 1, 1)))]);
        file_states.observe("", scan(), clock.at(Duration::ZERO));
        assert!(!file_states.settled());
        file_states.take_due(clock.0, 1);
        file_states.fail("a", &print(1, 1, 1));
        assert!(file_states.settled() && file_states.counts().unreadable == 1);
        assert!(file_states.observe("a", scan(), clock.at(Duration::ZERO)).is_empty());
        assert_eq!(file_states.observe("", scan(), clock.at(Duration::ZERO)).len(), 1);
        assert_eq!((file_states.counts().unreadable, file_states.counts().pending), (0, 1));
    }

    /// Numbers from a seed (xorshift64*).
    fn random(state: &mut u64, below: u64) -> u64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }

    #[test]
    fn counts_and_changes_stay_consistent_under_random_events() {
        for seed in 1..200 {
            let mut state = seed;
            let clock = Clock(Instant::now());
            let mut file_states = FileStates::new(QUIET);
            let mut offered: BTreeMap<Box<str>, Arc<SharedDocument>> = BTreeMap::new();
            let mut taken: Vec<(Box<str>, Fingerprint)> = Vec::new();
            for step in 0..100 {
                let now = clock.at(Duration::from_millis(step * 100));
                let name = format!("{}", random(&mut state, 8));
                match random(&mut state, 6) {
                    0 | 1 => {
                        let mut found = BTreeMap::new();
                        let reasons = [Reason::Hidden, Reason::Unreadable, Reason::Outside, Reason::TooLarge];
                        match random(&mut state, 8) as usize {
                            0 => {}
                            reason @ 1..=4 => drop(found.insert(name.as_str().into(), Entry::LeftOut(reasons[reason - 1]))),
                            size => drop(found.insert(name.as_str().into(), Entry::File(print(size as u64, 1, 1)))),
                        }
                        file_states.observe(if random(&mut state, 10) == 0 { "" } else { &name }, found, now);
                    }
                    2 => taken.extend(file_states.take_due(now.instant, 3)),
                    3 | 4 => {
                        if let Some((name, fingerprint)) = taken.pop() {
                            match random(&mut state, 3) {
                                0 => file_states.fail(&name, &fingerprint),
                                1 => file_states.postpone(&name, &fingerprint, now.instant),
                                _ => drop(file_states.offer(document(&name, fingerprint))),
                            }
                        }
                    }
                    _ => {
                        for (name, change) in file_states.take_changes() {
                            match change {
                                Some(document) => drop(offered.insert(name, document)),
                                None => drop(offered.remove(&name)),
                            }
                        }
                        let now_offered: BTreeMap<_, _> = file_states
                            .entries
                            .iter()
                            .filter_map(|(name, entry)| match entry {
                                FileState::Offered(document) => Some((name.clone(), Arc::clone(document))),
                                _ => None,
                            })
                            .collect();
                        assert_eq!(offered, now_offered, "seed {seed}, step {step}");
                    }
                }
                let mut fresh = FileStates::new(QUIET);
                for entry in file_states.entries.values() {
                    fresh.count(entry, |count, by| *count += by, |bytes, by| *bytes += by);
                }
                assert_eq!(file_states.counts, fresh.counts, "seed {seed}, step {step}");
                let waiting =
                    file_states.entries.values().filter(|entry| matches!(entry, FileState::Pending(p) if p.due.is_some()));
                assert_eq!(file_states.due.len(), waiting.count(), "seed {seed}, step {step}");
            }
        }
    }
}
