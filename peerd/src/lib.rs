//! The peer of P2P-DI: shares a folder of documents, fetches verified documents, and exchanges messages with other peers.
//!
//! A program becomes a peer with [`Peer`]. Here one peer answers messages of the kind `TEST`, and another reaches it through a third:
//!
//! ```
//! use peerd::{Peer, Reply};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), peerd::PeerError> {
//! let alice = Peer::builder("alice").build().await?;
//! alice.on("TEST", |message| async move { Reply::new("TESTED", message.body) })?;
//!
//! let carol = Peer::builder("carol").build().await?;
//! carol.join(alice.endpoint()).await?;
//!
//! let bob = Peer::builder("bob").build().await?;
//! bob.join(carol.endpoint()).await?;
//! let delivery = bob.whisper("alice", "TEST", "hello").await?;
//! assert_eq!(delivery.by, "alice");
//! assert_eq!(delivery.reply, Some(Reply::new("TESTED", "hello")));
//!
//! let tally = bob.broadcast_counted("news", "I am here", Duration::from_secs(10)).await?;
//! assert_eq!(tally.acknowledged, 2);
//! bob.shutdown().await
//! # }
//! ```
//!
//! `cargo run -p peerd --example chat` is a complete program. A [`Node`](node::Node) is the same peer with all its settings
//! ([`config`]); [`PeerHandle::node`] gives access to its parts.
//!
//! # Features
//!
//! All are on by default; a program that embeds a peer can switch each off.
//!
//! - `cli`: what only the program `peerd` needs.
//! - `http`: the status page, messages by plain HTTP, metrics and readiness, on the port of gRPC.
//! - `mdns`: discovery of peers on the LAN by multicast DNS.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test sizes are small"))]

// For programs that embed a peer.
pub mod config;
pub mod inbox;
pub mod node;

// For `p2pctl`, which asks peers and fetches documents with the same code.
pub mod connections;
pub mod documents;
pub mod holders;
pub mod identity;
pub mod mesh;
pub mod topology;
pub mod transfer;

// The type that `NodeHandle::session` returns.
pub mod session;

// State machines that the simulator, the benchmarks and the fuzz targets drive.
#[doc(hidden)]
pub mod overlay;

mod discovery;
pub mod fetcher;
#[cfg(feature = "http")]
mod http;
mod messages;
mod peer;
#[cfg(feature = "cli")]
pub mod program;
mod rpc;

pub use config::ControlFrom;
pub use discovery::Bootnode;
pub use inbox::{Message, Reply};
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use p2pdi::server::check_any_form;
pub use peer::{
    Delivery, Get, GetOptions, GetProgress, Job, JobHolder, JobOptions, JobPriority, JobState, JobStatus, MessageCounts,
    Messages, Peer, PeerBuilder, PeerError, PeerHandle, PeerInfo, Registration, RegistrationState, Tally,
};
