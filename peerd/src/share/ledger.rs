//! What is known of every file in the share: offered, waiting to be quiet, being hashed, or left out and why.
//! Pure: no I/O and no clock here.

use super::{
    document::{Fingerprint, SharedDocument},
    index::Changes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// Why a file is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its name, or that of a folder it is in, begins with a dot.
    Hidden,
    /// The file system refuses it.
    Unreadable,
    /// A link that leads outside the share, in a circle, or nowhere.
    Outside,
    /// Not a regular file, too large, or a name that cannot be offered.
    Unsupported,
}

/// What a look at the folder found under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// A regular file.
    File(Fingerprint),
    /// Something that is not offered.
    Left(Reason),
}

/// When it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

/// How many of each; bytes of what is to be hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) files: usize,
    pub(super) pending: usize,
    pub(super) pending_bytes: u64,
    pub(super) hidden: usize,
    pub(super) unreadable: usize,
    pub(super) outside: usize,
    pub(super) unsupported: usize,
    /// Pending since the first look.
    unsettled: usize,
}

#[derive(Debug)]
enum Entry {
    Offered(Arc<SharedDocument>),
    Pending(Box<Pending>),
    /// Reading it failed; tried again when it changes or the whole folder is looked at.
    Failed(Box<Fingerprint>),
    Left(Reason),
}

#[derive(Debug)]
struct Pending {
    fingerprint: Fingerprint,
    /// When it will have been quiet long enough; `None` while it is hashed.
    due: Option<Instant>,
    /// Found by the first look, and not changed since.
    first: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    quiet: Duration,
    entries: BTreeMap<Box<str>, Entry>,
    due: BTreeSet<(Instant, Box<str>)>,
    changes: Changes,
    counts: Counts,
    looked: bool,
}

impl Ledger {
    pub(super) fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            changes: Changes::new(),
            counts: Counts::default(),
            looked: false,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The whole share was looked at.
    pub(super) fn looked(&self) -> bool {
        self.looked
    }

