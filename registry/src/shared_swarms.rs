//! The swarms behind their lock, which is held for some 20 µs and never together with that of the lease table.

use crate::{
    shared_table::SharedTable,
    swarms::{Announce, Caller, Counts, Swarms, TooManySwarms},
};
use p2pdi::{cookie::CookieHash, v1::AnnounceResponse};
use rand::rngs::StdRng;
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often members that are over are looked for: a membership lasts at least 30 s.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Swarms checked under one hold of the lock. One with few members, as most are, takes about a microsecond.
const CHECKED_AT_ONCE: usize = 64;

/// The swarms, shared by calls and by the tasks that end leases and memberships.
pub(crate) struct SharedSwarms {
    locked: Mutex<(Swarms, StdRng)>,
}

impl SharedSwarms {
    /// No swarms yet. `rng` makes the random choices.
    pub(crate) fn new(rng: StdRng) -> Self {
        Self { locked: Mutex::new((Swarms::default(), rng)) }
    }

    /// Joins the caller to a swarm, or refreshes or ends its membership.
    ///
    /// # Errors
    /// When there is no room for a further membership.
    pub(crate) fn announce(&self, caller: &Caller, announce: &Announce, now_ms: u64) -> Result<AnnounceResponse, TooManySwarms> {
        let (swarms, rng) = &mut *self.lock();
        swarms.handle(caller, announce, now_ms, rng)
    }

    /// Ends all memberships of these peers.
    pub(crate) fn leave(&self, cookies: &[CookieHash]) {
        if cookies.is_empty() {
            return;
        }
        let (swarms, _) = &mut *self.lock();
        cookies.iter().for_each(|cookie| swarms.leave(cookie));
    }

    /// Numbers for status pages and metrics.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().0.counts()
    }

    /// Members announce themselves again, so after a panic in a call the swarms start anew.
    fn lock(&self) -> MutexGuard<'_, (Swarms, StdRng)> {
        self.locked.lock().unwrap_or_else(|poisoned| {
            let mut locked = poisoned.into_inner();
            locked.0 = Swarms::default();
            self.locked.clear_poison();
            locked
        })
    }
}

/// Ends memberships that are not refreshed, by the clock of leases, until `stop`.
pub(crate) async fn run(swarms: Arc<SharedSwarms>, table: Arc<SharedTable>, stop: CancellationToken) {
    let check = async {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let now_ms = table.with(|_, now| now.mono_ms);
            while swarms.lock().0.expire(now_ms, CHECKED_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
    };
    let _stopped: Option<()> = stop.run_until_cancelled(check).await;
}
