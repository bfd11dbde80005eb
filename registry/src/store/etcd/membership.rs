//! Being a replica: a lease in etcd that is renewed, a key that says where this replica is, and keys of the shards that it keeps.

use super::{client::Calls, kept::keep, layout::Keys};
use crate::{
    clock::millis,
    cluster::{Cluster, Owner},
    shared_table::SharedTable,
    store::StoreError,
    table::Kept,
};
use etcd_client::{Compare, CompareOp, LeaseKeepAliveStream, LeaseKeeper, Txn, TxnOp};
use p2pdi::endpoint::Endpoint;
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Length of a replica's lease in etcd: its shards are taken over after it. Renewals that take some seconds, as after the loss of etcd's
/// leader, fit.
const LEASE: Duration = Duration::from_secs(6);
/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the answer to a renewal, before the stream is begun anew at another member.
const RENEW_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Longest wait for the lease to be given back: it runs out by itself little later.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often shards are looked at.
const ROUND: Duration = Duration::from_millis(250);

/// This replica in etcd.
pub(super) struct Membership {
    calls: Calls,
    keys: Keys,
    cluster: Arc<Cluster>,
    table: Arc<SharedTable>,
    endpoint: Endpoint,
}

impl Membership {
    pub(super) fn new(calls: Calls, keys: Keys, cluster: Arc<Cluster>, table: Arc<SharedTable>, endpoint: Endpoint) -> Self {
        Self { calls, keys, cluster, table, endpoint }
    }

    /// Is a replica until `stop`, then gives back what it keeps.
    pub(super) async fn run(&self, stop: CancellationToken) {
        self.run_until(stop).await;
        self.cluster.view().go();
    }

    async fn run_until(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.join().await {
                Ok(lease) => {
                    let lost = stop.run_until_cancelled(async {
                        tokio::join!(Box::pin(self.renew(lease)), Box::pin(self.keep_shards(lease)))
                    });
                    if lost.await.is_none() {
                        return self.leave(lease).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "this replica cannot join now"),
            }
            stop.run_until_cancelled(sleep(ROUND)).await;
        }
    }

    /// Takes a lease, and says where this replica is.
    async fn join(&self) -> Result<i64, StoreError> {
        let asked_ms = self.cluster.now_ms();
        let lease = self.calls.grant(LEASE).await?;
        self.calls.put(self.keys.replica(self.cluster.me()), self.endpoint.as_str().as_bytes().to_vec(), lease).await?;
        self.cluster.view().lease(asked_ms + millis(LEASE));
        tracing::info!(replica = %self.cluster.me(), endpoint = %self.endpoint, "this replica has joined");
        Ok(lease)
    }

    /// Renews the lease until it is lost.
    async fn renew(&self, lease: i64) {
        let mut stream = None;
        loop {
            let asked_ms = self.cluster.now_ms();
            match self.renew_once(lease, &mut stream).await {
                Ok(true) => {
                    self.cluster.view().lease(asked_ms + millis(LEASE));
                    sleep(RENEW_EVERY).await;
                }
                Ok(false) => {
                    tracing::warn!("this replica's lease in the store ran out; it takes another one");
                    self.cluster.view().lease_lost();
                    // Before it has another lease: what it heard of its peers does not count any more.
                    keep(&self.table, Kept::NONE);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "the lease in the store cannot be renewed now");
                    stream = None;
                    sleep(ROUND).await;
                }
            }
        }
    }

    /// Whether the lease is still there.
    async fn renew_once(&self, lease: i64, stream: &mut Option<(LeaseKeeper, LeaseKeepAliveStream)>) -> Result<bool, StoreError> {
        let failed = |problem: String| StoreError::Failed { doing: "renew a lease of etcd", problem };
        let (keeper, answers) = match stream {
            Some(stream) => stream,
            None => {
                let begun = self.calls.renewals(lease).await;
                // Etcd ends the call at once for a lease that it does not know.
                match begun {
                    Ok(begun) => stream.insert(begun),
                    Err(error) if error.to_string().contains("lease") && error.to_string().contains("not found") => {
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        keeper.keep_alive().await.map_err(|error| failed(error.to_string()))?;
        match timeout(RENEW_TIMEOUT, answers.message()).await {
            Ok(Ok(Some(answer))) => Ok(answer.ttl() > 0),
            Ok(Ok(None)) => Err(failed("the stream ended".into())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("no answer".into())),
        }
    }

    /// Takes shards that nobody keeps, and gives those that others should keep. Ends when the lease is not good any more.
    async fn keep_shards(&self, lease: i64) {
        loop {
            let round = async {
                for (shard, fence) in self.give_list() {
                    self.give(shard, fence).await?;
                }
                self.take(lease).await
            };
            if let Err(error) = round.await {
                tracing::debug!(%error, "shards cannot be changed now");
            }
            if !self.is_current() {
                return;
            }
            sleep(ROUND).await;
        }
    }

    fn is_current(&self) -> bool {
        // `renew` sets it to none when the lease is lost.
        self.cluster.view().has_lease()
    }

    fn give_list(&self) -> Vec<(u8, i64)> {
        self.cluster.view().to_give()
    }

    /// Shards that nobody keeps, in one transaction each: another replica may take them at the same time.
    async fn take(&self, lease: i64) -> Result<(), StoreError> {
        let shards = self.cluster.view().to_take();
        let me = self.cluster.me().to_string();
        for shard in shards.iter() {
            let key = self.keys.shard(shard);
            let options = etcd_client::PutOptions::new().with_lease(lease);
            let take = Txn::new().when([Compare::version(key.clone(), CompareOp::Equal, 0)]).and_then([TxnOp::put(
                key,
                me.clone(),
                Some(options),
            )]);
            let answer = self.calls.txn(take).await?;
            if answer.succeeded() {
                tracing::debug!(shard, "this replica keeps a shard");
            }
        }
        // That it has them it learns by the watch, as everybody does.
        Ok(())
    }

    /// Ends no lease of the shard any more, then frees it.
    async fn give(&self, shard: u8, fence: i64) -> Result<(), StoreError> {
        let kept = self.cluster.owned(shard, None);
        if let Some(kept) = kept {
            keep(&self.table, kept);
        }
        let key = self.keys.shard(shard);
        let free =
            Txn::new().when([Compare::mod_revision(key.clone(), CompareOp::Equal, fence)]).and_then([TxnOp::delete(key, None)]);
        let freed = self.calls.txn(free).await;
        if freed.is_err() {
            // It may still be kept, as far as the store is concerned.
            let owner = Owner { replica: self.cluster.me(), fence };
            if let Some(kept) = self.cluster.owned(shard, Some(owner)) {
                keep(&self.table, kept);
            }
        }
        freed.map(drop)
    }

    /// Gives back the lease, so that others take the shards at once.
    async fn leave(&self, lease: i64) {
        self.cluster.view().leave();
        let problem = match timeout(LEAVE_TIMEOUT, self.calls.revoke(lease)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "etcd does not answer".to_owned(),
        };
        tracing::warn!(problem, "this replica's lease could not be given back; its shards are free when it runs out");
    }
}
