//! The peer: shares a folder of documents and fetches those of others.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test sizes are small"))]

pub mod share;
