//! The latest changes of active peers, encoded once for all who watch.

use bytes::Bytes;
use p2pdi::v1::{PeerEvent, peer_event};
use prost::Message as _;
use std::collections::VecDeque;

/// Most changes kept: those of some 10 s in which a thousand peers register again. Who reads more slowly asks for the delta.
const ENTRIES_MAX: usize = 4_096;
/// Most bytes of encoded changes kept; a change has some 150.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A change, as it is sent.
pub(super) struct Entry {
    pub(super) revision: u64,
    /// The name in lower case.
    pub(super) key: Box<str>,
    /// An encoded [`PeerEvent`].
    pub(super) event: Bytes,
}

/// Changes in the order in which they were applied, each with a number: of two changes by different registries, the later one may have the
/// lower revision.
#[derive(Default)]
pub(super) struct ChangeLog {
    entries: VecDeque<Entry>,
    /// Number of the first entry.
    first: u64,
    bytes: usize,
    /// All changes after this revision are in it; `None`: nothing is kept, since nobody has watched yet.
    complete_after: Option<u64>,
}

impl ChangeLog {
    /// Keeps changes from now on.
    pub(super) fn start(&mut self, revision: u64) {
        self.complete_after.get_or_insert(revision);
    }

    /// Whether changes are kept.
    pub(super) fn is_kept(&self) -> bool {
        self.complete_after.is_some()
    }

    /// Adds a change.
    pub(super) fn push(&mut self, revision: u64, key: &str, change: peer_event::Change) {
        let event: Bytes = encode(change);
        self.bytes += event.len();
        self.entries.push_back(Entry { revision, key: key.into(), event });
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.event.len();
            self.first += 1;
            self.complete_after = self.complete_after.max(Some(oldest.revision));
        }
    }

    /// The number that the next change will have.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The number of the first change after `revision`; `None`: such changes are missing.
    pub(super) fn after(&self, revision: u64) -> Option<u64> {
        self.complete_after.filter(|complete| *complete <= revision)?;
        let older = self.entries.iter().take_while(|entry| entry.revision <= revision).count();
        Some(self.first + older as u64)
    }

    /// The changes from this number on; `None`: some of them are not kept any more.
    pub(super) fn from(&self, number: u64) -> Option<impl Iterator<Item = &Entry>> {
        let skipped = usize::try_from(number.checked_sub(self.first)?).ok()?;
        Some(self.entries.iter().skip(skipped))
    }
}

/// A change as a [`PeerEvent`], encoded.
pub(super) fn encode(change: peer_event::Change) -> Bytes {
    PeerEvent { change: Some(change) }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::PeerGone;

    fn left(bytes: usize) -> peer_event::Change {
        peer_event::Change::Left(PeerGone { name: "x".repeat(bytes), ..PeerGone::default() })
    }

    #[test]
    fn the_latest_changes_are_kept_up_to_a_number_and_a_size() {
        let mut log = ChangeLog::default();
        assert!(log.after(0).is_none());
        log.start(100);
        assert_eq!((log.after(99), log.after(100)), (None, Some(0)));
        for revision in 101..=100 + ENTRIES_MAX as u64 {
            log.push(revision, "a", left(1));
        }
        assert_eq!((log.after(100), log.after(103)), (Some(0), Some(3)));
        log.push(100_000, "a", left(1));
        assert_eq!((log.after(100), log.after(101), log.after(103)), (None, Some(1), Some(3)));
        assert!(log.from(0).is_none());
        assert_eq!(log.from(1).unwrap().count(), ENTRIES_MAX);
        assert_eq!(log.from(log.end()).unwrap().count(), 0);
        for revision in 0..3 {
            log.push(200_000 + revision, "a", left(BYTES_MAX / 2 - 100));
        }
        assert_eq!(log.from(log.end() - 2).unwrap().count(), 2);
        assert!(log.from(log.end() - 3).is_none());
    }
}
