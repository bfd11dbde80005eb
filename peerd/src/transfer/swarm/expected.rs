//! Documents whose fetch was announced and whose swarm does not exist yet: members that dial meanwhile wait for it.

use p2pdi::content::ContentHash;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// How long a member that dials waits: less than it waits for this side's first message.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What is expected. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Expectations(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// By how many fetches each is expected.
    counts: Mutex<BTreeMap<ContentHash, usize>>,
    changes: watch::Sender<u64>,
}

/// The swarm of a document is expected until this is dropped.
pub(super) struct Expected {
    all: Expectations,
    hash: ContentHash,
}

impl Expectations {
    /// The swarm of a document is expected.
    pub(super) fn expect(&self, hash: ContentHash) -> Expected {
        *self.counts().entry(hash).or_default() += 1;
        Expected { all: self.clone(), hash }
    }

    /// A swarm that may have been expected exists.
    pub(super) fn came(&self) {
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What `find` finds; while nothing is found and it is expected, it is waited for.
    pub(super) async fn find<T>(&self, hash: &ContentHash, find: impl Fn() -> Option<T>) -> Option<T> {
        let mut changes = self.0.changes.subscribe();
        let finding = async {
            loop {
                changes.mark_unchanged();
                let found = find();
                if found.is_some() || !self.counts().contains_key(hash) {
                    return found;
                }
                // No error: this handle keeps the sender.
                let _ = changes.changed().await;
            }
        };
        timeout(WAIT_MAX, finding).await.ok().flatten()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<ContentHash, usize>> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.hash);
            }
        }
        drop(counts);
        self.all.came();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::time::{Instant, pause};

    #[tokio::test]
    async fn what_is_expected_is_waited_for_and_nothing_else_is() {
        pause();
        let (all, hash, there) = (Expectations::default(), ContentHash::of(b"x"), AtomicBool::new(false));
        let find = || there.load(Ordering::Relaxed).then_some(());
        let begun = Instant::now();
        assert_eq!(all.find(&hash, find).await, None);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let (expected, again) = (all.expect(hash), all.expect(hash));
        let coming = async {
            there.store(true, Ordering::Relaxed);
            all.came();
        };
        assert_eq!(tokio::join!(all.find(&hash, find), coming).0, Some(()));
        there.store(false, Ordering::Relaxed);
        drop(expected);
        assert_eq!(all.find(&hash, find).await, None);
        let waited = begun.elapsed();
        assert!(waited >= WAIT_MAX, "one fetch still expects it: {waited:?}");
        drop(again);
        assert_eq!(all.find(&hash, find).await, None);
        assert_eq!(begun.elapsed(), waited);
    }
}
