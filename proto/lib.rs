//! The contract of P2P-DI, and what both ends of a connection must do alike: validated names and ids, content
//! identity, errors on the wire, channel and server set-up, telemetry.
//!
//! This crate knows neither the registry nor the peer nor the command line.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test sizes are small"))]

pub mod backoff;
pub mod channel;
pub mod contact;
pub mod content;
pub mod cookie;
pub mod document;
pub mod endpoint;
pub mod fan_out;
pub mod field;
pub mod hex;
pub mod id;
pub mod json;
pub mod link;
pub mod metrics;
pub mod name;
pub mod phrases;
pub mod platform;
pub mod private_file;
pub mod selector;
pub mod server;
pub mod status;
pub mod telemetry;

/// The generated messages, clients and servers of package `p2pdi.v1`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("p2pdi.v1");
    // These two are alike, and are read in a way of their own.
    pub use crate::link::{LinkMessage as LinkRequest, LinkMessage as LinkResponse};
    /// The package's descriptors with all they import, as protobuf's `FileDescriptorSet`.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("p2pdi.v1");
}

/// Version of the program, as `--version`, Ping and the status pages show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
