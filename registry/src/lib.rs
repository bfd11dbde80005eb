//! The registry of P2P-DI: it keeps leases and lists the peers that hold them.
//!
//! `table` decides: it only computes. `store` keeps what was decided; `writer` commits it in batches before it shows. `leases` makes changes
//! for calls, `catch_up` asks the store what others changed for them, `expiry` ends leases. `swarms` is the tracker, which only computes too. `ca` is the certificate authority, `enrolling` its calls, `admin` those of operators, `backup` what they copy. `cluster` is what several registries with one store say to each other, `replicas` starts it. `service` serves gRPC, `watching` its stream of changes, `http` the status page and metrics. `server` wires them.

mod access;
mod admin;
mod announcing;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "only a store that is shared has a watch"))]
mod applied;
mod backup;
pub mod ca;
mod catch_up;
mod clock;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, unused_imports, reason = "only a store that is shared makes a replica"))]
mod cluster;
mod config;
mod enrolling;
mod expiry;
mod hash_index;
mod http;
mod leases;
mod names;
mod own_endpoint;
#[cfg(feature = "cli")]
pub mod program;
mod queue;
mod replicas;
mod server;
mod service;
mod shared_swarms;
mod shared_table;
pub mod store;
mod store_health;
pub mod swarms;
pub mod table;
mod timeouts;
mod watching;
mod writer;

#[cfg(test)]
mod failures;

pub use config::{AuthorityConfig, Config, NAME_HOLD_MAX, PEERS_MAX, State, TTL_MAX, TTL_MIN};
pub use replicas::NoReplicaAddress;
pub use server::{Registry, RegistryError, RegistryHandle};
