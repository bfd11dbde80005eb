//! Replicas: several registries that share a store and each keep the leases of some shards.
//!
//! `view` decides who keeps what, and for which leases a replica can vouch; it only computes. `shared` holds it for all tasks. `links` pass
//! extended leases on to the others, `service` takes them; `observers` asks the others about what no store keeps. The store says who the others are.

mod links;
mod observers;
mod outbox;
mod probes;
mod replica_id;
mod service;
mod shared;
mod view;

pub(crate) use links::{keep_links, pass_on_announce};
pub(crate) use observers::{Ended, claim_observer, end_observers, find_observer};
pub(crate) use probes::probe_suspects;
pub(crate) use replica_id::ReplicaId;
pub(crate) use service::{BATCH_MAX_BYTES, ReplicaService};
pub(crate) use shared::Cluster;
pub(crate) use view::Owner;
