//! Real peers in one process, linked over loopback: messages to one and to all, and what happens when peers die.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod crowd;
mod faults;
mod joins;
mod namesakes;
mod partition;
mod proxy;
mod recovery;
mod stranger;
mod strangers;
mod support;
mod three;
