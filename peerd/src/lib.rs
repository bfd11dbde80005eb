//! The peer of P2P-DI: a share of documents, their transfer, its standing with a registry, its place in the mesh, and messages.
//!
//! A program of your own becomes a peer with [`Peer`]. This one answers messages of the kind `TEST`, and another finds it, by way of a third:
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
//! `cargo run -p peerd --example chat` is a whole program. Below it lie the parts: they know each other only through what [`node`]
//! hands them, and [`PeerHandle::node`] gives access to them.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test sizes are small"))]

pub mod config;
pub mod connections;
pub mod discovery;
pub mod documents;
pub mod holders;
#[cfg(feature = "http")]
mod http;
pub mod identity;
pub mod inbox;
pub mod mesh;
pub mod messages;
pub mod node;
pub mod overlay;
pub mod peer;
mod rpc;
pub mod session;
pub mod topology;
pub mod transfer;

pub use inbox::{Message, Reply};
pub use peer::{Delivery, Peer, PeerBuilder, PeerError, PeerHandle, PeerInfo};
