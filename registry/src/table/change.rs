//! A change of one record: what goes to the store, and what comes back from it.

use super::peer::Peer;

/// No fence of a store: those are revisions.
const NOT_KEPT: i64 = -1;

/// A change of one record, keyed by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The record's key in the store: its name in lower case.
    pub key: Box<str>,
    /// The record after the change; `None` removes it.
    pub peer: Option<Box<Peer>>,
    /// Revision of the record that the change was decided on; 0: there was none. The store accepts the change only if that is still
    /// the record's revision.
    pub expected_revision: u64,
    /// Only the registry that keeps the lease may make it: a lease that ran out, a record that is forgotten, or a name that goes to another
    /// peer since its lease ran out and is not stored as such yet. This is the fence of the shard by which that was decided ([`super::Kept`]): a
    /// registry that has lost the shard since, or lost it and taken it again, makes it not.
    pub fence: Option<i64>,
    /// It gives its caller's address one lease more. Until it is settled it counts as one, or a burst of calls would pass the limit.
    pub(super) adds_lease: bool,
}

impl Change {
    /// The record of `peer.strings.name()` becomes this.
    pub fn put(peer: Peer, expected_revision: u64) -> Self {
        Self { key: key(peer.strings.name()), peer: Some(Box::new(peer)), expected_revision, fence: None, adds_lease: false }
    }

    /// The record of this name is removed.
    pub fn remove(name: &str, expected_revision: u64) -> Self {
        Self { key: key(name), peer: None, expected_revision, fence: None, adds_lease: false }
    }

    /// Only the registry that keeps the lease may make it, while the shard has this fence.
    pub(super) fn of_keeper(self, fence: Option<i64>) -> Self {
        // A shard that is not kept has none that a store accepts.
        Self { fence: Some(fence.unwrap_or(NOT_KEPT)), ..self }
    }
}

/// Names compare without case.
fn key(name: &str) -> Box<str> {
    name.to_ascii_lowercase().into()
}
