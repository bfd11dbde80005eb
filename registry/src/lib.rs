//! The registry of P2P-DI: it keeps leases and lists the peers that hold them.
//!
//! `table` decides: it only computes. `store` keeps what was decided; `writer` commits it in batches before it shows. `leases` makes changes
//! for calls, `expiry` ends leases. `swarms` is the tracker, which only computes too. `ca` is the certificate authority, `enrolling` and `admin` its calls. `service` serves gRPC, `http` the status page and metrics. `server` wires them.

mod admin;
mod announcing;
pub mod ca;
mod clock;
mod config;
mod enrolling;
mod expiry;
mod hash_index;
mod http;
mod leases;
mod names;
mod own_endpoint;
mod queue;
mod server;
mod service;
mod shared_swarms;
mod shared_table;
pub mod store;
mod store_health;
pub mod swarms;
pub mod table;
mod timeouts;
mod writer;

#[cfg(test)]
mod failures;

pub use config::{AuthorityConfig, Config, NAME_HOLD_MAX, PEERS_MAX, State, TTL_MAX, TTL_MIN};
pub use server::{Registry, RegistryError, RegistryHandle};
