//! What a registry has more if it is one of several that share a store.

#[cfg(feature = "etcd")]
use crate::store::{Etcd, Fed, Feed};
use crate::{
    applied::Applied,
    ca::SharedRows,
    cluster::{Cluster, ReplicaService, keep_links, probe_suspects},
    config::Config,
    leases::Leases,
    store::{EtcdAddress, Store, StoreError},
};
use p2pdi::{channel::Dial, endpoint::Endpoint, server::Tasks, tls::Tls, v1::replica_server::ReplicaServer};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long a stop waits until etcd has taken back what the replica kept.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The part that makes a registry a replica.
pub(crate) struct Replicas {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) applied: Arc<Applied>,
    /// Where others reach this one; `None`: at the address it listens on.
    address: Option<Endpoint>,
    /// The ledger that they share as one certificate authority, until it is taken.
    pub(crate) ledger: Option<Box<dyn SharedRows>>,
    #[cfg(feature = "etcd")]
    feed: Feed,
}

/// Of a replica that runs: what to do when it stops.
pub(crate) struct Running {
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

/// No address is known by which others reach this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("other replicas cannot reach this one at {0}, where it listens; say where they can with --replica-address HOST:PORT")]
pub struct NoReplicaAddress(SocketAddr);

impl Replicas {
    /// Opens the store that replicas share.
    #[cfg(feature = "etcd")]
    pub(crate) fn open(address: &EtcdAddress, config: &Config) -> Result<(Box<dyn Store>, Self), StoreError> {
        let etcd = Etcd::open(address, &config.network, config.ttl)?;
        let replicas = Self {
            cluster: etcd.cluster(),
            applied: Arc::default(),
            address: config.replica_address.clone(),
            ledger: Some(Box::new(etcd.rows())),
            feed: etcd.feed(),
        };
        Ok((Box::new(etcd), replicas))
    }

    /// This build cannot.
    #[cfg(not(feature = "etcd"))]
    pub(crate) fn open(_address: &EtcdAddress, _config: &Config) -> Result<(Box<dyn Store>, Self), StoreError> {
        Err(StoreError::NoEtcd)
    }

    /// Where others reach this replica, which listens on `listening`.
    pub(crate) fn endpoint(&self, listening: SocketAddr) -> Result<Endpoint, NoReplicaAddress> {
        match &self.address {
            Some(address) => Ok(address.clone()),
            None if listening.ip().is_unspecified() => Err(NoReplicaAddress(listening)),
            None => Ok(listening.into()),
        }
    }

    /// The service for the other replicas.
    pub(crate) fn service(&self, leases: &Leases) -> ReplicaServer<ReplicaService> {
        let service = ReplicaService {
            cluster: Arc::clone(&self.cluster),
            table: Arc::clone(&leases.table),
            swarms: Arc::clone(&leases.swarms),
        };
        ReplicaServer::new(service).max_decoding_message_size(crate::cluster::BATCH_MAX_BYTES)
    }

    /// Follows the store, and talks with the other replicas, until [`Running::end`]. At `leave` it gives back what it keeps, so that others
    /// take it at once; calls that are under way then are passed on to them.
    pub(crate) fn start(
        self,
        leases: &Leases,
        endpoint: Endpoint,
        tls: Option<Tls>,
        tasks: &mut Tasks,
        leave: CancellationToken,
    ) -> Running {
        let stop = CancellationToken::new();
        let links = keep_links(Arc::clone(&self.cluster), Arc::clone(&leases.table), Dial::with(tls.clone()), stop.clone());
        tasks.spawn("replica links", links);
        tasks.spawn("suspects", probe_suspects(Arc::clone(&leases.table), Dial::with(tls), stop.clone()));
        #[cfg(feature = "etcd")]
        let ended = {
            let (table, swarms) = (Arc::clone(&leases.table), Arc::clone(&leases.swarms));
            self.feed.start(Fed { table, swarms, applied: self.applied }, endpoint, leave, stop.clone())
        };
        #[cfg(not(feature = "etcd"))]
        let ended = {
            let _unused = (endpoint, self.applied, leave);
            oneshot::channel().1
        };
        Running { stop, ended }
    }
}

impl Running {
    /// Ends it, when it has left.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        if timeout(LEAVE_TIMEOUT, self.ended).await.is_err() {
            tracing::warn!("etcd does not answer; what this replica kept is free when its lease runs out");
        }
    }
}
