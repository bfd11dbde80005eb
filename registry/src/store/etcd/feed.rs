//! Following etcd: one watch brings what any replica changed, in order, into the table and the view of the replicas.

use super::{
    client::Calls,
    kept::keep,
    layout::{Keys, Named, REMOVAL, Revisions},
    load::{self, Pages},
    membership::Membership,
    runtime::IoThread,
};
use crate::{
    applied::Applied,
    cluster::{Cluster, Owner, ReplicaId},
    shared_swarms::SharedSwarms,
    shared_table::SharedTable,
    store::StoreError,
    table::{Change, Peer},
};
use etcd_client::{Event, EventType, KeyValue, WatchResponse};
use p2pdi::{cookie::CookieHash, endpoint::Endpoint};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::sleep};
use tokio_util::sync::CancellationToken;

/// Pause before the watch is begun again after it failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Records applied under one hold of the table's lock, some 100 µs.
const APPLIED_AT_ONCE: usize = 64;
/// Slots looked at under one hold of the table's lock, for records that are not stored any more.
const SWEPT_AT_ONCE: u32 = 4_096;
/// What the tasks of a replica change.
#[derive(Clone)]
pub(crate) struct Fed {
    pub(crate) table: Arc<SharedTable>,
    pub(crate) swarms: Arc<SharedSwarms>,
    pub(crate) applied: Arc<Applied>,
}

/// Follows a store from where it was read.
pub(crate) struct Feed {
    io: Arc<IoThread>,
    follower: Follower,
    loaded_at: Arc<AtomicI64>,
}

/// The part that runs on the thread for etcd.
struct Follower {
    calls: Calls,
    keys: Keys,
    revisions: Revisions,
    cluster: Arc<Cluster>,
    /// Etcd's revision up to which everything is known.
    known_to: i64,
}

impl Feed {
    pub(super) fn new(
        io: &Arc<IoThread>,
        calls: Calls,
        keys: Keys,
        revisions: Revisions,
        cluster: Arc<Cluster>,
        loaded_at: Arc<AtomicI64>,
    ) -> Self {
        Self { io: Arc::clone(io), follower: Follower { calls, keys, revisions, cluster, known_to: 0 }, loaded_at }
    }

    /// Starts to follow the store and to be a replica that others reach at `endpoint`. At `leave` it gives back what it keeps; once it has,
    /// and after `stop`, it says so.
    pub(crate) fn start(
        self,
        fed: Fed,
        endpoint: Endpoint,
        leave: CancellationToken,
        stop: CancellationToken,
    ) -> oneshot::Receiver<()> {
        let Self { io, mut follower, loaded_at } = self;
        follower.known_to = loaded_at.load(Ordering::Acquire);
        let (ended, end) = oneshot::channel();
        let Some(handle) = io.handle().cloned() else { return end };
        let (calls, keys) = (follower.calls.clone(), follower.keys.clone());
        let membership = Membership::new(calls, keys, Arc::clone(&follower.cluster), fed.table.clone(), endpoint);
        handle.spawn(async move {
            tokio::join!(Box::pin(membership.run(leave)), stop.run_until_cancelled(Box::pin(follower.run(fed))));
            let _gone = ended.send(());
            drop(io);
        });
        end
    }
}

