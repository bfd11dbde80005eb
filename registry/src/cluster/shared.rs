//! The view of the replicas behind its lock, for all tasks.

use super::{
    replica_id::ReplicaId,
    view::{Owner, View},
};
use crate::{
    clock::millis,
    table::{Kept, ShardSet},
};
use p2pdi::{channel::Channel, endpoint::Endpoint};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use subtle::ConstantTimeEq as _;
use tokio::sync::Notify;

/// Part of a ttl after which a lease that another replica keeps must have been confirmed by it: less than the third in which a peer calls
/// again, so that it goes elsewhere while half of its lease is left.
const PATIENCE_PART: u32 = 4;

/// What the tasks of a replica share.
pub(crate) struct Cluster {
    view: Mutex<View>,
    /// Connections to the others.
    channels: Mutex<BTreeMap<ReplicaId, Channel>>,
    /// Proves to other replicas that the caller knows the store.
    secret: [u8; 32],
    patience_ms: u64,
    started: Instant,
    /// Replicas came or went.
    changed: Notify,
}

impl Cluster {
    /// Of a replica with this id. `secret` is the store's; `ttl`: the shortest lease.
    pub(crate) fn new(me: ReplicaId, secret: [u8; 32], ttl: Duration) -> Self {
        Self {
            view: Mutex::new(View::new(me)),
            channels: Mutex::default(),
            secret,
            patience_ms: millis(ttl / PATIENCE_PART),
            started: Instant::now(),
            changed: Notify::new(),
        }
    }

    /// This replica's id.
    pub(crate) fn me(&self) -> ReplicaId {
        self.view().me()
    }

    /// Replicas that are alive, this one included, and how many shards this one keeps.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let view = self.view();
        (u32::try_from(view.replicas().len()).unwrap_or(u32::MAX), view.kept().len())
    }

    /// The time that views go by, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// The view. It is held for microseconds.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when replicas have come or gone since the last time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The store says that a replica is alive.
    pub(crate) fn joined(&self, replica: ReplicaId, endpoint: Endpoint) {
        self.view().joined(replica, endpoint);
        self.changed.notify_one();
    }

    /// The store says that a replica is gone.
    pub(crate) fn left(&self, replica: ReplicaId) {
        self.view().left(replica);
        self.changed.notify_one();
    }

    /// The store says who keeps a shard. Gives the shards that this replica keeps from now on, if these are others than before.
    pub(crate) fn owned(&self, shard: u8, owner: Option<Owner>) -> Option<Kept> {
        let now_ms = self.now_ms();
        let mut view = self.view();
        let before = view.fences();
        view.owned(shard, owner, now_ms);
        Some(view.fences()).filter(|kept| *kept != before)
    }

    /// Whether a lease of `shard` that is extended here now is safe. See [`View::vouches`].
    pub(crate) fn vouches(&self, shard: u8) -> bool {
        let now_ms = self.now_ms();
        self.view().vouches(shard, self.patience_ms, now_ms)
    }

    /// Shards that this replica keeps and can vouch for.
    pub(crate) fn vouched(&self) -> ShardSet {
        let now_ms = self.now_ms();
        self.view().vouched(self.patience_ms, now_ms)
    }

    /// Whether the store was reached a short time ago.
    pub(crate) fn store_reachable(&self) -> bool {
        let now_ms = self.now_ms();
        self.view().store_reachable(now_ms)
    }

    /// Whether it should get calls: it can vouch for what it keeps, or for any lease at all.
    pub(crate) fn is_useful(&self) -> bool {
        let now_ms = self.now_ms();
        let view = self.view();
        view.store_reachable(now_ms) || ShardSet::ALL.iter().any(|shard| view.vouches(shard, self.patience_ms, now_ms))
    }

    /// Whether a caller that sent `secret` knows the store.
    pub(crate) fn knows_store(&self, secret: &[u8; 32]) -> bool {
        self.secret.ct_eq(secret).into()
    }

    /// Key of page tokens, which all replicas take.
    pub(crate) fn token_key(&self) -> [u8; 32] {
        blake3::derive_key("p2pdi 2026 registry page tokens", &self.secret)
    }

    /// The store's secret.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The connection to another replica, if there is one.
    pub(crate) fn channel(&self, replica: ReplicaId) -> Option<Channel> {
        self.channels().get(&replica).cloned()
    }

    /// Connections to all others.
    pub(crate) fn all_channels(&self) -> Vec<Channel> {
        self.channels().values().cloned().collect()
    }

    pub(super) fn set_channel(&self, replica: ReplicaId, channel: Option<Channel>) {
        match channel {
            Some(channel) => self.channels().insert(replica, channel),
            None => self.channels().remove(&replica),
        };
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
