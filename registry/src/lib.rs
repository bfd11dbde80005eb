//! The registry of P2P-DI: leases, kept on disk, told to whoever asks.
//!
//! `table` decides: it only computes. `store` keeps what was decided, `writer` writes it in batches before it shows,
//! `expiry` ends leases when their time comes, `service` and `http` speak to the outside, `server` wires them.

mod clock;
mod config;
mod expiry;
mod http;
mod leases;
mod server;
mod service;
pub mod store;
pub mod table;
mod writer;

pub use config::{Config, PEERS_MAX, State, TTL_MAX, TTL_MIN};
pub use server::{Registry, RegistryError};
