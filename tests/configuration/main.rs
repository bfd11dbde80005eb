//! Flags, environment variables, files and contexts of the real programs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

#[path = "../support/mod.rs"]
mod support;

mod contexts;
mod files;
mod reload;
mod variables;