    /// Everything that the first look found is dealt with.
    pub(super) fn settled(&self) -> bool {
        self.looked && self.counts.unsettled == 0
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Takes what changed in the index since the last call.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Takes note of what is at `scope` and below it now (all of the share: the empty scope). What is not in `seen` is gone.
    /// Returns the files that are new or changed: they wait until they are quiet, unless [`Self::offer`] comes first.
    pub(super) fn observe(&mut self, scope: &str, seen: BTreeMap<Box<str>, Seen>, now: Now) -> Vec<(Box<str>, Fingerprint)> {
        let whole = scope.is_empty();
        let gone: Vec<_> = self.names_in(scope).filter(|name| !seen.contains_key(*name)).cloned().collect();
        for name in gone {
            self.replace(name, None);
        }
        let mut fresh = Vec::new();
        for (name, seen) in seen {
            match seen {
                Seen::Left(reason) => self.replace(name, Some(Entry::Left(reason))),
                Seen::File(fingerprint) => {
                    let old = match self.entries.get(&name) {
                        Some(Entry::Offered(document)) => Some(document.fingerprint),
                        Some(Entry::Pending(pending)) => Some(pending.fingerprint),
                        Some(Entry::Failed(failed)) if !whole => Some(**failed),
                        _ => None,
                    };
                    if old == Some(fingerprint) {
                        continue;
                    }
                    // A file that changes before our eyes is being written, whatever its times say.
                    let written = old.is_some_and(|old| old.inode == fingerprint.inode);
                    let wait = if written { self.rest(&fingerprint) } else { self.unrest(&fingerprint, now.wall) };
                    let due = Some(now.instant + wait);
                    self.replace(name.clone(), Some(Entry::Pending(Box::new(Pending { fingerprint, due, first: !self.looked }))));
                    fresh.push((name, fingerprint));
                }
            }
        }
        self.looked |= whole;
        fresh
    }

    /// How long a file must not have changed.
    fn rest(&self, fingerprint: &Fingerprint) -> Duration {
        self.quiet.max(fingerprint.tick())
    }

    /// What is left of that by the file's own times: nothing for a file that was finished long ago.
    fn unrest(&self, fingerprint: &Fingerprint, wall: SystemTime) -> Duration {
        let rest = self.rest(fingerprint);
        let since = |ns: i64| {
            let wall = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
            // In the future, by another machine's clock: unknown, so just now.
            u64::try_from(i128::try_from(wall).unwrap_or(i128::MAX) - i128::from(ns)).map_or(Duration::ZERO, Duration::from_nanos)
        };
        // Renaming a file into place changes its change time only, which needs no more than to be told apart from later ones.
        let content = rest.saturating_sub(since(fingerprint.modified_ns));
        let metadata = fingerprint.tick().saturating_sub(since(fingerprint.changed_ns));
        content.max(metadata)
    }

    /// When the next waiting file is quiet.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes at most `most` files that are quiet now, to be hashed.
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<(Box<str>, Fingerprint)> {
        let mut quiet = Vec::new();
        while quiet.len() < most {
            let Some((_, name)) = self.due.first().filter(|(at, _)| *at <= now) else { break };
            let name = name.clone();
            self.due.pop_first();
            if let Some(Entry::Pending(pending)) = self.entries.get_mut(&name) {
                pending.due = None;
                quiet.push((name, pending.fingerprint));
            }
        }
        quiet
    }

    /// The document at `name`, while the file is still as it was when `document` was made of it.
    pub(super) fn offer(&mut self, document: Arc<SharedDocument>) -> bool {
        let expected = self.pending(document.name.as_str(), &document.fingerprint);
        if expected {
            self.replace(document.name.as_str().into(), Some(Entry::Offered(document)));
        }
        expected
    }

    /// The file could not be read.
    pub(super) fn fail(&mut self, name: &str, fingerprint: &Fingerprint) {
        if self.pending(name, fingerprint) {
            self.replace(name.into(), Some(Entry::Failed(Box::new(*fingerprint))));
        }
    }

    /// The file must be hashed (again), once it is quiet from now on.
    pub(super) fn postpone(&mut self, name: &str, fingerprint: &Fingerprint, now: Instant) {
        let known = match self.entries.get(name) {
            Some(Entry::Offered(document)) => document.fingerprint == *fingerprint,
            _ => self.pending(name, fingerprint),
        };
        if known {
            let due = Some(now + self.rest(fingerprint));
            let pending = Pending { fingerprint: *fingerprint, due, first: false };
            self.replace(name.into(), Some(Entry::Pending(Box::new(pending))));
        }
    }

    fn pending(&self, name: &str, fingerprint: &Fingerprint) -> bool {
        matches!(self.entries.get(name), Some(Entry::Pending(pending)) if pending.fingerprint == *fingerprint)
    }

    fn names_in<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Box<str>> {
        let below = if scope.is_empty() {
            (Bound::Unbounded, Bound::Unbounded)
        } else {
            // '0' follows '/'.
            (Bound::Included(format!("{scope}/")), Bound::Excluded(format!("{scope}0")))
        };
        let below = (below.0.map(String::into_boxed_str), below.1.map(String::into_boxed_str));
        let itself = self.entries.get_key_value(scope).map(|(name, _)| name);
        itself.into_iter().chain(self.entries.range::<Box<str>, _>(below).map(|(name, _)| name))
    }

    /// The one place where an entry changes, so that the counts always add up.
    fn replace(&mut self, name: Box<str>, new: Option<Entry>) {
        let old = self.entries.remove(&name);
        if let Some(old) = &old {
            self.count(old, |count, by| *count -= by, |bytes, by| *bytes -= by);
            if let Entry::Pending(pending) = old
                && let Some(due) = pending.due
            {
                self.due.remove(&(due, name.clone()));
            }
        }
        let mut offered = None;
        if let Some(new) = new {
            self.count(&new, |count, by| *count += by, |bytes, by| *bytes += by);
            match &new {
                Entry::Pending(pending) => self.due.extend(pending.due.map(|due| (due, name.clone()))),
                Entry::Offered(document) => offered = Some(Arc::clone(document)),
                Entry::Failed(_) | Entry::Left(_) => {}
            }
            self.entries.insert(name.clone(), new);
        }
        if offered.is_some() || matches!(old, Some(Entry::Offered(_))) {
            self.changes.insert(name, offered);
        }
    }

    fn count(&mut self, entry: &Entry, step: fn(&mut usize, usize), bytes: fn(&mut u64, u64)) {
        let counts = &mut self.counts;
        match entry {
            Entry::Offered(_) => step(&mut counts.files, 1),
            Entry::Pending(pending) => {
                step(&mut counts.files, 1);
                step(&mut counts.pending, 1);
                step(&mut counts.unsettled, usize::from(pending.first));
                bytes(&mut counts.pending_bytes, pending.fingerprint.size);
            }
            Entry::Failed(_) | Entry::Left(Reason::Unreadable) => step(&mut counts.unreadable, 1),
            Entry::Left(Reason::Hidden) => step(&mut counts.hidden, 1),
            Entry::Left(Reason::Outside) => step(&mut counts.outside, 1),
            Entry::Left(Reason::Unsupported) => step(&mut counts.unsupported, 1),
        }
    }
}