impl Follower {
    /// Never ends.
    async fn run(mut self, fed: Fed) {
        let mut fresh = true;
        loop {
            if fresh && let Err(error) = self.read_replicas(&fed).await {
                tracing::debug!(%error, "replicas cannot be read");
                sleep(RETRY_AFTER).await;
                continue;
            }
            fresh = false;
            match self.follow(&fed).await {
                Ended::Broken(error) => tracing::debug!(%error, "the watch of the store ended; it begins again"),
                Ended::Compacted(at) => {
                    tracing::warn!(at, "the store dropped changes that were not read here; all records are read again");
                    if let Err(error) = self.read_again(&fed).await {
                        tracing::warn!(%error, "records cannot be read again now");
                    }
                    fresh = true;
                }
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Reads who the replicas are and what they keep, as of the revision up to which records are known.
    async fn read_replicas(&mut self, fed: &Fed) -> Result<(), StoreError> {
        for part in ["replicas", "shards"] {
            let from = format!("{}{part}/", self.keys.prefix());
            let end = format!("{}{part}0", self.keys.prefix());
            let mut found = self.calls.range(from.into_bytes(), end.into_bytes(), 0, 0).await?;
            for key in found.take_kvs() {
                self.put(&key, fed);
            }
        }
        Ok(())
    }

    /// Applies what the watch says until it ends.
    async fn follow(&mut self, fed: &Fed) -> Ended {
        let mut watch = match self.calls.watch(self.keys.prefix(), self.known_to + 1).await {
            Ok(watch) => watch,
            Err(error) => return Ended::Broken(error.to_string()),
        };
        loop {
            match watch.message().await {
                Ok(Some(answer)) if answer.compact_revision() > 0 => return Ended::Compacted(answer.compact_revision()),
                Ok(Some(answer)) if answer.canceled() => return Ended::Broken(answer.cancel_reason().to_owned()),
                Ok(Some(answer)) => self.apply(&answer, fed),
                Ok(None) => return Ended::Broken("the stream ended".into()),
                Err(error) => return Ended::Broken(error.to_string()),
            }
        }
    }

    /// Applies one answer. All changes of one revision are in one answer, so that what is known ends between two revisions.
    fn apply(&mut self, answer: &WatchResponse, fed: &Fed) {
        let events = answer.events();
        for some in events.chunk_by(|a, b| at(a) == at(b)) {
            self.apply_revision(some, fed);
            self.known_to = self.known_to.max(some.first().map_or(0, at));
        }
        if events.is_empty() && !answer.created() {
            // Progress: nothing else happened up to here.
            let header = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            self.known_to = self.known_to.max(header);
        }
        fed.applied.advance(self.revisions.of(self.known_to, REMOVAL));
        fed.table.notify_settled();
    }

    fn apply_revision(&self, events: &[Event], fed: &Fed) {
        let mut changes: Vec<(Change, u64)> = Vec::new();
        let mut removed = None;
        for event in events {
            let Some(key) = event.kv() else { continue };
            match (self.keys.parse(key.key()), event.event_type()) {
                (Named::Peer(_), EventType::Put) => match load::row(key, self.revisions) {
                    Ok((peer, revision)) => changes.push((Change::put(peer, 0), revision)),
                    Err((name, problem)) => {
                        tracing::warn!(name, problem, "a record of the store is not valid here; it is skipped")
                    }
                },
                (Named::Peer(name), EventType::Delete) => {
                    changes.push((Change::remove(&name, 0), self.revisions.of(key.mod_revision(), REMOVAL)));
                }
                (Named::Removed, EventType::Put) => removed = Some(self.revisions.of(key.mod_revision(), REMOVAL)),
                (Named::Shard(shard), EventType::Delete) => self.owned(shard, None, fed),
                (Named::Replica(id), EventType::Delete) => self.cluster.left(id),
                (_, EventType::Put) => self.put(key, fed),
                (Named::Removed | Named::Other, EventType::Delete) => {}
            }
        }
        let ended: Vec<CookieHash> = fed.table.with(|table, now| {
            let mut ended = Vec::new();
            for (change, revision) in changes {
                let name = change.key.clone();
                if change.peer.as_deref().is_none_or(|peer| !peer.active) {
                    ended.extend(table.cookie_of_peer(&name));
                }
                table.apply(change, revision, now);
            }
            if let Some(removed) = removed {
                table.reached(removed);
            }
            ended
        });
        fed.swarms.leave(&ended);
    }

    /// The key of a shard or of a replica says this.
    fn put(&self, key: &KeyValue, fed: &Fed) {
        let text = std::str::from_utf8(key.value()).unwrap_or_default();
        match self.keys.parse(key.key()) {
            Named::Shard(shard) => {
                let replica = text.parse::<ReplicaId>().ok();
                self.owned(shard, replica.map(|replica| Owner { replica, fence: key.mod_revision() }), fed);
            }
            Named::Replica(id) => match text.parse::<Endpoint>() {
                Ok(endpoint) => self.cluster.joined(id, endpoint),
                Err(error) => tracing::warn!(replica = %id, %error, "another replica gives an address that is not one"),
            },
            Named::Peer(_) | Named::Removed | Named::Other => {}
        }
    }

    fn owned(&self, shard: u8, owner: Option<Owner>, fed: &Fed) {
        if let Some(kept) = self.cluster.owned(shard, owner) {
            keep(&fed.table, kept);
        }
    }

    /// Reads all records again, after changes were missed.
    async fn read_again(&mut self, fed: &Fed) -> Result<(), StoreError> {
        let mut pages = Pages::new(self.calls.clone(), self.keys.clone(), self.revisions);
        let mut stored: BTreeSet<Box<str>> = BTreeSet::new();
        fed.table.with(|table, _| table.reload());
        let mut latest = 0;
        while let Some(rows) = pages.next().await? {
            let records: Vec<(Peer, u64)> = rows.into_iter().filter_map(Result::ok).collect();
            for (peer, revision) in &records {
                stored.insert(peer.strings.name().to_ascii_lowercase().into());
                latest = latest.max(*revision);
            }
            let mut records = records.into_iter().peekable();
            while records.peek().is_some() {
                let some: Vec<_> = records.by_ref().take(APPLIED_AT_ONCE).collect();
                fed.table.with(|table, now| {
                    some.into_iter().for_each(|(peer, revision)| table.apply(Change::put(peer, 0), revision, now));
                });
            }
        }
        let revision = latest.max(pages.removed.unwrap_or(0)).max(self.revisions.base);
        let mut from = Some(0);
        while let Some(slot) = from {
            from = fed.table.with(|table, now| {
                let (absent, next) = table.not_stored(&stored, slot, SWEPT_AT_ONCE);
                absent.iter().for_each(|name| table.apply(Change::remove(name, 0), revision, now));
                next
            });
        }
        fed.table.with(|table, _| table.reloaded(revision));
        self.known_to = pages.at;
        self.cluster.view().forget_store();
        self.read_replicas(fed).await?;
        keep(&fed.table, self.cluster.view().fences());
        fed.applied.advance(self.revisions.of(self.known_to, REMOVAL));
        fed.table.notify_settled();
        Ok(())
    }
}

fn at(event: &Event) -> i64 {
    event.kv().map_or(0, KeyValue::mod_revision)
}

/// Why following ended.
enum Ended {
    Broken(String),
    /// Changes before this revision of etcd are not there any more.
    Compacted(i64),
}
