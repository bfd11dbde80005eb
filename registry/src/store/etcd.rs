//! The store of replicas: records in etcd, which every replica follows by one watch.
//!
//! Keys, below the prefix: `meta` (made once: the secret of the replicas, and where revisions begin), `peers/NAME`, `removed` (written
//! with every removal), `mark` (written by who wants to see everything before it), `ca/…` (the ledger of a certificate authority), `shards/N` and
//! `replicas/ID`, which end with the lease of their replica. `layout` names them; `commit` writes records, `load` reads them, `feed` follows them,
//! `rows` are those of the certificate authority, `membership` keeps the replica's own lease and shards, `kept` tells the table of them.

mod client;
mod commit;
mod feed;
mod kept;
mod layout;
mod load;
mod membership;
mod rows;
mod runtime;

use super::{
    backend::{Loaded, Store, WriteError},
    error::StoreError,
    etcd_address::EtcdAddress,
};
use crate::{
    cluster::{Cluster, ReplicaId},
    table::{Change, Peer},
};
use client::Calls;
use etcd_client::{Txn, TxnOp};
pub(crate) use feed::{Fed, Feed};
use layout::{Keys, Revisions};
use p2pdi::network::NetworkName;
use rows::EtcdRows;
use runtime::IoThread;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// A store in etcd.
pub(crate) struct Etcd {
    io: Arc<IoThread>,
    calls: Calls,
    keys: Keys,
    revisions: Revisions,
    cluster: Arc<Cluster>,
    /// Revision of etcd at which records were read.
    loaded_at: Arc<AtomicI64>,
}

impl Etcd {
    /// Connects, and makes the keys that all replicas share if nobody has.
    ///
    /// # Errors
    /// When etcd cannot be reached, or what is below the prefix is of another network or of a newer registry.
    pub(crate) fn open(address: &EtcdAddress, network: &NetworkName, ttl: Duration) -> Result<Self, StoreError> {
        let io = Arc::new(IoThread::start()?);
        let keys = Keys::new(&address.prefix);
        let (address, network) = (address.clone(), network.clone());
        let opened = {
            let keys = keys.clone();
            io.wait(async move {
                let calls = Calls::connect(&address).await?;
                // The first call: connections are made by it.
                let meta = load::meta(&calls, &keys, &network).await.map_err(|error| match error {
                    StoreError::Failed { problem, .. } => {
                        StoreError::Unreachable { endpoints: address.endpoints.join(","), problem }
                    }
                    other => other,
                })?;
                Ok::<_, StoreError>((calls, meta))
            })
        };
        let (calls, meta) = opened??;
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|error| StoreError::Failed { doing: "make an id", problem: error.to_string() })?;
        let cluster = Arc::new(Cluster::new(ReplicaId::from_bytes(id), meta.secret, ttl));
        Ok(Self { io, calls, keys, revisions: meta.revisions, cluster, loaded_at: Arc::default() })
    }

    /// The rows that the replicas share as one certificate authority.
    pub(crate) fn rows(&self) -> EtcdRows {
        EtcdRows::new(&self.io, self.calls.clone(), &self.keys, rand::random())
    }

    /// The replicas that share the store.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster)
    }

    /// What follows the store from where it was read. Start it after [`Store::load`].
    pub(crate) fn feed(&self) -> Feed {
        Feed::new(&self.io, self.calls.clone(), self.keys.clone(), self.revisions, self.cluster(), Arc::clone(&self.loaded_at))
    }
}

impl Store for Etcd {
    fn load(&mut self, each: &mut dyn FnMut(Peer, u64)) -> Result<Loaded, StoreError> {
        let read = load::records(&self.io, &self.calls, &self.keys, self.revisions, each)?;
        self.loaded_at.store(read.at, Ordering::Release);
        Ok(read.loaded)
    }

    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        commit::commit(&self.io, &self.calls, &self.keys, self.revisions, &self.cluster, batch)
    }

    fn latest(&mut self) -> Result<u64, StoreError> {
        // A write, so that the watch comes to its revision. A read would not: other keys of etcd have revisions, too.
        let (calls, key, revisions) = (self.calls.clone(), self.keys.mark(), self.revisions);
        self.io.wait(async move {
            let answer = calls.txn(Txn::new().and_then([TxnOp::put(key, "", None)])).await?;
            Ok(revisions.of(client::revision(answer.header()), layout::REMOVAL))
        })?
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        let (calls, key) = (self.calls.clone(), self.keys.meta());
        self.io.wait(async move { calls.get(key).await.map(drop) })?
    }
}
