//! Names of keys, and how revisions of etcd become those of the registry.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::{cluster::ReplicaId, table::SHARDS};

/// Bits of a revision that tell changes of one transaction apart.
const INDEX_BITS: u32 = 7;
/// The index of a removal, whose key holds nothing any more that could say another.
pub(super) const REMOVAL: u32 = (1 << INDEX_BITS) - 1;
/// Most changes of one transaction: etcd allows 128 operations by default (`--max-txn-ops`), and one is kept for `removed`.
pub(super) const CHANGES_MAX: usize = 120;

/// Revisions of the registry: those of etcd, counted from `base` since the keys were made, with room for each change of a transaction.
/// They are the same at every replica. `base` is microseconds since 1970 then, so a store that was lost and made anew continues above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revisions {
    pub(super) base: u64,
    /// Revision of etcd at which `base` was written.
    pub(super) origin: i64,
}

impl Revisions {
    /// Of the change `index` of the transaction at etcd's revision `at`.
    pub(super) fn of(self, at: i64, index: u32) -> u64 {
        let since = u64::try_from(at.saturating_sub(self.origin)).unwrap_or(0);
        self.base.saturating_add(since << INDEX_BITS).saturating_add(u64::from(index.min(REMOVAL)))
    }

    /// Etcd's revision of the transaction; 0 of 0, which stands for no record.
    pub(super) fn at(self, revision: u64) -> i64 {
        if revision == 0 {
            return 0;
        }
        let since = revision.saturating_sub(self.base) >> INDEX_BITS;
        self.origin.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

/// The names of the keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

/// What a key is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// The record of a name.
    Peer(Box<str>),
    /// A shard.
    Shard(u8),
    /// A replica.
    Replica(ReplicaId),
    /// The latest removal of a record.
    Removed,
    /// Something that this version does not know, or need not follow.
    Other,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')) }
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn meta(&self) -> String {
        format!("{}meta", self.prefix)
    }

    pub(super) fn removed(&self) -> String {
        format!("{}removed", self.prefix)
    }

    pub(super) fn mark(&self) -> String {
        format!("{}mark", self.prefix)
    }

    pub(super) fn peers(&self) -> String {
        format!("{}peers/", self.prefix)
    }

    pub(super) fn peer(&self, key: &str) -> String {
        format!("{}peers/{key}", self.prefix)
    }

    /// What the keys of the certificate authority begin with.
    pub(super) fn authority(&self) -> String {
        format!("{}ca/", self.prefix)
    }

    pub(super) fn shard(&self, shard: u8) -> String {
        format!("{}shards/{shard}", self.prefix)
    }

    pub(super) fn replica(&self, replica: ReplicaId) -> String {
        format!("{}replicas/{replica}", self.prefix)
    }

    pub(super) fn parse(&self, key: &[u8]) -> Named {
        let Some(rest) = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.prefix)) else {
            return Named::Other;
        };
        match rest.split_once('/') {
            Some(("peers", name)) => Named::Peer(name.into()),
            Some(("shards", number)) => {
                let shard = number.parse().ok().filter(|shard| *shard < SHARDS);
                shard.map_or(Named::Other, Named::Shard)
            }
            Some(("replicas", id)) => id.parse().map_or(Named::Other, Named::Replica),
            None if rest == "removed" => Named::Removed,
            _ => Named::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_go_there_and_back_in_the_order_of_the_changes() {
        let revisions = Revisions { base: 1_700_000_000_000_000, origin: 40 };
        let mut last = 0;
        for at in [40, 41, 1_000_000] {
            for index in [0, 1, 119, REMOVAL] {
                let revision = revisions.of(at, index);
                assert!(revision > last || last == 0, "{at} {index}");
                assert_eq!(revisions.at(revision), at);
                last = revision;
            }
        }
        assert_eq!(revisions.at(0), 0);
    }

    #[test]
    fn keys_say_what_they_are_of() {
        let keys = Keys::new("/p2pdi/");
        let id = ReplicaId::from_bytes([7; 8]);
        for (key, named) in [
            (keys.peer("fff-c"), Named::Peer("fff-c".into())),
            (keys.shard(31), Named::Shard(31)),
            (keys.replica(id), Named::Replica(id)),
            (keys.removed(), Named::Removed),
            (keys.meta(), Named::Other),
            (keys.shard(32), Named::Other),
            ("/other/peers/a".to_owned(), Named::Other),
        ] {
            assert_eq!(keys.parse(key.as_bytes()), named, "{key}");
        }
        assert_eq!(Keys::new("/p2pdi").prefix(), keys.prefix());
    }
}
