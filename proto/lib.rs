//! The contract of P2P-DI, and what both ends of a connection must do in the same way: validated names and ids, content identity,
//! errors on the wire, connections.
//!
//! - The feature `server` adds the server: `server`, `metrics`.
//! - The feature `telemetry` adds logs and traces of a program: `telemetry`.
//!
//! This crate does not depend on the registry, the peer or the command line.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test sizes are small"))]

pub mod backoff;
pub mod channel;
mod coalesced;
#[cfg(feature = "configuration")]
pub mod configuration;
pub mod contact;
pub mod content;
pub mod cookie;
pub mod document;
pub mod endpoint;
pub mod enrol;
pub mod fan_out;
pub mod field;
mod first_address;
pub mod hex;
pub mod id;
pub mod json;
pub mod link;
pub mod log_limit;
#[cfg(feature = "server")]
pub mod metrics;
pub mod name;
pub mod network;
pub mod phrases;
pub mod platform;
pub mod private_file;
pub mod probe;
pub mod registries;
pub mod retry;
pub mod selector;
#[cfg(feature = "server")]
pub mod server;
pub mod signed;
pub mod status;
#[cfg(feature = "telemetry")]
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod token_bucket;
mod trace_context;
pub mod watch;
pub mod watched_peers;
pub mod whisper_stream;

/// Generated messages, clients and servers of package `p2pdi.v1`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("p2pdi.v1");
    pub use crate::watch::WatchPeersResponse;
    // These two have the same fields and a decoder of their own.
    pub use crate::link::{LinkMessage as LinkRequest, LinkMessage as LinkResponse};
    /// The package's descriptors and those they import, encoded as a `FileDescriptorSet`.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("p2pdi.v1");
}

/// Version of the program, as `--version`, Ping and the status pages show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
