//! What waits to be passed on to one other replica.

use crate::table::Extended;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Most leases in one batch: some 200 KiB.
pub(super) const BATCH_MAX: usize = 4_096;

/// The latest of each lease.
#[derive(Default)]
pub(super) struct Outbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    leases: HashMap<[u8; 16], Extended>,
    /// When nothing was left behind the last time.
    emptied_ms: u64,
}

impl Outbox {
    /// These wait, too.
    pub(super) fn add(&self, extended: &[Extended]) {
        self.lock().leases.extend(extended.iter().map(|one| (*one.cookie.as_bytes(), one.clone())));
    }

    /// What did not arrive, unless something newer waits.
    pub(super) fn put_back(&self, extended: Vec<Extended>) {
        let mut waiting = self.lock();
        // They are from before that moment, so it vouches for nothing any more.
        if !extended.is_empty() {
            waiting.emptied_ms = 0;
        }
        for one in extended {
            waiting.leases.entry(*one.cookie.as_bytes()).or_insert(one);
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().leases.is_empty()
    }

    /// A batch, and until when everything that was added is in it or in an earlier one: once it has arrived, nothing from before that moment
    /// waits here.
    pub(super) fn take(&self, now_ms: u64) -> (Vec<Extended>, u64) {
        let mut waiting = self.lock();
        if waiting.leases.len() <= BATCH_MAX {
            waiting.emptied_ms = now_ms;
            return (waiting.leases.drain().map(|(_, extended)| extended).collect(), now_ms);
        }
        let keys: Vec<_> = waiting.leases.keys().take(BATCH_MAX).copied().collect();
        (keys.iter().filter_map(|key| waiting.leases.remove(key)).collect(), waiting.emptied_ms)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::cookie::CookieHash;
    use std::collections::HashSet;

    fn extended(number: usize, documents: u64) -> Extended {
        let cookie = CookieHash::from_bytes((number as u128).to_be_bytes());
        Extended { cookie, load: None, index_version: 0, documents }
    }

    #[test]
    fn a_batch_that_leaves_some_behind_vouches_for_nothing_new() {
        let outbox = Outbox::default();
        assert_eq!(outbox.take(1_000), (Vec::new(), 1_000));
        let many: Vec<_> = (0..2 * BATCH_MAX + 1).map(|number| extended(number, 1)).collect();
        outbox.add(&many);
        let mut sent = HashSet::new();
        for (now_ms, count, all_until_ms) in [(2_000, BATCH_MAX, 1_000), (3_000, BATCH_MAX, 1_000), (4_000, 1, 4_000)] {
            let (batch, until_ms) = outbox.take(now_ms);
            assert_eq!((batch.len(), until_ms), (count, all_until_ms));
            sent.extend(batch.iter().map(|one| *one.cookie.as_bytes()));
        }
        assert_eq!((sent.len(), outbox.is_empty()), (many.len(), true));
    }

    #[test]
    fn what_is_put_back_takes_back_what_was_vouched_for() {
        let outbox = Outbox::default();
        let many: Vec<_> = (0..BATCH_MAX).map(|number| extended(number, 1)).collect();
        outbox.add(&many);
        let (lost, until_ms) = outbox.take(1_100);
        assert_eq!((lost.len(), until_ms), (BATCH_MAX, 1_100));
        outbox.add(&[extended(BATCH_MAX, 1)]);
        outbox.put_back(lost);
        assert_eq!(outbox.take(5_000).1, 0);
        assert_eq!(outbox.take(6_000).1, 6_000);
    }

    #[test]
    fn what_is_put_back_waits_again_unless_something_newer_does() {
        let outbox = Outbox::default();
        outbox.add(&[extended(1, 1), extended(2, 1)]);
        let (batch, _) = outbox.take(1);
        outbox.add(&[extended(1, 2)]);
        outbox.put_back(batch);
        let (mut batch, _) = outbox.take(2);
        batch.sort_by_key(|one| *one.cookie.as_bytes());
        assert_eq!(batch, [extended(1, 2), extended(2, 1)]);
    }
}
