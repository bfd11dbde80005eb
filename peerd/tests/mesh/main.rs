//! Real peers in one process, linked over loopback: whispers, broadcasts, and failures of peers and links.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod crowd;
mod faults;
mod hostile;
mod joins;
mod name_conflicts;
mod partition;
mod proxy;
mod raw;
mod recovery;
mod support;
mod three;
