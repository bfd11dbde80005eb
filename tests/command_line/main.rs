//! Every verb of the real `p2pctl`, with real registries and peers: output, output stream and exit code.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

#[path = "../support/mod.rs"]
mod support;

mod chat;
mod documents;
mod failures;
mod help;
mod interrupted;
mod jobs;
mod lease;
mod listing;
mod ls;
mod mesh;
mod operate;
mod output;
mod progress;
mod several;
mod stay;
mod talk;
mod via;
