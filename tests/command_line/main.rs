//! Every verb of the real `p2pctl`, beside real registries and peers: what it prints, where, and how it exits.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

#[path = "../support/mod.rs"]
mod support;

mod chat;
mod documents;
mod failures;
mod help;
mod interrupted;
mod lease;
mod listing;
mod mesh;
mod output;
mod stay;
mod talk;
