//! The state of every file in the share: offered, waiting until it is quiet, being hashed, or left out with the reason.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    document::{Change, Fingerprint, SharedDocument},
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
    /// The document that is in the index for this file.
    fn offered(&self) -> Option<&Arc<SharedDocument>> {
        match self {
            Self::Offered(document) => Some(document),
            Self::Pending(pending) => pending.offered.as_ref(),
            Self::Failed(_) | Self::LeftOut(_) => None,
        }
    }

    /// The document that stays in the index while the file, which has `fingerprint` now, is hashed again.
    fn offered_while_pending(&self, fingerprint: &Fingerprint) -> Option<&Arc<SharedDocument>> {
        let before = match self {
            Self::Offered(document) => document.fingerprint,
            Self::Pending(pending) => pending.fingerprint,
            Self::Failed(_) | Self::LeftOut(_) => return None,
        };
        let kept = match before.change_to(fingerprint) {
            Change::None | Change::Metadata => true,
            // A file that is modified again before it was hashed is being written.
            Change::Modified => matches!(self, Self::Offered(_)),
            Change::Content => false,
        };
        self.offered().filter(|_| kept)
    }

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
    /// The document that the file was before its times changed. It stays in the index until the file is hashed again.
    offered: Option<Arc<SharedDocument>>,
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

    /// The next scan of the whole share counts as the first one; so do the files that wait now.
    pub(super) fn begin_anew(&mut self) {
        self.scanned = false;
        for state in self.entries.values_mut() {
            if let FileState::Pending(pending) = state
                && !std::mem::replace(&mut pending.first, true)
            {
                self.counts.unsettled += 1;
            }
        }
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
                    let before = self.entries.get(&name);
                    let offered = before.and_then(|before| before.offered_while_pending(&fingerprint)).cloned();
                    let old = match before {
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
                        Some(FileState::Pending(Box::new(Pending { fingerprint, due, first: !self.scanned, offered }))),
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
            let offered = pending.offered.clone();
            let pending = Pending { fingerprint: *fingerprint, due: Some(due), first: pending.first, offered };
            self.replace(name.into(), Some(FileState::Pending(Box::new(pending))));
        }
    }

    /// Hashes the file again after it has been quiet from now on, if it still has this fingerprint.
    pub(super) fn postpone(&mut self, name: &str, fingerprint: &Fingerprint, now: Instant) {
        let before = self.entries.get(name);
        let known = match before {
            Some(FileState::Offered(document)) => document.fingerprint == *fingerprint,
            _ => self.pending(name, fingerprint),
        };
        if known {
            // What changed shows the next scan.
            let offered = before.and_then(FileState::offered).cloned();
            let due = Some(now + self.quiet_time(fingerprint));
            let pending = Pending { fingerprint: *fingerprint, due, first: false, offered };
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
        let before = old.as_ref().and_then(FileState::offered).cloned();
        let mut offered = None;
        if let Some(new) = new {
            self.count(&new, |count, by| *count += by, |bytes, by| *bytes += by);
            if let FileState::Pending(pending) = &new {
                self.due.extend(pending.due.map(|due| (due, name.clone())));
            }
            offered = new.offered().cloned();
            self.entries.insert(name.clone(), new);
        }
        if before.as_ref().map(Arc::as_ptr) != offered.as_ref().map(Arc::as_ptr) {
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
mod tests;
