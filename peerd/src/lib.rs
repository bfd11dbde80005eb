//! The peer of P2P-DI: a share of documents, their transfer, its standing with a registry, its place in the mesh, and messages.
//!
//! The parts know each other only through what [`node`] hands them.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test sizes are small"))]

mod attended;
mod backoff;
pub mod catalog;
pub mod config;
pub mod dial;
pub mod discovery;
pub mod document;
mod http;
pub mod identity;
pub mod locate;
pub mod mesh;
pub mod messages;
pub mod node;
pub mod overlay;
pub mod routing;
pub mod service;
pub mod session;
pub mod share;
pub mod transfer;
